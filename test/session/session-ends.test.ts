import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

/** Where a session can be when something ends it. `end` is what happens there. */
const stages: Record<
  string,
  <A, E>(
    end: Effect.Effect<A, E>
  ) => Effect.Effect<unknown, unknown, DbRouter.Services | RouterTest.PgCluster.PgCluster>
> = {
  "before its first statement": (end) => end,
  "after a read": (end) => Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.zipRight(sql`SELECT id FROM note`, end)),
  "after a write": (end) => Effect.zipRight(insert(1), end),
  "after a statement that failed": (end) => Effect.zipRight(Effect.ignore(Effect.zipRight(insert(1), insert(1))), end),
  "in a savepoint": (end) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.zipRight(insert(1), sql.withTransaction(Effect.zipRight(insert(2), end)))
    ),
  "in a savepoint of a savepoint": (end) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql.withTransaction(Effect.zipRight(insert(1), sql.withTransaction(Effect.zipRight(insert(2), end))))
    ),
  "in one of several fibers": (end) => Effect.all([insert(1), insert(2), end], { concurrency: "unbounded" }),
  "with two groups written": (end) => Effect.all([insert(1), DbRouter.bindGroup(insert(2), "archive"), end]),
  "before the commit": (end) => Effect.zipRight(insert(1), DbRouter.beforeCommit(Effect.zipRight(insert(2), end))),
  "in an atomic block": (end) =>
    Effect.zipRight(insert(1), DbRouter.atomic(Effect.zipRight(insert(2), end), { current: "append" }))
}

/** Where it can be when only an interruption can end it. */
const blocked: typeof stages = {
  "while a statement runs": () =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.zipRight(insert(1), sql`SELECT 'stage', pg_sleep(60)`)),
  "while a statement waits for a lock": () =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.zipRight(
        insert(1),
        DbRouter.newSession(Effect.zipRight(insert(3), sql`INSERT INTO note SELECT 1 WHERE 'stage' <> ''`))
      )
    ),
  "while a statement in a savepoint runs": () =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.zipRight(insert(1), sql.withTransaction(sql`SELECT 'stage', pg_sleep(60)`))
    ),
  "while its beforeCommit runs": () =>
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.zipRight(insert(1), DbRouter.beforeCommit(sql`SELECT 'stage', pg_sleep(60)`))
    )
}

/** The rows of a session that has ended are not there, no connection is held, and the next session works. */
const assertRolledBack = Effect.gen(function* () {
  assert.deepStrictEqual(yield* stored, [])
  yield* Sessions.assertQuiet
  yield* DbRouter.session(insert(1))
  assert.deepStrictEqual(yield* stored, [1])
  yield* Sessions.onPrimary("TRUNCATE note")
})

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("a session rolls back", (it) => {
  for (const [stage, reach] of Object.entries(stages)) {
    it.effect(`after a failure, a defect, an interruption, a timeout: ${stage}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const failed = yield* Effect.exit(DbRouter.session(reach(Effect.fail("mine"))))
        assert.isTrue(Exit.isFailure(failed))
        yield* assertRolledBack
        const died = yield* Effect.exit(DbRouter.session(reach(Effect.die("mine"))))
        assert.isTrue(Exit.isFailure(died) && Cause.isDie(died.cause))
        yield* assertRolledBack
        const there = yield* Sessions.gate
        const fiber = yield* Effect.fork(DbRouter.session(reach(Effect.zipRight(there.open, Effect.never))))
        yield* there.wait
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        yield* assertRolledBack
        const late = yield* Effect.either(Effect.timeout(DbRouter.session(reach(Effect.never)), "50 millis"))
        assert.isTrue(late._tag === "Left" && Cause.isTimeoutException(late.left))
        yield* assertRolledBack
        const reached = yield* Effect.exit(DbRouter.session(reach(Effect.interrupt)))
        assert.isTrue(Exit.isFailure(reached) && Cause.isInterrupted(reached.cause))
        yield* assertRolledBack
      })
    )
  }

  for (const [stage, reach] of Object.entries(blocked)) {
    it.effect(`after an interruption: ${stage}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const fiber = yield* Effect.fork(DbRouter.session(reach(Effect.void)))
        yield* Sessions.awaitRunning("'stage'")
        const [took, exit] = yield* Effect.timed(Fiber.interrupt(fiber))
        assert.isTrue(Exit.isInterrupted(exit))
        assert.isBelow(Duration.toSeconds(took), 30)
        yield* assertRolledBack
      })
    )
  }

  it.effect("after an interruption: while it waits for a connection", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const holding = yield* Sessions.gate
      const holder = yield* Effect.fork(DbRouter.session(Effect.all([insert(1), holding.open, Effect.never])))
      yield* holding.wait
      const waiter = yield* Effect.fork(DbRouter.session(insert(2)))
      yield* Effect.repeat(Sessions.poolOf("primary"), { until: ({ waiting }) => waiting === 1 })
      yield* Fiber.interrupt(waiter)
      assert.strictEqual((yield* Sessions.poolOf("primary")).waiting, 0)
      yield* Fiber.interrupt(holder)
      yield* assertRolledBack
    }).pipe(Effect.provide(Sessions.router({ engine: { maxConnections: 1 } })))
  )

  it.effect("after an interruption: while the server does not answer its BEGIN, its statement, its SAVEPOINT", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      const go = yield* Sessions.gate
      const start = (before: Effect.Effect<unknown, unknown, DbRouter.Services>, then: typeof before) =>
        Effect.gen(function* () {
          const there = yield* Sessions.gate
          const body = Effect.all([before, there.open, go.wait, then])
          const fiber = yield* Effect.fork(DbRouter.session(body))
          yield* there.wait
          return fiber
        })
      const fibers = yield* Effect.all([
        start(Effect.void, insert(1)),
        start(insert(2), insert(3)),
        start(insert(4), sql.withTransaction(insert(5)))
      ])
      yield* primary.freeze
      yield* Effect.ensuring(
        Effect.gen(function* () {
          yield* go.open
          yield* Effect.sleep("50 millis")
          const [took] = yield* Effect.timed(Fiber.interruptAll(fibers))
          assert.isBelow(Duration.toSeconds(took), 30)
        }),
        Effect.orDie(primary.thaw)
      )
      for (const fiber of fibers) assert.isTrue(Exit.isInterrupted(yield* Fiber.await(fiber)))
      yield* assertRolledBack
    }).pipe(Effect.provide(Sessions.router()))
  )
})
