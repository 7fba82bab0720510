import { SqlError } from "@effect/sql"
import {
  type ConfigError,
  Effect,
  type FiberRef,
  type Layer,
  type Metric,
  type Option,
  type Scope,
  type Stream
} from "effect"
import {
  Consistency,
  type DbRouter,
  Doctor,
  type Health,
  RouterConfig,
  RouterError,
  RoutingContext,
  Selector,
  SqlClassifier,
  Telemetry
} from "effect-db-router"
import { PgCluster, TestSession } from "effect-db-router/testing"
import { describe, expectTypeOf, it } from "vitest"
import { type A, check, type E, effect, type R, stream } from "../support/typeTest.js"

describe("the routing context", () => {
  it(
    "leaves the types of effects and streams alone, data first and data last",
    check(() => {
      const target: RoutingContext.Target = { _tag: "Group", name: "analytics" }
      expectTypeOf(RoutingContext.locally(effect, target)).toEqualTypeOf(effect)
      expectTypeOf(effect.pipe(RoutingContext.locally({ _tag: "Primary" }))).toEqualTypeOf(effect)
      expectTypeOf(RoutingContext.locallyStream(stream, target)).toEqualTypeOf(stream)
      expectTypeOf(stream.pipe(RoutingContext.locallyStream({ _tag: "Replica" }))).toEqualTypeOf(stream)
      expectTypeOf(RoutingContext.locallyMaxStaleness(effect, 1)).toEqualTypeOf(effect)
      expectTypeOf(effect.pipe(RoutingContext.locallyMaxStaleness(1))).toEqualTypeOf(effect)
      expectTypeOf(RoutingContext.locallyMaxStalenessStream(stream, 1)).toEqualTypeOf(stream)
      expectTypeOf(stream.pipe(RoutingContext.locallyMaxStalenessStream(1))).toEqualTypeOf(stream)
      expectTypeOf(RoutingContext.fresh(effect, { shared: true })).toEqualTypeOf(effect)
    })
  )

  it(
    "is made of FiberRefs",
    check(() => {
      expectTypeOf(RoutingContext.stickToPrimary).toEqualTypeOf<FiberRef.FiberRef<boolean>>()
      expectTypeOf(RoutingContext.forcePrimary).toEqualTypeOf<FiberRef.FiberRef<boolean>>()
      expectTypeOf(RoutingContext.preferReplica).toEqualTypeOf<FiberRef.FiberRef<boolean>>()
      expectTypeOf(RoutingContext.bindGroup).toEqualTypeOf<FiberRef.FiberRef<Option.Option<string>>>()
      expectTypeOf(RoutingContext.maxStaleness).toEqualTypeOf<FiberRef.FiberRef<number>>()
      // @ts-expect-error no such target
      RoutingContext.locally(effect, { _tag: "Standby" })
    })
  )
})

describe("policies and strategies", () => {
  it(
    "are values",
    check(() => {
      expectTypeOf(Consistency.causal({ wait: "1 second", scope: "process" })).toEqualTypeOf<Consistency.Consistency>()
      expectTypeOf(Consistency.sticky({ resetOnCommit: false })).toEqualTypeOf<Consistency.Consistency>()
      expectTypeOf(Consistency.window("2 seconds")).toEqualTypeOf<Consistency.Consistency>()
      expectTypeOf(Consistency.eventual()).toEqualTypeOf<Consistency.Consistency>()
      expectTypeOf(Selector.preferZone("eu", Selector.random)).toEqualTypeOf<Selector.Strategy>()
      expectTypeOf(
        Selector.make(
          "first",
          () =>
            ([first]) =>
              first!
        )
      ).toEqualTypeOf<Selector.Strategy>()
    })
  )

  it(
    "refuse what there is not",
    check(() => {
      // @ts-expect-error no such scope
      Consistency.causal({ scope: "cluster" })
      // @ts-expect-error a window has a duration
      Consistency.window()
      // @ts-expect-error chooses one of the candidates
      Selector.make("none", () => () => undefined)
    })
  )
})

describe("the classifier", () => {
  it(
    "answers at once, and fails as its catalog does",
    check(() => {
      expectTypeOf(SqlClassifier.make).toEqualTypeOf<Effect.Effect<SqlClassifier.SqlClassifier>>()
      expectTypeOf<SqlClassifier.SqlClassifier["classify"]>().returns.toEqualTypeOf<SqlClassifier.Classification>()
      expectTypeOf<SqlClassifier.StatementKind>().toEqualTypeOf<"read" | "write" | "session">()
      const load = SqlClassifier.readCatalog((_sql) => Effect.as(effect, [{}]))
      expectTypeOf(load).toEqualTypeOf<Effect.Effect<SqlClassifier.Catalog, E, R>>()
      const catalog = {} as Effect.Effect<SqlClassifier.Catalog, E>
      expectTypeOf(SqlClassifier.fromCatalog({ load: catalog })).toEqualTypeOf<
        Effect.Effect<SqlClassifier.SqlClassifier, E, Scope.Scope>
      >()
    })
  )
})

describe("errors", () => {
  it(
    "can be found in any error",
    check(() => {
      const error = new SqlError.SqlError({ cause: undefined })
      expectTypeOf(RouterError.reasonOf(error)).toEqualTypeOf<Option.Option<RouterError.Reason>>()
      expectTypeOf(RouterError.fromSqlError(error)).toEqualTypeOf<Option.Option<RouterError.RouterError>>()
      expectTypeOf(RouterError.outcomeOf(error)).toEqualTypeOf<RouterError.KnownOutcome>()
      expectTypeOf(RouterError.toSqlError).toEqualTypeOf<(error: RouterError.RouterError) => SqlError.SqlError>()
      expectTypeOf<RouterError.RouterConfigError["_tag"]>().toEqualTypeOf<"RouterConfigError">()
      expectTypeOf<RouterError.RouterConfigError["code"]>().toEqualTypeOf<"DB_ROUTER_CONFIG">()
      expectTypeOf<RouterError.RouterError["code"]>().toExtend<`DB_ROUTER_${string}`>()
    })
  )
})

describe("the doctor", () => {
  it(
    "fails for wrong options only, and needs the router only to explain",
    check(() => {
      const options = {} as RouterConfig.Options
      expectTypeOf(Doctor.check(options)).toEqualTypeOf<Effect.Effect<Doctor.Report, RouterError.RouterConfigError>>()
      expectTypeOf(Effect.flatMap(RouterConfig.fromEnv, (env) => Doctor.check(env, { instances: 2 }))).toEqualTypeOf<
        Effect.Effect<Doctor.Report, RouterError.RouterConfigError | ConfigError.ConfigError>
      >()
      expectTypeOf(Doctor.explain(["SELECT 1"])).toEqualTypeOf<
        Effect.Effect<ReadonlyArray<Doctor.Explained>, never, DbRouter.DbRouter>
      >()
      expectTypeOf(Doctor.statementsOf("")).toEqualTypeOf<Effect.Effect<ReadonlyArray<string>>>()
      expectTypeOf(Doctor.render).toEqualTypeOf<(report: Doctor.Report) => string>()
    })
  )
})

describe("the service", () => {
  it(
    "tells what happens as a stream that never fails, and moves engines",
    check(() => {
      expectTypeOf<DbRouter.DbRouter["events"]>().toEqualTypeOf<Stream.Stream<Health.Event>>()
      expectTypeOf<DbRouter.DbRouter["rebind"]>().returns.toEqualTypeOf<
        Effect.Effect<void, RouterError.RouterError | RouterError.RouterConfigError | SqlError.SqlError>
      >()
      expectTypeOf<DbRouter.DbRouter["rebind"]>().parameters.toEqualTypeOf<[string, RouterConfig.EngineInput]>()
    })
  )
})

describe("metrics", () => {
  it(
    "are Effect's own, and their labels have names that are known",
    check(() => {
      expectTypeOf(Telemetry.statements).toEqualTypeOf<Metric.Metric.Counter<number>>()
      expectTypeOf(Telemetry.duration).toEqualTypeOf<Metric.Metric.Histogram<number>>()
      expectTypeOf(Telemetry.lagDuration).toEqualTypeOf<Metric.Metric.Gauge<number>>()
      expectTypeOf(Telemetry.attributes.engine).toEqualTypeOf<"db.router.engine">()
      expectTypeOf<Telemetry.Rule>().toEqualTypeOf<keyof typeof Telemetry.rules>()
    })
  )
})

describe("what tests use", () => {
  it(
    "says what it needs and how it fails",
    check(() => {
      expectTypeOf(PgCluster.layer({ replicas: 2 })).toEqualTypeOf<
        Layer.Layer<PgCluster.PgCluster, PgCluster.PgClusterError>
      >()
      expectTypeOf(PgCluster.make()).toEqualTypeOf<
        Effect.Effect<PgCluster.Cluster, PgCluster.PgClusterError, Scope.Scope>
      >()
      expectTypeOf(TestSession.rollback(effect)).toEqualTypeOf<
        Effect.Effect<A, E | SqlError.SqlError, R | DbRouter.DbRouter>
      >()
      expectTypeOf(TestSession.layer).toEqualTypeOf<Layer.Layer<never, SqlError.SqlError, DbRouter.DbRouter>>()
      // @ts-expect-error a number of replicas
      PgCluster.layer({ replicas: "two" })
    })
  )
})
