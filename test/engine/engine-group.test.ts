import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Random, Stream, Utils } from "effect"
import { Consistency, DbRouter, EngineGroup, RouterError, Selector } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

/** A group of engines on the standbys, with these weights. */
const group = (strategy: Selector.Strategy, weights: ReadonlyArray<number>, options?: engines.Options) =>
  Effect.gen(function* () {
    const { replicas } = yield* PgCluster.PgCluster
    const members = yield* Effect.forEach(weights, (weight, i) =>
      engines.on(replicas[i % replicas.length]!, { ...options, name: `replica${i + 1}`, weight })
    )
    const chance = new Utils.PCGRandom(7)
    const random = () => chance.number()
    return EngineGroup.make({ name: "read", engines: members, strategy, random, admission: "healthy" })
  })

const tally = (names: ReadonlyArray<string | undefined>) => {
  const counts: Record<string, number> = {}
  for (const name of names) counts[name ?? "none"] = (counts[name ?? "none"] ?? 0) + 1
  return counts
}

/** A router over the cluster, with these weights of the standbys. */
const router = (options: Partial<Parameters<typeof DbRouter.layer>[0]> = {}, weights: ReadonlyArray<number> = [1, 1]) =>
  Effect.gen(function* () {
    const { primary, replicas } = yield* PgCluster.PgCluster
    const services = yield* Layer.build(
      DbRouter.layer({
        groups: {
          default: [{ url: primary.url, name: "primary" }],
          // Room for all: one without a free connection is passed over.
          read: replicas.map(({ name, url }, i) => ({ url, name, weight: weights[i]!, maxConnections: 40 })),
          archive: [{ url: primary.url, name: "archive1" }]
        },
        // The strategy alone decides.
        consistency: Consistency.eventual(),
        ...options
      })
    )
    return { sql: Context.get(services, SqlClient.SqlClient), router: Context.get(services, DbRouter.DbRouter) }
  })

/** Which server runs a read. */
const where = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ cluster_name: string }>`SHOW cluster_name`, ([row]) => row!.cluster_name)

const reasonOf = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Effect.flip(effect), RouterError.reasonOf)

layer(PgCluster.layer({ replicas: 2 }), { excludeTestServices: true })("a group of engines", (it) => {
  describe("honours weights", () => {
    for (const strategy of [Selector.roundRobin, Selector.random, Selector.leastBusy]) {
      it.scoped(`of 3 to 1 over 10,000 choices, from many fibers at once: ${strategy.name}`, () =>
        Effect.gen(function* () {
          const { choose } = yield* group(strategy, [3, 1])
          const some = Effect.forEach(Array.from({ length: 100 }), () => Effect.as(Effect.yieldNow(), choose()!.name))
          const picks = yield* Effect.all(
            Array.from({ length: 100 }, () => some),
            { concurrency: "unbounded" }
          )
          const counts = tally(picks.flat())
          assert.closeTo(counts.replica1! / 10_000, 0.75, 0.02)
          assert.closeTo(counts.replica2! / 10_000, 0.25, 0.02)
        })
      )
    }

    it.scoped("of 3 to 1 in what the servers ran, and what runs on them at the same time", () =>
      Effect.gen(function* () {
        const { sql } = yield* router({}, [3, 1])
        const ran = yield* Effect.all(
          Array.from({ length: 400 }, () => where(sql)),
          { concurrency: 40 }
        )
        // A read whose server has no free connection in time runs on the other one.
        assert.closeTo(tally(ran).replica1! / 400, 0.75, 0.05)
        assert.deepStrictEqual(Object.keys(tally(ran)).sort(), ["replica1", "replica2"])
      })
    )

    it.scoped("and explaining takes no turn", () =>
      Effect.gen(function* () {
        const { choose, peek } = yield* group(Selector.roundRobin, [2, 1])
        const turns = Array.from({ length: 30 }, () => {
          for (let i = 0; i < 7; i++) peek()
          return choose()!.name
        })
        assert.deepStrictEqual(tally(turns), { replica1: 20, replica2: 10 })
      })
    )
  })

  describe("sees the work of its engines:", () => {
    it.scoped("leastBusy counts what runs, waits and streams", () =>
      Effect.gen(function* () {
        const { choose, engines: members } = yield* group(Selector.leastBusy, [1, 1], { maxConnections: 2 })
        const [first, second] = members as [(typeof members)[0], (typeof members)[0]]
        const sleep = engines.statement("select pg_sleep(600)")
        const busy = Array.from({ length: 3 }, () => first.query(sleep))
        for (const one of busy) yield* Effect.forkScoped(Effect.exit(one))
        yield* engines.eventually(
          Effect.sync(() => [first.inFlight, first.waiting]),
          ([inFlight, waiting]) => inFlight === 2 && waiting === 1
        )
        const next = () => Array.from({ length: 10 }, () => choose()!.name)
        assert.deepStrictEqual(tally(next()), { replica2: 10 })

        yield* Effect.forkScoped(Stream.runDrain(second.stream("select pg_sleep(600)", [])))
        const reserved = yield* second.reserve
        yield* Effect.forkScoped(Effect.exit(reserved.query(sleep)))
        yield* engines.eventually(
          Effect.sync(() => second.inFlight),
          (inFlight) => inFlight === 2
        )
        assert.deepStrictEqual(tally(next()), { replica2: 10 })

        for (let i = 0; i < 3; i++) yield* Effect.forkScoped(Effect.exit(second.query(sleep)))
        yield* engines.eventually(
          Effect.sync(() => second.waiting),
          (waiting) => waiting === 3
        )
        // Until then the second may be quicker: its connections have just been taken.
        yield* Effect.sleep("150 millis")
        assert.deepStrictEqual(tally(next()), { replica1: 10 })
      })
    )

    it.scoped("and a connection that is still being opened counts as a wait", () =>
      Effect.gen(function* () {
        const { replicas } = yield* PgCluster.PgCluster
        const proxy = yield* proxies.make(replicas[0]!)
        proxy.onConnect = Effect.never
        const { host, port } = proxy
        const on = yield* engines.make({ ...engines.partsOf(replicas[0]!), host, port })
        for (let i = 0; i < 3; i++) yield* Effect.forkScoped(Effect.exit(on.query(engines.statement("select 1"))))
        yield* engines.eventually(Effect.sync(proxy.open), (open) => open === 3)
        assert.strictEqual(on.waiting, 3)
        assert.strictEqual(on.inFlight, 0)
      })
    )

    it.scoped("lowestLatency finds the faster server", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        const proxy = yield* proxies.make(replicas[0]!)
        proxy.onMessage = (type) => (type === "Z" ? Effect.sleep("25 millis") : undefined)
        const { host, port } = proxy
        const { router: service, sql } = yield* router({
          strategy: Selector.lowestLatency,
          groups: {
            default: [{ url: primary.url, name: "primary" }],
            read: [
              { ...engines.partsOf(replicas[0]!), host, port, name: "slow" },
              { url: replicas[1]!.url, name: "fast" }
            ]
          }
        })
        const counts = tally(yield* Effect.forEach(Array.from({ length: 150 }), () => where(sql)))
        assert.isAbove(counts.replica2!, 100)
        assert.isAbove(counts.replica1!, 0)
        const latency = (name: string) =>
          Effect.map(service.status, (all) => all.find((engine) => engine.name === name)!.latency)
        assert.isAbove(yield* latency("slow"), yield* latency("fast"))
      }).pipe(Effect.withRandom(Random.make("latency")))
    )
  })

  describe("of one engine, of none, and of none that is eligible", () => {
    it.scoped("one is always chosen", () =>
      Effect.gen(function* () {
        const { choose, peek } = yield* group(Selector.roundRobin, [1])
        assert.deepStrictEqual([choose()?.name, choose()?.name, peek()?.name], ["replica1", "replica1", "replica1"])
      })
    )

    it.scoped("none is no answer", () =>
      Effect.gen(function* () {
        for (const strategy of [Selector.roundRobin, Selector.random, Selector.leastBusy, Selector.lowestLatency]) {
          const { choose, peek } = yield* group(strategy, [])
          assert.isUndefined(choose())
          assert.isUndefined(peek())
        }
      })
    )

    it.scoped("reads without a replica go to the primary, or fail where that is asked for", () =>
      Effect.gen(function* () {
        for (const onNoReplica of ["primary", "fail"] as const) {
          const one = yield* router({ onNoReplica })
          yield* one.router.drain("replica1")
          for (let i = 0; i < 3; i++) assert.strictEqual(yield* where(one.sql), "replica2")
          yield* one.router.drain("replica2")
          if (onNoReplica === "primary") {
            assert.strictEqual(yield* where(one.sql), "primary")
          } else {
            assert.deepStrictEqual(yield* reasonOf(where(one.sql)), Option.some("NoEngineAvailable"))
            assert.deepStrictEqual(
              yield* reasonOf(Stream.runDrain(one.sql`SELECT 1`.stream)),
              Option.some("NoEngineAvailable")
            )
          }
          yield* one.router.undrain("replica2")
          assert.strictEqual((yield* one.router.explain("select 1")).engine, "replica2")
        }
      })
    )

    it.scoped("a bound group, and the default group, fail", () =>
      Effect.gen(function* () {
        const { router: service, sql } = yield* router({ waitForPrimary: { statements: 0 } })
        yield* service.drain("archive1")
        const bound = DbRouter.bindGroup(sql`SELECT 1`, "archive")
        assert.deepStrictEqual(yield* reasonOf(bound), Option.some("NoEngineAvailable"))
        yield* service.drain("primary")
        for (const effect of [
          Effect.asVoid(DbRouter.primary(sql`SELECT 1`)),
          Effect.asVoid(sql.withTransaction(sql`SELECT 1`)),
          Effect.asVoid(Effect.scoped(sql.reserve))
        ]) {
          assert.deepStrictEqual(yield* reasonOf(effect), Option.some("NoEngineAvailable"))
        }
        yield* service.undrain("primary")
        assert.deepStrictEqual(yield* DbRouter.primary(sql`SELECT 1 AS one`), [{ one: 1 }])
      })
    )

    it.scoped("draining leaves alone what runs", () =>
      Effect.gen(function* () {
        const { router: service, sql } = yield* router()
        const done = yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* service.drain("primary")
            return yield* sql`SELECT 1 AS one`
          })
        )
        assert.deepStrictEqual(done, [{ one: 1 }])
      })
    )
  })
})
