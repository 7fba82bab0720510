/** Attempts that several fibers wait for. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber } from "effect"
import { Together } from "../../src/internal/util/together.js"

/** An attempt that tells how often it has begun and ended, and ends as it is told. */
const make = Effect.map(Deferred.make<number, string>(), (outcome) => {
  const told = { begun: 0, ended: 0 }
  const attempt = Effect.suspend(() => {
    told.begun++
    return Effect.ensuring(
      Deferred.await(outcome),
      Effect.zipRight(
        Effect.yieldNow(),
        Effect.sync(() => told.ended++)
      )
    )
  })
  return { told, outcome, attempt, together: new Together<number, string>() }
})

const settle = Effect.repeatN(Effect.yieldNow(), 20)

describe("an attempt", () => {
  it.effect("is made once for all fibers that wait for it, whatever its outcome", () =>
    Effect.gen(function* () {
      for (const exit of [Exit.succeed(1), Exit.fail("down"), Exit.die("defect")]) {
        const { attempt, outcome, told, together } = yield* make
        const fibers = yield* Effect.all(Arr.makeBy(5, () => Effect.fork(together.join(attempt))))
        yield* settle
        yield* Deferred.done(outcome, exit)
        const exits = yield* Effect.all(Arr.map(fibers, (fiber) => Fiber.await(fiber)))
        for (const each of exits) assert.deepStrictEqual(each, exit)
        assert.strictEqual(told.begun, 1)
        yield* Effect.exit(together.join(attempt))
        assert.strictEqual(told.begun, 2)
      }
    })
  )

  it.effect("goes on for the others when the fiber that has begun it is interrupted", () =>
    Effect.gen(function* () {
      const { attempt, outcome, told, together } = yield* make
      const first = yield* Effect.fork(together.join(attempt))
      yield* settle
      const second = yield* Effect.fork(together.join(attempt))
      yield* settle
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual(told, { begun: 1, ended: 0 })
      yield* Deferred.succeed(outcome, 2)
      assert.strictEqual(yield* Fiber.join(second), 2)
      assert.strictEqual(told.begun, 1)
    })
  )

  it.effect("has ended when the last fiber that waited for it has been interrupted", () =>
    Effect.gen(function* () {
      const { attempt, told, together } = yield* make
      const fibers = yield* Effect.all(Arr.makeBy(3, () => Effect.fork(together.join(attempt))))
      yield* settle
      yield* Fiber.interruptAll(fibers)
      assert.deepStrictEqual(told, { begun: 1, ended: 1 })
    })
  )

  it.effect("that ends because all have left is none for the fiber that comes meanwhile", () =>
    Effect.gen(function* () {
      const { attempt, outcome, told, together } = yield* make
      const ending = yield* Deferred.make<void>()
      const slow = Effect.ensuring(Effect.never, Deferred.await(ending))
      const first = yield* Effect.fork(together.join(slow))
      yield* settle
      const left = yield* Effect.fork(Fiber.interrupt(first))
      yield* settle
      const next = yield* Effect.fork(together.join(attempt))
      yield* settle
      // Not beside the one that ends.
      assert.strictEqual(told.begun, 0)
      yield* Deferred.succeed(ending, undefined)
      yield* Deferred.succeed(outcome, 3)
      assert.strictEqual(yield* Fiber.join(next), 3)
      yield* Fiber.join(left)
    })
  )

  it.effect("that interrupts itself is not made again", () =>
    Effect.gen(function* () {
      const together = new Together<never, never>()
      assert.isTrue(Exit.isInterrupted(yield* Effect.exit(together.join(Effect.interrupt))))
    })
  )

  it.effect(
    "that is short is made in the fiber that begins it, and made again for the others when that is interrupted",
    () =>
      Effect.gen(function* () {
        const { attempt, outcome, told, together } = yield* make
        const first = yield* Effect.fork(together.join(attempt, true))
        yield* settle
        const others = yield* Effect.all(Arr.makeBy(3, () => Effect.fork(together.join(attempt))))
        yield* settle
        const [left] = others
        yield* Fiber.interrupt(left!)
        assert.deepStrictEqual(told, { begun: 1, ended: 0 })
        yield* Fiber.interrupt(first)
        yield* settle
        assert.deepStrictEqual(told, { begun: 2, ended: 1 })
        yield* Deferred.succeed(outcome, 4)
        assert.deepStrictEqual(yield* Effect.all(Arr.map(others.slice(1), (other) => Fiber.join(other))), [4, 4])
        assert.strictEqual(told.begun, 2)
      })
  )
})
