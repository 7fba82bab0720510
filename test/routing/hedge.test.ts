import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Random, TestClock } from "effect"
import { type Engine, Telemetry } from "effect-db-router"
import type { Callback, Result } from "../../src/internal/driver/pool.js"
import { burst, type Failed, Hedges, Share } from "../../src/internal/routing/hedge.js"
import { sumOf } from "../support/telemetry.js"

const request = { sql: "SELECT 1", params: [], asArrays: false, prepare: false }

const serverError = (code: string) =>
  new SqlError.SqlError({
    cause: Object.assign(new Error(code), { severity: "ERROR", code }),
    message: "Failed to execute statement"
  })

/** An engine that answers when it is told to. */
const fake = (name: string, latency = 0) => {
  const calls: Array<{ callback: Callback; isCancelled: boolean }> = []
  const observed: Array<number> = []
  const engine = {
    name,
    latency,
    observeLatency: (millis: number) => void observed.push(Math.round(millis)),
    begin: (_: unknown, callback: Callback) => {
      const call = { callback, isCancelled: false }
      calls.push(call)
      return Effect.sync(() => {
        call.isCancelled = true
      })
    }
  } as unknown as Engine.Engine
  const result = [{ name }] as unknown as Result
  return {
    engine,
    observed,
    calls,
    result,
    answer: (i = 0) => calls[i]!.callback(undefined, result),
    fail: (error: SqlError.SqlError) => calls[0]!.callback(error, undefined)
  }
}

/** A read of which the first replica hears at once, the second one after 30 ms. */
const begun = (hedges?: Hedges, second = fake("second")) =>
  Effect.gen(function* () {
    const first = fake("first")
    const hedgedTo: Array<string> = []
    const all = hedges ?? new Hedges({ after: Duration.millis(30), maxShare: 1 })
    const fiber = yield* Effect.fork(
      all.read(yield* Effect.clock, {
        request,
        engine: first.engine,
        choose: () => second.engine,
        onHedge: ({ name }) => void hedgedTo.push(name)
      })
    )
    yield* Effect.yieldNow()
    return { first, second, fiber, hedgedTo }
  })

const wonBy = (engine: string, won: string) => sumOf(Telemetry.instruments.hedgedReads, { engine, winner: won })

describe("the share of reads that are sent twice", () => {
  it("is kept, but for a small burst, whatever the order", () => {
    const random = Random.make("share")
    for (const part of [0.01, 0.1, 0.5, 1]) {
      const share = new Share(part)
      let reads = 0
      let twice = 0
      let windowReads = 0
      let windowTwice = 0
      for (let i = 0; i < 20_000; i++) {
        reads++
        windowReads++
        share.count()
        const isSlow = Effect.runSync(random.next) < (i % 4_000 < 2_000 ? 0.02 : 1)
        if (isSlow && share.isLeft) {
          share.take()
          twice++
          windowTwice++
        }
        assert.isAtMost(twice, reads * part + 1 + 1e-6)
        assert.isAtMost(windowTwice, windowReads * part + burst + 1e-6)
        if (i % 700 === 0) {
          windowReads = 0
          windowTwice = 0
        }
      }
      assert.isAbove(twice, reads * part * 0.4)
    }
  })

  it("lets the first slow read be sent twice, and the next one after as many as the share says", () => {
    const share = new Share(0.25)
    const sent = Array.from({ length: 9 }, () => {
      share.count()
      if (!share.isLeft) return false
      share.take()
      return true
    })
    assert.deepStrictEqual(sent, [true, false, false, true, false, false, false, true, false])
  })
})

describe("a hedged read", () => {
  it.effect("is sent once when its answer comes in time", () =>
    Effect.gen(function* () {
      const { fiber, first, second } = yield* begun()
      yield* TestClock.adjust("29 millis")
      first.answer()
      const { engine, isHedge, result } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([engine.name, isHedge, result], ["first", false, first.result])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([first.calls.length, second.calls.length], [1, 0])
      assert.deepStrictEqual(first.observed, [29])
    })
  )

  it.effect("is answered by the second replica: the first one is cancelled, and does not look fast for it", () =>
    Effect.gen(function* () {
      const before = yield* wonBy("first", "second")
      const { fiber, first, hedgedTo, second } = yield* begun()
      yield* TestClock.adjust("30 millis")
      assert.deepStrictEqual(hedgedTo, ["second"])
      yield* TestClock.adjust("5 millis")
      second.answer()
      const { engine, isHedge, result } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([engine.name, isHedge, result], ["second", true, second.result])
      assert.deepStrictEqual([first.calls[0]!.isCancelled, second.calls[0]!.isCancelled], [true, false])
      assert.deepStrictEqual([first.observed, second.observed], [[35], [5]])
      assert.strictEqual((yield* wonBy("first", "second")) - before, 1)
      // What comes too late changes nothing.
      first.answer()
      assert.deepStrictEqual(first.observed, [35])
    })
  )

  it.effect("is answered by the first one after all: a short wait for the second one says nothing of it", () =>
    Effect.gen(function* () {
      const { fiber, first, second } = yield* begun(undefined, fake("second", 12))
      yield* TestClock.adjust("35 millis")
      first.answer()
      const { engine, isHedge } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([engine.name, isHedge], ["first", false])
      assert.isTrue(second.calls[0]!.isCancelled)
      assert.deepStrictEqual([first.observed, second.observed], [[35], []])
    })
  )

  it.effect("that has failed on one waits for the other", () =>
    Effect.gen(function* () {
      for (const failing of ["first", "second"] as const) {
        const both = yield* begun()
        yield* TestClock.adjust("30 millis")
        both[failing].fail(serverError("57P01"))
        yield* TestClock.adjust("1 minute")
        const other = failing === "first" ? "second" : "first"
        both[other].answer()
        assert.strictEqual((yield* Fiber.join(both.fiber)).engine.name, other)
      }
    })
  )

  it.effect("that has failed on both fails with what came first, and says what the other one said", () =>
    Effect.gen(function* () {
      for (const [one, other] of [
        ["first", "second"],
        ["second", "first"]
      ] as const) {
        const both = yield* begun()
        yield* TestClock.adjust("30 millis")
        both[one].fail(serverError("57P01"))
        both[other].fail(serverError("53300"))
        const failed = yield* Effect.flip(Fiber.join(both.fiber))
        assert.deepStrictEqual(
          [failed.engine.name, failed.error, failed.other?.engine.name, failed.other?.error],
          [one, serverError("57P01"), other, serverError("53300")]
        )
      }
    })
  )

  it.effect("that has failed before it was sent twice fails at once", () =>
    Effect.gen(function* () {
      const { fiber, first, second } = yield* begun()
      first.fail(serverError("57P01"))
      const failed: Failed = yield* Effect.flip(Fiber.join(fiber))
      assert.isUndefined(failed.other)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(second.calls.length, 0)
    })
  )

  it.effect("does not wait for a second opinion on what is the caller's, or any standby's, error", () =>
    Effect.gen(function* () {
      for (const code of ["22012", "57014", "25006"]) {
        const { fiber, first, second } = yield* begun()
        yield* TestClock.adjust("30 millis")
        second.fail(serverError(code))
        const failed = yield* Effect.flip(Fiber.join(fiber))
        assert.deepStrictEqual([failed.engine.name, failed.error], ["second", serverError(code)])
        assert.isTrue(first.calls[0]!.isCancelled)
      }
    })
  )

  it.effect("is cancelled wherever it runs when it is interrupted", () =>
    Effect.gen(function* () {
      const once = yield* begun()
      yield* Fiber.interrupt(once.fiber)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([once.first.calls[0]!.isCancelled, once.second.calls.length], [true, 0])
      const twice = yield* begun()
      yield* TestClock.adjust("30 millis")
      yield* Fiber.interrupt(twice.fiber)
      assert.deepStrictEqual([twice.first.calls[0]!.isCancelled, twice.second.calls[0]!.isCancelled], [true, true])
    })
  )

  it.effect("waits for its own time, not for that of reads before it, and not after the end", () =>
    Effect.gen(function* () {
      const hedges = new Hedges({ after: Duration.millis(30), maxShare: 1 })
      const one = yield* begun(hedges)
      yield* TestClock.adjust("20 millis")
      const two = yield* begun(hedges)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual([one.second.calls.length, two.second.calls.length], [1, 0])
      one.first.answer()
      yield* TestClock.adjust("20 millis")
      assert.deepStrictEqual([one.second.calls.length, two.second.calls.length], [1, 1])
      two.first.answer()
      // The next one after a time without any.
      yield* TestClock.adjust("1 minute")
      const three = yield* begun(hedges)
      yield* TestClock.adjust("30 millis")
      assert.strictEqual(three.second.calls.length, 1)
      three.first.answer()
      const four = yield* begun(hedges)
      yield* hedges.close
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(four.second.calls.length, 0)
      four.first.answer()
      yield* Fiber.join(four.fiber)
    })
  )

  it.effect("goes by the clock of its fiber, not by that of other readers", () =>
    Effect.gen(function* () {
      const hedges = new Hedges({ after: Duration.millis(5), maxShare: 1 })
      const still = yield* begun(hedges)
      const moving = yield* Effect.withClock(begun(hedges), Clock.make())
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
      assert.deepStrictEqual([still.second.calls.length, moving.second.calls.length], [0, 1])
      yield* TestClock.adjust("5 millis")
      assert.strictEqual(still.second.calls.length, 1)
    })
  )

  it.effect("a strategy that throws is no harm to the others", () =>
    Effect.gen(function* () {
      const hedges = new Hedges({ after: Duration.millis(5), maxShare: 1 })
      const first = fake("first")
      const options = { request, engine: first.engine, onHedge: () => {} }
      const clock = yield* Effect.clock
      const choose = () => {
        throw new Error("no choice")
      }
      const one = yield* Effect.fork(hedges.read(clock, { ...options, choose }))
      const two = yield* begun(hedges)
      yield* TestClock.adjust("5 millis")
      assert.strictEqual(two.second.calls.length, 1)
      first.answer()
      assert.strictEqual((yield* Fiber.join(one)).engine.name, "first")
    })
  )

  it.effect("goes on after a read whose time had come before anybody could wait for it", () =>
    Effect.gen(function* () {
      const hedges = new Hedges({ after: Duration.millis(30), maxShare: 1 })
      const clock = yield* Effect.clock
      let nanos = 0n
      // As when the process stands still in between.
      const leaping: Clock.Clock = Object.create(clock, {
        unsafeCurrentTimeNanos: { value: () => (nanos += 1_000_000_000n) }
      })
      for (let i = 0; i < 3; i++) {
        const { fiber, first, hedgedTo } = yield* begun(hedges).pipe(Effect.withClock(leaping))
        assert.deepStrictEqual(hedgedTo, ["second"])
        first.answer()
        yield* Fiber.join(fiber)
      }
    })
  )
})
