import type { Reactivity } from "@effect/experimental"
import type { SqlClient, SqlConnection, SqlError } from "@effect/sql"
import type { PgClient } from "@effect/sql-pg"
import { type Config, type ConfigError, Effect, type Layer, pipe, type Scope, Stream } from "effect"
import { DbRouter, DbRouterLive, type RouterConfig, type RouterError, RoutingContext } from "effect-db-router"
import { describe, expectTypeOf, it } from "vitest"
import { type A, check, type E, effect, type R, stream } from "../support/typeTest.js"

type Services = DbRouter.DbRouter | SqlClient.SqlClient | PgClient.PgClient
type Failed = RouterError.RouterConfigError | SqlError.SqlError

describe("layers and constructors", () => {
  it(
    "provide the router and both clients, and need nothing",
    check(() => {
      expectTypeOf(DbRouter.layer).toEqualTypeOf<(options: RouterConfig.Options) => Layer.Layer<Services, Failed>>()
      expectTypeOf(DbRouter.layerConfig).toEqualTypeOf<
        (config: Config.Config.Wrap<RouterConfig.Options>) => Layer.Layer<Services, ConfigError.ConfigError | Failed>
      >()
      expectTypeOf(DbRouterLive).toEqualTypeOf<Layer.Layer<Services, ConfigError.ConfigError | Failed>>()
      expectTypeOf<DbRouter.Services>().toEqualTypeOf<Services>()
    })
  )

  it(
    "make is scoped",
    check(() => {
      expectTypeOf(DbRouter.make).returns.toEqualTypeOf<
        Effect.Effect<DbRouter.DbRouter, Failed, Scope.Scope | Reactivity.Reactivity>
      >()
    })
  )

  it(
    "a program needs no more than its client",
    check(() => {
      const program = Effect.flatMap(
        {} as Effect.Effect<SqlClient.SqlClient, never, SqlClient.SqlClient>,
        (sql) => sql`SELECT 1`
      )
      expectTypeOf(Effect.provide(program, DbRouterLive)).toEqualTypeOf<
        Effect.Effect<ReadonlyArray<SqlConnection.Row>, SqlError.SqlError | ConfigError.ConfigError | Failed>
      >()
    })
  )
})

describe("the service", () => {
  it(
    "asks for nothing, and fails with what it says",
    check(() => {
      expectTypeOf<DbRouter.DbRouter["client"]>().toEqualTypeOf<PgClient.PgClient>()
      expectTypeOf<DbRouter.DbRouter["explain"]>().toEqualTypeOf<
        (sql: string) => Effect.Effect<DbRouter.Explanation, RouterError.RouterError>
      >()
      expectTypeOf<DbRouter.DbRouter["status"]>().toEqualTypeOf<Effect.Effect<ReadonlyArray<DbRouter.EngineStatus>>>()
      type Named = (engine: string) => Effect.Effect<void, RouterError.RouterError>
      expectTypeOf<DbRouter.DbRouter["drain"]>().toEqualTypeOf<Named>()
      expectTypeOf<DbRouter.DbRouter["undrain"]>().toEqualTypeOf<Named>()
    })
  )
})

describe("combinators", () => {
  it(
    "leave an effect's type alone, data first and data last",
    check(() => {
      expectTypeOf(DbRouter.primary(effect)).toEqualTypeOf(effect)
      expectTypeOf(DbRouter.replica(effect)).toEqualTypeOf(effect)
      expectTypeOf(DbRouter.bindGroup(effect, "analytics")).toEqualTypeOf(effect)
      expectTypeOf(DbRouter.maxStaleness(effect, "1 second")).toEqualTypeOf(effect)
      expectTypeOf(effect.pipe(DbRouter.maxStaleness("1 second"))).toEqualTypeOf(effect)
      expectTypeOf(pipe(effect, DbRouter.primary, DbRouter.replica, DbRouter.bindGroup("analytics"))).toEqualTypeOf(
        effect
      )
      expectTypeOf(DbRouter.primary(Effect.never)).toEqualTypeOf<Effect.Effect<never>>()
    })
  )

  it(
    "leave a stream's type alone",
    check(() => {
      expectTypeOf(DbRouter.stream.primary(stream)).toEqualTypeOf(stream)
      expectTypeOf(DbRouter.stream.replica(stream)).toEqualTypeOf(stream)
      expectTypeOf(DbRouter.stream.bindGroup(stream, "analytics")).toEqualTypeOf(stream)
      expectTypeOf(DbRouter.stream.maxStaleness(stream, "1 second")).toEqualTypeOf(stream)
      expectTypeOf(stream.pipe(DbRouter.stream.maxStaleness("1 second"))).toEqualTypeOf(stream)
      expectTypeOf(
        pipe(stream, DbRouter.stream.primary, DbRouter.stream.replica, DbRouter.stream.bindGroup("analytics"))
      ).toEqualTypeOf(stream)
      expectTypeOf(DbRouter.stream.primary(Stream.empty)).toEqualTypeOf<Stream.Stream<never>>()
    })
  )

  it(
    "that change the flow need nothing and cannot fail",
    check(() => {
      expectTypeOf(DbRouter.reset).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(RoutingContext.setStickyPrimary).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(RoutingContext.clearStickyPrimary).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(RoutingContext.shouldUsePrimary).toEqualTypeOf<Effect.Effect<boolean>>()
    })
  )

  it(
    "refuse what they cannot take",
    check(() => {
      // @ts-expect-error a group has a name
      DbRouter.bindGroup(effect, 1)
      // @ts-expect-error a bound is a duration
      DbRouter.maxStaleness(effect, "soon")
      // @ts-expect-error a stream has combinators of its own
      DbRouter.primary(stream)
      // @ts-expect-error groups are required
      DbRouter.layer({})
    })
  )
})

describe("the routed client", () => {
  it(
    "has the types of the plain one",
    check(() => {
      const sql = {} as DbRouter.DbRouter["client"]
      expectTypeOf(sql.withTransaction(effect)).toEqualTypeOf<Effect.Effect<A, E | SqlError.SqlError, R>>()
      expectTypeOf(sql<A>`SELECT 1`.stream).toEqualTypeOf<Stream.Stream<A, SqlError.SqlError>>()
      expectTypeOf(sql.listen("channel")).toEqualTypeOf<Stream.Stream<string, SqlError.SqlError>>()
      expectTypeOf(sql.notify("channel", "payload")).toEqualTypeOf<Effect.Effect<void, SqlError.SqlError>>()
    })
  )
})
