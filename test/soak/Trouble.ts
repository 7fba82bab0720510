/** Events that end a program, or would: uncaught errors, and the warnings of the process. */
import { Effect } from "effect"

const describe = (what: string, error: unknown) =>
  `${what}: ${error instanceof Error ? (error.stack ?? error.message).split("\n").slice(0, 3).join(" ") : String(error)}`

/** Gathers them until the scope closes. */
export const watch = Effect.acquireRelease(
  Effect.sync(() => {
    const seen: Array<string> = []
    const listeners = {
      unhandledRejection: (error: unknown) => seen.push(describe("unhandled rejection", error)),
      uncaughtException: (error: unknown) => seen.push(describe("uncaught exception", error)),
      warning: (error: unknown) => seen.push(describe("warning", error))
    }
    for (const [event, listener] of Object.entries(listeners)) process.on(event, listener)
    return { seen, listeners }
  }),
  ({ listeners }) =>
    Effect.sync(() => {
      for (const [event, listener] of Object.entries(listeners)) process.off(event, listener)
    })
).pipe(Effect.map(({ seen }): ReadonlyArray<string> => seen))
