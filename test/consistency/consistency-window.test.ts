import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { type Clock, Effect, Fiber, TestClock, TestContext } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Causal from "../support/causal.js"
import type * as RouterTest from "../support/router.js"

const { explained, insert, newId, sees } = Causal

const group = Effect.map(explained, ({ group }) => group)

layer(Causal.layer({ consistency: Consistency.window("2 seconds"), health: false }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("window", (it) => {
  /** A flow of its own, by a clock that stands still. */
  const timed = <E, R extends RouterTest.Services>(name: string, effect: Effect.Effect<unknown, E, R>) =>
    it.effect(name, () => Effect.zipRight(DbRouter.reset, effect).pipe(Effect.provide(TestContext.TestContext)))

  timed(
    "reads are the primary's for so long after a write",
    Effect.gen(function* () {
      assert.strictEqual(yield* group, "read")
      const id = yield* newId
      yield* insert(id)
      assert.strictEqual((yield* explained).reason, "window after a write")
      assert.isTrue(yield* sees(id))
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(yield* group, "default")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* group, "read")
    })
  )

  timed(
    "each write begins it anew, from its end on",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* insert(yield* newId)
      yield* TestClock.adjust("1 second")
      yield* insert(yield* newId)
      yield* TestClock.adjust("1500 millis")
      assert.strictEqual(yield* group, "default")
      yield* TestClock.adjust("1 second")
      const slow = yield* Effect.fork(sql`INSERT INTO note (id) SELECT ${yield* newId} FROM pg_sleep(0.3)`)
      yield* Effect.yieldNow()
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(slow)
      assert.strictEqual(yield* group, "default")
    })
  )

  timed(
    "transactions and sessions begin it with their end, if they may have written, committed or not",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const written = Effect.flatMap(newId, insert)
      for (const unit of [
        <A, E, R>(self: Effect.Effect<A, E, R>) => sql.withTransaction(self),
        <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.session(self)
      ]) {
        // What a transaction was shown before it was rolled back, replicas may not have.
        yield* Effect.exit(unit(Effect.zipRight(written, Effect.fail("no"))))
        assert.strictEqual(yield* group, "default")
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* group, "read")
        yield* unit(DbRouter.primary(sees(0)))
        assert.strictEqual(yield* group, "read")
        yield* unit(Effect.zipRight(written, TestClock.adjust("10 seconds")))
        assert.strictEqual(yield* group, "default")
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* group, "read")
      }
    })
  )

  it.effect("takes as long when the clock is set back, or ahead, meanwhile", () =>
    Effect.gen(function* () {
      yield* DbRouter.reset
      const real = yield* Effect.clock
      let step = 0
      const set: Clock.Clock = Object.assign(Object.create(real), {
        unsafeCurrentTimeMillis: () => real.unsafeCurrentTimeMillis() + step,
        unsafeCurrentTimeNanos: () => real.unsafeCurrentTimeNanos()
      })
      yield* Effect.withClock(
        Effect.gen(function* () {
          yield* insert(yield* newId)
          step = 3_600_000
          assert.strictEqual(yield* group, "default")
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual(yield* group, "read")
          yield* insert(yield* newId)
          step = 0
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual(yield* group, "read")
        }),
        set
      )
    }).pipe(Effect.provide(TestContext.TestContext))
  )

  timed(
    "is the flow's: of children that are joined, until reset, and not inside replica(...)",
    Effect.gen(function* () {
      yield* Effect.flatMap(Effect.forkDaemon(Effect.flatMap(newId, insert)), Fiber.await)
      assert.strictEqual(yield* group, "read")
      yield* Effect.flatMap(Effect.fork(Effect.flatMap(newId, insert)), Fiber.join)
      assert.strictEqual(yield* group, "default")
      assert.strictEqual(yield* DbRouter.replica(group), "read")
      yield* DbRouter.reset
      assert.strictEqual(yield* group, "read")
    })
  )
})
