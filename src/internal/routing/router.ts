import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import * as Consistency from "../../Consistency.js"
import type { Engine } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import * as RoutingContext from "../../RoutingContext.js"
import { goesOn } from "../classifier/ending.js"
import type { Leaves } from "../classifier/finding.js"
import type { Causal } from "../consistency/causal.js"
import { isAnswer, judge, ofWrite } from "../driver/failure.js"
import type { Request, Result } from "../driver/pool.js"
import { unprepared } from "../driver/run.js"
import type { Monitor } from "../health/monitor.js"
import { countMoved } from "../telemetry/metrics.js"
import { run as runTrip, Trip } from "../telemetry/statementRun.js"
import type { Anew } from "../transaction/lazyBegin.js"
import type { OnEnd, Transaction } from "../transaction/transaction.js"
import type { SessionWork, Work } from "../transaction/work.js"
import * as bounded from "../util/bounded.js"
import { clockOf, elapsedOf, nowOf } from "../util/clock.js"
import { Later, seldom } from "../util/later.js"
import * as limits from "../util/limits.js"
import { orElse } from "../util/orElse.js"
import type { Restore } from "../util/restore.js"
import * as Log from "../validation/log.js"
import { Mark } from "../wal/lsnTracker.js"
import { type Decision, Routes, type RoutesOptions, redirect, type Target } from "./decide.js"
import { type Deadline, Patience } from "./primaryWait.js"
import { catchBeforeRows, type OnPrimary, Reads, type Writer } from "./replicaReads.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

export interface RouterOptions extends RoutesOptions {
  readonly monitor: Monitor
  /** What is done before a session begins. Connects to nothing that a statement would not. */
  readonly beforeSession: Effect.Effect<void>
}

/** What `causal` and `window` have done before and after a write. */
const { afterWrite: noteTime } = Consistency.causal()

/** After a vain look for the primary of a later timeline, how long until the next one, in milliseconds. */
const betweenVainLooks = 1_000

/** Runs every statement where it belongs. */
export class Router extends Routes implements Writer {
  /** What is done before a session begins. Connects to nothing that a statement would not. */
  readonly beforeSession: Effect.Effect<void>
  /** Waits for a primary. */
  readonly patience: Patience
  /** Probes all servers: once for all that wait for it, ten times a second at most, and for `limits.position` at most. */
  readonly look: Effect.Effect<void>
  /** When all servers may be probed again for a later timeline than the primary's. */
  private looksAgainAt = Number.NEGATIVE_INFINITY
  private readonly reads = new Reads(this, this)
  private hasWarned = false

  /** Ends what goes on by itself. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.causal?.close()
    return this.reads.hedges?.close ?? Effect.void
  })

  constructor(options: RouterOptions) {
    super(options)
    const { beforeSession, config, monitor, servers } = options
    this.beforeSession = beforeSession
    const limit = config.health === undefined ? Duration.zero : config.waitForPrimary.statements
    this.patience = new Patience(servers, monitor, limit)
    this.look = new Later(seldom(Effect.asVoid(bounded.run(monitor.checkAll, limits.position)))).get
  }

  /** What a statement waits for before it runs: a replica that has what its flow has seen, or the primary of a later timeline. */
  private waitOf(fiber: AnyFiber, { awaits, begins, group, transaction }: Decision): Effect.Effect<void> | undefined {
    const { causal } = this
    if (causal === undefined) return undefined
    if (awaits) return Effect.zipRight(causal.await(fiber, nowOf(fiber)), this.lookPast(fiber, causal))
    // What begins a transaction looks as it begins.
    return transaction === undefined &&
      !begins &&
      group === this.defaultGroup.name &&
      causal.isPast(fiber, this.primary)
      ? this.lookPast(fiber, causal)
      : undefined
  }

  /**
   * Where a flow has seen a later timeline than the primary's, all servers are probed: that primary does not have it. A timeline
   * of which no server is the primary is ignored, as in a token.
   */
  private lookPast(fiber: AnyFiber, causal: Causal): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (!causal.isPast(fiber, this.primary)) return Effect.void
      const forget = () => {
        if (causal.isPast(fiber, this.primary)) causal.forgetPast(fiber, this.primary)
      }
      if (elapsedOf(clockOf(fiber)) < this.looksAgainAt) return Effect.sync(forget)
      return Effect.map(this.look, () => {
        if (causal.isPast(fiber, this.primary)) this.looksAgainAt = elapsedOf(clockOf(fiber)) + betweenVainLooks
        forget()
      })
    })
  }

  /** Runs the statement of a trip where it belongs. The span in its fiber is of what is around it. */
  execute(trip: Trip, work: Work | undefined, request: Request): Effect.Effect<Result, SqlError> {
    this.telemetry?.begin(trip)
    return this.route(trip.fiber, work, request, trip)
  }

  private route(
    fiber: AnyFiber,
    work: Work | undefined,
    asked: Request,
    trip: Trip,
    deadline: Deadline = this.patience.deadlineOf(work?.waitedSince),
    hasWaited = false
  ): Effect.Effect<Result, SqlError> {
    const decision = this.decideAgain(trip, this.decide(fiber, work, asked.sql, "choose"))
    const again = (deadline: Deadline) =>
      Effect.withFiberRuntime<Result, SqlError>((fiber) => this.route(fiber, work, asked, trip, deadline))
    if (RouterError.isRouterError(decision)) {
      return Effect.flatMap(this.patience.after(RouterError.toSqlError(decision), deadline), again)
    }
    const wait = hasWaited ? undefined : this.waitOf(fiber, decision)
    if (wait !== undefined) {
      return Effect.zipRight(
        wait,
        Effect.suspend(() => this.route(fiber, work, asked, trip, deadline, true))
      )
    }
    const request = decision.foldsSettings ? unprepared(asked) : asked
    this.tell(trip, decision, request.sql, fiber)
    const inside = this.transactionOf(work, decision)
    if (inside === undefined) {
      const answered =
        decision.kind === "read"
          ? this.reads.query(
              fiber,
              decision,
              request,
              trip,
              work?.session && this.primaryOf(work.session, () => again(deadline))
            )
          : this.write(fiber, decision, request)
      return this.needsPrimary(decision)
        ? orElse(answered, (error) => {
            this.failed(fiber, trip, error)
            return Effect.flatMap(this.patience.after(error, deadline, trip.went?.kind === "read"), again)
          })
        : answered
    }
    if (decision.leaves?.controls === true && work?.rules?.settings.length && goesOn(request.sql)) {
      return Effect.fail(RouterError.toSqlError(RouterError.settingsEnded()))
    }
    const enter = (transaction: Transaction) => {
      this.enter(work, transaction, decision, trip)
      return orElse(this.inTransaction(fiber, decision, transaction, request, trip), (error) => {
        this.failed(fiber, trip, error)
        const next = this.afterFailure(fiber, work, transaction, decision, error)
        if (next === undefined) return Effect.fail(error)
        if (next === "again") return again(deadline)
        this.moves(trip, transaction, next, fiber)
        const moved = onThePrimary(again(deadline))
        return next === "refused" ? Effect.zipLeft(moved, this.reads.rememberRefused(request.sql, error)) : moved
      })
    }
    if (decision.transaction !== undefined) return enter(decision.transaction)
    return Effect.matchEffect(inside, {
      onSuccess: enter,
      onFailure: (error) => {
        if (!this.mayBeginElsewhere(fiber, decision, error)) return Effect.fail(error)
        this.moves(trip, decision, "moved", fiber)
        return onThePrimary(again(deadline))
      }
    })
  }

  /** How a read of a session runs on the primary where the session has a transaction there: in that one. */
  private primaryOf(session: NonNullable<Work["session"]>, again: () => Effect.Effect<Result, SqlError>): OnPrimary {
    return () => (session.current(this.defaultGroup.name) === undefined ? undefined : onThePrimary(again()))
  }

  /** Whether a read whose replica could not begin its transaction goes to the primary. */
  private mayBeginElsewhere(fiber: AnyFiber, { group, kind }: Decision, error: SqlError): boolean {
    const isBound = fiber.getFiberRef(RoutingContext.bindGroup)._tag === "Some"
    if (isBound || kind !== "read" || group !== this.readGroup?.name) return false
    return this.config.onNoReplica === "primary" && judge(error, "replica").action !== "caller"
  }

  /** A statement in a transaction. What a flow was shown in one it must not miss afterwards, however the transaction ends. */
  private inTransaction(
    fiber: AnyFiber,
    decision: Decision,
    transaction: Transaction,
    request: Request,
    trip: Trip
  ): Effect.Effect<Result, SqlError> {
    const { group } = decision
    const running = transaction.query(request, (engine) => redirect(trip, { ...decision, engine }))
    const causal = this.causalIn(group)
    if (causal === undefined) return running
    return Effect.map(running, (result) => {
      causal.ran(fiber, transaction.engine)
      return result
    })
  }

  /** A statement has failed for its caller: an error of the server's shows what is there as rows do. */
  private failed(fiber: AnyFiber, { went }: Trip, error: SqlError): void {
    if (went !== undefined && isAnswer(error)) this.causalIn(went.group)?.failed(fiber, went.engine)
  }

  /** Whether a statement runs on the primary, or may have to. */
  private needsPrimary({ group, movable }: Decision): boolean {
    return movable || group === this.defaultGroup.name
  }

  private enter(work: Work | undefined, transaction: Transaction, decision: Decision, trip: Trip): void {
    work?.session?.joins(work.block, transaction.group)
    transaction.writes.note(decision)
    // Another fiber may have begun it, on another engine.
    if (transaction.engine !== decision.engine) redirect(trip, { ...decision, engine: transaction.engine })
  }

  /** Whether a statement that failed before its first row belongs in another transaction of its session. */
  private afterFailure(
    fiber: AnyFiber,
    work: Work | undefined,
    transaction: Transaction,
    decision: Decision,
    error: SqlError
  ): "again" | "moved" | "refused" | undefined {
    if (work?.transaction(decision.group) !== undefined) return undefined
    // Another fiber's early commit, or its read that failed, came in between: the session goes on with a new one.
    if (wasRefused(error)) return transaction.isEnded ? "again" : undefined
    const isBound = fiber.getFiberRef(RoutingContext.bindGroup)._tag === "Some"
    if (isBound || decision.kind !== "read" || decision.group !== this.readGroup?.name) return undefined
    const { action } = judge(error, transaction.engine.health?.report?.role ?? "replica")
    const mayMove = action === "elsewhere" ? this.config.onNoReplica === "primary" : action !== "caller"
    if (!mayMove || !transaction.isSpent) return undefined
    return action === "refused" ? "refused" : "moved"
  }

  /** A read of a session moves to the primary. */
  private moves(trip: Trip, { engine }: Pick<Transaction, "engine">, rule: "moved" | "refused", fiber: AnyFiber): void {
    countMoved(engine, rule, fiber)
    trip.rule = rule
  }

  /** What has moved a statement counts, not what keeps it where it has moved to. What a standby refuses may write. */
  private decideAgain(
    { rule }: Trip,
    decision: Decision | RouterError.RouterError
  ): Decision | RouterError.RouterError {
    if (rule === undefined || RouterError.isRouterError(decision)) return decision
    return { ...decision, rule, kind: rule === "refused" ? "write" : decision.kind }
  }

  /** The transaction that a statement runs in; begins it where the session has none yet. */
  private transactionOf(work: Work | undefined, decision: Decision): Effect.Effect<Transaction, SqlError> | undefined {
    return decision.transaction !== undefined
      ? Effect.succeed(decision.transaction)
      : decision.begins
        ? this.beginIn(work!, work!.session!, decision)
        : undefined
  }

  private beginIn(
    work: Work,
    session: SessionWork,
    { engine, group, kind }: Decision
  ): Effect.Effect<Transaction, SqlError> {
    if (kind === "read") session.snapshotGroup = group
    return this.begun(group, engine, (engine, since) => session.transaction(group, engine, since), identity, work)
  }

  /**
   * What begins on an engine; on the primary of then, if it has to wait for one, which `restore` makes interruptible, or if its
   * flow has seen a later timeline than the primary's. The first attempt hears since when the work has waited for its turn; those
   * after it are on a primary that has come since.
   */
  begun<A>(
    group: string,
    engine: Engine,
    begin: (engine: Engine, waitedSince: number | undefined) => Effect.Effect<A, SqlError>,
    restore: Restore = identity,
    work?: Work
  ): Effect.Effect<A, SqlError> {
    const since = work?.waitedSince
    if (group !== this.defaultGroup.name || engine !== this.primary) return begin(engine, since)
    const next = () => begin(this.primary, undefined)
    const first = since === undefined ? next : () => begin(this.primary, since)
    const begun = this.patience.around(first, restore, this.patience.deadlineOf(since), next)
    const { causal } = this
    if (causal === undefined) return begun
    return Effect.withFiberRuntime((fiber) =>
      causal.isPast(fiber, this.primary) ? Effect.zipRight(restore(this.lookPast(fiber, causal)), begun) : begun
    )
  }

  /** Begins anew what an engine has failed to begin: on the primary of now, where it was the primary. */
  anew(group: string, engine: Engine): Anew {
    return (begin) => this.begun(group, group === this.defaultGroup.name ? this.primary : engine, begin)
  }

  /** Where a transaction belongs: waits for a primary where it needs one. */
  target(fiber: AnyFiber, work: Work | undefined): Effect.Effect<Target, SqlError> {
    const target = this.engineForTransaction(fiber, work)
    return RouterError.isRouterError(target)
      ? Effect.flatMap(
          this.patience.after(RouterError.toSqlError(target), this.patience.deadlineOf(work?.waitedSince)),
          () => this.target(fiber, work)
        )
      : Effect.succeed(target)
  }

  /** The rows of a statement, from where it belongs. */
  stream(
    fiber: AnyFiber,
    workOf: (fiber: AnyFiber) => Work | undefined,
    sql: string,
    params: ReadonlyArray<unknown>,
    span: Tracer.Span | undefined
  ): Stream.Stream<object, SqlError> {
    const trip = new Trip(fiber, span)
    return this.along(trip, () => this.routeRows(fiber, workOf, sql, params, trip))
  }

  /** Rows whose end is that of a trip, which begins now. */
  private along(trip: Trip, rows: () => Stream.Stream<object, SqlError>): Stream.Stream<object, SqlError> {
    this.telemetry?.begin(trip)
    return Stream.ensuringWith(rows(), (exit) => Effect.sync(() => trip.ended(exit)))
  }

  private routeRows(
    fiber: AnyFiber,
    workOf: (fiber: AnyFiber) => Work | undefined,
    sql: string,
    params: ReadonlyArray<unknown>,
    trip: Trip,
    deadline?: Deadline,
    hasWaited = false
  ): Stream.Stream<object, SqlError> {
    const work = workOf(fiber)
    const until = deadline ?? this.patience.deadlineOf(work?.waitedSince)
    const decision = this.decideAgain(trip, this.decide(fiber, work, sql, "choose"))
    const again = (deadline: Deadline) =>
      Stream.unwrap(
        Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
          Effect.succeed(this.routeRows(fiber, workOf, sql, params, trip, deadline))
        )
      )
    const later = (error: SqlError, isRead: boolean) =>
      Stream.unwrap(Effect.map(this.patience.after(error, until, isRead), again))
    if (RouterError.isRouterError(decision)) return later(RouterError.toSqlError(decision), false)
    const wait = hasWaited ? undefined : this.waitOf(fiber, decision)
    if (wait !== undefined) {
      return Stream.unwrap(Effect.map(wait, () => this.routeRows(fiber, workOf, sql, params, trip, deadline, true)))
    }
    this.tell(trip, decision, sql, fiber)
    const inside = (transaction: Transaction) => {
      this.enter(work, transaction, decision, trip)
      const all = transaction.stream(
        sql,
        params,
        (fiber) => workOf(fiber)?.transaction(transaction.group),
        (engine) => redirect(trip, { ...decision, engine })
      )
      const rows = this.reads.noting(decision.group, () => transaction.engine, all)
      return catchBeforeRows(rows, (error, emitted) => {
        this.failed(fiber, trip, error)
        const next = this.afterFailure(fiber, work, transaction, decision, error)
        if (next === undefined || emitted) return Stream.fail(error)
        if (next === "again") return again(deadline)
        this.moves(trip, transaction, next, fiber)
        const moved = RoutingContext.locallyStream(again(deadline), { _tag: "Primary" })
        return next === "refused" ? Stream.onEnd(moved, this.reads.rememberRefused(sql, error)) : moved
      })
    }
    const transaction = this.transactionOf(work, decision)
    if (transaction !== undefined) {
      return Stream.unwrap(
        Effect.match(transaction, {
          onSuccess: inside,
          onFailure: (error) => {
            if (!this.mayBeginElsewhere(fiber, decision, error)) return Stream.fail(error)
            this.moves(trip, decision, "moved", fiber)
            return RoutingContext.locallyStream(again(deadline), { _tag: "Primary" })
          }
        })
      )
    }
    const answered =
      decision.kind === "read"
        ? this.reads.stream(fiber, decision, sql, params, trip)
        : this.writeRows(decision, sql, params)
    return this.needsPrimary(decision)
      ? catchBeforeRows(answered, (error, emitted) => {
          this.failed(fiber, trip, error)
          return emitted ? Stream.fail(error) : later(error, trip.went?.kind === "read")
        })
      : answered
  }

  /** Runs a statement on a connection from `reserve`. */
  onReserved<A>(
    group: string,
    engine: Engine,
    sql: string,
    run: Effect.Effect<A, SqlError>
  ): Effect.Effect<A, SqlError> {
    const failing = Effect.mapError(this.showing(group, engine, run), this.ofReserved(sql, engine))
    if (this.telemetry === undefined) return failing
    return Effect.withFiberRuntime((fiber) =>
      runTrip(fiber, undefined, (trip) => {
        this.goesOnReserved(trip, group, engine, sql)
        this.telemetry?.begin(trip)
        return failing
      })
    )
  }

  /** The rows of a statement on a connection from `reserve`. */
  rowsOnReserved(
    group: string,
    engine: Engine,
    sql: string,
    rows: Stream.Stream<object, SqlError>
  ): Stream.Stream<object, SqlError> {
    const failing = Stream.mapError(
      this.reads.noting(group, () => engine, rows),
      this.ofReserved(sql, engine)
    )
    if (this.telemetry === undefined) return failing
    return Stream.unwrap(
      Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) => {
        const trip = new Trip(fiber, undefined)
        this.goesOnReserved(trip, group, engine, sql)
        return Effect.succeed(this.along(trip, () => failing))
      })
    )
  }

  /** What shows its flow what there is on an engine, outside the statements that the router knows. */
  private showing<A>(group: string, engine: Engine, run: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    const causal = this.causalIn(group)
    if (causal === undefined) return run
    return Effect.withFiberRuntime((fiber) =>
      Effect.mapBoth(run, {
        onFailure: (error) => {
          if (isAnswer(error)) causal.failed(fiber, engine)
          return error
        },
        onSuccess: (result) => {
          causal.ran(fiber, engine)
          return result
        }
      })
    )
  }

  private goesOnReserved(trip: Trip, group: string, engine: Engine, sql: string): void {
    trip.went = { group, engine, kind: this.classifier.classify(sql).kind, rule: "reserved" }
  }

  /** What the caller gets of a statement that has failed on a connection from `reserve`. */
  private ofReserved(sql: string, engine: Engine): (error: SqlError) => SqlError {
    return (error) => (this.classifier.classify(sql).kind === "read" ? error : ofWrite({ engine })(error))
  }

  /** Something may write on an engine, until the scope closes, outside the transactions that the router knows. */
  writes(engine: Engine): Effect.Effect<void, never, Scope.Scope> {
    const { afterWrite, afterWriteEnded = Effect.void } = this.config.consistency
    const begin = Effect.zipRight(
      afterWrite,
      Effect.withFiberRuntime<Mark | undefined>((fiber) =>
        Effect.succeed(this.causal?.begin(fiber, engine).writes().mark)
      )
    )
    return Effect.asVoid(
      Effect.acquireRelease(begin, (mark) =>
        Effect.zipRight(
          Effect.sync(() => mark?.end()),
          afterWriteEnded
        )
      )
    )
  }

  /** Runs a statement that is no plain read, outside transactions. */
  write(fiber: AnyFiber, decision: Decision, request: Request): Effect.Effect<Result, SqlError> {
    const { leaves } = decision
    if (leaves === undefined) return Effect.mapError(this.autocommit(fiber, decision, request), ofWrite(decision))
    return Effect.zipRight(
      this.warnOf(leaves),
      Effect.mapError(this.autocommit(fiber, decision, { ...request, leaves }), ofWrite(decision))
    )
  }

  /** Says once what becomes of state that a statement leaves on a connection of the pool. */
  private warnOf({ until }: Leaves): Effect.Effect<void> {
    if (until !== "connection" || this.hasWarned) return Effect.void
    this.hasWarned = true
    return Log.warning(leftBehind)
  }

  /** The rows of one. */
  writeRows(decision: Decision, sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    const { leaves } = decision
    const all = decision.engine.stream(sql, params, false, leaves)
    const rows = leaves === undefined ? all : Stream.unwrap(Effect.as(this.warnOf(leaves), all))
    return Stream.mapError(
      decision.kind === "write"
        ? Stream.unwrapScoped(Effect.as(this.writes(decision.engine), rows))
        : this.reads.noting(decision.group, () => decision.engine, rows),
      ofWrite(decision)
    )
  }

  private autocommit(
    fiber: AnyFiber,
    { changesSchema, engine, group, kind }: Decision,
    request: Request
  ): Effect.Effect<Result, SqlError> {
    if (kind === "session") return this.seen(fiber, group, engine, request)
    const { afterWrite, afterWriteEnded } = this.config.consistency
    const { causal } = this
    const running = causal === undefined ? engine.query(request) : this.watched(causal, fiber, engine, request)
    const ended = changesSchema
      ? <A>(noted: Effect.Effect<A, SqlError>) => Effect.zipLeft(noted, this.classifier.refresh)
      : identity
    // It notes the times together with the rest.
    if (causal !== undefined && afterWrite === noteTime) return ended(running)
    const noted = afterWriteEnded === undefined ? running : Effect.ensuring(running, afterWriteEnded)
    return Effect.zipRight(afterWrite, ended(noted))
  }

  /** Runs a statement that does not write, and may show data all the same. */
  private seen(fiber: AnyFiber, group: string, engine: Engine, request: Request): Effect.Effect<Result, SqlError> {
    const watch = this.causalIn(group)?.begin(fiber, engine)
    const running = engine.query(request)
    return watch === undefined ? running : Effect.tap(running, () => Effect.sync(() => watch.succeeded()))
  }

  /** Runs a statement that may write, and tells its flow the position after it. */
  private watched(causal: Causal, fiber: AnyFiber, engine: Engine, request: Request): Effect.Effect<Result, SqlError> {
    return Effect.suspend(() => {
      const clock = clockOf(fiber)
      const watch = causal.begin(fiber, engine).writes(elapsedOf(clock))
      return Effect.onExit(engine.query(watch.asking(request)), (exit) => {
        const now = elapsedOf(clock)
        if (Exit.isSuccess(exit)) watch.succeeded(now)
        else watch.failed(now)
        return Effect.void
      })
    })
  }

  /** Hears of the position after a COMMIT on an engine. */
  readonly mark = (engine: Engine): Mark | undefined =>
    this.causal === undefined ? undefined : new Mark(engine.positions)

  /** Hears how transactions end. */
  readonly transactionEnded: OnEnd = ({ engine, group, writes, wrote }, outcome) =>
    Effect.withFiberRuntime((fiber) => {
      this.telemetry?.transaction(fiber, group, engine, outcome)
      if (outcome !== "rolled back" || !writes.hasRun) return Effect.void
      this.causalIn(group)?.failed(fiber, engine)
      return (wrote ? this.config.consistency.afterRollback : undefined) ?? Effect.void
    })

  /** What follows a COMMIT that succeeded, or may have. */
  afterCommit(transaction: Transaction): Effect.Effect<void> {
    const { mark, writes, wrote } = transaction
    const { causal } = this
    const noted =
      causal === undefined || mark === undefined
        ? Effect.void
        : Effect.withFiberRuntime<void>((fiber) => {
            causal.committed(fiber, mark, wrote)
            return Effect.void
          })
    return Effect.zipRight(
      wrote ? Effect.zipRight(this.config.consistency.afterCommit, noted) : writes.none ? noted : Effect.void,
      writes.ofSchema ? this.classifier.refresh : Effect.void
    )
  }
}

/** Sends what an effect does to the primary. */
export const onThePrimary = RoutingContext.locally({ _tag: "Primary" })

/** The rows of a result, as `@effect/sql` wants them: an array of rows, or one for each statement of the text. */
export const rowsOf = (result: Result): ReadonlyArray<never> =>
  (Array.isArray(result) ? result.map((one) => one.rows ?? []) : ((result as { rows?: unknown }).rows ?? [])) as never

const wasRefused = (error: SqlError): boolean => Option.contains(RouterError.reasonOf(error), "SessionClosed")

const leftBehind =
  'A statement outside a transaction has set something on a connection of the pool (SET, a temporary table, an advisory lock, LISTEN, ...). The next statement may have another connection, and this one is reset before it is used again. For a unit of work give the session its "settings"; sql.reserve gives a connection that keeps its state until its scope closes. Logged once.'
