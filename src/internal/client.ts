import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { Engine, ExclusiveConnection } from "../Engine.js"
import * as RoutingContext from "../RoutingContext.js"
import type { Request } from "./driver/pool.js"
import { batchSize } from "./driver/stream.js"
import { Hooks, type Outcome, type Outside } from "./hooks.js"
import * as listen from "./listen.js"
import { Lock } from "./lock.js"
import { reactive } from "./reactive.js"
import { type Router, rowsOf } from "./router.js"
import type { Target } from "./routes.js"
import { committing } from "./session.js"
import * as RoutedStatement from "./statement.js"
import * as TestConnection from "./testConnection.js"
import { Transaction } from "./transaction.js"
import { Work } from "./work.js"

type TransformRows = (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

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

/** Routes every statement, by the fiber that runs it. */
class RoutedConnection extends AnyConnection {
  constructor(
    private readonly runner: Runner,
    /** The transactions around it; `undefined` on the connection for everything else, which looks into the fiber. */
    readonly work: Work | undefined,
    /** The span of the one statement that it is for. */
    private readonly span?: Tracer.Span
  ) {
    super()
  }

  belongsTo(runner: Runner): boolean {
    return this.runner === runner
  }

  protected run(request: Request) {
    return Effect.withFiberRuntime<unknown, SqlError>((fiber) =>
      this.runner.router.execute(fiber, this.workOf(fiber), request, this.span)
    )
  }

  executeStream(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.unwrap(
      Effect.withFiberRuntime<Stream.Stream<object, SqlError>>((fiber) =>
        Effect.succeed(
          withTransform(
            this.runner.router.stream(fiber, (fiber) => this.workOf(fiber), sql, params, this.span),
            transformRows
          )
        )
      )
    )
  }

  private workOf(fiber: AnyFiber): Work | undefined {
    return this.work ?? this.runner.workOf(fiber)
  }
}

/** A connection that `reserve` gave out. Its writes count as writes of the flow. */
class ReservedConnection extends AnyConnection {
  private readonly statements = new Lock()
  /** Whether it may have written: any statement after that may be what commits it. */
  private wrote = false

  constructor(
    private readonly router: Router,
    private readonly engine: Engine,
    private readonly connection: ExclusiveConnection
  ) {
    super()
  }

  protected run(request: Request) {
    const running = Effect.mapError(
      this.statements.run(this.connection.query(request)),
      this.router.ofReserved(request.sql, this.engine)
    )
    return Effect.scoped(Effect.zipRight(this.noted(request.sql), running))
  }

  private noted(sql: string): Effect.Effect<void, never, Scope.Scope> {
    return Effect.suspend(() => {
      this.wrote ||= this.router.mayWrite(sql)
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
        const all = Stream.mapError(this.connection.stream(sql, params), this.router.ofReserved(sql, this.engine))
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

const workPrefix = "effect-db-router/Work/"

let runners = 0

const withoutWork = (context: Context.Context<never>): Map<string, unknown> => {
  const services = new Map(context.unsafeMap)
  for (const key of services.keys()) {
    if (key.startsWith(workPrefix)) services.delete(key)
  }
  if (services.get(SqlClient.TransactionConnection.key)?.[0] instanceof RoutedConnection) {
    services.delete(SqlClient.TransactionConnection.key)
  }
  return services
}

/** Runs an effect outside the transactions and sessions of every router. */
export const detached = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.mapInputContext(Effect.locally(effect, ambientWork, undefined), (context: Context.Context<R>) =>
    Context.unsafeMake<R>(withoutWork(context))
  )

/** Whether a fiber is in a session of any router. */
export const isInSession = (fiber: AnyFiber): boolean => {
  const isIn = (work: Work | undefined) =>
    work?.session !== undefined && !(work.session.ended && fiber.getFiberRef(outlivesSession))
  for (const [key, work] of fiber.currentContext.unsafeMap) {
    if (key.startsWith(workPrefix) && isIn(work as Work)) return true
  }
  return isIn(fiber.getFiberRef(ambientWork)?.work)
}

/**
 * Whether statements are autocommitted after the end of their session, instead of refused. For the body of a response: the
 * session ends before its first byte.
 */
export const outlivesSession = globalValue("effect-db-router/client/outlivesSession", () => FiberRef.unsafeMake(false))

/**
 * The session of a scope (`Session.scoped`). It cannot be in the context: what a scope changes there is undone too early or
 * too late.
 */
const ambientWork = globalValue("effect-db-router/client/ambientWork", () =>
  FiberRef.unsafeMake<{ readonly runner: Runner; readonly work: Work } | undefined>(undefined)
)

/**
 * Sets a FiberRef until the scope closes. Whoever closes the scope may be in another fiber, where nothing is to be undone.
 */
export const setScoped = <A>(ref: FiberRef.FiberRef<A>, value: A): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.flatMap(FiberRef.get(ref), (before) => Effect.as(FiberRef.set(ref, value), before)),
      (before) => FiberRef.update(ref, (now) => (now === value ? before : now))
    )
  )

/** The transactions of a router's client, and how they are found again in a fiber. */
export class Runner {
  // `@effect/sql` has one tag for the transactions of all clients. Ours is there too, for resolvers and for clients that
  // are to take part; a tag of our own finds it again below a transaction of somebody else.
  private readonly workKey = `${workPrefix}${++runners}`
  /** The connection for one statement: wherever the fiber that runs it says. */
  readonly connection = (span: Tracer.Span | undefined): Connection => new RoutedConnection(this, undefined, span)

  /** What all spans of this client say. */
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>

  constructor(readonly router: Router) {
    const { address, client } = router.primary
    this.spanAttributes = [
      ...Object.entries(client.spanAttributes ?? {}),
      ["db.system.name", "postgresql"],
      ["db.namespace", address.database ?? client.username ?? "postgres"]
    ]
  }

  /** The transactions and the session that a fiber is in. */
  workOf(fiber: AnyFiber): Work | undefined {
    const work = this.findWork(fiber)
    return work?.session?.ended === true && fiber.getFiberRef(outlivesSession) ? undefined : work
  }

  private findWork(fiber: AnyFiber): Work | undefined {
    const services = fiber.currentContext.unsafeMap
    // Resolvers bring only the tag of `@effect/sql` along, and ours from where they were made, if that was in a transaction.
    const transaction = services.get(SqlClient.TransactionConnection.key)
    const connection = transaction?.[0]
    if (connection instanceof RoutedConnection && connection.belongsTo(this)) {
      return connection.work
    }
    const own = services.get(this.workKey)
    if (own !== undefined) {
      return own
    }
    const ambient = fiber.getFiberRef(ambientWork)
    return ambient?.runner === this ? ambient.work : undefined
  }

  /** Puts this fiber into a session until the scope closes. */
  enter(work: Work): Effect.Effect<void, never, Scope.Scope> {
    return setScoped(ambientWork, { runner: this, work })
  }

  /** Runs an effect in the transactions and sessions that a fiber is in now, wherever it is called from. */
  placeOf(fiber: AnyFiber): Outside {
    const services = fiber.currentContext.unsafeMap
    const keys = [this.workKey, SqlClient.TransactionConnection.key]
    const ambient = fiber.getFiberRef(ambientWork)
    return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.mapInputContext(Effect.locally(effect, ambientWork, ambient), (context: Context.Context<R>) => {
        const there = new Map(context.unsafeMap)
        for (const key of keys) {
          if (services.has(key)) there.set(key, services.get(key))
          else there.delete(key)
        }
        return Context.unsafeMake<R>(there)
      })
  }

  /** Runs an effect with its statements inside a transaction or a session; `span`, if there is one, is that of it. */
  provideWork(
    work: Work,
    depth: number,
    span?: Tracer.Span
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> {
    const transaction = [new RoutedConnection(this, work), depth]
    // All at once: a change of the context costs about as much as a statement.
    return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.mapInputContext(insideTest(effect), (context: Context.Context<R>) => {
        const services = new Map(context.unsafeMap)
        services.set(this.workKey, work)
        services.set(SqlClient.TransactionConnection.key, transaction)
        if (span !== undefined) services.set(Tracer.ParentSpan.key, span)
        return Context.unsafeMake<R>(services)
      })
  }

  /** An effect for later, with the services of now and the transactions of then. */
  deferred<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Effect.Effect<A, E>, never, R> {
    return Effect.map(Effect.context<R>(), (now) =>
      Effect.mapInputContext(effect, (then: Context.Context<never>) => {
        const services = withoutWork(now)
        for (const key of [this.workKey, SqlClient.TransactionConnection.key]) {
          if (then.unsafeMap.has(key)) services.set(key, then.unsafeMap.get(key))
        }
        return Context.unsafeMake<R>(services)
      })
    )
  }

  /** A connection of one's own, from the group that the fiber is bound to, else from the default group. */
  readonly reserve: Effect.Effect<Connection, SqlError, Scope.Scope> = Effect.withFiberRuntime((fiber) =>
    Effect.flatMap(this.router.target(fiber, this.workOf(fiber)), ({ engine, group }) =>
      Effect.flatMap(Effect.scope, (scope) =>
        this.router.begun(group, engine, (engine) =>
          Effect.map(
            Scope.extend(engine.reserve, scope),
            (connection) => new ReservedConnection(this.router, engine, connection)
          )
        )
      )
    )
  )

  /**
   * Runs an effect in a transaction of the group that the fiber is bound to (else the default group), or in a savepoint
   * when there is one already. Commits on success, rolls back on failure, defect and interruption.
   */
  readonly withTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
      Effect.withFiberRuntime<A, E | SqlError, R>((fiber) => {
        const outer = this.workOf(fiber)
        return Effect.flatMap(this.router.target(fiber, outer), (target) =>
          this.within(target, fiber, outer, effect, span)
        )
      })
    )

  private within<A, E, R>(
    target: Target,
    fiber: AnyFiber,
    outer: Work | undefined,
    effect: Effect.Effect<A, E, R>,
    span: Tracer.Span
  ): Effect.Effect<A, E | SqlError, R> {
    for (const [key, value] of this.spanAttributes) span.attribute(key, value)
    span.attribute("db.router.group", target.group)
    span.attribute("db.router.engine", target.engine.name)
    const depth = this.depthOf(fiber)
    const hooks = new Hooks()
    const insideOf = (effect: Effect.Effect<A, E | SqlError, R>) => (level: Transaction) =>
      this.provideWork(new Work(outer?.session, level, hooks, outer), depth, span)(effect)
    const inside = insideOf(effect)
    const enclosing = outer?.transaction(target.group)
    if (outer !== undefined && enclosing !== undefined) {
      return withEvent(withHooks(enclosing.within(inside), hooks, outer.hooks), span, "savepoint")
    }
    if (outer?.session !== undefined) {
      // An early commit of another fiber may end the transaction before the savepoint is there.
      const root = this.router.begun(target.group, target.engine, (engine) =>
        outer.session!.transaction(target.group, engine)
      )
      const enter: Effect.Effect<A, E | SqlError, R> = Effect.flatMap(root, (root) => root.within(inside, enter))
      return withEvent(withHooks(enter, hooks, outer.hooks), span, "savepoint")
    }
    const whole = insideOf(Effect.zipLeft(effect, hooks.beforeCommit))
    return withEvent(insideTest(this.inTransaction(target, hooks, whole)), span, "commit")
  }

  private depthOf(fiber: AnyFiber): number {
    const transaction = fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key)
    return transaction === undefined ? 0 : transaction[1] + 1
  }

  private inTransaction<A, E, R>(
    { engine, group }: Target,
    hooks: Hooks,
    use: (level: Transaction) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | SqlError, R> {
    const begin = { begin: "BEGIN", settings: [], replaceable: false, mark: this.router.mark }
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.make(), (scope) => {
        let outcome: Outcome = "rolled back"
        const begun = this.router.begun(group, engine, (engine) =>
          Scope.extend(Transaction.begin(group, engine, begin), scope)
        )
        return restore(begun).pipe(
          Effect.flatMap((transaction) =>
            restore(use(transaction)).pipe(
              Effect.exit,
              Effect.flatMap((exit) =>
                Effect.zipRight(
                  Exit.isSuccess(exit)
                    ? committing(this.router, { transaction, scope }, transaction.commit, (became) => {
                        outcome = became
                      })
                    : transaction.rollback,
                  exit
                )
              )
            )
          ),
          Effect.onExit((exit) => Scope.close(scope, exit)),
          Effect.ensuring(Effect.suspend(() => hooks.close(outcome)))
        )
      })
    )
  }
}

// Outside tests there is nothing to nest, and a FiberRef less to set.
const insideTest = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) =>
    fiber.getFiberRef(TestConnection.currentNode) === undefined ? effect : TestConnection.inside(effect)
  )

/** Notes on the span how a transaction has ended, under the names that `@effect/sql` has for it. */
const withEvent = <A, E, R>(
  transaction: Effect.Effect<A, E, R>,
  span: Tracer.Span,
  success: "commit" | "savepoint"
): Effect.Effect<A, E, R> =>
  Effect.onExit(transaction, (exit) =>
    Effect.clockWith((clock) =>
      Effect.sync(() =>
        span.event(`db.transaction.${Exit.isSuccess(exit) ? success : "rollback"}`, clock.unsafeCurrentTimeNanos())
      )
    )
  )

// What a savepoint has asked for waits for the end of the transaction around it, and is dropped with it.
const withHooks = <A, E, R>(savepoint: Effect.Effect<A, E, R>, hooks: Hooks, outer: Hooks): Effect.Effect<A, E, R> =>
  Effect.onExit(savepoint, (exit) =>
    Exit.isSuccess(exit) ? Effect.sync(() => outer.absorb(hooks)) : hooks.close("rolled back")
  )

/** The routed client: everything that `SqlClient` and `PgClient` promise. */
export const make = (
  router: Router
): Effect.Effect<
  { readonly client: PgClient.PgClient; readonly runner: Runner },
  never,
  Reactivity.Reactivity | Scope.Scope
> =>
  Effect.gen(function* () {
    const runner = new Runner(router)
    yield* Effect.addFinalizer(() => router.close)
    const reactivity = yield* Reactivity.Reactivity
    const primary = router.primary
    const { transformJson, transformQueryNames, transformResultNames } = primary.client
    const compiler = PgClient.makeCompiler(transformQueryNames, transformJson)
    const transformRows = transformResultNames && Statement.defaultTransforms(transformResultNames, transformJson).array
    const { connection, spanAttributes } = runner
    const statements = (compiler: Statement.Compiler, transformRows: TransformRows) =>
      RoutedStatement.make({ connection, compiler, spanAttributes, transformRows })
    const listenTo = yield* listen.make(() => router.primary)
    const rest = {
      [SqlClient.TypeId as SqlClient.TypeId]: SqlClient.TypeId as SqlClient.TypeId,
      [PgClient.TypeId as PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      config: configOf(primary),
      withTransaction: runner.withTransaction,
      reserve: runner.reserve,
      ...reactive(reactivity),
      json: (value: unknown) => pgJson(value, undefined, undefined),
      listen: listenTo,
      notify: (channel: string, payload: string) =>
        plain.unsafe("SELECT pg_notify($1, $2)", [channel, payload]).unprepared.pipe(
          Statement.withTransformerDisabled,
          // Where `listen` listens, whatever the fiber is bound to.
          RoutingContext.locally({ _tag: "Group", name: router.config.defaultGroup }),
          Effect.asVoid
        )
    }
    const assemble = (sql: Statement.Constructor, withoutTransforms: () => PgClient.PgClient): PgClient.PgClient => {
      const client = Object.assign(sql, rest, { withoutTransforms, safe: undefined as unknown })
      client.safe = client
      return client as unknown as PgClient.PgClient
    }
    const plain: PgClient.PgClient =
      transformRows === undefined && transformQueryNames === undefined
        ? assemble(statements(compiler, undefined), () => plain)
        : assemble(statements(compiler.withoutTransform, undefined), () => plain)
    const client =
      transformRows === undefined && transformQueryNames === undefined
        ? plain
        : assemble(statements(compiler, transformRows), () => plain)
    return { client, runner }
  })

// `@effect/sql-pg` does not export its own; its compiler knows the fragment by this name.
const pgJson = Statement.custom<Statement.Custom<"PgJson", unknown>>("PgJson")

// As `@effect/sql-pg` has it: what reads this (`pg_dump` of its migrator) knows nothing of URLs.
const configOf = ({ address, client }: Engine): PgClient.PgClientConfig => {
  const url = client.url === undefined ? undefined : new URL(Redacted.value(client.url))
  const username = client.username ?? (url?.username ? decodeURIComponent(url.username) : undefined)
  const password = client.password ?? (url?.password ? Redacted.make(decodeURIComponent(url.password)) : undefined)
  return {
    ...client,
    username,
    password,
    host: client.host ?? address.host,
    port: client.port ?? address.port,
    database: client.database ?? address.database
  }
}
