/**
 * The router: a service that sends every statement of the routed `SqlClient` to the right server, the layers that provide
 * it, and the combinators that say otherwise.
 *
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Engine from "./Engine.js"
import * as build from "./internal/client/compose.js"
import * as service from "./internal/client/service.js"
import type { Runner } from "./internal/client/transactionRunner.js"
import type { Monitor } from "./internal/health/monitor.js"
import * as bounded from "./internal/util/bounded.js"
import * as RouterConfig from "./RouterConfig.js"
import * as RouterError from "./RouterError.js"
import * as RoutingContext from "./RoutingContext.js"

/**
 * The service: `explain`, `status`, `drain`, `undrain`, and the routed `client`.
 *
 * @since 0.1.0
 * @category models
 */
export interface DbRouter extends service.DbRouter {}

/**
 * @since 0.1.0
 * @category tags
 */
export const DbRouter: Context.Tag<DbRouter, DbRouter> = service.DbRouter

/**
 * The route of a statement, with its reason.
 *
 * @since 0.1.0
 * @category models
 */
export type Explanation = service.Explanation

/**
 * The present state of an engine.
 *
 * @since 0.1.0
 * @category models
 */
export type EngineStatus = service.EngineStatus

/**
 * The services of every layer of the router: the router, a routed `SqlClient` and a routed `PgClient`.
 *
 * @since 0.1.0
 * @category models
 */
export type Services = DbRouter | SqlClient.SqlClient | PgClient.PgClient

/**
 * Makes a router and its routed client. Pools open when statements need them; the catalog is read from the primary at
 * once, so a primary that cannot be reached is a `SqlError` here. When the scope closes, running work gets up to
 * `shutdownTimeout` to end, and every connection is closed.
 *
 * A `SqlClassifier` in the context replaces the default one.
 *
 * @example
 * ```ts
 * import { Reactivity } from "@effect/experimental"
 * import { Effect, Redacted } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * const url = Redacted.make("postgresql://shop@db1/shop")
 *
 * // A second router beside the one of the context: use its client directly.
 * const count = Effect.flatMap(DbRouter.make({ groups: { default: [{ url }] } }), ({ client: sql }) =>
 *   sql`SELECT count(*) FROM invoice`
 * ).pipe(Effect.scoped, Effect.provide(Reactivity.layer))
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: RouterConfig.Options
): Effect.Effect<DbRouter, RouterError.RouterConfigError | SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function* () {
    yield* RoutingContext.separateLayers
    const config = yield* RouterConfig.resolve(options)
    const parts = yield* build.make(config)
    const closing = yield* Deferred.make<void>()
    yield* Effect.addFinalizer(() => Deferred.succeed(closing, undefined))
    return fromParts(parts, closing)
  })

const fromParts = (
  { client, monitor, primaryClient, runner, tokens }: Effect.Effect.Success<ReturnType<typeof build.make>>,
  closing: Deferred.Deferred<void>
): DbRouter => {
  const { router } = runner
  const engineOf = (name: string) =>
    Effect.flatMap(Deferred.isDone(closing), (isClosing) => {
      if (isClosing) return Effect.fail(RouterError.routerClosed())
      const engine = router.engine(name)
      return engine === undefined
        ? Effect.fail(RouterError.unknownEngine(name, router.engineNames))
        : Effect.succeed(engine)
    })
  const setDrained = (name: string, drained: boolean) =>
    Effect.flatMap(engineOf(name), (engine) => monitor.setDrained(engine, drained))
  const made: DbRouter = {
    runner,
    client,
    primaryClient,
    explain: (sql) =>
      Effect.withFiberRuntime((fiber) => {
        const decision = router.decide(fiber, runner.workOf(fiber), sql, "peek")
        if (RouterError.isRouterError(decision)) return Effect.fail(decision)
        const { engine, group, kind, observed, reason } = decision
        return Effect.succeed({ group, engine: engine.name, kind, reason, observed })
      }),
    status: Effect.sync(() =>
      [...router.groups.values()].flatMap((group) => group.engines.map((engine) => service.statusOf(group, engine)))
    ),
    rebind: (name, config) =>
      Effect.flatMap(engineOf(name), (engine) => rebind(router, monitor, engine, config, closing)),
    events: Stream.fromPubSub(monitor.events),
    drain: (engine) => setDrained(engine, true),
    undrain: (engine) => setDrained(engine, false)
  }
  tokens.serve(made, client, primaryClient)
  return made
}

/** A wait that ends as soon as the router begins to close. */
const whileOpen = <A, E>(wait: Effect.Effect<A, E>, closing: Deferred.Deferred<void>): Effect.Effect<A, E | SqlError> =>
  Effect.flatMap(
    bounded.until(wait, Deferred.await(closing)),
    (answer): Effect.Effect<A, E | SqlError> =>
      answer.state === "late" ? Effect.fail(RouterError.toSqlError(RouterError.routerClosed())) : answer.exit
  )

const rebind = (
  router: Runner["router"],
  monitor: Monitor,
  engine: Engine.Engine,
  config: RouterConfig.EngineInput,
  closing: Deferred.Deferred<void>
): Effect.Effect<void, RouterError.RouterConfigError | SqlError> =>
  Effect.gen(function* () {
    const field = `rebind(${JSON.stringify(engine.name)})`
    const given = Effect.isEffect(config)
      ? yield* whileOpen(build.configuredSoon(config, engine.name), closing)
      : config
    const resolved = yield* RouterConfig.resolveEngine({ field, name: engine.name }, { ...given, name: engine.name })
    yield* RouterConfig.checkTransforms(router.primary, resolved, field)
    yield* monitor.rebind(engine, resolved)
    if (engine === router.primary) yield* router.classifier.refresh
  })

const fromOptions = <E>(
  options: Effect.Effect<RouterConfig.Options, E>
): Layer.Layer<Services, E | RouterError.RouterConfigError | SqlError> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const router = yield* make(yield* options)
      return Context.make(DbRouter, router).pipe(
        Context.add(SqlClient.SqlClient, router.client),
        Context.add(PgClient.PgClient, router.client)
      )
    })
  ).pipe(Layer.provide(Reactivity.layer))

/**
 * The client of the router in the context with every statement sent to the primary, over the same connections and in the same
 * sessions: for parts that write in one fiber, or process, and read in another one what nothing tells that fiber of. Such are the
 * storages of `@effect/sql` and `@effect/cluster` (`SqlEventLogServer`, `SqlPersistedQueue`, `SqlMessageStorage`, `SqlRunnerStorage`). What they write counts in the flow of the program, too.
 *
 * @example
 * ```ts
 * import { SqlEventLogServer } from "@effect/sql"
 * import { Layer } from "effect"
 * import { DbRouter, DbRouterLive } from "effect-db-router"
 *
 * // The storage reads where it writes; the program's own reads still go to replicas.
 * const Live = SqlEventLogServer.layerStorageSubtle().pipe(
 *   Layer.provide(DbRouter.layerPrimary),
 *   Layer.provideMerge(DbRouterLive)
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPrimary: Layer.Layer<SqlClient.SqlClient | PgClient.PgClient, never, DbRouter> = Layer.effectContext(
  Effect.map(DbRouter, ({ primaryClient }) =>
    Context.make(SqlClient.SqlClient, primaryClient).pipe(Context.add(PgClient.PgClient, primaryClient))
  )
)

/**
 * The router from a value.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { Consistency, DbRouter, Selector } from "effect-db-router"
 *
 * const url = (host: string) => Redacted.make(`postgresql://shop@${host}/shop`)
 *
 * const RouterLive = DbRouter.layer({
 *   groups: {
 *     default: [{ url: url("db1") }],
 *     read: [{ url: url("db2") }, { url: url("db3"), weight: 2 }],
 *     analytics: [{ url: url("db4") }]
 *   },
 *   strategy: Selector.leastBusy,
 *   consistency: Consistency.causal({ wait: "20 millis" })
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: RouterConfig.Options): Layer.Layer<Services, RouterError.RouterConfigError | SqlError> =>
  fromOptions(Effect.succeed(options))

/**
 * The router from `Config`: a `Config` of the options, or the options with a `Config` in any place.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * const RouterLive = DbRouter.layerConfig({
 *   groups: Config.all({
 *     default: Config.all([Config.all({ url: Config.redacted("PRIMARY_URL") })]),
 *     read: Config.all([Config.all({ url: Config.redacted("REPLICA_URL"), zone: Config.string("ZONE") })])
 *   }),
 *   hedge: Config.duration("HEDGE").pipe(Config.withDefault(undefined))
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config.Wrap<RouterConfig.Options>
): Layer.Layer<Services, ConfigError | RouterError.RouterConfigError | SqlError> => fromOptions(Config.unwrap(config))

/**
 * The router from environment variables: `DATABASE_URL`, `DATABASE_REPLICA_URLS`, `DATABASE_GROUPS`, `DB_ROUTER_*`. The
 * README has the table.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { DbRouterLive } from "effect-db-router"
 *
 * // DATABASE_URL=postgres://... DATABASE_REPLICA_URLS=postgres://...,postgres://...
 * const names = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT name FROM customer`).pipe(
 *   Effect.provide(DbRouterLive)
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEnv: Layer.Layer<Services, ConfigError | RouterError.RouterConfigError | SqlError> = fromOptions(
  RouterConfig.fromEnv
)

/**
 * Sends every statement of an effect to the default group.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * declare const report: Effect.Effect<number>
 *
 * const exact = DbRouter.primary(report)
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const primary: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = RoutingContext.locally({
  _tag: "Primary"
})

/**
 * Sends the reads of an effect to the replicas, even after a write of the same flow. Writes still go to the primary, and
 * still stick afterwards.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * declare const report: Effect.Effect<number>
 *
 * const recent = report.pipe(DbRouter.replica)
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const replica: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = RoutingContext.locally({
  _tag: "Replica"
})

/**
 * Sends every statement of an effect to a group. A group that does not exist fails the statement with the reason
 * `UnknownGroup`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * declare const report: Effect.Effect<number>
 *
 * const heavy = report.pipe(DbRouter.bindGroup("analytics"))
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const bindGroup: {
  (group: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, group: string): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, group: string) =>
  RoutingContext.locally(self, { _tag: "Group", name: group })
)

/**
 * Lets the reads of an effect go only to replicas whose data are known to be no older than that: the replica's lag at its last
 * probe, and the age of what that was measured by, are within the bound. Else they go to the primary. So a bound that is
 * shorter than the interval of the probes (`health.interval`) often means the primary.
 *
 * Holds under every consistency policy, and inside `replica`. Statements in transactions, and in a bind group, are not affected.
 * The innermost bound holds.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * declare const report: Effect.Effect<number>
 *
 * const fresh = report.pipe(DbRouter.maxStaleness("5 seconds"))
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const maxStaleness: {
  (bound: Duration.DurationInput): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, bound: Duration.DurationInput): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, bound: Duration.DurationInput) =>
  RoutingContext.locallyMaxStaleness(self, Duration.toMillis(bound))
)

/**
 * Puts the routing of this flow back to the defaults: not forced, not bound, not sticky after its writes.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * // Each job begins as if there had been no other.
 * const worker = (job: Effect.Effect<void>) => Effect.forever(Effect.zipRight(DbRouter.reset, job))
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const reset: Effect.Effect<void> = RoutingContext.reset

/**
 * The same combinators for streams.
 *
 * @example
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect, Stream } from "effect"
 * import { DbRouter } from "effect-db-router"
 *
 * const exported = Stream.unwrap(Effect.map(SqlClient.SqlClient, (sql) => sql`SELECT * FROM invoice`.stream)).pipe(
 *   DbRouter.stream.bindGroup("analytics")
 * )
 * ```
 *
 * @since 0.1.0
 * @category routing
 */
export const stream: {
  readonly primary: <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  readonly replica: <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  readonly bindGroup: {
    (group: string): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
    <A, E, R>(self: Stream.Stream<A, E, R>, group: string): Stream.Stream<A, E, R>
  }
  readonly maxStaleness: {
    (bound: Duration.DurationInput): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
    <A, E, R>(self: Stream.Stream<A, E, R>, bound: Duration.DurationInput): Stream.Stream<A, E, R>
  }
} = {
  primary: RoutingContext.locallyStream({ _tag: "Primary" }),
  replica: RoutingContext.locallyStream({ _tag: "Replica" }),
  bindGroup: dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, group: string) =>
    RoutingContext.locallyStream(self, { _tag: "Group", name: group })
  ),
  maxStaleness: dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, bound: Duration.DurationInput) =>
    RoutingContext.locallyMaxStalenessStream(self, Duration.toMillis(bound))
  )
}

export {
  /**
   * @example
   * ```ts
   * import { SqlClient } from "@effect/sql"
   * import { Effect } from "effect"
   * import { DbRouter } from "effect-db-router"
   *
   * const order = Effect.gen(function* () {
   *   const sql = yield* SqlClient.SqlClient
   *   yield* sql`INSERT INTO invoice (total) VALUES (10)`
   *   yield* DbRouter.afterCommit(Effect.log("sent")) // not if the COMMIT fails
   * }).pipe(DbRouter.session())
   * ```
   *
   * @since 0.1.0
   * @category hooks
   */
  afterCommit,
  /**
   * @since 0.1.0
   * @category hooks
   */
  afterRollback,
  /**
   * @since 0.1.0
   * @category sessions
   */
  atomic,
  /**
   * @example
   * ```ts
   * import { SqlClient } from "@effect/sql"
   * import { Effect } from "effect"
   * import { DbRouter } from "effect-db-router"
   *
   * // Fails, and rolls back, where what the session has written does not add up.
   * const balanced = Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.beforeCommit(sql`SELECT assert_balanced()`))
   * ```
   *
   * @since 0.1.0
   * @category hooks
   */
  beforeCommit,
  /**
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { DbRouter } from "effect-db-router"
   *
   * // No connection is held while another service is waited for.
   * const pay = (write: Effect.Effect<void>, service: Effect.Effect<void>) =>
   *   Effect.all([write, DbRouter.commit, DbRouter.close, service, write]).pipe(DbRouter.session())
   * ```
   *
   * @since 0.1.0
   * @category early
   */
  close,
  /**
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { DbRouter } from "effect-db-router"
   *
   * // What the first batch has written is there, even if the second one fails.
   * const batches = (batch: Effect.Effect<void>) =>
   *   Effect.all([batch, DbRouter.commit, batch]).pipe(DbRouter.session())
   *
   * const onlyAnalytics = DbRouter.commit("analytics")
   * ```
   *
   * @since 0.1.0
   * @category early
   */
  commit,
  /**
   * @since 0.1.0
   * @category sessions
   */
  detached,
  /**
   * @since 0.1.0
   * @category sessions
   */
  isInSession,
  /**
   * @since 0.1.0
   * @category sessions
   */
  newSession,
  /**
   * @since 0.1.0
   * @category sessions
   */
  readOnly,
  /**
   * @since 0.1.0
   * @category early
   */
  rollback,
  /**
   * @since 0.1.0
   * @category sessions
   */
  session
} from "./Session.js"
