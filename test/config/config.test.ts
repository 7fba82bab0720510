import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Either, Exit, Option, Redacted } from "effect"
import * as Consistency from "effect-db-router/Consistency"
import * as RouterConfig from "effect-db-router/RouterConfig"
import * as RouterError from "effect-db-router/RouterError"
import * as Selector from "effect-db-router/Selector"
import * as Topology from "effect-db-router/Topology"
import Pg from "pg"
import { primary, replica, resolve, url, withEngine } from "../support/refusedConfig.js"

const resolved = (options: unknown) => Either.getOrThrowWith(resolve(options), (error) => error)

const refused = (options: unknown) =>
  Option.getOrThrowWith(Either.getLeft(resolve(options)), () => new Error("it was accepted"))

const engineOf = (options: unknown, group = "default", index = 0) => {
  const entry = resolved(options).groups.get(group)?.engines[index]
  assert(entry?.known !== undefined)
  return entry.known
}

const identity = (name: string) => name
const upper = (name: string) => name.toUpperCase()

describe("defaults of the options", () => {
  it("fill in everything but the groups", () => {
    const config = resolved({ groups: { default: [primary], read: [replica, {}] } })
    const {
      classifier,
      consistency,
      groups,
      health,
      shutdownTimeout,
      tokens,
      waitForPrimary,
      waitForReplica,
      ...rest
    } = config
    assert.deepStrictEqual(rest, {
      defaultGroup: "default",
      readGroup: "read",
      strategy: Selector.roundRobin,
      enabled: true,
      reads: "automatic",
      onNoReplica: "primary",
      hedge: undefined,
      topology: Topology.fixed,
      maxPendingNotifications: 10_000,
      maxPreparedPerConnection: 256,
      planCacheMode: undefined,
      metrics: true
    })
    assert.deepStrictEqual(
      [waitForPrimary.atStart, waitForPrimary.statements].map((time) => Duration.toMillis(time)),
      [0, 5_000]
    )
    assert.strictEqual(consistency.name, Consistency.causal().name)
    assert.strictEqual(classifier.cacheSize, 4096)
    assert.strictEqual(Duration.toMillis(classifier.refreshInterval), 60_000)
    assert.deepStrictEqual(
      [health!.interval, health!.timeout, health!.maxLag].map((time) => Duration.toMillis(time)),
      [2_000, 1_000, 10_000]
    )
    assert.deepStrictEqual([health!.failures, health!.maxLagBytes], [2, 67_108_864n])
    assert.deepStrictEqual(
      [shutdownTimeout, waitForReplica].map((time) => Duration.toMillis(time)),
      [5_000, 1_000]
    )
    assert.deepStrictEqual([tokens.keys, Duration.toMillis(tokens.lifetime)], [undefined, 60_000])
    assert.deepStrictEqual(
      Array.from(groups.values(), ({ engines, name }) => [name, engines.map((engine) => engine.name)]),
      [
        ["default", ["default-1"]],
        ["read", ["read-1", "read-2"]]
      ]
    )
  })

  it("of hedged reads: one in ten, for a time alone as for an object of it", () => {
    for (const [hedge, maxShare] of [
      ["30 millis", 0.1],
      [30, 0.1],
      [Duration.millis(30), 0.1],
      [[0, 30_000_000], 0.1],
      [{ after: "30 millis" }, 0.1],
      [{ after: 30, maxShare: 1 }, 1]
    ] as const) {
      const found = resolved({ groups: { default: [primary] }, hedge }).hedge!
      assert.deepStrictEqual([Duration.toMillis(found.after), found.maxShare], [30, maxShare])
    }
  })

  it("of an engine are those of pg, with a name to know the router by", () => {
    const { address, client, weight, zone } = engineOf(withEngine({}))
    assert.deepStrictEqual(client, {
      maxConnections: 10,
      minConnections: 0,
      applicationName: "effect-db-router",
      allowCleartextPassword: false
    })
    assert.deepStrictEqual(address, { host: undefined, port: undefined, database: undefined })
    assert.strictEqual(weight, 1)
    assert.isUndefined(zone)
  })

  it("stand for a field that is undefined", () => {
    const config = resolved({ groups: { default: [{ weight: undefined }] }, strategy: undefined, readGroup: undefined })
    assert.strictEqual(config.strategy, Selector.roundRobin)
    assert.strictEqual(config.groups.get("default")?.engines[0]?.weight, 1)
  })
})

describe("a given option", () => {
  it("is kept", () => {
    const strategy = Selector.preferZone("eu", Selector.leastBusy)
    const consistency = Consistency.eventual()
    const config = resolved({
      groups: { main: [primary], replicas: [replica], analytics: [{ host: "10.0.0.9" }] },
      defaultGroup: "main",
      readGroup: "replicas",
      strategy,
      consistency,
      enabled: false,
      reads: "observe",
      onNoReplica: "fail",
      prepare: { maxPerConnection: 8 },
      classifier: { cacheSize: 1, refreshInterval: "3 hours" },
      metrics: false,
      shutdownTimeout: 0
    })
    assert.isFalse(config.metrics)
    assert.strictEqual(config.defaultGroup, "main")
    assert.strictEqual(config.readGroup, "replicas")
    assert.strictEqual(config.strategy, strategy)
    assert.strictEqual(config.consistency, consistency)
    assert.isFalse(config.enabled)
    assert.strictEqual(config.reads, "observe")
    assert.strictEqual(config.onNoReplica, "fail")
    assert.strictEqual(config.maxPreparedPerConnection, 8)
    assert.strictEqual(config.classifier.cacheSize, 1)
    assert.strictEqual(Duration.toMillis(config.classifier.refreshInterval), 10_800_000)
    assert.strictEqual(Duration.toMillis(config.shutdownTimeout), 0)
    assert.deepStrictEqual([...config.groups.keys()], ["main", "replicas", "analytics"])
  })

  it("says whether, and how, servers are watched", () => {
    const groups = { default: [primary] }
    assert.isUndefined(resolved({ groups, health: false }).health)
    assert.strictEqual(resolved({ groups, health: true }).health?.failures, 2)
    const { failures, interval, maxLagBytes } = resolved({
      groups,
      health: { interval: "1 minute", failures: 5, maxLagBytes: 1 }
    }).health!
    assert.deepStrictEqual([Duration.toMillis(interval), failures, maxLagBytes], [60_000, 5, 1n])
  })

  it("says how many statements a connection keeps prepared", () => {
    const groups = { default: [primary] }
    assert.strictEqual(resolved({ groups, prepare: false }).maxPreparedPerConnection, 0)
    assert.strictEqual(resolved({ groups, prepare: true }).maxPreparedPerConnection, 256)
    assert.strictEqual(resolved({ groups, prepare: {} }).maxPreparedPerConnection, 256)
  })

  it("says how the server plans what is prepared", () => {
    const groups = { default: [primary] }
    assert.isUndefined(resolved({ groups, prepare: true }).planCacheMode)
    const planCacheMode = "force_custom_plan"
    assert.strictEqual(resolved({ groups, prepare: { planCacheMode } }).planCacheMode, planCacheMode)
  })

  it("reaches the pool: sizes, timeouts, TLS, transforms", () => {
    const ssl = { rejectUnauthorized: false }
    const types = { getTypeParser: () => identity }
    const { client } = engineOf(
      withEngine({
        host: "db",
        port: 6543,
        database: "shop",
        username: "app",
        password: url("secret"),
        ssl,
        maxConnections: 3,
        minConnections: 3,
        connectTimeout: "2 seconds",
        idleTimeout: 0,
        connectionTTL: Duration.minutes(30),
        applicationName: "shop",
        spanAttributes: { team: "a" },
        transformQueryNames: upper,
        transformResultNames: identity,
        transformJson: false,
        types
      })
    )
    assert.strictEqual(client.host, "db")
    assert.strictEqual(client.port, 6543)
    assert.strictEqual(client.username, "app")
    assert.strictEqual(client.password && Redacted.value(client.password), "secret")
    assert.strictEqual(client.ssl, ssl)
    assert.strictEqual(client.types, types)
    assert.strictEqual(client.transformQueryNames, upper)
    assert.strictEqual(client.transformResultNames, identity)
    assert.isFalse(client.transformJson)
    assert.strictEqual(client.maxConnections, 3)
    assert.strictEqual(client.minConnections, 3)
    assert.strictEqual(client.applicationName, "shop")
    assert.strictEqual(client.connectTimeout && Duration.toMillis(client.connectTimeout), 2_000)
    assert.strictEqual(client.idleTimeout && Duration.toMillis(client.idleTimeout), 0)
    assert.strictEqual(client.connectionTTL && Duration.toMillis(client.connectionTTL), 1_800_000)
  })

  it("cannot be changed afterwards", () => {
    const config = resolved({ groups: { default: [primary] } })
    const entry = config.groups.get("default")?.engines[0]
    for (const part of [config, config.classifier, config.groups.get("default"), entry, entry?.known?.client]) {
      assert.isTrue(Object.isFrozen(part))
    }
  })
})

describe("the read group", () => {
  it("may be missing under its default name: a plain client", () => {
    assert.isUndefined(resolved({ groups: { default: [primary] } }).readGroup)
    assert.isUndefined(resolved({ groups: { default: [primary] }, readGroup: "read" }).readGroup)
  })

  it("may be empty: every read finds no replica", () => {
    const config = resolved({ groups: { default: [primary], read: [] } })
    assert.strictEqual(config.readGroup, "read")
    assert.deepStrictEqual(config.groups.get("read")?.engines, [])
  })

  it("is not one of its own when it is the default group", () => {
    assert.isUndefined(resolved({ groups: { default: [primary] }, readGroup: "default" }).readGroup)
  })

  it("may hold the primary too, as an engine of its own", () => {
    const names = resolved({ groups: { default: [primary], read: [replica, primary] } }).groups.get("read")?.engines
    assert.deepStrictEqual(
      names?.map(({ name }) => name),
      ["read-1", "read-2"]
    )
  })
})

describe("the URL of an engine", () => {
  const read = (text: string) => engineOf(withEngine({ url: url(text) }))
  const connects = (text: string) => {
    const { client } = read(text)
    assert(client.url !== undefined)
    return Redacted.value(client.url)
  }

  it("gives up name, weight and zone, and keeps everything else as it was", () => {
    const engine = read("postgres://u:p%2Fw@h:1/d?name=a&sslmode=require&weight=2.5&zone=eu-1&options=-c%20x%3D1")
    assert.strictEqual(engine.name, "a")
    assert.strictEqual(engine.weight, 2.5)
    assert.strictEqual(engine.zone, "eu-1")
    assert.strictEqual(
      engine.client.url && Redacted.value(engine.client.url),
      "postgres://u:p%2Fw@h:1/d?sslmode=require&options=-c%20x%3D1"
    )
  })

  it("is left without a question mark when nothing else was asked", () => {
    assert.strictEqual(connects("postgresql://h/d?name=a&weight=2"), "postgresql://h/d")
    assert.strictEqual(connects("postgresql://h/d?na%6De=a"), "postgresql://h/d")
    assert.strictEqual(connects("postgresql://h/d"), "postgresql://h/d")
    assert.strictEqual(connects("  postgresql://h/d\n"), "postgresql://h/d")
  })

  it("decodes what it gives up", () => {
    assert.strictEqual(read("postgresql://h/d?name=replica%20one&zone=a+b").name, "replica one")
    assert.strictEqual(read("postgresql://h/d?name=replica%20one&zone=a+b").zone, "a b")
  })

  it("says where the server is, as the driver reads it", () => {
    const at = (text: string) => read(text).address
    assert.deepStrictEqual(at("postgresql://h/d"), { host: "h", port: undefined, database: "d" })
    assert.deepStrictEqual(at("postgresql://u:p@10.0.0.1:6432"), {
      host: "10.0.0.1",
      port: 6432,
      database: undefined
    })
    assert.deepStrictEqual(at("postgresql:///d?host=/run/postgresql&port=5433"), {
      host: "/run/postgresql",
      port: 5433,
      database: "d"
    })
    assert.deepStrictEqual(at("postgresql://%2Frun%2Fpostgresql/my%20db"), {
      host: "/run/postgresql",
      port: undefined,
      database: "my db"
    })
    assert.strictEqual(at("postgresql://[::1]:5432/d").host, "[::1]")
  })
})

it("the driver ignores what stands beside a URL, which is why it is refused", () => {
  const client = new Pg.Client({
    connectionString: "postgresql://h/d?sslmode=disable",
    host: "other",
    port: 1,
    database: "other",
    user: "other",
    password: "other",
    ssl: true
  })
  assert.deepStrictEqual([client.host, client.database, client.ssl], ["h", "d", false])
  assert.notStrictEqual(client.port, 1)
  assert.notStrictEqual(client.user, "other")
  assert.notStrictEqual(client.password, "other")
})

describe("an engine given as an Effect", () => {
  const options = (effect: Effect.Effect<unknown, unknown>, read: unknown = {}) => ({
    groups: { default: [{ name: "main", transformResultNames: upper }], read: [read, effect] }
  })
  const entryOf = (effect: Effect.Effect<unknown, unknown>, read?: unknown) => {
    const entry = resolved(options(effect, read)).groups.get("read")?.engines[1]
    assert(entry !== undefined)
    return entry
  }
  const failureOf = (effect: Effect.Effect<unknown, unknown>, read?: unknown) =>
    Effect.flip(entryOf(effect, read).config)

  it("has a name, weight and zone before it runs, and does not run to be validated", () => {
    const entry = entryOf(Effect.die("it ran"))
    assert.isUndefined(entry.known)
    assert.strictEqual(entry.name, "read-2")
    assert.strictEqual(entry.weight, 1)
    assert.strictEqual(entry.field, "groups.read[1]")
  })

  it.effect("is validated when it has yielded", () =>
    Effect.gen(function* () {
      const found = yield* entryOf(Effect.succeed({ url: url("postgres://h/d?weight=4"), name: "late" })).config
      assert.isTrue(typeof found === "object" && found !== null)
      assert.strictEqual(found.name, "late")
      assert.strictEqual(found.weight, 4)
      assert.strictEqual((yield* entryOf(Effect.succeed({})).config).name, "read-2")
      const error = yield* failureOf(Effect.succeed({ weight: 0 }))
      assert.instanceOf(error, RouterError.RouterConfigError)
      assert.strictEqual(error.field, "groups.read[1].weight")
    })
  )

  it.effect("fails as it fails, and runs again each time it is asked", () =>
    Effect.gen(function* () {
      let runs = 0
      const entry = entryOf(Effect.suspend(() => (++runs === 1 ? Effect.fail("no vault") : Effect.succeed({}))))
      assert.strictEqual(yield* Effect.flip(entry.config), "no vault")
      assert.strictEqual((yield* entry.config).name, "read-2")
    })
  )

  it.effect("cannot take the name of another engine, nor other transforms than the first", () =>
    Effect.gen(function* () {
      const taken = yield* failureOf(Effect.succeed({ name: "main" }))
      assert.instanceOf(taken, RouterError.RouterConfigError)
      assert.strictEqual(taken.field, "groups.read[1].name")
      assert.include(taken.message, "groups.default[0]")
      const other = yield* failureOf(Effect.succeed({ transformResultNames: identity }))
      assert.instanceOf(other, RouterError.RouterConfigError)
      assert.strictEqual(other.field, "groups.read[1].transformResultNames")
      yield* entryOf(Effect.succeed({ transformResultNames: upper })).config
    })
  )

  it.effect("cannot take the name that another Effect has yielded, but keeps its own when it runs again", () =>
    Effect.gen(function* () {
      const config = resolved({
        groups: { default: [{}], read: [Effect.succeed({ name: "a" }), Effect.succeed({ name: "a" })] }
      })
      const [first, second] = config.groups.get("read")!.engines
      assert.strictEqual((yield* first!.config).name, "a")
      assert.strictEqual((yield* first!.config).name, "a")
      const error = yield* Effect.flip(second!.config)
      assert.instanceOf(error, RouterError.RouterConfigError)
      assert.include(error.message, "groups.read[0] has this name")
    })
  )

  it("can be validated on its own, as rebind does", () => {
    const slot = { field: "rebind", name: "read-1" }
    const found = RouterConfig.resolveEngine(slot, { host: "new", weight: 2 })
    assert(Either.isRight(found))
    assert.strictEqual(found.right.name, "read-1")
    assert.strictEqual(found.right.address.host, "new")
    const bad = RouterConfig.resolveEngine(slot, { port: 70_000 })
    assert.deepStrictEqual(Either.getLeft(bad).pipe(Option.map((error) => error.field)), Option.some("rebind.port"))
  })
})

describe("transforms and types of the engines", () => {
  const two = (first: object, second: object) => ({ groups: { default: [first], read: [second] } })
  const types = { getTypeParser: () => identity }

  it("of other engines may be left out, or be the same", () => {
    const first = { transformQueryNames: upper, transformResultNames: identity, transformJson: false, types }
    resolved(two(first, {}))
    resolved(two(first, first))
    resolved(two({}, { transformJson: true }))
  })

  for (const [name, value] of Object.entries({
    transformQueryNames: identity,
    transformResultNames: identity,
    transformJson: false,
    types
  })) {
    it(`${name} cannot be another than the default group's engine has`, () => {
      const error = refused(two({ name: "main" }, { [name]: value }))
      assert.strictEqual(error.field, `groups.read[0].${name}`)
      assert.include(error.message, "main")
    })
  }

  it("of the first engine can be compared with another one's, when it is known late", () => {
    const first = engineOf(withEngine({ transformQueryNames: upper }))
    const other = engineOf(withEngine({ transformQueryNames: identity }))
    assert(Either.isRight(RouterConfig.checkTransforms(first, first, "here")))
    assert(Either.isLeft(RouterConfig.checkTransforms(first, other, "here")))
  })
})

it.effect("a validation is an Effect too", () =>
  Effect.gen(function* () {
    const exit = yield* Effect.exit(RouterConfig.resolve({ groups: {} }))
    assert(Exit.isFailure(exit))
    assert.strictEqual(Option.getOrThrow(Cause.failureOption(exit.cause)).code, "DB_ROUTER_CONFIG")
  })
)
