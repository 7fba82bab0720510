import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Random, Stream } from "effect"
import { DbRouter, type RouterConfig, Telemetry } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import { over } from "../support/health.js"
import * as Proxy from "../support/proxy.js"
import * as RouterTest from "../support/router.js"
import { sumOf } from "../support/telemetry.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

/** A router over the cluster whose first replica is reached through a proxy. */
const throughProxy = <A, E, R>(
  options: Partial<RouterConfig.Options>,
  use: (proxy: Proxy.Proxy, cluster: PgCluster.Cluster) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const cluster = yield* PgCluster.PgCluster
    const [first, second] = cluster.replicas
    const proxy = yield* Proxy.make(first!)
    const at = { ...engines.partsOf(first!), host: proxy.host, port: proxy.port, name: first!.name, maxConnections: 40 }
    const router = over(cluster.primary, cluster.replicas, {
      groups: {
        default: [{ url: cluster.primary.url, name: "primary" }],
        read: [at, { url: second!.url, name: second!.name }]
      },
      ...options
    })
    return yield* use(proxy, cluster).pipe(Effect.provide(router), Effect.provide(silent))
  })

const routed = <A, E, R>(
  options: Partial<RouterConfig.Options>,
  use: (cluster: PgCluster.Cluster) => Effect.Effect<A, E, R>
) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) =>
    use(cluster).pipe(Effect.provide(over(cluster.primary, cluster.replicas, options)), Effect.provide(silent))
  )

const hedgesOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    RouterTest.spansOf(effect),
    ([value, spans]) => [value, spans.filter(({ attributes }) => attributes.has("db.router.hedged"))] as const
  )

const won = Effect.forEach(["first", "second", "neither"], (winner) =>
  sumOf(Telemetry.instruments.hedgedReads, { winner })
)

/** A read that is slow on the first replica alone. */
const slowOnFirst = (seconds: number) =>
  `pg_sleep(CASE current_setting('cluster_name') WHEN 'replica1' THEN ${seconds} ELSE 0 END)`

engines.refuseWarnings()

layer(RouterTest.cluster, { timeout: "60 seconds", excludeTestServices: true })("reads on two replicas", (it) => {
  it.scoped(
    "every tenth answer of one of them is late: of the reads less than one in a hundred is, and hardly more are sent",
    () => {
      const late = 400
      const reads = 600
      return throughProxy({ hedge: "20 millis" }, (proxy) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          let answers = 0
          let delayed = 0
          let delays = false
          proxy.onMessage = (type) => {
            if (!delays || type !== "C" || ++answers % 10 !== 0) return undefined
            delayed++
            return Effect.sleep(late)
          }
          const times: Array<number> = []
          const one = Effect.gen(function* () {
            const began = performance.now()
            yield* sql`SELECT 1 /* tenth */`
            times.push(performance.now() - began)
          })
          const read = (reads: number, concurrency: number) =>
            Effect.all(
              Array.from({ length: reads }, () => one),
              { concurrency }
            )
          // Connecting takes longer than a read may: the connections are there, and the share is what it was, when it begins.
          // A server without a free connection is passed over, so there are more than answers that are late at a time.
          yield* Effect.zipRight(read(200, 60), read(200, 2))
          times.splice(0)
          answers = 0
          delays = true
          const sent = (yield* RouterTest.ranOn("/* tenth */")).length
          const before = yield* won
          yield* read(reads, 4)
          const after = yield* won
          assert.isAbove(delayed, reads / 30)
          // Without hedging as many as there were delays.
          assert.isBelow(times.filter((time) => time >= late).length, reads / 100)
          const ran = (yield* RouterTest.ranOn("/* tenth */")).length - sent
          assert.isAbove(ran, reads)
          assert.isAtMost(ran, reads * 1.12)
          // The late attempts have lost.
          assert.isAtLeast(after[1]! - before[1]!, delayed * 0.5)
        })
      )
    }
  )

  it.scoped("all of them are slow: no more are sent twice than the share", () =>
    routed({ hedge: { after: "10 millis", maxShare: 0.2 } }, () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const before = yield* won
        const [, hedged] = yield* hedgesOf(
          Effect.all(
            Array.from({ length: 100 }, () => sql`SELECT pg_sleep(0.05) /* all slow */`),
            { concurrency: 10 }
          )
        )
        const after = yield* won
        assert.isAtLeast(hedged.length, 15)
        assert.isAtMost(hedged.length, 21)
        assert.strictEqual(after.reduce((sum, n) => sum + n, 0) - before.reduce((sum, n) => sum + n, 0), hedged.length)
        assert.isAtMost((yield* RouterTest.ranOn("/* all slow */")).length, 121)
      })
    )
  )

  it.scoped("off, nothing is sent twice", () =>
    routed({}, () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [, hedged] = yield* hedgesOf(sql`SELECT pg_sleep(0.1) /* off */`)
        assert.strictEqual(hedged.length, 0)
        assert.strictEqual((yield* RouterTest.ranOn("/* off */")).length, 1)
      })
    )
  )

  it.scoped("what is no read of its own on a replica is never sent twice; the others are", () =>
    routed({ hedge: { after: "5 millis", maxShare: 1 } }, ({ awaitReplayed }) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE once (n int)`
        yield* awaitReplayed
        const read = sql`SELECT pg_sleep(0.05) /* never twice */`
        const write = sql`INSERT INTO once SELECT 1 FROM pg_sleep(0.05) /* never twice */`
        const row = { settings: { "app.user": "1" } }
        const never: ReadonlyArray<Effect.Effect<unknown, unknown, DbRouter.DbRouter>> = [
          write,
          DbRouter.primary(read),
          DbRouter.bindGroup(read, "default"),
          sql.withTransaction(read),
          DbRouter.readOnly(read),
          DbRouter.session(DbRouter.primary(read)),
          DbRouter.session(Effect.zipRight(write, read)),
          DbRouter.session(read, { reads: "snapshot" }),
          DbRouter.session(read, row),
          DbRouter.session(sql.withTransaction(read)),
          Effect.scoped(
            Effect.flatMap(sql.reserve, (on) => on.executeRaw("SELECT pg_sleep(0.05) /* never twice */", []))
          ),
          Stream.runDrain(read.stream)
        ]
        const statements = never.length + 1
        const [, hedged] = yield* hedgesOf(
          Effect.forEach(never, (one) => Effect.zipRight(DbRouter.reset, one), { discard: true })
        )
        assert.deepStrictEqual(hedged, [])
        assert.strictEqual((yield* RouterTest.ranOn("/* never twice */")).length, statements)
        yield* DbRouter.reset
        const own = sql`SELECT pg_sleep(0.05) /* twice */`
        const [, others] = yield* hedgesOf(
          Effect.all([own, DbRouter.session(own), own.values, own.raw, own.unprepared])
        )
        assert.strictEqual(others.length, 5)
        assert.strictEqual((yield* RouterTest.ranOn("/* twice */")).length, 10)
      })
    )
  )

  it.scoped("its span says where it went, and who answered", () =>
    routed({ hedge: { after: "5 millis", maxShare: 1 } }, () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const read = sql.unsafe(`SELECT current_setting('cluster_name') AS name, ${slowOnFirst(0.3)}`)
        const seen: Array<unknown> = []
        for (let i = 0; i < 4; i++) {
          const [rows, spans] = yield* RouterTest.spansOf(read)
          const [{ attributes }] = spans as [RouterTest.TestSpan]
          const [{ name }] = rows as [{ name: string }]
          assert.strictEqual(attributes.get("db.router.engine"), name)
          assert.strictEqual(name, "replica2")
          if (attributes.has("db.router.hedged")) {
            seen.push([attributes.get("db.router.hedged"), attributes.get("db.router.reason")])
          }
        }
        assert.deepInclude(seen, ["replica2", "replica1 had not answered in time"])
      })
    )
  )

  it.scoped("one fails: the other's answer; both fail: the primary, and neither of them again", () =>
    routed({ hedge: { after: "5 millis", maxShare: 1 } }, ({ nodes, replicas }) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const runs = (text: string, node: PgCluster.Node) =>
          engines.eventually(engines.activity(node), (all) =>
            all.some(({ query, state }) => state === "active" && query.includes(text))
          )
        const terminate = (node: PgCluster.Node, text: string) =>
          node.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE $1",
            [`%${text}%`]
          )
        // What is to be terminated runs until it is; what is to answer, long enough to be asked.
        const sleeps = (...names: ReadonlyArray<string>) =>
          `pg_sleep(CASE WHEN current_setting('cluster_name') = ANY ('{${names}}') THEN 600 ELSE 2 END)`
        const one = yield* Effect.fork(RouterTest.spansOf(sql.unsafe(`SELECT ${sleeps("replica1")}, 'one fails'`)))
        yield* Effect.forEach(replicas, (node) => runs("one fails", node))
        yield* terminate(replicas[0]!, "one fails")
        const [, [answered]] = yield* Fiber.join(one)
        assert.strictEqual(answered!.attributes.get("db.router.engine"), "replica2")
        assert.isFalse(answered!.attributes.has("db.router.attempts"))
        yield* engines.eventually(
          Effect.flatMap(DbRouter.DbRouter, ({ status }) => status),
          (all) => all.every(({ state }) => state === "up")
        )

        const both = yield* Effect.fork(
          RouterTest.spansOf(sql.unsafe(`SELECT ${sleeps("replica1", "replica2")}, 'both fail'`))
        )
        yield* Effect.forEach(replicas, (node) => runs("both fail", node))
        yield* Effect.forEach(replicas, (node) => terminate(node, "both fail"), { concurrency: "unbounded" })
        const [, [moved]] = yield* Fiber.join(both)
        assert.strictEqual(moved!.attributes.get("db.router.engine"), "primary")
        assert.strictEqual(moved!.attributes.get("db.router.attempts"), 3)
        for (const name of ["replica1: 57P01", "replica2: 57P01"]) {
          assert.include(String(moved!.attributes.get("db.router.failed")), name)
        }
        const ran = yield* RouterTest.ranOn("'both fail'")
        for (const { name } of nodes) assert.strictEqual(ran.filter((on) => on === name).length, 1)
      })
    )
  )

  it.scoped(
    "a thousand losers are cancelled, some with their fiber: pools are whole, and no other statement fails",
    () =>
      Effect.gen(function* () {
        const seen = yield* engines.troubles(
          routed({ hedge: { after: "3 millis", maxShare: 1 } }, ({ nodes }) =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              const { status } = yield* DbRouter.DbRouter
              const wrongs: Array<unknown> = []
              let isOver = false
              let served = 0
              const victim = (who: number) =>
                Effect.gen(function* () {
                  for (let i = 0; !isOver; i++) {
                    const id = who * 1_000_000 + i
                    const read = sql<{ id: number }>`SELECT ${id}::int AS id, pg_sleep(0.004)`
                    const exit = yield* Effect.exit(i % 2 === 0 ? read : DbRouter.readOnly(read))
                    if (Exit.isFailure(exit) || exit.value[0]!.id !== id) wrongs.push(exit)
                    served++
                  }
                })
              const victims = yield* Effect.forEach([1, 2], (who) => Effect.fork(victim(who)))
              let lost = 0
              let interrupted = 0
              const doomed = (id: number) => sql.unsafe<{ id: number }>(`SELECT ${id} AS id, ${slowOnFirst(0.06)}`)
              const run = (i: number) =>
                Effect.gen(function* () {
                  const fiber = yield* Effect.fork(hedgesOf(doomed(i)))
                  if (i % 10 === 0) {
                    yield* Effect.sleep(Math.floor((yield* Random.next) * 12))
                    interrupted += Exit.isInterrupted(yield* Fiber.interrupt(fiber)) ? 1 : 0
                    return
                  }
                  const [rows, hedged] = yield* Fiber.join(fiber)
                  if (rows[0]!.id !== i) wrongs.push(rows)
                  lost += hedged.length
                })
              let i = 0
              yield* Effect.all(
                Array.from({ length: 6 }, () =>
                  Effect.repeat(
                    Effect.suspend(() => run(++i)),
                    { while: () => lost < 1_000 }
                  )
                ),
                { concurrency: "unbounded" }
              )
              isOver = true
              yield* Effect.forEach(victims, Fiber.join)
              assert.deepStrictEqual(wrongs, [])
              assert.isAbove(served, 100)
              assert.isAbove(interrupted, 20)
              const pools = yield* engines.eventually(
                Effect.map(status, (all) => all.map(({ inFlight, pool }) => ({ inFlight, ...pool }))),
                (all) => all.every(({ idle, inFlight, total, waiting }) => idle === total && inFlight + waiting === 0)
              )
              for (const { max, total } of pools) assert.isAtMost(total, max)
              for (const node of nodes) {
                assert.deepStrictEqual(
                  (yield* engines.activity(node)).filter(({ state }) => state !== "idle"),
                  []
                )
              }
            })
          )
        )
        assert.deepStrictEqual(seen, [])
      }).pipe(Effect.withRandom(Random.make("hedge"))),
    120_000
  )
})
