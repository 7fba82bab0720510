import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { Engine } from "../Engine.js"
import type { Request, Result } from "./driver/pool.js"
import { isStandbyRefusal } from "./failure.js"
import { Fallback, movedReads, type Step } from "./fallback.js"
import { annotate, type Decision, type Routes } from "./routes.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** Reads outside transactions: where they run, and where again when a server fails. */
export class Reads {
  constructor(private readonly routes: Routes) {}

  /** One read. */
  query(
    fiber: AnyFiber,
    decision: Decision,
    request: Request,
    span: Tracer.Span | undefined
  ): Effect.Effect<Result, SqlError> {
    const { engine, movable } = decision
    const answered = this.on(fiber, engine, request, movable)
    if (!movable) return answered
    const move = this.mover(fiber, decision, request.sql, span)
    const next =
      (engine: Engine, movable: boolean) =>
      (error: SqlError): Effect.Effect<Result, SqlError> =>
        Effect.flatMap(move(engine, movable, error), (step) =>
          Effect.catchAll(this.on(fiber, step.engine, request, step.movable), next(step.engine, step.movable))
        )
    return Effect.catchAll(answered, next(engine, true))
  }

  /** The rows of one read. */
  stream(
    fiber: AnyFiber,
    decision: Decision,
    sql: string,
    params: ReadonlyArray<unknown>,
    span: Tracer.Span | undefined
  ): Stream.Stream<object, SqlError> {
    if (!decision.movable) return decision.engine.stream(sql, params)
    const move = this.mover(fiber, decision, sql, span)
    const from = (engine: Engine, movable: boolean): Stream.Stream<object, SqlError> =>
      catchBeforeRows(engine.stream(sql, params, movable), (error, emitted) => {
        // Once rows were emitted the error is the caller's; the next time a refused one is a write.
        if (emitted) return Stream.unwrap(Effect.as(this.rememberRefused(sql, error), Stream.fail(error)))
        return Stream.unwrap(Effect.map(move(engine, movable, error), (step) => from(step.engine, step.movable)))
      })
    return from(decision.engine, true)
  }

  private on(fiber: AnyFiber, engine: Engine, request: Request, movable: boolean): Effect.Effect<Result, SqlError> {
    const clock = clockOf(fiber)
    const began = clock.unsafeCurrentTimeNanos()
    return Effect.map(engine.query(request, movable), (result) => {
      engine.observeLatency(Number(clock.unsafeCurrentTimeNanos() - began) / 1e6)
      return result
    })
  }

  /** Where a read runs next that has failed on an engine; fails with what its caller gets when it does not. */
  private mover(fiber: AnyFiber, decision: Decision, sql: string, span: Tracer.Span | undefined) {
    let fallback: Fallback | undefined
    const { config, defaultGroup, readGroup } = this.routes
    return (engine: Engine, isReplica: boolean, error: SqlError): Effect.Effect<Step, SqlError> => {
      fallback ??= new Fallback(readGroup!, defaultGroup, config.onNoReplica === "primary")
      const step = fallback.after(engine, isReplica, error, clockOf(fiber).unsafeCurrentTimeMillis())
      if (!("engine" in step)) return Effect.fail(step)
      const { group, reason, refusal } = step
      const kind = refusal === undefined ? decision.kind : "write"
      annotate(span, { ...decision, group, engine: step.engine, kind, reason })
      for (const [name, value] of Object.entries(fallback.attributes)) span?.attribute(name, value)
      return Metric.increment(Metric.tagged(movedReads, "engine", engine.name)).pipe(
        Effect.zipRight(
          refusal === undefined
            ? Effect.void
            : Effect.zipRight(this.rememberRefused(sql, error), config.consistency.afterWrite)
        ),
        Effect.as(step)
      )
    }
  }

  /** Remembers as a write what a standby has refused as a standby. */
  private rememberRefused(sql: string, error: SqlError): Effect.Effect<void> {
    return Effect.sync(() => {
      const state = isStandbyRefusal(error)
      if (state !== undefined) this.routes.classifier.remember(sql, `a standby refused it (${state})`)
    })
  }
}

const clockOf = (fiber: AnyFiber): Clock.Clock => Context.get(fiber.currentDefaultServices, Clock.Clock)

/** Recovers from a failure; says whether rows were emitted before it. */
export const catchBeforeRows = (
  rows: Stream.Stream<object, SqlError>,
  recover: (error: SqlError, emitted: boolean) => Stream.Stream<object, SqlError>
): Stream.Stream<object, SqlError> =>
  Stream.suspend(() => {
    let emitted = false
    return rows.pipe(
      Stream.mapChunks((chunk) => {
        emitted = true
        return chunk
      }),
      Stream.catchAll((error) => recover(error, emitted))
    )
  })
