import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, TestClock } from "effect"
import * as bounded from "../../src/internal/util/bounded.js"

const yields = (times: number) => Effect.repeatN(Effect.yieldNow(), times)

/** What the caller of a bounded wait gets, though it is interrupted that often while it waits. */
const interrupted = <A, E>(wait: Effect.Effect<A, E>, times: number, whenLate?: bounded.WhenLate) =>
  Effect.gen(function* () {
    const heard = yield* Deferred.make<bounded.Answer<A, E>>()
    const caller = yield* Effect.fork(
      Effect.uninterruptible(
        Effect.flatMap(bounded.run(wait, "5 seconds", whenLate), (answer) => Deferred.succeed(heard, answer))
      )
    )
    yield* yields(3)
    for (let time = 0; time < times; time++) {
      yield* Fiber.interruptFork(caller)
      yield* yields(3)
    }
    return { caller, heard }
  })

describe("a bounded wait", () => {
  for (const times of [0, 1, 2, 3]) {
    it.effect(`hears an answer, though its caller is interrupted ${times} times`, () =>
      Effect.gen(function* () {
        const { caller, heard } = yield* interrupted(Effect.delay(Effect.succeed("done"), "4 seconds"), times)
        yield* TestClock.adjust("3900 millis")
        assert.isFalse(yield* Deferred.isDone(heard))
        yield* TestClock.adjust("100 millis")
        const answer = yield* Deferred.await(heard)
        assert.strictEqual(answer.state, "answered")
        assert.deepStrictEqual(answer.state === "late" ? undefined : Exit.getOrElse(answer.exit, String), "done")
        yield* Fiber.await(caller)
      })
    )

    it.effect(
      `is late after its limit and ends what it waited for, though its caller is interrupted ${times} times`,
      () =>
        Effect.gen(function* () {
          let ended = false
          const never = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (ended = true)))
          const { heard } = yield* interrupted(never, times)
          yield* TestClock.adjust("4999 millis")
          assert.isFalse(yield* Deferred.isDone(heard))
          assert.isFalse(ended)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual((yield* Deferred.await(heard)).state, "late")
          yield* yields(3)
          assert.isTrue(ended)
        })
    )
  }

  it.effect("is late though what it waits for cannot be interrupted", () =>
    Effect.gen(function* () {
      const { heard } = yield* interrupted(Effect.uninterruptible(Effect.never), 1)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Deferred.await(heard)).state, "late")
    })
  )

  it.effect("leaves what is late to go on, where that is asked for", () =>
    Effect.gen(function* () {
      const done = yield* Deferred.make<void>()
      const slow = Effect.zipRight(Effect.sleep("7 seconds"), Deferred.succeed(done, undefined))
      const { heard } = yield* interrupted(slow, 2, "continue")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Deferred.await(heard)).state, "late")
      yield* TestClock.adjust("2 seconds")
      yield* Deferred.await(done)
    })
  )

  it.effect("says what failed: an error, a defect, an interruption of the wait itself", () =>
    Effect.gen(function* () {
      const causeOf = <E>(wait: Effect.Effect<never, E>) =>
        Effect.map(bounded.run(wait, "1 second"), (answer) =>
          answer.state === "failed" ? answer.exit.cause : answer.state
        )
      assert.deepStrictEqual(yield* causeOf(Effect.fail("no")), Cause.fail("no"))
      assert.deepStrictEqual(yield* causeOf(Effect.die("broken")), Cause.die("broken"))
      const ended = yield* causeOf(Effect.interrupt)
      assert.isTrue(typeof ended !== "string" && Cause.isInterruptedOnly(ended))
    })
  )

  it.effect("ends early for a caller that waits with a timeout of Effect: why the helper is there", () =>
    Effect.gen(function* () {
      const heard = yield* Deferred.make<string>()
      const caller = yield* Effect.fork(
        Effect.uninterruptible(
          Effect.timeoutOption(Effect.interruptible(Effect.sleep("4 seconds")), "5 seconds").pipe(
            Effect.exit,
            Effect.flatMap((exit) => Deferred.succeed(heard, exit._tag))
          )
        )
      )
      yield* yields(3)
      yield* Fiber.interruptFork(caller)
      assert.strictEqual(yield* Deferred.await(heard), "Failure")
    })
  )

  it.effect("leaves no timer behind", () =>
    Effect.gen(function* () {
      yield* bounded.run(Effect.void, "5 seconds")
      yield* yields(3)
      assert.deepStrictEqual([...(yield* TestClock.sleeps())], [])
    })
  )
})

describe("a bounded wait that is not at an end", () => {
  it.effect("ends at once with its caller, and what it waited for too", () =>
    Effect.gen(function* () {
      let ended = false
      const never = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (ended = true)))
      const caller = yield* Effect.fork(bounded.within(never, "5 seconds"))
      yield* yields(3)
      yield* Fiber.interrupt(caller)
      yield* yields(3)
      assert.isTrue(ended)
    })
  )

  it.effect("has its limit too where nothing interrupts its caller", () =>
    Effect.gen(function* () {
      const caller = yield* Effect.fork(Effect.uninterruptible(bounded.within(Effect.never, "5 seconds")))
      yield* yields(3)
      yield* Fiber.interruptFork(caller)
      yield* TestClock.adjust("4999 millis")
      assert.isNull(caller.unsafePoll())
      yield* TestClock.adjust("1 millis")
      assert.isNotNull(caller.unsafePoll())
    })
  )
})
