import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { Engine } from "../Engine.js"
import * as RouterError from "../RouterError.js"
import * as RoutingContext from "../RoutingContext.js"
import type { Request, Result } from "./driver/pool.js"
import { judge } from "./failure.js"
import type { Monitor } from "./monitor.js"
import { type Deadline, Patience } from "./patience.js"
import { catchBeforeRows, Reads } from "./reads.js"
import type { Refresh } from "./refresh.js"
import { annotate, type Decision, Routes, type RoutesOptions, type Target } from "./routes.js"
import type { Transaction } from "./transaction.js"
import type { Work } from "./work.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

export interface RouterOptions extends RoutesOptions {
  readonly monitor: Monitor
  /** What is done before a session. */
  readonly refresh: Refresh | undefined
}

/** Runs every statement where it belongs. */
export class Router extends Routes {
  /** What is done before a session begins. Connects to nothing that a statement would not. */
  readonly beforeSession: Effect.Effect<void>
  /** Waits for a primary. */
  readonly patience: Patience
  private readonly reads = new Reads(this)

  /** Ends what goes on by itself. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => this.reads.hedges?.close ?? Effect.void)

  constructor(options: RouterOptions) {
    super(options)
    const { config, monitor, refresh, servers } = options
    this.beforeSession = refresh?.beforeSession ?? Effect.void
    const limit = config.health === undefined ? Duration.zero : config.waitForPrimary.statements
    this.patience = new Patience(servers, monitor, limit)
  }

  /** Runs a statement where it belongs. `span` is the statement's own; in the fiber is only what is around it. */
  execute(
    fiber: AnyFiber,
    work: Work | undefined,
    request: Request,
    span: Tracer.Span | undefined,
    deadline?: Deadline
  ): Effect.Effect<Result, SqlError> {
    const decision = this.decide(fiber, work, request.sql, "choose")
    const again = (deadline: Deadline) =>
      Effect.withFiberRuntime<Result, SqlError>((fiber) => this.execute(fiber, work, request, span, deadline))
    if (RouterError.isRouterError(decision)) {
      return Effect.flatMap(this.patience.after(RouterError.toSqlError(decision), deadline), again)
    }
    annotate(span, decision)
    const inside = this.transactionOf(work, decision)
    if (inside === undefined) {
      const answered =
        decision.kind === "read" ? this.reads.query(fiber, decision, request, span) : this.autocommit(decision, request)
      return this.needsPrimary(decision)
        ? Effect.catchAll(answered, (error) => Effect.flatMap(this.patience.after(error, deadline), again))
        : answered
    }
    return Effect.flatMap(inside, (transaction) => {
      this.enter(transaction, decision, span)
      return Effect.catchAll(transaction.query(request), (error) => {
        const next = this.afterFailure(fiber, work, transaction, decision, request.sql, error)
        if (next === undefined) return Effect.fail(error)
        return next === "again" ? again(deadline) : onThePrimary(again(deadline))
      })
    })
  }

  /** Whether a statement runs on the primary, or may have to. */
  private needsPrimary({ group, movable }: Decision): boolean {
    return movable || group === this.defaultGroup.name
  }

  private enter(transaction: Transaction, decision: Decision, span: Tracer.Span | undefined): void {
    transaction.note(decision)
    // Another fiber may have begun it, on another engine.
    if (transaction.engine !== decision.engine) annotate(span, { ...decision, engine: transaction.engine })
  }

  /** Whether a statement that failed before its first row belongs in another transaction of its session. */
  private afterFailure(
    fiber: AnyFiber,
    work: Work | undefined,
    transaction: Transaction,
    decision: Decision,
    sql: string,
    error: SqlError
  ): "again" | "primary" | undefined {
    if (work?.transaction(decision.group) !== undefined) return undefined
    // Another fiber's early commit, or its read that failed, came in between: the session goes on with a new one.
    if (wasRefused(error)) return transaction.isEnded ? "again" : undefined
    const isBound = fiber.getFiberRef(RoutingContext.bindGroup)._tag === "Some"
    if (isBound || decision.kind !== "read" || decision.group !== this.readGroup?.name) return undefined
    const { action, why } = judge(error, transaction.engine.health?.report?.role ?? "replica")
    if (action === "refused") this.classifier.remember(sql, `a standby refused it (${why})`)
    const mayMove = action === "elsewhere" ? this.config.onNoReplica === "primary" : action !== "caller"
    return mayMove && transaction.isSpent ? "primary" : undefined
  }

  /** The transaction that a statement runs in; begins it where the session has none yet. */
  private transactionOf(work: Work | undefined, decision: Decision): Effect.Effect<Transaction, SqlError> | undefined {
    return decision.transaction !== undefined
      ? Effect.succeed(decision.transaction)
      : decision.begins
        ? this.begun(decision.group, decision.engine, (engine) => work!.session!.transaction(decision.group, engine))
        : undefined
  }

  /** What begins on an engine; on the primary of then, if it has to wait for one. */
  begun<A>(
    group: string,
    engine: Engine,
    begin: (engine: Engine) => Effect.Effect<A, SqlError>
  ): Effect.Effect<A, SqlError> {
    return group === this.defaultGroup.name && engine === this.primary
      ? this.patience.around(Effect.suspend(() => begin(this.primary)))
      : begin(engine)
  }

  /** Where a transaction belongs: waits for a primary where it needs one. */
  target(fiber: AnyFiber, work: Work | undefined): Effect.Effect<Target, SqlError> {
    const target = this.engineForTransaction(fiber, work)
    return RouterError.isRouterError(target)
      ? Effect.flatMap(this.patience.after(RouterError.toSqlError(target), undefined), () => this.target(fiber, work))
      : Effect.succeed(target)
  }

  /** The rows of a statement, from where it belongs. */
  stream(
    fiber: AnyFiber,
    workOf: (fiber: AnyFiber) => Work | undefined,
    sql: string,
    params: ReadonlyArray<unknown>,
    span: Tracer.Span | undefined,
    deadline?: Deadline
  ): Stream.Stream<object, SqlError> {
    const work = workOf(fiber)
    const decision = this.decide(fiber, work, sql, "choose")
    const again = (deadline: Deadline) =>
      Stream.unwrap(
        Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
          Effect.succeed(this.stream(fiber, workOf, sql, params, span, deadline))
        )
      )
    const later = (error: SqlError) => Stream.unwrap(Effect.map(this.patience.after(error, deadline), again))
    if (RouterError.isRouterError(decision)) return later(RouterError.toSqlError(decision))
    annotate(span, decision)
    const inside = (transaction: Transaction) => {
      this.enter(transaction, decision, span)
      const rows = transaction.stream(sql, params, (fiber) => workOf(fiber)?.transaction(transaction.group))
      return catchBeforeRows(rows, (error, emitted) => {
        const next = this.afterFailure(fiber, work, transaction, decision, sql, error)
        if (next === undefined || emitted) return Stream.fail(error)
        return next === "again" ? again(deadline) : RoutingContext.locallyStream(again(deadline), { _tag: "Primary" })
      })
    }
    const transaction = this.transactionOf(work, decision)
    if (transaction !== undefined) {
      return Stream.unwrap(Effect.map(transaction, inside))
    }
    const rows =
      decision.kind === "write"
        ? Stream.unwrap(Effect.as(this.config.consistency.afterWrite, decision.engine.stream(sql, params)))
        : this.reads.stream(fiber, decision, sql, params, span)
    return this.needsPrimary(decision)
      ? catchBeforeRows(rows, (error, emitted) => (emitted ? Stream.fail(error) : later(error)))
      : rows
  }

  /** What a statement does that runs on a connection from `reserve`. */
  noteUnrouted(sql: string): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.classifier.classify(sql).kind === "write" ? this.config.consistency.afterWrite : Effect.void
    )
  }

  private autocommit({ changesSchema, engine, kind }: Decision, request: Request): Effect.Effect<Result, SqlError> {
    const running = engine.query(request)
    if (kind === "session") return running
    return Effect.zipRight(
      this.config.consistency.afterWrite,
      changesSchema ? Effect.zipLeft(running, this.classifier.refresh) : running
    )
  }

  /** What follows a COMMIT that succeeded. */
  afterCommit(transaction: Transaction): Effect.Effect<void> {
    return Effect.zipRight(
      transaction.wrote ? this.config.consistency.afterCommit : Effect.void,
      transaction.changedSchema ? this.classifier.refresh : Effect.void
    )
  }
}
const onThePrimary = RoutingContext.locally({ _tag: "Primary" })

/** The rows of a result, as `@effect/sql` wants them: an array of rows, or one for each statement of the text. */
export const rowsOf = (result: Result): ReadonlyArray<never> =>
  (Array.isArray(result) ? result.map((one) => one.rows ?? []) : ((result as { rows?: unknown }).rows ?? [])) as never

const wasRefused = (error: SqlError): boolean => Option.contains(RouterError.reasonOf(error), "SessionClosed")
