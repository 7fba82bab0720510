/** Who waits for a connection, for how long, and what happens then. */
import * as Net from "node:net"
import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Either, Exit, Layer, Option, Redacted, Scope, Stream } from "effect"
import { Consistency, DbRouter, type RouterConfig, RouterError, Selector } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

engines.refuseWarnings()

const connections = 2

/** A router over the cluster, each of whose servers has two connections. */
const over = (options: Partial<RouterConfig.Options> = {}, replicas = 2) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) =>
    Effect.map(
      Layer.build(
        DbRouter.layer({
          groups: {
            default: [{ url: cluster.primary.url, name: "primary", maxConnections: connections }],
            read: cluster.replicas
              .slice(0, replicas)
              .map(({ name, url }, i) => ({ url, name, maxConnections: connections, zone: i === 0 ? "near" : "far" }))
          },
          consistency: Consistency.eventual(),
          shutdownTimeout: "1 second",
          ...options
        })
      ),
      (context) => Context.omit(PgCluster.PgCluster)(context)
    )
  )

const where = Effect.map(
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ name: string }>`SELECT current_setting('cluster_name') AS name /* who */`
  ),
  (rows) => rows[0]!.name
)

/** Holds every connection to some servers by streams of which only the first rows are read, until the scope closes. */
const hold = (names: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    // The pool counts a connection that is still being opened, so what counts here is a stream that has begun.
    const held = new Map(names.map((name) => [name, 0]))
    const isHeld = () => [...held.values()].every((count) => count === connections)
    const others: Array<Scope.CloseableScope> = []
    for (let i = 0; i < 40 && !isHeld(); i++) {
      const own = yield* Scope.fork(yield* Effect.scope, { _tag: "Sequential" })
      const rows = sql<{ name: string }>`
        SELECT current_setting('cluster_name') AS name, repeat('x', 1000) FROM generate_series(1, 100000)`
      const pull = yield* Scope.extend(Stream.toPull(rows.stream), own)
      const chunk = yield* Effect.orDie(Effect.mapError(pull, Option.getOrThrow))
      const { name } = Array.from(chunk)[0]!
      if (held.has(name)) held.set(name, held.get(name)! + 1)
      else others.push(own)
    }
    for (const own of others) yield* Scope.close(own, Exit.void)
    assert.isTrue(isHeld())
  })

/** What many reads at the same time answer, and how long the slowest takes. */
const many = (count: number) =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const began = clock.unsafeCurrentTimeNanos()
    const all = yield* Effect.all(
      Array.from({ length: count }, () => Effect.either(where)),
      { concurrency: "unbounded" }
    )
    const millis = Number(clock.unsafeCurrentTimeNanos() - began) / 1e6
    const kinds = new Set(all.map(Either.getOrElse((error) => String(Option.getOrThrow(RouterError.reasonOf(error))))))
    return { kinds: [...kinds].sort(), millis }
  })

layer(PgCluster.layer({ replicas: 2 }), { excludeTestServices: true, timeout: "2 minutes" })("a read", (it) => {
  describe("goes to a replica with a free connection while another one's are held", () => {
    const strategies = {
      roundRobin: Selector.roundRobin,
      random: Selector.random,
      leastBusy: Selector.leastBusy,
      lowestLatency: Selector.lowestLatency,
      preferZone: Selector.preferZone("near", Selector.roundRobin),
      "one of the user's": Selector.make("first", () => (candidates) => candidates[0]!)
    }
    for (const [name, strategy] of Object.entries(strategies)) {
      it.scoped(name, () =>
        Effect.gen(function* () {
          const context = yield* over({ strategy, waitForReplica: "1 minute" })
          yield* Effect.provide(
            Effect.gen(function* () {
              const [first, second] = (yield* PgCluster.PgCluster).replicas.map(({ name }) => name)
              // The one that the strategy prefers, where it has a preference.
              yield* hold([first!])
              yield* Effect.sleep("150 millis")
              const found = yield* many(40)
              assert.deepStrictEqual(found.kinds, [second!])
            }),
            context
          )
        })
      )
    }
  })

  it.scoped("waits for a held replica for waitForReplica, and then goes to the primary", () =>
    Effect.gen(function* () {
      const context = yield* over({ waitForReplica: "300 millis" })
      yield* Effect.provide(
        Effect.gen(function* () {
          yield* hold((yield* PgCluster.PgCluster).replicas.map(({ name }) => name))
          const found = yield* many(20)
          assert.deepStrictEqual(found.kinds, ["primary"])
          assert.isAtLeast(found.millis, 290)
          // Not once for each replica.
          assert.isBelow(found.millis, 2_000)
        }),
        context
      )
    })
  )

  it.scoped("goes there too as a stream, in a read-only section, and in a session with settings", () =>
    Effect.gen(function* () {
      const context = yield* over({ waitForReplica: "100 millis" }, 1)
      yield* Effect.provide(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* hold(["replica1"])
          const rows = sql<{ name: string }>`SELECT current_setting('cluster_name') AS name`
          const streamed = Effect.map(Stream.runCollect(rows.stream), (all) => Array.from(all)[0]!.name)
          assert.strictEqual(yield* streamed, "primary")
          assert.strictEqual(yield* DbRouter.readOnly(where), "primary")
          assert.strictEqual(yield* DbRouter.readOnly(streamed), "primary")
          assert.strictEqual(yield* DbRouter.session(where, { settings: { "app.tenant": "1" } }), "primary")
        }),
        context
      )
    })
  )

  it.scoped(
    "of a session that has written on the primary goes there into its transaction, on the same connection",
    () =>
      Effect.gen(function* () {
        const context = yield* over({ waitForReplica: "100 millis" }, 1)
        yield* Effect.provide(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql`CREATE TABLE uncommitted (id int)`
            // One that takes long is not taken for stuck soon.
            yield* sql`SELECT pg_sleep(0.5)`
            yield* hold(["replica1"])
            const rows = yield* DbRouter.session(
              Effect.zipRight(
                sql`INSERT INTO uncommitted VALUES (1)`,
                DbRouter.replica(sql`SELECT id FROM uncommitted`)
              )
            )
            assert.deepStrictEqual(rows, [{ id: 1 }])
          }),
          context
        )
      })
  )

  it.scoped('fails where it may not go to the primary (onNoReplica: "fail"), and says why', () =>
    Effect.gen(function* () {
      const context = yield* over({ waitForReplica: "100 millis", onNoReplica: "fail" })
      yield* Effect.provide(
        Effect.gen(function* () {
          yield* hold((yield* PgCluster.PgCluster).replicas.map(({ name }) => name))
          const error = yield* Effect.flip(where)
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
          assert.match(error.message, /replica1: its pool is busy/)
          assert.match(error.message, /replica2: its pool is busy/)
        }),
        context
      )
    })
  )

  it.scoped("on the primary fails after connectTimeout with PoolBusy, as a write does", () =>
    Effect.gen(function* () {
      const context = yield* over({}, 0)
      yield* Effect.provide(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* hold(["primary"])
          const errors = yield* Effect.all([Effect.flip(where), Effect.flip(sql`CREATE TABLE held (i int)`)], {
            concurrency: "unbounded"
          })
          for (const error of errors) {
            assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("PoolBusy"))
            assert.strictEqual(RouterError.outcomeOf(error), "not done")
            assert.include(String(error.cause), "maxConnections")
          }
        }),
        context
      )
    })
  )
})

/** A server in front of another one. It can fall silent, for those that are connected and those that come. */
const silenceable = (node: PgCluster.Node) =>
  Effect.acquireRelease(
    Effect.async<{ readonly url: Redacted.Redacted; readonly silence: () => void; readonly refuse: () => void }>(
      (resume) => {
        const sockets = new Set<Net.Socket>()
        const target = new URL(Redacted.value(node.url))
        let isSilent = false
        const server = Net.createServer((client) => {
          sockets.add(client)
          client.on("error", () => {})
          client.resume()
          if (isSilent) return
          const upstream = Net.connect(Number(target.port), target.hostname)
          sockets.add(upstream)
          upstream.on("error", () => client.destroy())
          client.pipe(upstream).pipe(client)
        })
        const cut = () => {
          for (const socket of sockets) socket.destroy()
          sockets.clear()
        }
        server.listen(0, "127.0.0.1", () => {
          const url = new URL(target)
          url.hostname = "127.0.0.1"
          url.port = String((server.address() as Net.AddressInfo).port)
          const silence = () => {
            isSilent = true
            cut()
          }
          const refuse = () => {
            server.close()
            cut()
          }
          resume(Effect.succeed({ url: Redacted.make(url.href), silence, refuse }))
        })
      }
    ),
    ({ refuse }) => Effect.sync(refuse)
  )

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true, timeout: "2 minutes" })("a crowd", (it) => {
  const storm = (
    options: Partial<RouterConfig.Options>,
    engine: Partial<RouterConfig.EngineConfig>,
    how: "silence" | "refuse"
  ) =>
    Effect.gen(function* () {
      const server = yield* silenceable((yield* PgCluster.PgCluster).primary)
      const router = DbRouter.layer({
        groups: { default: [{ url: server.url, name: "primary", maxConnections: 4, ...engine }] },
        shutdownTimeout: "100 millis",
        ...options
      })
      const context = yield* Layer.build(router)
      return yield* Effect.provide(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`SELECT 1`
          server[how]()
          yield* Effect.sleep("50 millis")
          const clock = yield* Effect.clock
          const began = clock.unsafeCurrentTimeNanos()
          const all = yield* Effect.all(
            Array.from({ length: 100 }, () =>
              Effect.map(Effect.flip(sql`CREATE TABLE crowd (i int)`), (error) => ({
                outcome: RouterError.outcomeOf(error),
                millis: Number(clock.unsafeCurrentTimeNanos() - began) / 1e6
              }))
            ),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual([...new Set(all.map(({ outcome }) => outcome))], ["not done"])
          const { status } = yield* DbRouter.DbRouter
          yield* engines.eventually(status, ([{ pool }]) => pool.waiting === 0 && pool.total === pool.idle)
          return Math.max(...all.map(({ millis }) => millis))
        }),
        context
      )
    })

  it.scoped("that waits for a server which has fallen silent is released when each one's time is over", () =>
    Effect.gen(function* () {
      const last = yield* storm({ health: false }, { connectTimeout: "500 millis" }, "silence")
      assert.isAtLeast(last, 450)
      assert.isBelow(last, 2_000)
    })
  )

  it.scoped("is released together as soon as the server is known to be down", () =>
    Effect.gen(function* () {
      const health = { interval: "200 millis", timeout: "200 millis" } as const
      const waitForPrimary = { statements: "100 millis" } as const
      const last = yield* storm({ health, waitForPrimary }, { connectTimeout: "1 minute" }, "silence")
      assert.isBelow(last, 5_000)
    })
  )

  it.scoped("is released together by a server that refuses connections", () =>
    Effect.gen(function* () {
      const last = yield* storm({ health: false }, { connectTimeout: 0 }, "refuse")
      assert.isBelow(last, 2_000)
    })
  )
})
