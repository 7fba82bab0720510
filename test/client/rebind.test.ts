import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Fiber, Layer, Option, Redacted, Ref, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

const Live = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url, name: "primary" }],
        read: [{ url: replicas[0]!.url, name: "replica", maxConnections: 3 }]
      },
      shutdownTimeout: "20 seconds"
    })
  )
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 2 })))

const sessionsOf = (node: PgCluster.Node) =>
  Effect.map(
    node.query<{ n: number }>(
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'effect-db-router'"
    ),
    (rows) => rows[0]!.n
  )

const until = (check: Effect.Effect<boolean, PgCluster.PgClusterError>) =>
  Effect.repeat(Effect.delay(check, "20 millis"), { until: (done) => done, times: 500 })

layer(Live, { timeout: "60 seconds", excludeTestServices: true })(
  "DBConnect(engine_creator, host, before_create_session_handler), change_host -> an engine's configuration as an Effect, rebind",
  (it) => {
    it.effect("new statements go to the new server, and the old one keeps no connection", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const { replicas } = yield* PgCluster.PgCluster
        yield* sql`SELECT 1`
        assert.strictEqual(yield* sessionsOf(replicas[0]!), 1)
        yield* router.rebind("replica", { url: replicas[1]!.url })
        yield* sql`SELECT 1`
        assert.isAtLeast(yield* sessionsOf(replicas[1]!), 1)
        assert.isTrue(yield* until(Effect.map(sessionsOf(replicas[0]!), (n) => n === 0)))
        const status = (yield* router.status).find(({ name }) => name === "replica")!
        assert.strictEqual(status.port, replicas[1]!.port)
      })
    )

    it.effect("loses no statement that runs or waits, nor a stream, nor a transaction", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const { primary, replicas } = yield* PgCluster.PgCluster
        // More than there are connections, so that some wait.
        const slow = yield* Effect.fork(
          Effect.forEach(
            Array.from({ length: 9 }, (_, i) => i),
            (i) => sql<{ i: number }>`SELECT ${i}::int AS i, pg_sleep(0.2)::text AS slept`,
            { concurrency: "unbounded" }
          )
        )
        const streamed = yield* Effect.fork(
          Stream.runCollect(
            Stream.mapEffect(sql`SELECT generate_series(1, 500) AS i`.stream, () => Effect.sleep("1 millis"))
          )
        )
        const transaction = yield* Effect.fork(
          sql.withTransaction(
            Effect.zipRight(
              Effect.zipLeft(sql`SELECT pg_backend_pid() AS pid`, Effect.sleep("200 millis")),
              sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
            )
          )
        )
        yield* Effect.sleep("50 millis")
        yield* router.rebind("replica", { url: replicas[0]!.url })
        yield* router.rebind("primary", { url: primary.url })
        yield* sql`SELECT 1`
        assert.deepStrictEqual(
          (yield* Fiber.join(slow)).map((rows) => rows[0]!.i),
          [0, 1, 2, 3, 4, 5, 6, 7, 8]
        )
        assert.strictEqual(Chunk.size(yield* Fiber.join(streamed)), 500)
        assert.strictEqual((yield* Fiber.join(transaction)).length, 1)
      })
    )

    it.effect("under load in both directions, nothing fails", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const { replicas } = yield* PgCluster.PgCluster
        const done = yield* Ref.make(0)
        const load = yield* Effect.fork(
          Effect.forever(
            Effect.zipRight(
              sql`SELECT 1`,
              Ref.update(done, (n) => n + 1)
            )
          ).pipe((one) =>
            Effect.all(
              Array.from({ length: 8 }, () => one),
              { concurrency: "unbounded" }
            )
          )
        )
        for (let i = 0; i < 10; i++) {
          yield* Effect.sleep("20 millis")
          yield* router.rebind("replica", Effect.succeed({ url: replicas[i % 2]!.url, maxConnections: 3 }))
        }
        assert.isNull(load.unsafePoll())
        yield* Fiber.interrupt(load)
        assert.isAbove(yield* Ref.get(done), 100)
      })
    )

    it.effect(
      "a server that does not answer, a wrong configuration, an unknown engine: typed, and nothing changes",
      () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const router = yield* DbRouter.DbRouter
          const before = (yield* router.status).map(({ port }) => port)
          const refused = yield* Effect.flip(router.rebind("replica", { host: "127.0.0.1", port: 1 }))
          assert.strictEqual(refused._tag, "SqlError")
          const wrong = yield* Effect.flip(
            router.rebind("replica", { url: Redacted.make("mysql://user:secret@host/db") })
          )
          assert.strictEqual(wrong._tag, "RouterConfigError")
          assert.notInclude(wrong.message, "secret")
          const failing = yield* Effect.flip(router.rebind("replica", Effect.fail("no such secret in the vault")))
          assert.include(failing.message, "replica")
          const unknown = yield* Effect.flip(router.rebind("replcia", { host: "127.0.0.1" }))
          assert.deepStrictEqual(RouterError.reasonOf(unknown), Option.some("UnknownEngine"))
          yield* sql`SELECT 1`
          assert.deepStrictEqual(
            (yield* router.status).map(({ port }) => port),
            before
          )
        })
    )
  }
)
