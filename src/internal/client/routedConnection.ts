/** What `@effect/sql` takes for a connection. */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Engine, ExclusiveConnection } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import * as RoutingContext from "../../RoutingContext.js"
import { Outskirts, type Rules } from "../context/rules.js"
import type { Request } from "../driver/pool.js"
import { unprepared } from "../driver/run.js"
import { batchSize } from "../driver/stream.js"
import { onThePrimary, type Router, rowsOf } from "../routing/router.js"
import { run as runTrip, type Trip } from "../telemetry/statementRun.js"
import type { Work } from "../transaction/work.js"
import { Lock } from "../util/lock.js"

export type TransformRows = (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

const request = (sql: string, params: ReadonlyArray<unknown>, asArrays = false, prepare = true): Request => ({
  sql,
  params,
  asArrays,
  prepare
})

/** The five ways that `@effect/sql` runs a statement, on top of one. */
abstract class AnyConnection implements Connection {
  protected abstract run(request: Request): Effect.Effect<unknown, SqlError>

  abstract executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Stream.Stream<object, SqlError>

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.rows(request(sql, params), transformRows)
  }

  executeUnprepared(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.rows(request(sql, params, false, false), transformRows)
  }

  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.rows(request(sql, params, true), undefined)
  }

  executeRaw(sql: string, params: ReadonlyArray<unknown>) {
    return this.run(request(sql, params))
  }

  private rows(request: Request, transformRows: TransformRows): Effect.Effect<ReadonlyArray<never>, SqlError> {
    const run = this.run(request) as Effect.Effect<Parameters<typeof rowsOf>[0], SqlError>
    return Effect.map(run, transformRows === undefined ? rowsOf : (result) => transformRows(rowsOf(result)))
  }
}

/** The transactions of a router's client, and how they are found in a fiber. */
export interface Works {
  readonly router: Router
  /** The key in the context of the place of a fiber. */
  readonly workKey: string
  /** The transactions and the session that a fiber is in, or what holds for it outside of them. */
  readonly placeIn: (fiber: AnyFiber) => Work | Outskirts | undefined
  /** Runs one statement under rules, in a session of its own where they need one. */
  readonly alone: <A>(rules: Rules, use: (work: Work) => Effect.Effect<A, SqlError>) => Effect.Effect<A, SqlError>
  /** The same for the rows of one. */
  readonly rowsAlone: <A>(rules: Rules, use: (work: Work) => Stream.Stream<A, SqlError>) => Stream.Stream<A, SqlError>
}

/** Routes every statement, by the fiber that runs it. */
export class RoutedConnection extends AnyConnection {
  constructor(
    private readonly works: Works,
    /** The transactions around it; `undefined` on the connection for everything else, which looks into the fiber. */
    readonly work: Work | Outskirts | undefined,
    /** That of the one statement that it is for. */
    private readonly trip?: Trip
  ) {
    super()
  }

  /** Tells whose it is, and what it is in. */
  tellPlace(hear: (works: Works, place: Work | Outskirts | undefined) => void): void {
    hear(this.works, this.work)
  }

  belongsTo(works: Works): boolean {
    return this.works === works
  }

  protected run(request: Request) {
    const { router } = this.works
    const execute = (trip: Trip) => {
      const place = this.work ?? this.works.placeIn(trip.fiber)
      return place instanceof Outskirts
        ? this.works.alone(place.rules, (work) => router.execute(trip, work, request))
        : router.execute(trip, place, request)
    }
    if (this.trip !== undefined) return execute(this.trip)
    return Effect.withFiberRuntime<unknown, SqlError>((fiber) => runTrip(fiber, undefined, execute))
  }

  executeStream(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.unwrap(
      Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
        Effect.succeed(withTransform(this.rowsIn(fiber, sql, params), transformRows))
      )
    )
  }

  private rowsIn(fiber: AnyFiber, sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    const { router } = this.works
    const place = this.work ?? this.works.placeIn(fiber)
    if (place instanceof Outskirts) {
      return this.works.rowsAlone(place.rules, (work) => router.stream(fiber, () => work, sql, params, this.trip?.span))
    }
    return router.stream(fiber, (fiber) => this.workOf(fiber), sql, params, this.trip?.span)
  }

  private workOf(fiber: AnyFiber): Work | undefined {
    const place = this.work ?? this.works.placeIn(fiber)
    return place instanceof Outskirts ? undefined : place
  }
}

/** Sends every statement to the primary, whatever the fiber is told. */
export class PrimaryConnection implements Connection {
  constructor(private readonly on: Connection) {}

  execute(...args: Parameters<Connection["execute"]>) {
    return onThePrimary(Effect.suspend(() => this.on.execute(...args)))
  }

  executeUnprepared(...args: Parameters<Connection["executeUnprepared"]>) {
    return onThePrimary(Effect.suspend(() => this.on.executeUnprepared(...args)))
  }

  executeValues(...args: Parameters<Connection["executeValues"]>) {
    return onThePrimary(Effect.suspend(() => this.on.executeValues(...args)))
  }

  executeRaw(...args: Parameters<Connection["executeRaw"]>) {
    return onThePrimary(Effect.suspend(() => this.on.executeRaw(...args)))
  }

  executeStream(...args: Parameters<Connection["executeStream"]>) {
    return RoutingContext.locallyStream(
      Stream.suspend(() => this.on.executeStream(...args)),
      { _tag: "Primary" }
    )
  }
}

/** A connection that `reserve` gave out. Its writes count as writes of the flow. */
export class ReservedConnection extends AnyConnection {
  private readonly statements = new Lock()
  /** Whether it may have written: any statement after that may be what commits it. */
  private wrote = false

  constructor(
    private readonly router: Router,
    private readonly group: string,
    private readonly engine: Engine,
    private readonly connection: ExclusiveConnection,
    private readonly readOnly = false
  ) {
    super()
  }

  protected run(given: Request) {
    return Effect.suspend(() => {
      const request = this.router.classified(given.sql).foldsSettings ? unprepared(given) : given
      const alone = this.statements.run(this.connection.query(request))
      const running = this.router.onReserved(this.group, this.engine, request.sql, alone)
      return Effect.scoped(Effect.zipRight(this.noted(request.sql), running))
    })
  }

  private noted(sql: string): Effect.Effect<void, SqlError, Scope.Scope> {
    return Effect.suspend(() => {
      const { kind, leaves } = this.router.classified(sql)
      const violation = this.readOnly ? this.router.violation(sql) : undefined
      if (violation !== undefined) return Effect.fail(RouterError.toSqlError(violation))
      if (leaves !== undefined) this.connection.leave(leaves)
      this.wrote ||= kind === "write"
      return this.wrote ? this.router.writes(this.engine) : Effect.void
    })
  }

  executeStream(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.unwrapScoped(
      Effect.suspend(() => {
        let isHeld = true
        const free = Effect.suspend(() => {
          const release = isHeld ? this.statements.release : Effect.void
          isHeld = false
          return release
        })
        // After a batch that is not full the statement is over, and others may run between its last rows.
        const all = this.router.rowsOnReserved(this.group, this.engine, sql, this.connection.stream(sql, params))
        const rows = Stream.mapChunksEffect(all, (chunk) =>
          chunk.length < batchSize ? Effect.as(free, chunk) : Effect.succeed(chunk)
        )
        return Effect.uninterruptibleMask((restore) =>
          Effect.acquireRelease(this.statements.take(restore), () => free)
        ).pipe(Effect.zipRight(this.noted(sql)), Effect.as(withTransform(rows, transformRows)))
      })
    )
  }
}

const withTransform = (stream: Stream.Stream<object, SqlError>, transformRows: TransformRows) =>
  transformRows === undefined
    ? stream
    : Stream.mapChunks(stream, (chunk) => Chunk.unsafeFromArray(transformRows(Chunk.toReadonlyArray(chunk))))
