import { RequestResolver as Experimental } from "@effect/experimental"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, FiberRef, Option, Request, RequestResolver } from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"

const write = RoutingContext.setStickyPrimary
const isStuck = RoutingContext.shouldUsePrimary
const bound = Effect.map(
  FiberRef.get(RoutingContext.bindGroup),
  Option.getOrElse(() => "none")
)
const analytics = DbRouter.bindGroup("analytics")

class Save extends Request.TaggedClass("Save")<string, string, { readonly id: number }> {}

/** Answers a batch after it has run an effect, and counts its batches. */
const resolverOf = (effect: Effect.Effect<unknown, string>) => {
  const batches: Array<ReadonlyArray<number>> = []
  const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Save>) => {
    batches.push(requests.map(({ id }) => id))
    return Effect.matchCauseEffect(Effect.zipRight(effect, bound), {
      onFailure: (cause) => Effect.forEach(requests, Request.failCause(cause), { discard: true }),
      onSuccess: (group) => Effect.forEach(requests, Request.succeed(group), { discard: true })
    })
  })
  return { batches, save: (id: number) => Effect.request(new Save({ id }), resolver), resolver }
}

const slowly = Effect.zipRight(Effect.yieldNow(), Effect.zipRight(write, Effect.yieldNow()))

describe("a write of a resolver", () => {
  it.effect("sticks to the flow that made the request", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(slowly)
      yield* save(1)
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("does not stick when there was none", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(Effect.yieldNow())
      yield* Effect.forEach([1, 2], save, { batching: true })
      assert.isFalse(yield* isStuck)
    })
  )

  for (const concurrency of [1, 2, "unbounded"] as const) {
    it.effect(`sticks to everyone in the batch as soon as they have their answers, concurrency ${concurrency}`, () =>
      Effect.gen(function* () {
        const { batches, save } = resolverOf(slowly)
        const found = yield* Effect.forEach(
          [1, 2, 3],
          (id) =>
            Effect.flatMap(isStuck, (before) =>
              Effect.zipRight(
                save(id),
                Effect.map(isStuck, (after) => [before, after])
              )
            ),
          { batching: true, concurrency }
        )
        assert.deepStrictEqual(found, Array(3).fill([false, true]))
        assert.isTrue(yield* isStuck)
        assert.deepStrictEqual(batches, [[1, 2, 3]])
      })
    )
  }

  for (const mode of ["either", "validate", "default"] as const) {
    it.effect(`sticks although it fails then, Effect.all in mode ${mode}`, () =>
      Effect.gen(function* () {
        const { save } = resolverOf(Effect.zipRight(slowly, Effect.fail("no")))
        const seen = (id: number) => Effect.flatMap(Effect.exit(save(id)), () => isStuck)
        assert.deepStrictEqual(yield* Effect.all([seen(1), seen(2)], { batching: true, mode: "default" }), [true, true])
        yield* DbRouter.reset
        yield* Effect.exit(Effect.all([save(1), save(2)], { batching: true, mode }))
        // Without a mode the failure of one loses what the others knew: see the limits of fibers.
        assert.strictEqual(yield* isStuck, mode !== "default")
      })
    )
  }

  it.effect("sticks when it happens in a child of the resolver, or in a resolver that it uses", () =>
    Effect.gen(function* () {
      const child = resolverOf(Effect.flatMap(Effect.fork(slowly), Fiber.await))
      yield* child.save(1)
      assert.isTrue(yield* isStuck)
      yield* DbRouter.reset
      const outer = resolverOf(Effect.forEach([1, 2], resolverOf(slowly).save, { batching: true }))
      assert.deepStrictEqual(
        yield* Effect.forEach([1, 2], (id) => Effect.zipRight(outer.save(id), isStuck), { batching: true }),
        [true, true]
      )
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("sticks to those who asked, and not to others who do something else meanwhile", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(slowly)
      const answered = yield* Deferred.make<void>()
      const before = yield* Effect.fork(Effect.zipRight(Deferred.await(answered), isStuck))
      const found = yield* Effect.all(
        [Effect.zipRight(save(1), isStuck), Effect.zipRight(Effect.yieldNow(), isStuck)],
        {
          batching: true,
          concurrency: "unbounded"
        }
      )
      assert.deepStrictEqual(found, [true, false])
      yield* Deferred.succeed(answered, undefined)
      assert.isFalse(yield* Fiber.join(before))
    })
  )

  it.effect("does not stick out of a fiber that is never joined", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(slowly)
      assert.isTrue(
        yield* Effect.flatMap(Effect.fork(Effect.zipRight(save(1), isStuck)), (fiber) =>
          Effect.flatten(Fiber.await(fiber))
        )
      )
      assert.isFalse(yield* isStuck)
    })
  )

  it.effect("sticks to every flow that waits for one cached answer, and to none that finds it later", () =>
    Effect.gen(function* () {
      const { batches, save } = resolverOf(slowly)
      const stuckAfter = Effect.zipRight(save(1), isStuck)
      yield* Effect.gen(function* () {
        const both = yield* Effect.all([Effect.fork(stuckAfter), Effect.fork(stuckAfter)])
        assert.deepStrictEqual(yield* Effect.forEach(both, (fiber) => Effect.flatten(Fiber.await(fiber))), [true, true])
        assert.isFalse(yield* stuckAfter)
        assert.strictEqual(batches.length, 1)
      }).pipe(
        Effect.withRequestCaching(true),
        Effect.withRequestCache(yield* Request.makeCache({ capacity: 10, timeToLive: "1 minute" }))
      )
    })
  )

  it.live("one who gives up does not keep it from the other who waits for the same", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const { batches, save } = resolverOf(Effect.zipRight(write, Deferred.await(go)))
      const cache = yield* Request.makeCache({ capacity: 10, timeToLive: "1 minute" })
      const asking = Effect.fork(Effect.zipRight(save(1), isStuck)).pipe(
        Effect.withRequestCaching(true),
        Effect.withRequestCache(cache)
      )
      const [first, second] = yield* Effect.all([asking, asking])
      yield* Effect.delay(Fiber.interruptFork(first), 5)
      yield* Deferred.succeed(go, undefined)
      assert.isTrue(yield* Effect.flatten(Fiber.await(second)))
      assert.strictEqual(batches.length, 1)
      assert.isFalse(yield* isStuck)
    })
  )

  it.effect("leaves no observer behind", () =>
    Effect.gen(function* () {
      const listeners: Array<Request.Listeners> = []
      const resolver = RequestResolver.makeWithEntry((entries: Array<Array<Request.Entry<Save>>>) =>
        Effect.forEach(
          entries.flat(),
          (entry) => {
            listeners.push(entry.listeners)
            return Effect.all([slowly, slowly, Request.succeed(entry.request, "")], { discard: true })
          },
          { discard: true }
        )
      )
      yield* Effect.forEach([1, 2], (id) => Effect.request(new Save({ id }), resolver), { batching: true })
      assert.isTrue(yield* isStuck)
      assert.deepStrictEqual(
        listeners.map(({ observers }) => observers.size),
        [0, 0]
      )
    })
  )

  it.effect("in a session or a request it is in the flow that they all share", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(slowly)
      const within = Effect.zipRight(Effect.exit(Effect.timeout(save(1), "1 minute")), isStuck)
      assert.isTrue(yield* RoutingContext.fresh(within, { shared: true }))
      assert.isFalse(yield* isStuck)
    })
  )

  it.live("limit: a data loader answers from a fiber of its own, so the write does not stick", () =>
    Effect.gen(function* () {
      const loader = yield* Experimental.dataLoader(resolverOf(slowly).resolver, { window: 1 })
      yield* Effect.request(new Save({ id: 1 }), loader)
      assert.isFalse(yield* isStuck)
    }).pipe(Effect.scoped)
  )
})

describe("a bind group and a resolver", () => {
  it.effect("holds around a request by itself, around the operator that batches, and in the resolver", () =>
    Effect.gen(function* () {
      const { save } = resolverOf(Effect.void)
      assert.strictEqual(yield* analytics(save(1)), "analytics")
      assert.deepStrictEqual(yield* analytics(Effect.forEach([1, 2], save, { batching: true })), [
        "analytics",
        "analytics"
      ])
      const inside = RequestResolver.makeBatched((requests: ReadonlyArray<Save>) =>
        Effect.flatMap(analytics(bound), (group) => Effect.forEach(requests, Request.succeed(group), { discard: true }))
      )
      const asked = Effect.forEach([1, 2], (id) => Effect.request(new Save({ id }), inside), { batching: true })
      assert.deepStrictEqual(yield* asked, ["analytics", "analytics"])
      assert.strictEqual(yield* bound, "none")
    })
  )

  it.effect("limit: around one request of a batch it is lost, for there is one batch for all of them", () =>
    Effect.gen(function* () {
      const { batches, save } = resolverOf(Effect.void)
      const found = yield* Effect.all([analytics(save(1)), save(2)], { batching: true })
      assert.deepStrictEqual(found, ["none", "none"])
      assert.deepStrictEqual(batches, [[1, 2]])
    })
  )
})
