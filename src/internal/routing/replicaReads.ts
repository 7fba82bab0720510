import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Engine } from "../../Engine.js"
import { attributes } from "../../Telemetry.js"
import { isAnswer, isStandbyRefusal } from "../driver/failure.js"
import type { Request, Result } from "../driver/pool.js"
import { countMoved } from "../telemetry/metrics.js"
import type { Trip } from "../telemetry/statementRun.js"
import { clockOf, elapsedOf } from "../util/clock.js"
import { orElse } from "../util/orElse.js"
import type { Decision, Routes } from "./decide.js"
import { type Failed, Hedges } from "./hedge.js"
import { Fallback, type Step } from "./retryPolicy.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** Runs, outside transactions, what has turned out to write. */
export interface Writer {
  write(fiber: AnyFiber, decision: Decision, request: Request): Effect.Effect<Result, SqlError>
  writeRows(decision: Decision, sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError>
}

/** How a read runs on the primary that is to run in a transaction there; `undefined`: in none. */
export type OnPrimary = () => Effect.Effect<Result, SqlError> | undefined

/** Reads outside transactions: where they run, and where again when a server fails. */
export class Reads {
  /** Those that may be sent to a second replica. */
  readonly hedges: Hedges | undefined

  constructor(
    private readonly routes: Routes,
    private readonly writer: Writer
  ) {
    const { hedge } = routes.config
    this.hedges = hedge && new Hedges(hedge)
  }

  /** One read. */
  query(
    fiber: AnyFiber,
    decision: Decision,
    request: Request,
    trip: Trip,
    onPrimary?: OnPrimary
  ): Effect.Effect<Result, SqlError> {
    const { engine, movable } = decision
    if (!movable) return this.on(fiber, decision.group, engine, request, false, trip)
    const { hedges } = this
    return hedges === undefined
      ? orElse(this.on(fiber, decision.group, engine, request, true, trip), (error) =>
          this.moved(fiber, decision, request, trip, { engine, error, other: undefined }, onPrimary)
        )
      : Effect.catchAll(this.hedged(hedges, fiber, decision, request, trip), (failed) =>
          this.moved(fiber, decision, request, trip, failed, onPrimary)
        )
  }

  /** One read that has failed on a replica, wherever it runs next. */
  private moved(
    fiber: AnyFiber,
    decision: Decision,
    request: Request,
    trip: Trip,
    { engine, error, other }: Failed,
    onPrimary: OnPrimary | undefined
  ): Effect.Effect<Result, SqlError> {
    const move = this.mover(fiber, decision, request.sql, trip)
    const next = (engine: Engine, movable: boolean, error: SqlError, other?: Failed["other"]) =>
      Effect.flatMap(move(engine, movable, error, other), ({ refusal, ...step }): Effect.Effect<Result, SqlError> => {
        const inside = step.group === this.routes.defaultGroup.name ? onPrimary?.() : undefined
        return refusal !== undefined
          ? Effect.zipLeft(
              inside ?? this.writer.write(fiber, { ...decision, ...step, kind: "write" }, request),
              this.rememberRefused(request.sql, error)
            )
          : (inside ??
              Effect.catchAll(this.on(fiber, step.group, step.engine, request, step.movable, trip), (error) =>
                next(step.engine, step.movable, error)
              ))
      })
    return next(engine, true, error, other)
  }

  /** One read, on a replica and maybe on a second one. */
  private hedged(
    hedges: Hedges,
    fiber: AnyFiber,
    decision: Decision,
    request: Request,
    trip: Trip
  ): Effect.Effect<Result, Failed> {
    const { engine } = decision
    const { readGroup } = this.routes
    return Effect.map(
      hedges.read(clockOf(fiber), {
        request,
        engine,
        choose: () => readGroup!.choose(new Set([engine, ...(this.routes.unfit(fiber)?.engines ?? [])])),
        onHedge: (other) => trip.span?.attribute(attributes.hedged, other.name)
      }),
      ({ engine: winner, isHedge, result }) => {
        const reason = `${engine.name} had not answered in time`
        if (isHedge) {
          this.routes.tell(trip, { ...decision, engine: winner, rule: "hedged", reason }, request.sql, fiber)
        }
        this.routes.causal?.begin(fiber, winner).succeeded()
        return result
      }
    )
  }

  /** The rows of one read. */
  stream(
    fiber: AnyFiber,
    decision: Decision,
    sql: string,
    params: ReadonlyArray<unknown>,
    trip: Trip
  ): Stream.Stream<object, SqlError> {
    if (!decision.movable)
      return this.noting(decision.group, () => decision.engine, decision.engine.stream(sql, params))
    const move = this.mover(fiber, decision, sql, trip)
    const from = (engine: Engine, movable: boolean): Stream.Stream<object, SqlError> =>
      catchBeforeRows(
        this.noting(decision.group, () => engine, engine.stream(sql, params, movable)),
        (error, emitted) => {
          // Once rows were emitted the error is the caller's; the next time a refused one is a write, for a while.
          if (emitted) return Stream.unwrap(Effect.as(this.rememberRefused(sql, error), Stream.fail(error)))
          return Stream.unwrap(
            Effect.map(move(engine, movable, error), ({ refusal, ...step }) =>
              refusal === undefined
                ? from(step.engine, step.movable)
                : Stream.onEnd(
                    this.writer.writeRows({ ...decision, ...step, kind: "write" }, sql, params),
                    this.rememberRefused(sql, error)
                  )
            )
          )
        }
      )
    return from(decision.engine, true)
  }

  private on(
    fiber: AnyFiber,
    group: string,
    engine: Engine,
    request: Request,
    movable: boolean,
    trip: Trip
  ): Effect.Effect<Result, SqlError> {
    const clock = clockOf(fiber)
    const watch = this.routes.causalIn(group)?.read(fiber, engine)
    const began = clock.unsafeCurrentTimeNanos()
    return Effect.map(engine.query(watch?.askingWhenDue(request) ?? request, movable, trip), (result) => {
      watch?.succeeded()
      engine.observeLatency(Number(clock.unsafeCurrentTimeNanos() - began) / 1e6)
      return result
    })
  }

  /** The rows of a read, after the first of which, or their end, its flow knows what it has seen. */
  noting(group: string, engine: () => Engine, rows: Stream.Stream<object, SqlError>): Stream.Stream<object, SqlError> {
    const causal = this.routes.causalIn(group)
    if (causal === undefined) return rows
    return Stream.suspend(() => {
      let isNoted = false
      const note = () => {
        const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
        if (isNoted || fiber === undefined) return
        isNoted = true
        causal.begin(fiber, engine()).succeeded()
      }
      const noted = Stream.mapChunks(rows, (chunk) => {
        note()
        return chunk
      })
      const failed = Stream.mapError(noted, (error) => {
        if (isAnswer(error)) note()
        return error
      })
      return Stream.onEnd(failed, Effect.sync(note))
    })
  }

  /** Where a read runs next that has failed on an engine; fails with what its caller gets when it does not. */
  private mover(fiber: AnyFiber, decision: Decision, sql: string, trip: Trip) {
    let fallback: Fallback | undefined
    const { config, defaultGroup, readGroup } = this.routes
    return (
      engine: Engine,
      isReplica: boolean,
      error: SqlError,
      other?: Failed["other"]
    ): Effect.Effect<Step, SqlError> => {
      fallback ??= new Fallback(
        readGroup!,
        defaultGroup,
        config.onNoReplica === "primary",
        () => this.routes.unfit(fiber)?.engines ?? []
      )
      if (other !== undefined) fallback.note(other.engine, other.error)
      const step = fallback.after(engine, isReplica, error, elapsedOf(clockOf(fiber)))
      if (!("engine" in step)) return Effect.fail(step)
      const { group, reason, refusal, rule } = step
      const kind = refusal === undefined ? decision.kind : "write"
      this.routes.tell(trip, { ...decision, group, engine: step.engine, kind, rule, reason }, sql, fiber)
      for (const [name, value] of Object.entries(fallback.attributes)) trip.span?.attribute(name, value)
      countMoved(engine, rule, fiber)
      return Effect.succeed(step)
    }
  }

  /** Remembers as a write what a standby has refused as a standby, and the primary has run. */
  rememberRefused(sql: string, error: SqlError): Effect.Effect<void> {
    return Effect.sync(() => {
      const state = isStandbyRefusal(error)
      if (state !== undefined) this.routes.classifier.remember(sql, `a standby refused it (${state})`)
    })
  }
}

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
