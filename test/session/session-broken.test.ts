import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Ref } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const cluster = RouterTest.PgCluster.PgCluster

const schema = ["CREATE TABLE entry (note int REFERENCES note DEFERRABLE INITIALLY DEFERRED)"]

const inArchive = DbRouter.bindGroup("archive")

/** A statement that makes the COMMIT fail: it refers to a row that is not there. */
const dangling = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO entry VALUES (99)`)

/** The process of the session's transaction, ended. */
const breakConnection = Effect.flatMap(Sessions.pid, Sessions.terminate)

/** What follows the end of a session, as it happens. */
const follow = Effect.map(Ref.make<ReadonlyArray<string>>([]), (seen) => {
  const note = (what: string) => Ref.update(seen, (all) => [...all, what])
  return {
    seen: Ref.get(seen),
    ask: Effect.zipRight(DbRouter.afterCommit(note("commit")), DbRouter.afterRollback(note("rollback")))
  }
})

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "a session that goes wrong",
  (it) => {
    it.effect("of several groups: commits all of them", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        yield* DbRouter.session(Effect.all([ask, insert(1), inArchive(insert(2)), insert(3)]))
        assert.deepStrictEqual(yield* stored, [1, 2, 3])
        assert.deepStrictEqual(yield* seen, ["commit"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of several groups: says who has committed when the second COMMIT fails", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const error = yield* Sessions.routerErrorOf(DbRouter.session(Effect.all([ask, insert(1), inArchive(dangling)])))
        assert.deepInclude(error, {
          reason: "PartialCommit",
          committed: ["default"],
          rolledBack: ["archive"],
          unknown: []
        })
        assert.include(error.message, 'committed: "default"; rolled back: "archive"')
        assert.strictEqual((error.cause as { cause: { code: string } }).cause.code, "23503")
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, [])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of several groups: rolls back all of them when the first COMMIT fails", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const session = DbRouter.session(Effect.all([ask, dangling, inArchive(insert(2))]))
        assert.strictEqual(yield* Sessions.codeOf(session), "23503")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of several groups: the error names those whose outcome is unknown", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const pid = yield* Ref.make(0)
        const body = Effect.gen(function* () {
          yield* insert(1)
          yield* inArchive(insert(2))
          const [row] = yield* inArchive(
            sql<{ pid: number }>`SELECT pg_backend_pid() AS pid, set_config('synchronous_commit', 'remote_apply', true)`
          )
          yield* Ref.set(pid, row!.pid)
        })
        const error = yield* Sessions.withWaitingCommits(
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(DbRouter.session(body))
            yield* Sessions.awaitRunning("COMMIT")
            yield* Sessions.terminate(yield* Ref.get(pid))
            return yield* Sessions.routerErrorOf(Fiber.join(fiber))
          })
        )
        assert.deepInclude(error, {
          reason: "PartialCommit",
          committed: ["default"],
          rolledBack: [],
          unknown: ["archive"]
        })
        assert.deepStrictEqual(yield* stored, [1, 2])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of several groups: commits nothing when one that has only read cannot commit", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const reason = yield* Sessions.reasonOf(
          DbRouter.session(Effect.all([insert(1), Effect.ignore(inArchive(sql`SELECT 1 / 0`))]))
        )
        assert.strictEqual(reason, "CommitRolledBack")
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of several groups: goes on after the early end of one of them", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            yield* inArchive(insert(2))
            yield* DbRouter.commit("archive")
            assert.deepStrictEqual(yield* stored, [2])
            yield* inArchive(insert(3))
            yield* DbRouter.rollback("archive")
            assert.strictEqual(yield* Sessions.reasonOf(DbRouter.commit("unknown")), "UnknownGroup")
            assert.strictEqual(yield* Sessions.reasonOf(DbRouter.rollback("unknown")), "UnknownGroup")
          })
        )
        assert.deepStrictEqual(yield* stored, [1, 2])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("whose connection breaks: fails, destroys that connection and no other, and leaves nothing", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        yield* Effect.all([DbRouter.newSession(insert(1)), DbRouter.newSession(insert(2))], {
          concurrency: "unbounded"
        })
        const { total } = yield* Sessions.poolOf("primary")
        const code = yield* Sessions.codeOf(DbRouter.session(Effect.all([ask, insert(3), breakConnection, insert(4)])))
        assert.strictEqual(code, "57P01")
        assert.strictEqual((yield* Sessions.poolOf("primary")).total, total - 1)
        assert.deepStrictEqual(yield* stored, [1, 2])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect(
      "whose connection breaks: does not commit, neither unnoticed, nor when the error was caught, nor by a savepoint",
      () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const { ask, seen } = yield* follow
          const lost: ReadonlyArray<
            Effect.Effect<unknown, unknown, DbRouter.Services | RouterTest.PgCluster.PgCluster>
          > = [
            Effect.all([ask, insert(1), breakConnection]),
            Effect.all([ask, insert(1), breakConnection, Effect.ignore(insert(2))]),
            Effect.all([ask, insert(1), sql.withTransaction(Effect.zipRight(insert(2), breakConnection))]),
            Effect.all([ask, insert(1), breakConnection, DbRouter.commit])
          ]
          for (const body of lost) {
            assert.strictEqual(yield* Sessions.reasonOf(DbRouter.session(body)), "ConnectionLost")
            assert.deepStrictEqual(yield* stored, [])
            yield* Sessions.assertQuiet
          }
          assert.deepStrictEqual(
            yield* seen,
            lost.map(() => "rollback")
          )
        })
    )

    it.effect("whose connection breaks: begins anew after an early rollback", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(Effect.all([insert(1), breakConnection, DbRouter.rollback, insert(2)]))
        assert.deepStrictEqual(yield* stored, [2])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("has its connection destroyed when the ROLLBACK is not answered", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { primary } = yield* cluster
        const body = Effect.gen(function* () {
          yield* insert(1)
          const pid = yield* Sessions.pid
          yield* primary.freeze
          return yield* Effect.fail({ pid })
        })
        const [took, failure] = yield* Effect.timed(Effect.flip(DbRouter.session(body))).pipe(
          Effect.ensuring(Effect.orDie(primary.thaw))
        )
        assert.isBelow(Duration.toSeconds(took), 30)
        if (!("pid" in failure)) return assert.fail(failure.message)
        yield* Effect.repeat(Sessions.onPrimary("SELECT FROM pg_stat_activity WHERE pid = $1", [failure.pid]), {
          until: (rows) => rows.length === 0
        })
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("fails when it was idle longer than allowed, and the server says so", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const session = DbRouter.session(Effect.all([insert(1), Effect.sleep("300 millis"), insert(2)]), {
          idleTimeout: "50 millis"
        })
        assert.strictEqual(yield* Sessions.codeOf(session), "25P03")
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      })
    )
  }
)
