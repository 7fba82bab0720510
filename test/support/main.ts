import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Console, Effect } from "effect"

const report = (cause: Cause.Cause<unknown>) =>
  Cause.isInterruptedOnly(cause)
    ? Effect.void
    : Cause.isFailType(cause) && cause.error instanceof Error
      ? Console.error(cause.error.message)
      : Console.error(Cause.pretty(cause))

/** Runs a program of the command line. An error that it expects is told in its own words, without a stack. */
export const runMain = (main: Effect.Effect<unknown, unknown>): void =>
  NodeRuntime.runMain(Effect.tapErrorCause(main, report), { disableErrorReporting: true })
