import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { Engine } from "../Engine.js"
import type { EngineGroup } from "../EngineGroup.js"
import type { RouterConfig } from "../RouterConfig.js"
import * as RouterError from "../RouterError.js"
import * as RoutingContext from "../RoutingContext.js"
import type { Classification, SqlClassifier, StatementKind } from "../SqlClassifier.js"
import type { Request, Result } from "./driver/pool.js"
import { isStandbyRefusal, judge } from "./failure.js"
import { Fallback, movedReads, type Step } from "./fallback.js"
import { currentTest } from "./testConnection.js"
import type { Transaction } from "./transaction.js"
import type { Work } from "./work.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** Where a statement goes, and why. */
export interface Decision {
  readonly group: string
  readonly engine: Engine
  readonly kind: StatementKind
  readonly reason: string
  readonly changesSchema: boolean
  /** The transaction it runs in. */
  readonly transaction: Transaction | undefined
  /** Whether it belongs in a transaction of the session that is begun for it. */
  readonly begins: boolean
  /** Whether it is free to run on the primary instead: a read for which the router has chosen a replica. */
  readonly movable: boolean
  /** With `reads: "observe"`: the engine that it would have gone to. */
  readonly observed: { readonly group: string; readonly engine: string } | undefined
}

/** The decision for every statement, and its execution. */
export class Router {
  private readonly defaultGroup: EngineGroup
  private readonly readGroup: EngineGroup | undefined
  /** The engine of a test that all fibers belong to. */
  test: Engine | undefined

  constructor(
    readonly config: RouterConfig,
    readonly groups: ReadonlyMap<string, EngineGroup>,
    readonly classifier: SqlClassifier
  ) {
    this.defaultGroup = groups.get(config.defaultGroup)!
    this.readGroup = config.readGroup === undefined ? undefined : groups.get(config.readGroup)
  }

  /** Decides where a statement of a fiber goes. `choose` takes a turn among the engines; `peek` only looks. */
  decide(
    fiber: AnyFiber,
    work: Work | undefined,
    sql: string,
    take: "choose" | "peek"
  ): Decision | RouterError.RouterError {
    const classification = this.classifier.classify(sql)
    const session = work?.session
    if (session?.ended === true) return RouterError.sessionClosed()
    if (session?.readOnly === true && classification.kind === "write") {
      return RouterError.readOnlyViolation(classification.reason)
    }
    const bound = fiber.getFiberRef(RoutingContext.bindGroup)
    const test = this.testOf(fiber)
    if (test !== undefined) return this.decideInTest(test, classification, bound, work)
    const forced = fiber.getFiberRef(RoutingContext.forcePrimary)
    if (work?.level !== undefined) {
      const group = bound._tag === "Some" ? bound.value : work.level.group
      const transaction = work.transaction(group)
      if (transaction !== undefined) {
        return this.decision(classification, group, transaction.engine, "inside a transaction", { transaction })
      }
    }
    if (bound._tag === "Some") {
      const group = this.groups.get(bound.value)
      return group === undefined
        ? RouterError.unknownGroup(bound.value, [...this.groups.keys()])
        : this.inGroup(group, classification, `bound to the group ${group.name}`, take, work)
    }
    const toDefault = (reason: string) => this.inGroup(this.defaultGroup, classification, reason, take, work)
    if (!this.config.enabled) return toDefault("routing is disabled")
    if (forced) return toDefault("forced to the primary")
    if (classification.kind !== "read") return toDefault(classification.reason)
    return this.decideRead(fiber, work, classification, take, toDefault)
  }

  /** In a test everything goes to one connection, whatever would decide otherwise. */
  private decideInTest(
    test: Engine,
    classification: Classification,
    bound: Option.Option<string>,
    work: Work | undefined
  ): Decision | RouterError.RouterError {
    const { name } = this.defaultGroup
    if (bound._tag === "Some" && !this.groups.has(bound.value)) {
      return RouterError.unknownGroup(bound.value, [...this.groups.keys()])
    }
    const transaction = work?.level ?? work?.session?.current(name)
    const reason = "inside a test's transaction"
    return transaction === undefined
      ? this.decision(classification, name, test, reason, { begins: work?.session !== undefined })
      : this.decision(classification, name, transaction.engine, reason, { transaction })
  }

  /** The engine of the test that a fiber belongs to. */
  private testOf(fiber: AnyFiber): Engine | undefined {
    return fiber.getFiberRef(currentTest) ?? this.test
  }

  private decideRead(
    fiber: AnyFiber,
    work: Work | undefined,
    classification: Classification,
    take: "choose" | "peek",
    toDefault: (reason: string) => Decision | RouterError.RouterError
  ): Decision | RouterError.RouterError {
    const { config, readGroup } = this
    const session = work?.session
    const explicit = fiber.getFiberRef(RoutingContext.preferReplica)
    if (!explicit) {
      if (session?.current(this.defaultGroup.name)?.wrote === true) return toDefault("the session has written")
      if (config.consistency.readsFromPrimary(fiber)) return toDefault(`${config.consistency.name} after a write`)
      if (config.reads === "explicit") return toDefault("reads are explicit")
    }
    if (session?.readsOnPrimary === true) return toDefault("standbys have no serializable isolation")
    if (readGroup === undefined) return toDefault("there is no read group")
    const transaction = session?.current(readGroup.name)
    if (transaction !== undefined) {
      return this.decision(classification, readGroup.name, transaction.engine, classification.reason, { transaction })
    }
    const engine = readGroup[config.reads === "observe" ? "peek" : take]()
    if (engine === undefined) {
      return config.onNoReplica === "fail"
        ? RouterError.noEngineAvailable(readGroup.name, { why: readGroup.whyNone() })
        : toDefault("no replica is available")
    }
    if (config.reads === "observe") {
      const decision = toDefault("reads are observed")
      return RouterError.isRouterError(decision)
        ? decision
        : { ...decision, observed: { group: readGroup.name, engine: engine.name } }
    }
    const begins = session?.readsInTransaction === true
    return this.decision(classification, readGroup.name, engine, classification.reason, { begins, movable: !begins })
  }

  private inGroup(
    group: EngineGroup,
    classification: Classification,
    reason: string,
    take: "choose" | "peek",
    work: Work | undefined
  ): Decision | RouterError.RouterError {
    const transaction = work?.session?.current(group.name)
    if (transaction !== undefined) {
      return this.decision(classification, group.name, transaction.engine, reason, { transaction })
    }
    const engine = group[take]()
    return engine === undefined
      ? RouterError.noEngineAvailable(group.name, { why: group.whyNone() })
      : this.decision(classification, group.name, engine, reason, { begins: work?.session !== undefined })
  }

  private decision(
    classification: Classification,
    group: string,
    engine: Engine,
    reason: string,
    how: { readonly transaction?: Transaction; readonly begins?: boolean; readonly movable?: boolean }
  ): Decision {
    return {
      group,
      engine,
      kind: classification.kind,
      reason,
      changesSchema: classification.changesSchema,
      transaction: how.transaction,
      begins: how.begins ?? false,
      movable: how.movable ?? false,
      observed: undefined
    }
  }

  /** Runs a statement where it belongs. `span` is the statement's own; in the fiber is only what is around it. */
  execute(
    fiber: AnyFiber,
    work: Work | undefined,
    request: Request,
    span: Tracer.Span | undefined
  ): Effect.Effect<Result, SqlError> {
    const decision = this.decide(fiber, work, request.sql, "choose")
    if (RouterError.isRouterError(decision)) {
      return Effect.fail(RouterError.toSqlError(decision))
    }
    annotate(span, decision)
    const inside = this.transactionOf(work, decision)
    if (inside === undefined) {
      return this.autocommit(fiber, decision, request, span)
    }
    return Effect.flatMap(inside, (transaction) => {
      this.enter(transaction, decision, span)
      return Effect.catchAll(transaction.query(request), (error) => {
        const next = this.afterFailure(fiber, work, transaction, decision, request.sql, error)
        if (next === undefined) return Effect.fail(error)
        const again = Effect.withFiberRuntime<Result, SqlError>((fiber) => this.execute(fiber, work, request, span))
        return next === "again" ? again : onThePrimary(again)
      })
    })
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
        ? work!.session!.transaction(decision.group, decision.engine)
        : undefined
  }

  /** The rows of a statement, from where it belongs. */
  stream(
    fiber: AnyFiber,
    workOf: (fiber: AnyFiber) => Work | undefined,
    sql: string,
    params: ReadonlyArray<unknown>,
    span: Tracer.Span | undefined
  ): Stream.Stream<object, SqlError> {
    const work = workOf(fiber)
    const decision = this.decide(fiber, work, sql, "choose")
    if (RouterError.isRouterError(decision)) {
      return Stream.fail(RouterError.toSqlError(decision))
    }
    annotate(span, decision)
    const inside = (transaction: Transaction) => {
      this.enter(transaction, decision, span)
      const rows = transaction.stream(sql, params, (fiber) => workOf(fiber)?.transaction(transaction.group))
      return catchBeforeRows(rows, (error, emitted) => {
        const next = this.afterFailure(fiber, work, transaction, decision, sql, error)
        if (next === undefined || emitted) return Stream.fail(error)
        const again = Stream.unwrap(
          Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
            Effect.succeed(this.stream(fiber, workOf, sql, params, span))
          )
        )
        return next === "again" ? again : RoutingContext.locallyStream(again, { _tag: "Primary" })
      })
    }
    const transaction = this.transactionOf(work, decision)
    if (transaction !== undefined) {
      return Stream.unwrap(Effect.map(transaction, inside))
    }
    return decision.kind === "write"
      ? Stream.unwrap(Effect.as(this.config.consistency.afterWrite, decision.engine.stream(sql, params)))
      : this.streamRead(fiber, decision, sql, params, span)
  }

  /** What a statement does that runs on a connection from `reserve`. */
  noteUnrouted(sql: string): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.classifier.classify(sql).kind === "write" ? this.config.consistency.afterWrite : Effect.void
    )
  }

  /** Where a transaction of a fiber belongs: the bound group, else that of the transaction around it, else the default. */
  engineForTransaction(
    fiber: AnyFiber,
    work: Work | undefined
  ): { readonly group: string; readonly engine: Engine } | RouterError.RouterError {
    const bound = fiber.getFiberRef(RoutingContext.bindGroup)
    const name = bound._tag === "Some" ? bound.value : (work?.level?.group ?? this.defaultGroup.name)
    if (work?.session?.ended === true) return RouterError.sessionClosed()
    // One snapshot, also for who reads it in a transaction.
    if (work?.session?.isSnapshot === true && work.level === undefined && bound._tag === "None") {
      return this.decide(fiber, work, "SELECT 1", "choose")
    }
    const test = this.testOf(fiber)
    if (test !== undefined) {
      return bound._tag === "Some" && !this.groups.has(bound.value)
        ? RouterError.unknownGroup(bound.value, [...this.groups.keys()])
        : { group: this.defaultGroup.name, engine: test }
    }
    const enclosing = work?.transaction(name) ?? work?.session?.current(name)
    if (enclosing !== undefined) return enclosing
    const group = this.groups.get(name)
    if (group === undefined) return RouterError.unknownGroup(name, [...this.groups.keys()])
    const engine = group.choose()
    return engine === undefined
      ? RouterError.noEngineAvailable(name, { why: group.whyNone() })
      : { group: name, engine }
  }

  /** What follows a COMMIT that succeeded. */
  afterCommit(transaction: Transaction): Effect.Effect<void> {
    return Effect.zipRight(
      transaction.wrote ? this.config.consistency.afterCommit : Effect.void,
      transaction.changedSchema ? this.classifier.refresh : Effect.void
    )
  }

  /** The names of all engines. */
  get engineNames(): ReadonlyArray<string> {
    return [...this.groups.values()].flatMap((group) => group.engines.map((engine) => engine.name))
  }

  /** The engine of a name. */
  engine(name: string): Engine | undefined {
    for (const group of this.groups.values()) {
      for (const engine of group.engines) {
        if (engine.name === name) return engine
      }
    }
    return undefined
  }

  /** The engine of the default group. */
  get primary(): Engine {
    return this.defaultGroup.engines[0]!
  }

  private streamRead(
    fiber: AnyFiber,
    decision: Decision,
    sql: string,
    params: ReadonlyArray<unknown>,
    span: Tracer.Span | undefined
  ): Stream.Stream<object, SqlError> {
    if (!decision.movable) return decision.engine.stream(sql, params)
    const move = this.mover(fiber, decision, sql)
    const from = (engine: Engine, movable: boolean): Stream.Stream<object, SqlError> =>
      catchBeforeRows(engine.stream(sql, params, movable), (error, emitted) => {
        // Once rows were emitted the error is the caller's; the next time a refused one is a write.
        if (emitted) return Stream.unwrap(Effect.as(this.rememberRefused(sql, error), Stream.fail(error)))
        return Stream.unwrap(Effect.map(move(engine, movable, error, span), (step) => from(step.engine, step.movable)))
      })
    return from(decision.engine, true)
  }

  private autocommit(
    fiber: AnyFiber,
    decision: Decision,
    request: Request,
    span: Tracer.Span | undefined
  ): Effect.Effect<Result, SqlError> {
    const { engine, kind, movable } = decision
    if (kind === "read") {
      const answered = this.read(fiber, engine, request, movable)
      if (!movable) return answered
      const move = this.mover(fiber, decision, request.sql)
      const next =
        (engine: Engine, movable: boolean) =>
        (error: SqlError): Effect.Effect<Result, SqlError> =>
          Effect.flatMap(move(engine, movable, error, span), (step) =>
            Effect.catchAll(this.read(fiber, step.engine, request, step.movable), next(step.engine, step.movable))
          )
      return Effect.catchAll(answered, next(engine, true))
    }
    const running = engine.query(request)
    if (kind === "session") {
      return running
    }
    return Effect.zipRight(
      this.config.consistency.afterWrite,
      decision.changesSchema ? Effect.zipLeft(running, this.classifier.refresh) : running
    )
  }

  private read(fiber: AnyFiber, engine: Engine, request: Request, movable: boolean): Effect.Effect<Result, SqlError> {
    const clock = clockOf(fiber)
    const began = clock.unsafeCurrentTimeNanos()
    return Effect.map(engine.query(request, movable), (result) => {
      engine.observeLatency(Number(clock.unsafeCurrentTimeNanos() - began) / 1e6)
      return result
    })
  }

  /** Where a read runs next that has failed on an engine; fails with what its caller gets when it does not. */
  private mover(fiber: AnyFiber, decision: Decision, sql: string) {
    let fallback: Fallback | undefined
    return (
      engine: Engine,
      isReplica: boolean,
      error: SqlError,
      span: Tracer.Span | undefined
    ): Effect.Effect<Step, SqlError> => {
      fallback ??= new Fallback(this.readGroup!, this.defaultGroup, this.config.onNoReplica === "primary")
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
            : Effect.zipRight(this.rememberRefused(sql, error), this.config.consistency.afterWrite)
        ),
        Effect.as(step)
      )
    }
  }

  /** Remembers as a write what a standby has refused as a standby. */
  private rememberRefused(sql: string, error: SqlError): Effect.Effect<void> {
    return Effect.sync(() => {
      const state = isStandbyRefusal(error)
      if (state !== undefined) this.classifier.remember(sql, `a standby refused it (${state})`)
    })
  }
}

const clockOf = (fiber: AnyFiber): Clock.Clock => Context.get(fiber.currentDefaultServices, Clock.Clock)

const onThePrimary = RoutingContext.locally({ _tag: "Primary" })

const catchBeforeRows = (
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

/** Says on a span where its statement went. Names of server attributes: OpenTelemetry's database conventions. */
export const annotate = (span: Tracer.Span | undefined, decision: Decision): void => {
  if (span === undefined) {
    return
  }
  const { address, name } = decision.engine
  span.attribute("db.router.group", decision.group)
  span.attribute("db.router.engine", name)
  span.attribute("db.router.kind", decision.kind)
  span.attribute("db.router.reason", decision.reason)
  if (address.host !== undefined) span.attribute("server.address", address.host)
  if (address.port !== undefined) span.attribute("server.port", address.port)
  if (decision.observed !== undefined) {
    span.attribute("db.router.observed.group", decision.observed.group)
    span.attribute("db.router.observed.engine", decision.observed.engine)
  }
}

/** The rows of a result, as `@effect/sql` wants them: an array of rows, or one for each statement of the text. */
export const rowsOf = (result: Result): ReadonlyArray<never> =>
  (Array.isArray(result) ? result.map((one) => one.rows ?? []) : ((result as { rows?: unknown }).rows ?? [])) as never

const wasRefused = (error: SqlError): boolean => Option.contains(RouterError.reasonOf(error), "SessionClosed")
