import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Config, type ConfigError, ConfigProvider, Duration, Effect, type Either, Option, type Redacted } from "effect"
import * as Consistency from "effect-db-router/Consistency"
import * as RouterConfig from "effect-db-router/RouterConfig"
import type * as RouterError from "effect-db-router/RouterError"
import * as Selector from "effect-db-router/Selector"

/** What `DbRouter.layerConfig` does with its argument. */
const unwrap = (wrapped: Config.Config.Wrap<RouterConfig.Options>): Config.Config<RouterConfig.Options> =>
  Config.unwrap(wrapped)

const variables = ConfigProvider.fromMap(
  new Map([
    ["PRIMARY", "postgresql://p/shop"],
    ["REPLICA", "postgresql://r/shop"],
    ["TIMEOUT", "3 seconds"]
  ])
)

const resolved = (wrapped: Config.Config.Wrap<RouterConfig.Options>) =>
  Effect.flatMap(unwrap(wrapped), RouterConfig.resolve).pipe(Effect.withConfigProvider(variables))

const groups = Config.all({
  default: Config.all([Config.all({ url: Config.redacted("PRIMARY") })]),
  read: Config.all([Config.all({ url: Config.redacted("REPLICA"), weight: Config.succeed(2) })])
})

describe("Config.Wrap<Options>", () => {
  it.effect("takes a Config for each field: functions, unions, secrets, lists", () =>
    Effect.gen(function* () {
      const config = yield* resolved({
        groups,
        strategy: Config.succeed(Selector.preferZone("eu", Selector.leastBusy)),
        consistency: Config.succeed(Consistency.eventual()),
        reads: Config.literal("automatic", "explicit", "observe")("READS").pipe(Config.withDefault("explicit")),
        prepare: Config.succeed({ maxPerConnection: 4 }),
        classifier: { cacheSize: Config.integer("CACHE").pipe(Config.withDefault(9)) },
        shutdownTimeout: Config.duration("TIMEOUT")
      })
      assert.strictEqual(config.groups.get("read")?.engines[0]?.weight, 2)
      assert.strictEqual(config.consistency.name, "eventual")
      assert.strictEqual(config.reads, "explicit")
      assert.strictEqual(config.classifier.cacheSize, 9)
      assert.strictEqual(Duration.toMillis(config.shutdownTimeout), 3_000)
    })
  )

  it.effect("takes one Config for everything, and an engine that is an Effect", () =>
    Effect.gen(function* () {
      const config = yield* resolved(
        Config.map(Config.redacted("PRIMARY"), (url) => ({
          groups: {
            default: [{ url, transformQueryNames: (name: string) => name }],
            read: [Effect.succeed({ url }), Effect.fail("no vault")]
          },
          prepare: false
        }))
      )
      assert.lengthOf(config.groups.get("read")?.engines ?? [], 2)
    })
  )

  it("refuses what is no option", () => {
    // @ts-expect-error an unknown strategy
    unwrap({ groups, strategy: Config.succeed("fastest") })
    // @ts-expect-error an unknown field
    unwrap({ groups, theme: Config.string("THEME") })
    // @ts-expect-error no groups
    unwrap({ enabled: Config.boolean("ENABLED") })
  })
})

describe("Options", () => {
  it("take what PgClient takes, values and Effects in one list", () => {
    expectTypeOf<PgClientConfig>().toMatchTypeOf<RouterConfig.EngineConfig>()
    const options: RouterConfig.Options = {
      groups: {
        default: [{ host: "a", idleTimeout: "1 second" }],
        read: [{ host: "b", name: "b", weight: 2, zone: "eu" }, Effect.succeed({ host: "c", zone: "us" })],
        analytics: []
      },
      shutdownTimeout: Duration.zero
    }
    assert.lengthOf(Object.keys(options.groups), 3)
  })

  it("refuse what is none", () => {
    const refuse = (_: RouterConfig.Options) => undefined
    // @ts-expect-error no groups
    refuse({})
    // @ts-expect-error a misspelt field of an engine
    refuse({ groups: { default: [{ host: "a", wieght: 2 }] } })
    // @ts-expect-error a secret that is none
    refuse({ groups: { default: [{ url: "postgresql://a/b" }] } })
    // @ts-expect-error an Effect that needs a service
    refuse({ groups: { default: [Effect.map(Effect.scope, () => ({ host: "a" }))] } })
    assert.isTrue(true)
  })
})

describe("the validated configuration", () => {
  it("has no option left open, and its client is a PgClientConfig", () => {
    expectTypeOf(RouterConfig.resolve).returns.toEqualTypeOf<
      Either.Either<RouterConfig.RouterConfig, RouterError.RouterConfigError>
    >()
    expectTypeOf<RouterConfig.ResolvedClient>().toMatchTypeOf<PgClientConfig>()
    expectTypeOf<RouterConfig.ResolvedClient["url"]>().toEqualTypeOf<Redacted.Redacted | undefined>()
    expectTypeOf<RouterConfig.RouterConfig["shutdownTimeout"]>().toEqualTypeOf<Duration.Duration>()
    expectTypeOf(RouterConfig.fromEnv).toEqualTypeOf<
      Effect.Effect<RouterConfig.Options, ConfigError.ConfigError | RouterError.RouterConfigError>
    >()
    expectTypeOf<RouterConfig.EngineEntry["config"]>().toEqualTypeOf<
      Effect.Effect<RouterConfig.ResolvedEngine, unknown>
    >()
  })

  it("names the reasons of a RouterError", () => {
    expectTypeOf<RouterError.RouterError["reason"]>().toEqualTypeOf<RouterError.Reason>()
    expectTypeOf<"UnknownGroup">().toMatchTypeOf<RouterError.Reason>()
    expectTypeOf(Option.none<RouterError.Reason>()).toEqualTypeOf<ReturnType<typeof RouterError.reasonOf>>()
  })
})
