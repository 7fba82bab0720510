import { HttpApp, HttpServerResponse } from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Ref } from "effect"
import { DbRouter, HttpSession, type Session } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const inArchive = DbRouter.bindGroup("archive")

const ofEveryMode = {
  commit: [1, 2, 3],
  rollback: [3],
  append: [1, 2, 3],
  savepoint: [1, 2, 3],
  fail: [1, 2]
} satisfies Record<Session.Current, ReadonlyArray<number>>

/**
 * What each function of the Python library `context-async-sqlalchemy` becomes here. Its `DBConnect(engine_creator, host, ...)`,
 * `change_host` and `close` are in the tests of `rebind`; its `rollback_session`, `set_test_context` and
 * `put_savepoint_session_in_ctx` in those of `TestSession`.
 */
layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("context-async-sqlalchemy", (it) => {
  it.effect(
    "db_session(connect), shared by child coroutines, nothing opened until first use -> any statement inside session",
    () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const begun = Effect.map(RouterTest.ranOn("BEGIN"), (names) => names.length)
        const before = yield* begun
        const pids = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* Effect.sleep("10 millis")
            assert.strictEqual(yield* begun, before)
            yield* Sessions.assertQuiet
            const write = (id: number) =>
              Effect.map(
                sql<{ pid: number }>`INSERT INTO note VALUES (${id}) RETURNING pg_backend_pid() AS pid`,
                ([row]) => row!.pid
              )
            return yield* Effect.all([write(1), Effect.flatMap(Effect.fork(write(2)), Fiber.join), write(3)], {
              concurrency: "unbounded"
            })
          })
        )
        assert.lengthOf(new Set(pids), 1)
        assert.strictEqual(yield* begun, before + 1)
        assert.deepStrictEqual(yield* stored, [1, 2, 3])
      })
  )

  it.effect(
    "init_db_session_ctx, reset_db_session_ctx, is_context_initiated, already/not initiated errors -> session (joins), newSession, isInSession, SessionClosed",
    () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        assert.isFalse(yield* DbRouter.isInSession)
        assert.strictEqual(yield* Sessions.reasonOf(DbRouter.commit), "SessionClosed")
        const ended = yield* Sessions.gate
        const late = yield* DbRouter.session(
          Effect.gen(function* () {
            assert.isTrue(yield* DbRouter.isInSession)
            yield* insert(1)
            const outer = yield* Sessions.pid
            assert.strictEqual(yield* DbRouter.session(Sessions.pid), outer)
            assert.notStrictEqual(yield* DbRouter.newSession(Sessions.pid), outer)
            return yield* Effect.forkDaemon(Effect.zipRight(ended.wait, insert(2)))
          })
        )
        assert.isFalse(yield* DbRouter.isInSession)
        yield* ended.open
        assert.strictEqual(yield* Sessions.reasonOf(Fiber.join(late)), "SessionClosed")
        assert.deepStrictEqual(yield* stored, [1])
      })
  )

  it.effect(
    "commit_db_session, rollback_db_session, close_db_session, commit_all_sessions, rollback_all_sessions, close_all_sessions -> commit, rollback, close",
    () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            const both = (id: number) => Effect.zipRight(insert(id), inArchive(insert(id + 1)))
            yield* both(1)
            yield* DbRouter.commit("archive")
            assert.deepStrictEqual(yield* stored, [2])
            yield* DbRouter.rollback("default")
            yield* Sessions.assertQuiet
            yield* both(3)
            yield* DbRouter.close("default")
            yield* DbRouter.commit
            assert.deepStrictEqual(yield* stored, [2, 4])
            yield* both(5)
            yield* DbRouter.rollback
            yield* both(7)
            yield* DbRouter.close
            yield* Sessions.assertQuiet
            yield* insert(9)
          })
        )
        assert.deepStrictEqual(yield* stored, [2, 4, 9])
      })
  )

  it.effect("atomic_db_session(current_transaction=...) -> atomic", () =>
    Effect.gen(function* () {
      for (const [current, expected] of Object.entries(ofEveryMode)) {
        yield* Sessions.setUp
        const block = DbRouter.atomic(insert(3), { current: current as Session.Current })
        const exit = yield* DbRouter.session(Effect.zipRight(Effect.zipRight(insert(1), insert(2)), Effect.exit(block)))
        assert.strictEqual(Exit.isSuccess(exit), current !== "fail")
        assert.deepStrictEqual<ReadonlyArray<number>>(yield* stored, expected, current)
      }
      yield* Effect.ignore(DbRouter.session(DbRouter.atomic(Effect.zipRight(insert(4), Effect.fail("no")))))
      assert.notInclude(yield* stored, 4)
    })
  )

  it.effect("run_in_new_ctx -> newSession", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const all = yield* Sessions.gate
      let open = 0
      const one = (id: number) =>
        DbRouter.newSession(
          Effect.gen(function* () {
            yield* insert(id)
            const pid = yield* Sessions.pid
            // All three are open at the same time.
            if (++open === 3) yield* all.open
            yield* all.wait
            return id === 2 ? yield* Effect.fail("no") : pid
          })
        )
      yield* Effect.ignore(
        DbRouter.session(
          Effect.gen(function* () {
            yield* insert(10)
            const exits = yield* Effect.forEach([1, 2, 3], (id) => Effect.exit(one(id)), { concurrency: "unbounded" })
            const pids = exits.flatMap((exit) => (Exit.isSuccess(exit) ? [exit.value] : []))
            assert.lengthOf(new Set([...pids, yield* Sessions.pid]), 3)
            return yield* Effect.fail("no")
          })
        )
      )
      assert.deepStrictEqual(yield* stored, [1, 3])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("new_non_ctx_session, new_non_ctx_atomic_session -> detached, detached + withTransaction", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const ended = yield* Sessions.gate
      const [alone, atomic] = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          yield* DbRouter.detached(insert(2))
          assert.deepStrictEqual(yield* stored, [2])
          const failing = sql.withTransaction(Effect.zipRight(insert(3), Effect.fail("no")))
          yield* Effect.ignore(DbRouter.detached(failing))
          yield* DbRouter.detached(sql.withTransaction(insert(4)))
          assert.deepStrictEqual(yield* stored, [2, 4])
          const later = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
            Effect.forkDaemon(DbRouter.detached(Effect.zipRight(ended.wait, effect)))
          return [yield* later(insert(5)), yield* later(sql.withTransaction(insert(6)))] as const
        })
      )
      yield* ended.open
      yield* Fiber.join(alone)
      yield* Fiber.join(atomic)
      assert.deepStrictEqual(yield* stored, [1, 2, 4, 5, 6])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("auto_commit_by_status_code, before_commit -> HttpSession.commitByStatus, beforeCommit", () =>
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<DbRouter.Services>()
      const seen = yield* Ref.make(0)
      const respond = (status: number) =>
        Effect.gen(function* () {
          yield* DbRouter.beforeCommit(Ref.update(seen, (n) => n + 1))
          yield* insert(status)
          return HttpServerResponse.empty({ status })
        })
      yield* Sessions.setUp
      for (const status of [200, 201, 302, 400, 404, 500]) {
        const handle = HttpApp.toWebHandlerRuntime(runtime)(HttpSession.middleware()(respond(status)))
        const response = yield* Effect.promise(() => handle(new Request("http://localhost/")))
        assert.strictEqual(response.status, status)
        assert.strictEqual((yield* stored).includes(status), HttpSession.commitByStatus(status))
      }
      assert.deepStrictEqual(yield* stored, [200, 201, 302])
      assert.strictEqual(yield* Ref.get(seen), 3)
      yield* Sessions.assertQuiet
    })
  )
})
