import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, TestClock } from "effect"
import { RouterError } from "effect-db-router"
import { Pool } from "../../src/internal/driver/pool.js"

/** A pool that may open no connection before its turn has come. */
const paced = () => {
  const turns: Array<() => boolean> = []
  const pool = new Pool(
    { host: "127.0.0.1", port: 1 },
    {
      maxPrepared: 0,
      waitMillis: 0,
      movableMillis: 0,
      busyError: (millis) => RouterError.poolBusy("primary", 1, millis),
      onError: () => {},
      onBroken: () => {},
      isPaced: () => true,
      turn: (open) => {
        turns.push(open)
      },
      now: () => 0
    }
  )
  const statement = pool.query({ sql: "SELECT 1", params: [], asArrays: false, prepare: false })
  return { pool, statement, turns }
}

const waiting = (pool: Pool) =>
  Effect.repeat(
    Effect.sync(() => pool.waiting),
    { until: (waiting) => waiting === 1 }
  )

describe("a pool that closes while a statement waits for the turn of its connection", () => {
  it.effect("ends the statement, and opens none when the turn comes", () =>
    Effect.gen(function* () {
      const { pool, statement, turns } = paced()
      const running = yield* Effect.fork(statement)
      yield* waiting(pool)
      yield* pool.close(Duration.zero, new Error("the server is not the primary any more"))
      const { cause } = yield* Effect.flip(Fiber.join(running))
      assert.match(String(cause), /is not the primary any more/)
      assert.deepStrictEqual(
        turns.map((open) => open()),
        [false]
      )
      assert.strictEqual(pool.total, 0)
    })
  )

  it.effect("waits for it as long as it may, and no longer than it is there", () =>
    Effect.gen(function* () {
      const { pool, statement } = paced()
      const running = yield* Effect.fork(statement)
      yield* waiting(pool)
      const closing = yield* Effect.fork(pool.close(Duration.hours(1), new Error("closed")))
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual((yield* Fiber.poll(closing))._tag, "None")
      yield* Fiber.interrupt(running)
      yield* Fiber.join(closing)
    })
  )

  it.effect("ends each of those that close it, when it is empty", () =>
    Effect.gen(function* () {
      const { pool, statement } = paced()
      const running = yield* Effect.fork(statement)
      yield* waiting(pool)
      const close = Effect.fork(pool.close(Duration.hours(1), new Error("closed")))
      const closing = [yield* close, yield* close]
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        closing.map((fiber) => fiber.unsafePoll()),
        [null, null]
      )
      yield* Fiber.interrupt(running)
      for (const fiber of closing) yield* Fiber.join(fiber)
    })
  )
})
