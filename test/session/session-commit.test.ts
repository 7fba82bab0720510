import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option, Ref } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const cluster = RouterTest.PgCluster.PgCluster

const schema = ["CREATE TABLE entry (note int REFERENCES note DEFERRABLE INITIALLY DEFERRED)"]

/** An effect whose COMMIT fails: it refers to a row that is not there. */
const dangling = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO entry VALUES (99)`)

/** What follows the end of a session, as it happens. */
const follow = Effect.map(Ref.make<ReadonlyArray<string>>([]), (seen) => {
  const note = (what: string) => Ref.update(seen, (all) => [...all, what])
  return {
    seen: Ref.get(seen),
    ask: Effect.zipRight(DbRouter.afterCommit(note("commit")), DbRouter.afterRollback(note("rollback")))
  }
})

const settings = { synchronous_commit: "remote_apply" }

const awaitCommit = Sessions.awaitRunning("COMMIT")

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "the COMMIT of a session",
  (it) => {
    it.effect("that a deferred constraint refuses is the session's error, and leaves nothing", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const code = yield* Sessions.codeOf(DbRouter.session(Effect.all([ask, insert(1), dangling])))
        assert.strictEqual(code, "23503")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("that fails to serialize is the session's error, and leaves nothing", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const read = yield* Sessions.gate
        const committed = yield* Sessions.gate
        const skew = (id: number, then: Effect.Effect<unknown>) =>
          DbRouter.newSession(Effect.all([ask, sql`SELECT count(*) FROM note`, read.wait, insert(id), then]), {
            isolation: "serializable"
          })
        const second = yield* Effect.fork(skew(2, committed.wait))
        const first = yield* Effect.fork(skew(1, Effect.sleep("50 millis")))
        yield* Effect.sleep("100 millis")
        yield* read.open
        yield* Fiber.join(first)
        yield* committed.open
        assert.strictEqual(yield* Sessions.codeOf(Fiber.join(second)), "40001")
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, ["commit", "rollback"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("that is answered with ROLLBACK, after an error that was caught, is an error too", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const error = yield* Sessions.routerErrorOf(
          DbRouter.session(Effect.all([ask, insert(1), Effect.ignore(insert(1))]))
        )
        assert.deepInclude(error, { reason: "CommitRolledBack", group: "default", engine: "primary" })
        assert.include(error.message, "sql.withTransaction")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("waits, and an interruption waits for it: it is not cancelled, and its outcome is known", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { primary, replicas } = yield* cluster
        const { ask, seen } = yield* follow
        const exit = yield* Sessions.withWaitingCommits(
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(DbRouter.session(Effect.all([ask, insert(1)]), { settings }))
            yield* awaitCommit
            const interrupted = yield* Effect.fork(Fiber.interrupt(fiber))
            yield* Effect.sleep("200 millis")
            yield* awaitCommit
            assert.deepStrictEqual(yield* seen, [])
            yield* replicas[0]!.resumeReplay
            return yield* Fiber.join(interrupted)
          })
        )
        assert.isTrue(Exit.isInterrupted(exit))
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, ["commit"])
        assert.notInclude(yield* primary.log, "might not have been replicated")
        yield* Sessions.assertQuiet
      })
    )

    it.effect("waits for an interruption only so long: then its outcome is unknown, and the connection is closed", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { primary } = yield* cluster
        const { ask, seen } = yield* follow
        const { total } = yield* Sessions.poolOf("primary")
        const exit = yield* Sessions.withWaitingCommits(
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(DbRouter.session(Effect.all([ask, insert(1)]), { settings }))
            yield* awaitCommit
            const [took, exit] = yield* Effect.timed(Fiber.interrupt(fiber))
            assert.isBelow(Duration.toSeconds(took), 20)
            assert.strictEqual((yield* Sessions.poolOf("primary")).total, total - 1)
            return exit
          })
        )
        assert.isTrue(Exit.isFailure(exit))
        if (Exit.isFailure(exit)) {
          const failures = Cause.failures(exit.cause)
          assert.include(
            Array.from(failures, (failure) => Option.getOrUndefined(RouterError.reasonOf(failure))),
            "OutcomeUnknown"
          )
        }
        assert.deepStrictEqual(yield* seen, [])
        assert.deepStrictEqual(yield* stored, [1])
        assert.notInclude(yield* primary.log, "might not have been replicated")
        yield* Sessions.assertQuiet
      })
    )

    it.effect("whose connection breaks while it waits has an unknown outcome, and nothing follows it", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const error = yield* Sessions.withWaitingCommits(
          Effect.gen(function* () {
            const ids = yield* Ref.make(0)
            const body = Effect.all([ask, insert(1), Effect.flatMap(Sessions.pid, (pid) => Ref.set(ids, pid))])
            const fiber = yield* Effect.fork(DbRouter.session(body, { settings }))
            yield* awaitCommit
            yield* Sessions.terminate(yield* Ref.get(ids))
            return yield* Sessions.routerErrorOf(Fiber.join(fiber))
          })
        )
        assert.strictEqual(error.reason, "OutcomeUnknown")
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, [])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("does not come when an interruption finds it waiting for what another fiber runs", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const { ask, seen } = yield* follow
        const fiber = yield* Effect.fork(
          DbRouter.session(
            Effect.all([
              ask,
              insert(1),
              Effect.forkDaemon(sql`SELECT 'unjoined', pg_sleep(60)`),
              Sessions.awaitRunning("unjoined")
            ])
          )
        )
        yield* Effect.sleep("200 millis")
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )
  }
)
