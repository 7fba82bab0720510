import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { DbRouter, Session, Telemetry } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"
import { changesOf, sumOf } from "../support/telemetry.js"

const { activeSessions, sessions, transactions } = Telemetry.instruments

const endsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(changesOf(sessions, changesOf(transactions, effect)), ([[, transactions], sessions]) => ({
    transactions,
    sessions
  }))

const committed = { "default primary committed": 1 }
const rolledBack = { "default primary rolled_back": 1 }

layer(Sessions.layerWith(), { timeout: "60 seconds", excludeTestServices: true })(
  "the end of a transaction is counted",
  (it) => {
    it.effect("once: committed, or rolled back by failure, defect, interruption or a refused COMMIT", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          endsOf(Effect.exit(sql.withTransaction(effect)))
        const write = Sessions.insert(1)
        assert.deepStrictEqual(yield* inTransaction(write), { transactions: committed, sessions: {} })
        for (const end of [Effect.fail("no"), Effect.die("no"), Effect.interrupt]) {
          const ends = yield* inTransaction(Effect.zipRight(Sessions.insert(2), end))
          assert.deepStrictEqual(ends, { transactions: rolledBack, sessions: {} })
        }
        const aborted = yield* inTransaction(Effect.ignore(sql`SELECT 1 / 0`))
        assert.deepStrictEqual(aborted.transactions, rolledBack)
        // A savepoint is no transaction.
        const nested = yield* inTransaction(Effect.ignore(sql.withTransaction(Effect.fail("no"))))
        assert.deepStrictEqual(nested.transactions, committed)
      })
    )

    it.effect("with its session", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const inSession = <A, E, R>(effect: Effect.Effect<A, E, R>) => endsOf(Effect.exit(DbRouter.newSession(effect)))
        assert.deepStrictEqual(yield* inSession(Sessions.insert(1)), {
          transactions: committed,
          sessions: { committed: 1 }
        })
        assert.deepStrictEqual(yield* inSession(Effect.zipRight(Sessions.insert(2), Effect.fail("no"))), {
          transactions: rolledBack,
          sessions: { rolled_back: 1 }
        })
        const unused = { transactions: {}, sessions: { unused: 1 } }
        assert.deepStrictEqual(yield* inSession(Effect.void), unused)
        assert.deepStrictEqual(yield* inSession(Effect.fail("no")), unused)
        // Reads on replicas need none.
        assert.deepStrictEqual(yield* inSession(sql`SELECT 1`), unused)
        // What is begun on a replica only to read has nothing to commit.
        assert.deepStrictEqual(yield* endsOf(DbRouter.readOnly(sql`SELECT 1`)), {
          transactions: {},
          sessions: { committed: 1 }
        })
        // An inner one joins.
        assert.deepStrictEqual((yield* inSession(DbRouter.session(Sessions.insert(3)))).sessions, { committed: 1 })
        const early = yield* inSession(Effect.all([Sessions.insert(4), DbRouter.commit, Sessions.insert(5)]))
        assert.deepStrictEqual(early, {
          transactions: { "default primary committed": 2 },
          sessions: { committed: 1 }
        })
      })
    )

    it.effect("and a read of a session that moves to the primary is one statement, by what has moved it", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* Sessions.onPrimary("CREATE SEQUENCE moving")
        for (const name of ["moves", "streams"]) {
          yield* Sessions.onPrimary(
            `CREATE FUNCTION ${name}() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''moving''); END'`
          )
        }
        yield* RouterTest.settle
        yield* Effect.flatMap(DbRouter.DbRouter, ({ runner }) => runner.router.classifier.refresh)
        const inSession = DbRouter.newSession({ settings: { "app.user": "1" } })
        const { movedReads, statements } = Telemetry.instruments
        const once = { "default primary write refused success": 1 }
        const [[, sent], moved] = yield* changesOf(movedReads, changesOf(statements, inSession(sql`SELECT moves()`)), [
          "rule"
        ])
        assert.deepStrictEqual([sent, moved], [once, { refused: 1 }])
        const streaming = inSession(Stream.runDrain(sql`SELECT streams()`.stream))
        const [[, streamed], alsoMoved] = yield* changesOf(movedReads, changesOf(statements, streaming), ["rule"])
        assert.deepStrictEqual([streamed, alsoMoved], [once, { refused: 1 }])
      })
    )

    it.effect("as unknown when the server has not answered the COMMIT", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        let pid = 0
        const ends = yield* endsOf(
          Sessions.withWaitingCommits(
            Effect.gen(function* () {
              const fiber = yield* Effect.fork(
                DbRouter.newSession(
                  Effect.gen(function* () {
                    yield* Sessions.insert(1)
                    return yield* sql<{ pid: number }>`
                    SELECT pg_backend_pid() AS pid, set_config('synchronous_commit', 'remote_apply', true)`.pipe(
                      Effect.tap(([row]) => Effect.sync(() => (pid = row!.pid)))
                    )
                  })
                )
              )
              yield* Sessions.awaitRunning("COMMIT")
              yield* Sessions.terminate(pid)
              yield* Fiber.await(fiber)
            })
          )
        )
        assert.deepStrictEqual(ends, {
          transactions: { "default primary unknown": 1 },
          sessions: { unknown: 1 }
        })
      })
    )

    it.effect("and sessions are active from their first transaction to their end", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const active = sumOf(activeSessions)
        const before = yield* active
        const scope = yield* Scope.make()
        const session = yield* Scope.extend(Session.scoped(), scope)
        assert.strictEqual(yield* active, before)
        yield* session.run(Sessions.insert(1))
        assert.strictEqual(yield* active, before + 1)
        yield* session.commit
        yield* session.run(Sessions.insert(2))
        assert.strictEqual(yield* active, before + 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* active, before)
        const fiber = yield* Effect.fork(DbRouter.newSession(Effect.zipRight(Sessions.insert(3), Effect.never)))
        yield* Effect.repeat(Effect.delay(active, "10 millis"), { until: (now) => now === before + 1, times: 300 })
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* active, before)
      })
    )
  }
)
