/**
 * What all sources have in common: when they are read, and that whatever goes wrong is a `TopologyError`.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { type RouterConfigError, TopologyError } from "../../RouterError.js"
import * as check from "../validation/check.js"
import * as members from "./members.js"

/** The options that every source has. */
export const fields = {
  name: check.text,
  interval: check.duration({ positive: true }),
  beforeSession: check.duration({ positive: false }),
  timeout: check.duration({ positive: true })
}

export interface Settings {
  readonly name: string
  readonly interval: Duration.Duration
  readonly beforeSession: Duration.Duration | undefined
  readonly timeout: Duration.Duration
}

export const settle = (given: check.Struct<typeof fields>, name: string): Settings => ({
  name: given.name ?? name,
  interval: given.interval ?? Duration.seconds(10),
  beforeSession: given.beforeSession,
  timeout: given.timeout ?? Duration.seconds(5)
})

/** The text of an invalid list, of which `RouterConfigError` knows the field, the value and the remedy. */
export const said = ({ field, remedy, value }: RouterConfigError): string =>
  value === "undefined" ? `${field} is missing. ${remedy}` : `${field} is ${value}. ${remedy}`

/** What a source asks, and what it answers. */
export interface Asked<E> {
  /** What is asked, as errors name it. */
  readonly target: string
  /** The list, which is not believed. */
  readonly read: Effect.Effect<unknown, E>
  /** Says what an expected error means. */
  readonly describe: (error: E) => { readonly description: string; readonly cause?: unknown }
}

// In a fiber of its own: what ignores its interruption does not hold up the router, and what interrupts itself is told from
// the interruption of the reader. A clock beside it: `Effect.timeout` never ends where its fiber is uninterruptible.
const bounded = <A, E>(
  effect: Effect.Effect<A, E>,
  timeout: Duration.Duration
): Effect.Effect<Option.Option<Exit.Exit<A, E>>> =>
  Effect.acquireUseRelease(
    Effect.gen(function* () {
      const done = yield* Deferred.make<Option.Option<Exit.Exit<A, E>>>()
      const reading = Effect.flatMap(Effect.exit(Effect.interruptible(effect)), (exit) =>
        Deferred.succeed(done, Option.some(exit))
      )
      const clock = Effect.zipRight(Effect.sleep(timeout), Deferred.succeed(done, Option.none()))
      return {
        done,
        fibers: yield* Effect.all([Effect.forkDaemon(reading), Effect.forkDaemon(Effect.interruptible(clock))])
      }
    }),
    ({ done }) => Deferred.await(done),
    ({ fibers }) => Effect.forEach(fibers, Fiber.interruptFork, { discard: true })
  )

const nameOfError = (error: unknown): string => {
  if (typeof error !== "object" || error === null) return "something that is not an Error"
  if ("_tag" in error && typeof error._tag === "string") return error._tag
  return error instanceof Error ? error.name : "something that is not an Error"
}

/** What a foreign error is called. Its text stays in the cause: who wrote it may have put a secret there. */
export const failedWith = (cause: unknown): { readonly description: string; readonly cause: unknown } => ({
  description: `it failed with ${nameOfError(cause)}, which is the cause of this error`,
  cause
})

const fromCause = <E>(cause: Cause.Cause<E>, describe: Asked<E>["describe"]) =>
  Either.match(Cause.failureOrCause(cause), {
    onLeft: describe,
    onRight: (rest) => {
      const defect = Cause.dieOption(rest)
      return Option.isNone(defect) ? { description: "it was interrupted" } : failedWith(defect.value)
    }
  })

/** Reads the list within the time, and believes nothing of it. */
export const guarded = <E>({ name, timeout }: Settings, { describe, read, target }: Asked<E>) => {
  const fail = (error: { readonly description: string; readonly cause?: unknown }) =>
    new TopologyError({ topology: name, target, ...error })
  return Effect.flatMap(bounded(read, timeout), (exit) =>
    Option.isNone(exit)
      ? Effect.fail(fail({ description: `it took longer than ${Duration.format(timeout)}` }))
      : Exit.match(exit.value, {
          onFailure: (cause) => Effect.fail(fail(fromCause(cause, describe))),
          onSuccess: (list) =>
            Either.mapLeft(members.list("servers", list), (error) => fail({ description: said(error) }))
        })
  )
}

/** The topology of a source. */
export const make = <E>(settings: Settings, asked: Asked<E>) =>
  Object.freeze({
    name: settings.name,
    source: Object.freeze({
      members: guarded(settings, asked),
      interval: settings.interval,
      beforeSession: settings.beforeSession,
      timeout: settings.timeout
    })
  })
