import { HttpApp, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Option } from "effect"
import { DbRouter, HttpSession, RouterError } from "effect-db-router"
import { PgCluster, TestSession } from "effect-db-router/testing"

/** What each function of context-async-sqlalchemy becomes here: one test a row, named after the row. */

const Live = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary }) =>
    DbRouter.layer({
      groups: {
        // A configuration as an Effect is the `engine_creator` of `DBConnect`.
        default: [Effect.succeed({ url: primary.url, name: "primary" })],
        second: [{ url: primary.url, name: "second" }]
      }
    })
  )
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 0 })))

const insert = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO item (id) VALUES (${id})`)

const pid = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, (rows) => rows[0]!.pid)
)

/** The rows that everybody sees, asked on a connection that has nothing to do with the router. */
const stored = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ id: number }>("SELECT id FROM item ORDER BY id"), (rows) => rows.map(({ id }) => id))
)

const inUse = Effect.flatMap(DbRouter.DbRouter, (router) =>
  Effect.map(router.status, (engines) => engines.reduce((sum, { pool }) => sum + pool.total - pool.idle, 0))
)

const reasonOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Option.flatMap(Cause.failureOption(exit.cause), RouterError.reasonOf) : Option.none()

const emptied = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
    Effect.zipRight(
      primary.query("DROP TABLE IF EXISTS item; CREATE TABLE item (id int PRIMARY KEY)"),
      Effect.zipRight(
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql`COMMENT ON TABLE item IS 'known'`),
        Effect.zipRight(DbRouter.reset, effect)
      )
    )
  )

layer(Live, { timeout: "60 seconds", excludeTestServices: true })("context-async-sqlalchemy", (it) => {
  it.effect("db_session(connect), shared by child coroutines, nothing opened until first use", () =>
    emptied(
      Effect.gen(function* () {
        const pids = yield* DbRouter.session(
          Effect.gen(function* () {
            assert.strictEqual(yield* inUse, 0)
            const pids = yield* Effect.all([pid, pid, pid], { concurrency: "unbounded" })
            assert.strictEqual(yield* inUse, 1)
            return pids
          })
        )
        assert.strictEqual(new Set(pids).size, 1)
        assert.strictEqual(yield* inUse, 0)
      })
    )
  )

  it.effect("init_db_session_ctx, reset_db_session_ctx, is_context_initiated, already/not initiated errors", () =>
    emptied(
      Effect.gen(function* () {
        assert.isFalse(yield* DbRouter.isInSession)
        yield* DbRouter.session(
          Effect.gen(function* () {
            assert.isTrue(yield* DbRouter.isInSession)
            const outer = yield* pid
            assert.strictEqual(yield* DbRouter.session(pid), outer)
            assert.notStrictEqual(yield* DbRouter.newSession(pid), outer)
            assert.isFalse(yield* DbRouter.detached(DbRouter.isInSession))
          })
        )
        assert.deepStrictEqual(reasonOf(yield* Effect.exit(DbRouter.commit)), Option.some("SessionClosed"))
        const late = yield* DbRouter.session(Effect.forkDaemon(Effect.delay(insert(1), "20 millis")))
        assert.deepStrictEqual(reasonOf(yield* Fiber.await(late)), Option.some("SessionClosed"))
      })
    )
  )

  it.effect("commit_db_session, rollback_db_session, close_db_session, and commit/rollback/close_all_sessions", () =>
    emptied(
      DbRouter.session(
        Effect.gen(function* () {
          const both = (id: number) => Effect.zipRight(insert(id), DbRouter.bindGroup(insert(id + 100), "second"))
          yield* both(1)
          yield* DbRouter.commit("default")
          assert.deepStrictEqual(yield* stored, [1])
          yield* DbRouter.rollback("second")
          yield* both(2)
          yield* DbRouter.commit
          assert.deepStrictEqual(yield* stored, [1, 2, 102])
          yield* both(3)
          yield* DbRouter.rollback
          yield* both(4)
          assert.strictEqual(yield* inUse, 2)
          yield* DbRouter.close("second")
          assert.strictEqual(yield* inUse, 1)
          yield* DbRouter.close
          assert.strictEqual(yield* inUse, 0)
          assert.deepStrictEqual(yield* stored, [1, 2, 102])
        })
      )
    )
  )

  it.effect("atomic_db_session(current_transaction=...)", () =>
    emptied(
      Effect.gen(function* () {
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            yield* DbRouter.atomic(insert(2), { current: "commit" })
            assert.deepStrictEqual(yield* stored, [1, 2])
            yield* insert(3)
            yield* DbRouter.atomic(insert(4), { current: "rollback" })
            assert.deepStrictEqual(yield* stored, [1, 2, 4])
            yield* insert(5)
            yield* DbRouter.atomic(insert(6), { current: "append" })
            assert.deepStrictEqual(yield* stored, [1, 2, 4, 5, 6])
            yield* insert(7)
            const raised = yield* Effect.exit(DbRouter.atomic(insert(8), { current: "fail" }))
            assert.deepStrictEqual(reasonOf(raised), Option.some("TransactionActive"))
            yield* DbRouter.atomic(insert(9), { current: "savepoint" })
            assert.deepStrictEqual(yield* stored, [1, 2, 4, 5, 6])
          })
        )
        assert.deepStrictEqual(yield* stored, [1, 2, 4, 5, 6, 7, 9])
      })
    )
  )

  it.effect("run_in_new_ctx", () =>
    emptied(
      Effect.gen(function* () {
        yield* Effect.exit(DbRouter.session(Effect.all([insert(1), DbRouter.newSession(insert(2)), Effect.fail("no")])))
        assert.deepStrictEqual(yield* stored, [2])
      })
    )
  )

  it.effect("new_non_ctx_session, new_non_ctx_atomic_session", () =>
    emptied(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.exit(
          DbRouter.session(
            Effect.gen(function* () {
              yield* insert(1)
              yield* DbRouter.detached(insert(2))
              yield* DbRouter.detached(sql.withTransaction(Effect.zipRight(insert(3), insert(4))))
              yield* Effect.exit(DbRouter.detached(sql.withTransaction(Effect.zipRight(insert(5), Effect.fail("no")))))
              return yield* Effect.fail("no")
            })
          )
        )
        assert.deepStrictEqual(yield* stored, [2, 3, 4])
      })
    )
  )

  it.effect("auto_commit_by_status_code, before_commit", () =>
    emptied(
      Effect.gen(function* () {
        const runtime = yield* Effect.runtime<SqlClient.SqlClient | DbRouter.DbRouter>()
        const answer = (status: number) =>
          Effect.flatMap(
            Effect.promise(() =>
              HttpApp.toWebHandlerRuntime(runtime)(
                Effect.as(insert(status), HttpServerResponse.empty({ status })).pipe(
                  HttpSession.middleware({ beforeCommit: insert(status + 1000) })
                )
              )(new Request("http://test/"))
            ),
            (response) => Effect.sync(() => assert.strictEqual(response.status, status))
          )
        for (const status of [201, 303, 404, 500]) yield* answer(status)
        assert.deepStrictEqual(yield* stored, [201, 303, 1201, 1303])
        assert.isTrue(HttpSession.commitByStatus(399))
        assert.isFalse(HttpSession.commitByStatus(400))
      })
    )
  )

  it.effect("DBConnect(engine_creator, host, before_create_session_handler), change_host, close", () =>
    emptied(
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        const { primary } = yield* PgCluster.PgCluster
        const before = yield* pid
        yield* router.rebind("primary", Effect.succeed({ url: primary.url }))
        assert.notStrictEqual(yield* pid, before)
        // `close` is the scope of the layer.
        const other = "python-close"
        const open = primary.query(`SELECT 1 FROM pg_stat_activity WHERE application_name = '${other}'`)
        yield* Effect.zipRight(
          insert(1),
          Effect.map(open, (rows) => assert.isAbove(rows.length, 0))
        ).pipe(Effect.provide(DbRouter.layer({ groups: { default: [{ url: primary.url, applicationName: other }] } })))
        assert.lengthOf(yield* open, 0)
      })
    )
  )

  it.effect("rollback_session, set_test_context, put_savepoint_session_in_ctx", () =>
    emptied(
      Effect.gen(function* () {
        yield* TestSession.rollback(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* DbRouter.session(insert(1))
            yield* Effect.exit(DbRouter.session(Effect.zipRight(insert(2), Effect.fail("no"))))
            assert.deepStrictEqual(yield* sql`SELECT id FROM item`, [{ id: 1 }])
          })
        )
        assert.deepStrictEqual(yield* stored, [])
      })
    )
  )
})
