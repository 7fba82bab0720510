/** One statement on its way, from its start to its end. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { Engine } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import type { StatementKind } from "../../SqlClassifier.js"
import { attributes, type Rule } from "../../Telemetry.js"
import { isServerError } from "../driver/failure.js"
import type { Cancellable } from "../driver/pool.js"
import { clockOf } from "../util/clock.js"

/** Where a statement goes, and by which rule. */
export interface Went {
  readonly group: string
  readonly engine: Engine
  readonly kind: StatementKind
  readonly rule: Rule
}

/** What has failed, in a word that stands for many errors, and the server's code for it. */
export const failureOf = (error: unknown): { readonly type: string; readonly state: string | undefined } => {
  const reason = RouterError.reasonOf(error)
  if (Option.isSome(reason)) return { type: reason.value, state: undefined }
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (!(cause instanceof Error)) return { type: other, state: undefined }
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : undefined
  const isSaid = code !== undefined && isServerError({ cause })
  return { type: code ?? cause.name, state: isSaid ? code : undefined }
}

/** OpenTelemetry's word for what has no name of its own. */
export const other = "_OTHER"

export class Trip implements Cancellable {
  /** The last route of the statement. */
  went: Went | undefined
  /** What has moved it, where that has decided where it is now. */
  rule: Rule | undefined
  /** Cancels the statement on the server and waits for that, while the cancel is left to the runner of the trip. */
  cancel: Effect.Effect<void> | undefined
  /** Called at its end, once: with the cause where it has failed. */
  onEnd: ((cause: Cause.Cause<unknown> | undefined) => void) | undefined

  constructor(
    /** The fiber of the statement. */
    readonly fiber: Fiber.RuntimeFiber<unknown, unknown>,
    /** The statement's own. */
    readonly span: Tracer.Span | undefined
  ) {}

  /** Records the end of the statement. Its span is ended by its owner. */
  ended(exit: Exit.Exit<unknown, unknown>): void {
    const cause = Exit.isFailure(exit) ? exit.cause : undefined
    this.onEnd?.(cause)
    if (cause !== undefined && !Cause.isInterruptedOnly(cause)) this.failed(Cause.squash(cause))
  }

  /** It has ended, and so does its span. */
  over(exit: Exit.Exit<unknown, unknown>): void {
    const { fiber, span } = this
    this.ended(exit)
    const isTimed = fiber.getFiberRef(FiberRef.currentTracerTimingEnabled)
    span?.end(isTimed ? clockOf(fiber).unsafeCurrentTimeNanos() : 0n, exit)
  }

  private failed(error: unknown): void {
    if (this.span === undefined) return
    const { state, type } = failureOf(error)
    this.span.attribute(attributes.errorType, type)
    if (state !== undefined) this.span.attribute(attributes.statusCode, state)
  }
}

/**
 * Runs a statement to its end, which is the end of its trip: one region around it for all that has to happen then. (What ends
 * the span, what measures and what cancels had one each, and took half as long as the statement itself.)
 */
export const run = <A>(
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  span: Effect.Effect<Tracer.Span> | undefined,
  start: (trip: Trip) => Effect.Effect<A, SqlError>
): Effect.Effect<A, SqlError> =>
  Effect.uninterruptibleMask((restore) => {
    const travel = (span?: Tracer.Span) => {
      const trip = new Trip(fiber, span)
      return Effect.matchCauseEffect(restore(started(() => start(trip))), {
        onSuccess: (value) => {
          const exit = Exit.succeed(value)
          trip.over(exit)
          return exit
        },
        onFailure: (cause) => {
          const exit = Exit.failCause(cause)
          const end = Effect.suspend(() => {
            trip.over(exit)
            return exit
          })
          return trip.cancel === undefined ? end : Effect.zipRight(trip.cancel, end)
        }
      })
    }
    return span === undefined ? travel() : Effect.flatMap(span, travel)
  })

/** What a function of the user's throws while the way is chosen is a failure of the statement too. */
const started = <A>(run: () => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> => {
  try {
    return run()
  } catch (defect) {
    return Effect.die(defect)
  }
}
