import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Fiber, Logger, Option, Redacted, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { activity, eventually, partsOf, stateOf } from "../support/engine.js"
import { becomes, over, quick, readPort, statusOf } from "../support/health.js"
import { enginesOf, spansOf, traced } from "../support/router.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

// Conflicts need standbys that cancel at once, and say nothing to the primary.
const Cluster = PgCluster.layer({
  replicas: 2,
  replicaSettings: { hot_standby_feedback: "off", max_standby_streaming_delay: "0" }
})

const routed = <A, E>(
  effect: (
    cluster: PgCluster.Cluster
  ) => Effect.Effect<A, E, SqlClient.SqlClient | DbRouter.DbRouter | PgCluster.PgCluster>,
  options: Parameters<typeof over>[2] = {},
  replicas = 1
) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) =>
    effect(cluster).pipe(
      Effect.provide(over(cluster.primary, cluster.replicas.slice(0, replicas), options)),
      Effect.provide(silent)
    )
  )

/** Ends what a router does on a server. */
const terminate = (node: PgCluster.Node) =>
  node.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'effect-db-router' AND pid <> pg_backend_pid()"
  )

const runsOn = (node: PgCluster.Node, text: string) =>
  eventually(activity(node), (all) => all.some(({ query, state }) => state === "active" && query.includes(text)))

/** What the spans of reads say of where they have failed. */
const failuresOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(spansOf(effect), ([, spans]) =>
    spans.flatMap(({ attributes }) =>
      attributes.has("db.router.attempts")
        ? [
            [
              attributes.get("db.router.attempts"),
              attributes.get("db.router.failed"),
              attributes.get("db.router.engine")
            ]
          ]
        : []
    )
  )

layer(Cluster, { timeout: "60 seconds", excludeTestServices: true })(
  "a read that fails because of its server",
  (it) => {
    it.scoped("57P01, a backend that is terminated: the read runs elsewhere, and its span says so", () =>
      routed(({ primary, replicas }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const reading = yield* Effect.fork(failuresOf(sql`SELECT pg_sleep(1)`))
          yield* runsOn(replicas[0]!, "pg_sleep(1)")
          yield* terminate(replicas[0]!)
          assert.deepStrictEqual(yield* Fiber.join(reading), [[2, "replica1: 57P01", "primary"]])
          yield* becomes("replica1", "up")
          assert.deepStrictEqual(yield* enginesOf(sql`SELECT 1`), ["replica1"])
          assert.strictEqual((yield* activity(primary)).length > 0, true)
        })
      )
    )

    it.scoped("a server that is not probed: the read runs elsewhere, and the next one tries the server again", () =>
      routed(
        ({ replicas }) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* replicas[0]!.kill
            for (let i = 0; i < 2; i++) {
              assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), [[2, "replica1: ECONNREFUSED", "primary"]])
            }
            yield* replicas[0]!.start
            assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), [])
          }),
        { health: false }
      )
    )

    it.scoped("all replicas fail, and the primary is not to serve reads: typed, with each one's reason", () =>
      routed(
        ({ replicas }) =>
          Effect.gen(function* () {
            yield* Effect.all(
              replicas.map((node) => node.kill),
              { concurrency: "unbounded" }
            )
            const error = yield* Effect.flip(readPort)
            assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
            assert.include(error.message, "replica1: ECONNREFUSED")
            assert.include(error.message, "replica2: ECONNREFUSED")
            yield* Effect.all(
              replicas.map((node) => node.start),
              { concurrency: "unbounded" }
            )
          }),
        { health: false, onNoReplica: "fail" },
        2
      )
    )

    it.scoped("a stream: elsewhere before its first row, never after it", () =>
      routed(({ replicas }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const before = yield* Effect.fork(Stream.runCollect(sql`SELECT 1 AS n, pg_sleep(1)::text`.stream))
          yield* runsOn(replicas[0]!, "AS n")
          yield* terminate(replicas[0]!)
          assert.strictEqual(Chunk.size(yield* Fiber.join(before)), 1)
          yield* becomes("replica1", "up")
          let rows = 0
          const error = yield* Effect.flip(
            sql`SELECT i FROM generate_series(1, 100000) AS i`.stream.pipe(
              Stream.runForEach(() => (++rows === 100 ? Effect.orDie(terminate(replicas[0]!)) : Effect.void))
            )
          )
          assert.strictEqual(stateOf(error), "57P01")
          assert.isBelow(rows, 100_000)
          yield* becomes("replica1", "up")
        })
      )
    )

    it.scoped("in a transaction: the caller's, never elsewhere", () =>
      routed(({ replicas }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const reading = yield* Effect.fork(
            Effect.flip(traced(DbRouter.readOnly(sql`SELECT pg_sleep(5), 'in a transaction'`)))
          )
          yield* runsOn(replicas[0]!, "in a transaction")
          yield* terminate(replicas[0]!)
          yield* Fiber.join(reading)
          yield* becomes("replica1", "up")
        })
      )
    )

    it.scoped("57P05, an idle session that was closed: again on the same server, which stays in", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query("ALTER ROLE postgres SET idle_session_timeout = '300ms'")
        yield* Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed }) => awaitReplayed)
        yield* routed(
          () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              // Some of these meet a connection that the server is just closing.
              for (const wait of [290, 295, 300, 305, 310, 400]) {
                yield* sql`SELECT 1`
                yield* Effect.sleep(wait)
                assert.deepStrictEqual(yield* enginesOf(sql`SELECT 1`), ["replica1"])
                assert.strictEqual((yield* statusOf("replica1")).state, "up")
              }
            }),
          { health: { ...quick, interval: "100 millis" } }
        )
        yield* primary.query("ALTER ROLE postgres RESET idle_session_timeout")
        yield* Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed }) => awaitReplayed)
      })
    )

    it.scoped("40001, a conflict with replay: elsewhere, and the replica stays in", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const conflicts = Effect.map(
          replicas[0]!.query<{ n: number }>("SELECT sum(conflicts)::int AS n FROM pg_stat_database"),
          (rows) => rows[0]!.n
        )
        const before = yield* conflicts
        yield* primary.query("CREATE TABLE contested AS SELECT 1 AS n")
        yield* awaitReplayed
        yield* routed(({ primary, replicas }) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const reading = yield* Effect.fork(failuresOf(sql`SELECT n, pg_sleep(1) FROM contested`))
            yield* runsOn(replicas[0]!, "contested")
            // Replay needs the lock that the query has.
            yield* primary.query("ALTER TABLE contested ADD COLUMN more int")
            assert.deepStrictEqual(yield* Fiber.join(reading), [[2, "replica1: 40001", "primary"]])
            assert.strictEqual((yield* statusOf("replica1")).state, "up")
          })
        )
        // A backend reports it when it ends.
        yield* eventually(conflicts, (now) => now > before)
      })
    )

    it.scoped("42703, 42P01: what a lagging replica does not have yet is read from the primary", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary } = yield* PgCluster.PgCluster
        yield* primary.query("CREATE TABLE old AS SELECT 1 AS n")
        yield* awaitReplayed
        yield* routed(({ awaitReplayed, replicas }) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* replicas[0]!.pauseReplay
            // A migration through the router: it knows the new table as one that can be read.
            yield* sql`ALTER TABLE old ADD COLUMN fresh int DEFAULT 7`
            yield* sql`CREATE TABLE new AS SELECT 8 AS n`
            yield* DbRouter.reset
            assert.deepStrictEqual(yield* failuresOf(sql`SELECT fresh FROM old`), [[2, "replica1: 42703", "primary"]])
            assert.deepStrictEqual(yield* failuresOf(sql`SELECT n FROM new`), [[2, "replica1: 42P01", "primary"]])
            // What the primary does not have either is the caller's error.
            assert.strictEqual(stateOf(yield* Effect.flip(sql`SELECT nowhere FROM old`)), "42703")
            assert.strictEqual((yield* statusOf("replica1")).state, "up")
            yield* replicas[0]!.resumeReplay
            yield* awaitReplayed
            // Nothing was remembered against the texts.
            assert.deepStrictEqual(yield* enginesOf(sql`SELECT n FROM new`), ["replica1"])
          })
        )
      })
    )

    it.scoped("57014, a statement timeout of the user's: the caller's, and the primary is not asked", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        const url = Redacted.make(`${Redacted.value(replicas[0]!.url)}?options=-c%20statement_timeout%3D200`)
        yield* routed(
          () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              const [error, spans] = yield* traced(Effect.flip(sql`SELECT pg_sleep(5)`))
              assert.strictEqual(stateOf(error), "57014")
              assert.deepStrictEqual(
                spans.map(({ engine }) => engine),
                ["replica1"]
              )
              assert.strictEqual((yield* statusOf("replica1")).state, "up")
            }),
          { groups: { default: [{ url: primary.url, name: "primary" }], read: [{ url, name: "replica1" }] } }
        )
      })
    )

    it.scoped("25006, what a standby refuses: the primary, and the text is remembered", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary } = yield* PgCluster.PgCluster
        yield* primary.query(
          "CREATE SEQUENCE written; CREATE FUNCTION sly() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('written'); RETURN 1; END $$"
        )
        yield* awaitReplayed
        yield* routed(() =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const statement = sql`SELECT sly()`
            const [, spans] = yield* traced(Effect.exit(statement))
            const router = yield* DbRouter.DbRouter
            assert.strictEqual(spans[0]!.engine, "primary")
            assert.strictEqual((yield* router.explain("SELECT sly()")).kind, "write")
            assert.strictEqual((yield* statusOf("replica1")).state, "up")
          })
        )
      })
    )

    it.scoped("57014, the cancel of another client: the caller's, once", () =>
      routed(({ replicas }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const [error, spans] = yield* traced(
            Effect.flip(
              Effect.forkDaemon(sql`SELECT pg_sleep(5)`).pipe(
                Effect.zipLeft(runsOn(replicas[0]!, "pg_sleep(5)")),
                Effect.zipLeft(
                  replicas[0]!.query(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(5)%' AND pid <> pg_backend_pid()"
                  )
                ),
                Effect.flatMap(Fiber.join)
              )
            )
          )
          assert.strictEqual(stateOf(error), "57014")
          assert.deepStrictEqual(
            spans.map(({ engine }) => engine),
            ["replica1"]
          )
          assert.strictEqual((yield* statusOf("replica1")).state, "up")
        })
      )
    )

    it.scoped("53300, no connection is left on a replica: elsewhere", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary } = yield* PgCluster.PgCluster
        yield* primary.query("CREATE ROLE limited LOGIN PASSWORD 'limited' CONNECTION LIMIT 2")
        yield* awaitReplayed
        yield* routed(
          () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              // The probe has one of the two.
              const [, spans] = yield* spansOf(
                Effect.all(
                  Array.from({ length: 4 }, () => sql`SELECT pg_sleep(0.2)`),
                  { concurrency: "unbounded" }
                )
              )
              const failed = spans.flatMap(({ attributes }) => attributes.get("db.router.failed") ?? [])
              assert.isAbove(failed.length, 0)
              assert.include(failed, "replica1: 53300")
            }),
          {
            groups: yield* Effect.map(PgCluster.PgCluster, ({ primary, replicas }) => ({
              default: [{ url: primary.url, name: "primary" }],
              read: [
                {
                  ...partsOf(replicas[0]!),
                  host: replicas[0]!.host,
                  port: replicas[0]!.port,
                  username: "limited",
                  password: Redacted.make("limited"),
                  name: "replica1"
                }
              ]
            }))
          }
        )
      })
    )
  }
)
