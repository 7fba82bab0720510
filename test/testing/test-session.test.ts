import { HttpApp, HttpRouter, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, describe, it, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, type Runtime, Stream } from "effect"
import { DbRouter, HttpSession, RouterError } from "effect-db-router"
import { PgCluster, TestSession } from "effect-db-router/testing"

const RouterLive = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url, name: "primary", maxConnections: 4 }],
        read: replicas.map(({ name, url }) => ({ url, name })),
        analytics: [{ url: replicas[0]!.url, name: "analytics" }]
      }
    })
  )
)

const Schema = Layer.effectDiscard(
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL)`)
)

const Live = Schema.pipe(Layer.provideMerge(RouterLive), Layer.provideMerge(PgCluster.layer({ replicas: 1 })))

const insert = (id: number, name = "a") =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO item (id, name) VALUES (${id}, ${name})`)

const names = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ name: string }>`SELECT name FROM item ORDER BY id`, (rows) => rows.map((row) => row.name).join(""))
)

/** What is really there, asked on a connection that has nothing to do with the router. */
const stored = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ n: number }>("SELECT count(*)::int AS n FROM item"), (rows) => rows[0]!.n)
)

const pid = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, (rows) => rows[0]!.pid)
)

layer(Live, { timeout: "60 seconds", excludeTestServices: true })(
  "rollback_session, set_test_context, put_savepoint_session_in_ctx -> TestSession.rollback",
  (it) => {
    it.effect("leaves nothing behind: autocommitted, in transactions, in sessions, in new sessions", () =>
      Effect.gen(function* () {
        const seen = yield* TestSession.rollback(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* insert(1, "a")
            yield* sql.withTransaction(insert(2, "b"))
            yield* DbRouter.session(insert(3, "c"))
            yield* DbRouter.session(Effect.zipRight(insert(4, "d"), DbRouter.newSession(insert(5, "e"))))
            yield* DbRouter.session(Effect.zipRight(insert(6, "f"), DbRouter.detached(insert(7, "g"))))
            assert.strictEqual(yield* stored, 0)
            return yield* names
          })
        )
        assert.strictEqual(seen, "abcdefg")
        assert.strictEqual(yield* stored, 0)
      })
    )

    it.effect("settings are those of their unit of work only, as outside a test: committed, rolled back, nested", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query("CREATE ROLE tenant_of_test; GRANT SELECT ON item TO tenant_of_test")
        const sql = yield* SqlClient.SqlClient
        const now = Effect.map(
          sql<{ tenant: string; path: string; role: string }>`
            SELECT coalesce(current_setting('app.tenant', true), '') AS tenant, current_setting('search_path') AS path,
              current_user::text AS role`,
          ([row]) => row!
        )
        const inside = { settings: { "app.tenant": "a", search_path: "pg_temp, public", role: "tenant_of_test" } }
        const inner = { settings: { "app.tenant": "b" } }
        const ofUnit = { tenant: "a", path: "pg_temp, public", role: "tenant_of_test" }
        const seen = Effect.gen(function* () {
          const before = yield* now
          const first = yield* DbRouter.session(
            Effect.gen(function* () {
              const nested = yield* DbRouter.newSession(now, inner)
              return { nested, again: yield* now }
            }),
            inside
          )
          const committed = yield* now
          yield* Effect.exit(DbRouter.session(Effect.zipRight(now, Effect.fail("no")), inside))
          return { before, first, committed, rolledBack: yield* now }
        })
        for (const run of [seen, TestSession.rollback(seen)]) {
          const { before, committed, first, rolledBack } = yield* run
          assert.deepStrictEqual(first, { nested: { ...ofUnit, tenant: "b" }, again: ofUnit })
          assert.deepStrictEqual(before, { ...before, tenant: "" })
          assert.deepStrictEqual([committed, rolledBack], [before, before])
        }
      })
    )

    it.effect("settings do not reach a unit of work inside that leaves them, and are there again after it", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const now = Effect.map(
          sql<{ tenant: string }>`SELECT coalesce(current_setting('app.of_test', true), '') AS tenant`,
          ([row]) => row!.tenant
        )
        const none = { settings: "none" } as const
        const seen = DbRouter.session(
          Effect.gen(function* () {
            const all: Record<string, string> = {}
            all.first = yield* now
            all.newSession = yield* DbRouter.newSession(now, none)
            all.after = yield* now
            all.detached = yield* DbRouter.detached(now, none)
            all.inSession = yield* DbRouter.detached(DbRouter.session(now), none)
            all.inTransaction = yield* DbRouter.detached(sql.withTransaction(now), none)
            all.nested = yield* DbRouter.newSession(
              Effect.all([now, DbRouter.newSession(now, { settings: { "app.of_test": "b" } }), now]),
              none
            ).pipe(Effect.map(String))
            yield* Effect.exit(DbRouter.newSession(Effect.zipRight(now, Effect.fail("no")), none))
            all.inherited = yield* DbRouter.newSession(now)
            all.last = yield* now
            return all
          }),
          { settings: { "app.of_test": "a" } }
        )
        for (const run of [seen, TestSession.rollback(seen)]) {
          assert.deepStrictEqual(yield* run, {
            first: "a",
            newSession: "",
            after: "a",
            detached: "",
            inSession: "",
            inTransaction: "",
            nested: ",b,",
            inherited: "a",
            last: "a"
          })
        }
      })
    )

    it.effect("what a text sets is gone after its unit of work, as outside a test", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const now = Effect.map(
          sql<Record<string, string>>`SELECT coalesce(current_setting('app.of_text', true), '') AS tenant,
            current_setting('TimeZone') AS zone, current_setting('role') AS role, current_setting('work_mem') AS memory`,
          ([row]) => row!
        )
        const texts = [
          "SET LOCAL app.of_text = 'a'",
          "SELECT set_config('app.of_text', 'a', true)",
          "SET LOCAL TIME ZONE 'Asia/Tokyo'",
          "SET LOCAL ROLE pg_monitor",
          'SET work_mem TO "7MB"',
          "SET LOCAL transaction_read_only = on"
        ]
        const all = Effect.forEach(texts, (text) =>
          Effect.gen(function* () {
            const inside = yield* DbRouter.session(Effect.zipRight(sql.unsafe(text), DbRouter.primary(now)))
            return { inside, after: yield* DbRouter.primary(now) }
          })
        )
        assert.deepStrictEqual(yield* TestSession.rollback(all), yield* all)
      })
    )

    it.effect("is rolled back on failure, defect and interruption, and gives its connection back", () =>
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        yield* Effect.exit(TestSession.rollback(Effect.zipRight(insert(1), Effect.fail("no"))))
        yield* Effect.exit(TestSession.rollback(Effect.zipRight(insert(1), Effect.die("no"))))
        const begun = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          TestSession.rollback(
            insert(1).pipe(Effect.zipRight(Deferred.succeed(begun, void 0)), Effect.zipRight(Effect.never))
          )
        )
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* stored, 0)
        const [primary] = yield* router.status
        assert.strictEqual(primary!.pool.idle, primary!.pool.total)
      })
    )

    it.effect("runs everything on one connection, whatever combinator says otherwise", () =>
      TestSession.rollback(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(1)
          const here = yield* pid
          const elsewhere = [
            pid,
            DbRouter.replica(pid),
            DbRouter.primary(pid),
            DbRouter.bindGroup(pid, "analytics"),
            sql.withTransaction(pid),
            DbRouter.session(pid),
            DbRouter.newSession(pid),
            DbRouter.detached(pid),
            DbRouter.readOnly(DbRouter.replica(Effect.as(names, here))),
            Effect.scoped(
              Effect.flatMap(sql.reserve, (connection) =>
                Effect.map(
                  connection.execute("SELECT pg_backend_pid() AS pid", [], undefined),
                  (rows) => rows[0].pid as number
                )
              )
            ),
            Effect.map(
              Stream.runHead(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.stream),
              (row) => Option.getOrThrow(row).pid
            )
          ]
          for (const [i, effect] of elsewhere.entries()) {
            assert.strictEqual(yield* effect, here, `the effect at ${i}`)
          }
          // The replica knows nothing of the test: what is read there is what the test has written.
          assert.strictEqual(yield* DbRouter.replica(names), "a")
        })
      )
    )

    it.effect("a statement that fails harms nothing else", () =>
      TestSession.rollback(
        Effect.gen(function* () {
          yield* insert(1)
          assert.isTrue(Exit.isFailure(yield* Effect.exit(insert(1))))
          assert.strictEqual(yield* names, "a")
        })
      )
    )

    it.effect("a transaction, a session and early ends roll back to their beginning only", () =>
      TestSession.rollback(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(1, "a")
          yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(2, "b"), Effect.fail("no"))))
          yield* Effect.exit(DbRouter.session(Effect.zipRight(insert(3, "c"), Effect.fail("no"))))
          yield* DbRouter.session(
            Effect.gen(function* () {
              yield* insert(4, "d")
              yield* DbRouter.commit
              yield* insert(5, "e")
              yield* DbRouter.rollback
              yield* insert(6, "f")
              yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(7, "g"), Effect.fail("no"))))
            })
          )
          assert.strictEqual(yield* names, "adf")
        })
      )
    )

    it.effect("a session with a failed statement does not commit, as outside a test", () =>
      TestSession.rollback(
        Effect.gen(function* () {
          yield* insert(1)
          const error = yield* Effect.flip(DbRouter.session(Effect.zipRight(insert(2), Effect.ignore(insert(2)))))
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("CommitRolledBack"))
          assert.strictEqual(yield* names, "a")
        })
      )
    )

    it.effect(
      "sessions at the same time take turns, and each keeps its own",
      () =>
        TestSession.rollback(
          Effect.gen(function* () {
            const one = (i: number) =>
              Effect.exit(
                DbRouter.newSession(
                  insert(i).pipe(
                    Effect.zipRight(Effect.sleep(1)),
                    Effect.zipRight(insert(100 + i)),
                    Effect.zipRight(i % 2 === 0 ? Effect.void : Effect.fail("no"))
                  )
                )
              )
            yield* Effect.forEach(
              Array.from({ length: 10 }, (_, i) => i),
              one,
              { concurrency: "unbounded" }
            )
            assert.strictEqual((yield* names).length, 10)
            yield* DbRouter.session(
              Effect.zipRight(insert(1000), Effect.forEach([20, 21, 22, 23], one, { concurrency: "unbounded" }))
            )
            assert.strictEqual((yield* names).length, 15)
          })
        ),
      { timeout: 20_000 }
    )

    it.effect("tests at the same time do not see each other", () =>
      Effect.gen(function* () {
        const both = yield* Effect.all(
          [1, 2].map((i) =>
            TestSession.rollback(insert(i, String(i)).pipe(Effect.zipRight(Effect.sleep(50)), Effect.zipRight(names)))
          ),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(both, ["1", "2"])
      })
    )

    it.effect("requests of a web handler built inside belong to it, and commit by status", () =>
      TestSession.rollback(
        Effect.gen(function* () {
          const runtime = yield* Effect.runtime<SqlClient.SqlClient | DbRouter.DbRouter>()
          const app = HttpRouter.empty.pipe(
            HttpRouter.post("/ok", Effect.as(insert(1), HttpServerResponse.empty())),
            HttpRouter.post("/no", Effect.as(insert(2), HttpServerResponse.empty({ status: 422 }))),
            HttpSession.middleware()
          )
          const handler = HttpApp.toWebHandlerRuntime(
            runtime as Runtime.Runtime<SqlClient.SqlClient | DbRouter.DbRouter>
          )(app)
          const post = (path: string) =>
            Effect.promise(() => handler(new Request(`http://test${path}`, { method: "POST" })))
          assert.strictEqual((yield* post("/ok")).status, 204)
          assert.strictEqual((yield* post("/no")).status, 422)
          assert.strictEqual(yield* names, "a")
          assert.strictEqual(yield* stored, 0)
        })
      )
    )
  }
)

describe("TestSession.layer", () => {
  const Suite = TestSession.layer.pipe(Layer.provideMerge(Live))
  layer(Suite, { timeout: "60 seconds" })("one transaction for all the tests of a suite", (it) => {
    it.effect("the first writes", () =>
      Effect.gen(function* () {
        yield* DbRouter.session(insert(1))
        assert.strictEqual(yield* stored, 0)
      })
    )
    it.effect("the second sees it", () => Effect.map(names, (seen) => assert.strictEqual(seen, "a")))
  })

  it.live(
    "is rolled back with the layer, and the router is itself again",
    () =>
      Effect.gen(function* () {
        yield* Effect.provide(insert(1), TestSession.layer)
        assert.strictEqual(yield* stored, 0)
        yield* insert(2)
        assert.strictEqual(yield* stored, 1)
      }).pipe(Effect.provide(Live)),
    60_000
  )
})
