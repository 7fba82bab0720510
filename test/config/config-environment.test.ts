import { assert, describe, it } from "@effect/vitest"
import { ConfigError, ConfigProvider, Duration, Effect, Either, Redacted } from "effect"
import * as RouterConfig from "effect-db-router/RouterConfig"
import * as RouterError from "effect-db-router/RouterError"
import * as Selector from "effect-db-router/Selector"
import * as Token from "effect-db-router/Token"

const required = { DATABASE_URL: "postgresql://app:hunter2@primary/shop" }

const load = (provider: ConfigProvider.ConfigProvider) =>
  Effect.flatMap(RouterConfig.fromEnv, (options) =>
    Effect.map(RouterConfig.resolve(options), (config) => ({ config, options }))
  ).pipe(Effect.withConfigProvider(provider))

const from = (variables: Record<string, string>) => load(ConfigProvider.fromMap(new Map(Object.entries(variables))))

const refused = (variables: Record<string, string>) =>
  Effect.map(Effect.flip(from({ ...required, ...variables })), (error) => {
    assert.instanceOf(error, RouterError.RouterConfigError)
    assert.notInclude(error.message, "hunter2")
    return error
  })

const urlsOf = (config: RouterConfig.RouterConfig, group: string) =>
  config.groups.get(group)?.engines.map(({ known }) => known?.client.url && Redacted.value(known.client.url))

describe("servers in the environment", () => {
  it.effect("DATABASE_URL alone is a plain client", () =>
    Effect.gen(function* () {
      const { config, options } = yield* from(required)
      assert.deepStrictEqual(urlsOf(config, "default"), [required.DATABASE_URL])
      assert.isUndefined(config.readGroup)
      assert.deepStrictEqual(Object.keys(options.groups), ["default"])
    })
  )

  it.effect("DATABASE_REPLICA_URLS, DATABASE_GROUPS and DATABASE_<NAME>_URLS list the others", () =>
    Effect.gen(function* () {
      const { config } = yield* from({
        DATABASE_URL: "postgresql://primary/shop?name=main",
        DATABASE_REPLICA_URLS:
          " postgresql://r1/shop?weight=3&zone=eu-1&sslmode=require , postgresql://u:a%2Cb@r2/shop,\n",
        DATABASE_GROUPS: "analytics, back-office",
        DATABASE_ANALYTICS_URLS: "postgresql://a1/shop",
        DATABASE_BACK_OFFICE_URLS: "postgresql://b1/shop,postgresql://b2/shop"
      })
      assert.deepStrictEqual([...config.groups.keys()], ["default", "read", "analytics", "back-office"])
      assert.deepStrictEqual(urlsOf(config, "default"), ["postgresql://primary/shop"])
      assert.deepStrictEqual(urlsOf(config, "read"), [
        "postgresql://r1/shop?sslmode=require",
        "postgresql://u:a%2Cb@r2/shop"
      ])
      assert.deepStrictEqual(urlsOf(config, "back-office"), ["postgresql://b1/shop", "postgresql://b2/shop"])
      const [first, second] = config.groups.get("read")!.engines
      assert.deepStrictEqual([first?.name, first?.weight, first?.zone], ["read-1", 3, "eu-1"])
      assert.deepStrictEqual([second?.name, second?.weight, second?.zone], ["read-2", 1, undefined])
      assert.strictEqual(config.groups.get("default")?.engines[0]?.name, "main")
      assert.strictEqual(config.readGroup, "read")
    })
  )

  it.effect("an empty variable is a missing one", () =>
    Effect.gen(function* () {
      const { config } = yield* from({
        ...required,
        DATABASE_REPLICA_URLS: " ",
        DATABASE_GROUPS: "",
        DB_ROUTER_READS: "",
        DB_ROUTER_MAX_CONNECTIONS: ""
      })
      assert.isUndefined(config.readGroup)
      assert.strictEqual(config.reads, "automatic")
    })
  )

  for (const [what, variables, missing] of [
    ["no DATABASE_URL", {}, "DATABASE_URL"],
    ["an empty DATABASE_URL", { DATABASE_URL: "" }, "DATABASE_URL"],
    ["a group without its servers", { ...required, DATABASE_GROUPS: "analytics" }, "DATABASE_ANALYTICS_URLS"]
  ] as const) {
    it.effect(`${what} is a ConfigError that names the variable`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(from(variables))
        assert.isTrue(ConfigError.isConfigError(error))
        assert(error._tag === "ConfigError" && error._op === "MissingData")
        assert.deepStrictEqual(error.path, [missing])
      })
    )
  }

  for (const [what, variables, variable, says] of [
    ["a bad DATABASE_URL", { DATABASE_URL: "mysql://app:hunter2@db" }, "DATABASE_URL", "must begin with postgresql://"],
    [
      "a bad replica",
      { DATABASE_REPLICA_URLS: "postgresql://r1/shop,postgresql://app:hun/ter2@r2" },
      "DATABASE_REPLICA_URLS[1]",
      "groups.read[1].url"
    ],
    [
      "a bad weight",
      { DATABASE_GROUPS: "a-b", DATABASE_A_B_URLS: "postgresql://r1/shop?weight=none" },
      "DATABASE_A_B_URLS[0]",
      'groups["a-b"][0].weight): "none"'
    ],
    [
      "a name that is taken",
      { DATABASE_REPLICA_URLS: "postgresql://r1/shop?name=default-1" },
      "DATABASE_REPLICA_URLS[0]",
      "groups.default[0] has this name"
    ],
    [
      "a group without a server",
      { DATABASE_GROUPS: "analytics", DATABASE_ANALYTICS_URLS: " , " },
      "DATABASE_ANALYTICS_URLS",
      "at least one engine"
    ],
    ["the default group", { DATABASE_GROUPS: "default" }, "DATABASE_GROUPS", "what DATABASE_URL lists"],
    ["the read group", { DATABASE_GROUPS: "read" }, "DATABASE_GROUPS", "what DATABASE_REPLICA_URLS lists"],
    ["the variable of the replicas", { DATABASE_GROUPS: "Replica" }, "DATABASE_GROUPS", "DATABASE_REPLICA_URLS"],
    ["two groups with one variable", { DATABASE_GROUPS: "a-b,a_b" }, "DATABASE_GROUPS", '"a-b", "a_b"'],
    [
      "URLs where names belong",
      { DATABASE_GROUPS: "postgresql://app:hunter2@a1/shop" },
      "DATABASE_GROUPS",
      "letters, digits"
    ]
  ] as const) {
    it.effect(`${what} is a RouterConfigError that names the variable`, () =>
      Effect.gen(function* () {
        const error = yield* refused(variables)
        assert.strictEqual(error.variable, variable)
        assert.include(error.message, variable)
        assert.include(error.message, says)
      })
    )
  }
})

describe("scalar options in the environment", () => {
  it.effect("each reach their field", () =>
    Effect.gen(function* () {
      const { config } = yield* from({
        ...required,
        DATABASE_REPLICA_URLS: "postgresql://r1/shop",
        DB_ROUTER_STRATEGY: "least-busy",
        DB_ROUTER_ENABLED: "off",
        DB_ROUTER_READS: "explicit",
        DB_ROUTER_CONSISTENCY: "eventual",
        DB_ROUTER_ON_NO_REPLICA: "fail",
        DB_ROUTER_PREPARE: "true",
        DB_ROUTER_PREPARE_MAX_PER_CONNECTION: "17",
        DB_ROUTER_CLASSIFIER_CACHE_SIZE: "100",
        DB_ROUTER_CLASSIFIER_REFRESH_INTERVAL: "10 minutes",
        DB_ROUTER_HEALTH: "true",
        DB_ROUTER_HEALTH_INTERVAL: "7 seconds",
        DB_ROUTER_HEALTH_TIMEOUT: "6 seconds",
        DB_ROUTER_HEALTH_FAILURES: "5",
        DB_ROUTER_HEALTH_MAX_LAG: "4 seconds",
        DB_ROUTER_HEALTH_MAX_LAG_BYTES: "3",
        DB_ROUTER_SHUTDOWN_TIMEOUT: "1 second",
        DB_ROUTER_TOKEN_KEYS: `${"a".repeat(32)}, ${"b".repeat(44)}`,
        DB_ROUTER_TOKEN_LIFETIME: "2 minutes",
        DB_ROUTER_METRICS: "off",
        DB_ROUTER_MAX_CONNECTIONS: "4",
        DB_ROUTER_MIN_CONNECTIONS: "2",
        DB_ROUTER_CONNECT_TIMEOUT: "3 seconds",
        DB_ROUTER_IDLE_TIMEOUT: "4 seconds",
        DB_ROUTER_CONNECTION_TTL: "5 minutes",
        DB_ROUTER_APPLICATION_NAME: "shop",
        DB_ROUTER_HEDGE: "30 millis",
        DB_ROUTER_HEDGE_MAX_SHARE: "0.2"
      })
      assert.strictEqual(config.strategy, Selector.leastBusy)
      assert.isFalse(config.enabled)
      assert.strictEqual(config.reads, "explicit")
      assert.strictEqual(config.consistency.name, "eventual")
      assert.strictEqual(config.onNoReplica, "fail")
      assert.deepStrictEqual([Duration.toMillis(config.hedge!.after), config.hedge!.maxShare], [30, 0.2])
      assert.strictEqual(config.maxPreparedPerConnection, 17)
      assert.strictEqual(config.classifier.cacheSize, 100)
      assert.strictEqual(Duration.toMillis(config.classifier.refreshInterval), 600_000)
      const { failures, interval, maxLag, maxLagBytes, timeout } = config.health!
      assert.deepStrictEqual(
        [interval, timeout, maxLag].map((time) => Duration.toMillis(time)),
        [7_000, 6_000, 4_000]
      )
      assert.deepStrictEqual([failures, maxLagBytes], [5, 3n])
      assert.strictEqual(Duration.toMillis(config.shutdownTimeout), 1_000)
      assert.strictEqual(Duration.toMillis(config.tokens.lifetime), 120_000)
      assert.isFalse(config.metrics)
      const keys = Token.keys([Redacted.make("b".repeat(44))])
      const older = Token.encode(Either.getOrThrow(keys), { system: "1", timeline: 1, lsn: 1n }, { expiresAt: 2 })
      assert.isTrue(Either.isRight(Token.decode(config.tokens.keys!, older, 1)))
      for (const group of ["default", "read"]) {
        const client = config.groups.get(group)!.engines[0]!.known!.client
        assert.strictEqual(client.maxConnections, 4)
        assert.strictEqual(client.minConnections, 2)
        assert.deepStrictEqual(
          [client.connectTimeout, client.idleTimeout, client.connectionTTL].map(
            (time) => time && Duration.toMillis(time)
          ),
          [3_000, 4_000, 300_000]
        )
        assert.strictEqual(client.applicationName, "shop")
      }
    })
  )

  it.effect("DB_ROUTER_ZONE prefers a zone, by any strategy", () =>
    Effect.gen(function* () {
      const servers = {
        ...required,
        DATABASE_REPLICA_URLS: "postgresql://r1/shop?zone=a,postgresql://r2/shop?zone=b,postgresql://r3/shop?zone=b"
      }
      for (const strategy of [{}, { DB_ROUTER_STRATEGY: "random" }]) {
        const { config } = yield* from({ ...servers, ...strategy, DB_ROUTER_ZONE: "b" })
        const select = config.strategy.make(Math.random)
        const candidates = config.groups.get("read")!.engines.map(({ name, weight, zone }) => ({
          name,
          weight,
          zone,
          inFlight: 0,
          waiting: 0,
          latency: 0
        }))
        const chosen = new Set(Array.from({ length: 100 }, () => select(candidates).name))
        assert.deepStrictEqual([...chosen].sort(), ["read-2", "read-3"])
      }
    })
  )

  it.effect("a key that is too short is a RouterConfigError that names its variable, and does not show it", () =>
    Effect.gen(function* () {
      const error = yield* refused({ DB_ROUTER_TOKEN_KEYS: `${"a".repeat(32)},hunter2` })
      assert.deepStrictEqual([error.variable, error.field], ["DB_ROUTER_TOKEN_KEYS", "tokens.keys[1]"])
      assert.include(error.remedy, "7 bytes")
    })
  )

  it.effect("DB_ROUTER_PREPARE=false stays so, whatever the limit", () =>
    Effect.gen(function* () {
      const off = yield* from({ ...required, DB_ROUTER_PREPARE: "no", DB_ROUTER_PREPARE_MAX_PER_CONNECTION: "9" })
      assert.strictEqual(off.config.maxPreparedPerConnection, 0)
      const limited = yield* from({ ...required, DB_ROUTER_PREPARE_MAX_PER_CONNECTION: "9" })
      assert.strictEqual(limited.config.maxPreparedPerConnection, 9)
      const planned = yield* from({ ...required, DB_ROUTER_PREPARE_PLAN_CACHE_MODE: "force_custom_plan" })
      assert.strictEqual(planned.config.planCacheMode, "force_custom_plan")
      assert.strictEqual(planned.config.maxPreparedPerConnection, 256)
    })
  )

  it.effect("DB_ROUTER_HEALTH=false stays so, whatever the interval", () =>
    Effect.gen(function* () {
      const off = yield* from({ ...required, DB_ROUTER_HEALTH: "off", DB_ROUTER_HEALTH_INTERVAL: "1 minute" })
      assert.isUndefined(off.config.health)
    })
  )

  it.effect("the policies of consistency have names; window has a duration behind a colon", () =>
    Effect.gen(function* () {
      for (const [text, name] of [
        ["causal", "causal"],
        ["sticky", "sticky"],
        ["eventual", "eventual"],
        ["window:2 seconds", "window"]
      ] as const) {
        const { config } = yield* from({ ...required, DB_ROUTER_CONSISTENCY: text })
        assert.strictEqual(config.consistency.name, name)
      }
    })
  )

  for (const [variable, value, field, says] of [
    ["DB_ROUTER_STRATEGY", "fastest", "strategy", '"round-robin", "random", "least-busy", "lowest-latency"'],
    ["DB_ROUTER_STRATEGY", "toString", "strategy", '"round-robin"'],
    ["DB_ROUTER_ENABLED", "maybe", "enabled", "true or false"],
    ["DB_ROUTER_READS", "auto", "reads", '"automatic", "explicit", "observe"'],
    ["DB_ROUTER_CONSISTENCY", "strong", "consistency", '"causal", "sticky", "eventual"'],
    ["DB_ROUTER_CONSISTENCY", "window", "consistency", '"window:2 seconds"'],
    ["DB_ROUTER_CONSISTENCY", "window:soon", "consistency", '"window:2 seconds"'],
    ["DB_ROUTER_CONSISTENCY", "window:0 millis", "consistency", '"window:2 seconds"'],
    ["DB_ROUTER_ON_NO_REPLICA", "wait", "onNoReplica", '"primary", "fail"'],
    ["DB_ROUTER_HEDGE", "yes", "hedge.after", "must be a duration"],
    ["DB_ROUTER_HEDGE_MAX_SHARE", "10", "hedge.maxShare", "at most 1"],
    ["DB_ROUTER_PREPARE", "256", "prepare", "true or false"],
    ["DB_ROUTER_PREPARE_MAX_PER_CONNECTION", "0", "prepare.maxPerConnection", "from 1"],
    ["DB_ROUTER_PREPARE_PLAN_CACHE_MODE", "custom", "prepare.planCacheMode", "force_custom_plan"],
    ["DB_ROUTER_CLASSIFIER_CACHE_SIZE", "many", "classifier.cacheSize", "number"],
    ["DB_ROUTER_CLASSIFIER_CACHE_SIZE", "1.5", "classifier.cacheSize", "whole number"],
    ["DB_ROUTER_CLASSIFIER_REFRESH_INTERVAL", "often", "classifier.refreshInterval", "5 seconds"],
    ["DB_ROUTER_HEALTH", "maybe", "health", "true or false"],
    ["DB_ROUTER_HEALTH_INTERVAL", "0", "health.interval", "5 seconds"],
    ["DB_ROUTER_HEALTH_FAILURES", "0", "health.failures", "from 1"],
    ["DB_ROUTER_HEALTH_MAX_LAG_BYTES", "many", "health.maxLagBytes", "number"],
    ["DB_ROUTER_MAX_PENDING_NOTIFICATIONS", "0", "maxPendingNotifications", "from 1"],
    ["DB_ROUTER_METRICS", "some", "metrics", "true or false"],
    ["DB_ROUTER_SHUTDOWN_TIMEOUT", "5", "shutdownTimeout", "5 seconds"],
    ["DB_ROUTER_TOKEN_LIFETIME", "0", "tokens.lifetime", "longer than zero"],
    ["DB_ROUTER_MAX_CONNECTIONS", "0", "groups.default[0].maxConnections", "from 1"],
    ["DB_ROUTER_MIN_CONNECTIONS", "11", "groups.default[0].minConnections", "which is 10"],
    ["DB_ROUTER_CONNECT_TIMEOUT", "-1 seconds", "groups.default[0].connectTimeout", "5 seconds"],
    ["DB_ROUTER_IDLE_TIMEOUT", "x", "groups.default[0].idleTimeout", "5 seconds"],
    ["DB_ROUTER_CONNECTION_TTL", "90 days", "groups.default[0].connectionTTL", "24 days"]
  ] as const) {
    it.effect(`${variable}=${value} is a RouterConfigError that names it`, () =>
      Effect.gen(function* () {
        const error = yield* refused({ [variable]: value })
        assert.strictEqual(error.variable, variable)
        assert.strictEqual(error.field, field)
        assert.include(error.value, value)
        assert.include(error.remedy, says)
        assert.include(error.message, variable)
      })
    )
  }
})

describe("any ConfigProvider will do:", () => {
  const variables = {
    DATABASE_URL: "postgresql://primary/shop?options=-csearch_path%3Da,b;c",
    DATABASE_REPLICA_URLS: "postgresql://r1/shop,postgresql://r2/shop",
    DB_ROUTER_READS: "observe"
  }
  const lists = {
    DATABASE_URL: variables.DATABASE_URL,
    DATABASE_REPLICA_URLS: ["postgresql://r1/shop", "postgresql://r2/shop"],
    DB_ROUTER_READS: "observe"
  }
  const providers: Record<string, ConfigProvider.ConfigProvider> = {
    JSON: ConfigProvider.fromJson(variables),
    "JSON with lists": ConfigProvider.fromJson(lists),
    "a map with other delimiters": ConfigProvider.fromMap(new Map(Object.entries(variables)), {
      pathDelim: "__",
      seqDelim: ";"
    }),
    "constant case": ConfigProvider.constantCase(ConfigProvider.fromMap(new Map(Object.entries(variables)))),
    "a nested one": ConfigProvider.nested(
      ConfigProvider.fromMap(new Map(Object.entries(variables).map(([name, value]) => [`APP_${name}`, value])), {
        pathDelim: "_"
      }),
      "APP"
    ),
    "one behind another": ConfigProvider.orElse(ConfigProvider.fromMap(new Map()), () =>
      ConfigProvider.fromJson(variables)
    )
  }
  for (const [name, provider] of Object.entries(providers)) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const { config } = yield* load(provider)
        assert.deepStrictEqual(urlsOf(config, "default"), [variables.DATABASE_URL])
        assert.deepStrictEqual(urlsOf(config, "read"), ["postgresql://r1/shop", "postgresql://r2/shop"])
        assert.strictEqual(config.reads, "observe")
      })
    )
  }

  it.effect("the process's own environment, by default", () =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const before = process.env.DATABASE_URL
        process.env.DATABASE_URL = required.DATABASE_URL
        return before
      }),
      () => Effect.map(RouterConfig.fromEnv, (options) => assert.lengthOf(options.groups.default!, 1)),
      (before) =>
        Effect.sync(() => {
          if (before === undefined) delete process.env.DATABASE_URL
          else process.env.DATABASE_URL = before
        })
    )
  )
})

it.effect("what it yields can be changed and is validated again", () =>
  Effect.gen(function* () {
    const { options } = yield* from(required)
    const config = yield* RouterConfig.resolve({ ...options, onNoReplica: "fail", strategy: Selector.random })
    assert.strictEqual(config.onNoReplica, "fail")
    const wrong = RouterConfig.resolve({ ...options, defaultGroup: "main" })
    assert.isTrue(Either.isLeft(wrong))
  })
)
