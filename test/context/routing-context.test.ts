import { assert, describe, it } from "@effect/vitest"
import { Effect, FiberRef, Option } from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"

const primary = DbRouter.primary
const replica = DbRouter.replica
const analytics = DbRouter.bindGroup("analytics")
const archive = DbRouter.bindGroup("archive")

/** What the router will find in this fiber. */
const target = Effect.gen(function* () {
  const group = yield* FiberRef.get(RoutingContext.bindGroup)
  const forced = yield* FiberRef.get(RoutingContext.forcePrimary)
  const preferred = yield* FiberRef.get(RoutingContext.preferReplica)
  const found = [...Option.toArray(group), ...(forced ? ["primary"] : []), ...(preferred ? ["replica"] : [])]
  return found.length === 0 ? "automatic" : found.join(" and ")
})

const write = RoutingContext.setStickyPrimary
const isStuck = RoutingContext.shouldUsePrimary

describe("the routing context", () => {
  it.effect("has defaults: automatic, and not stuck", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* target, "automatic")
      assert.isFalse(yield* FiberRef.get(RoutingContext.stickToPrimary))
      assert.isFalse(yield* isStuck)
    })
  )

  const combinators = { primary, replica, analytics, archive }

  for (const [outer, around] of Object.entries(combinators)) {
    for (const [inner, within] of Object.entries(combinators)) {
      it.effect(`the innermost wins: ${inner} inside ${outer}`, () =>
        Effect.gen(function* () {
          const found = yield* around(Effect.all([target, within(target), target]))
          assert.deepStrictEqual(found, [outer, inner, outer])
          assert.strictEqual(yield* target, "automatic")
        })
      )
    }
  }

  it.effect("three deep, each holds again when the one inside it ends", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const see = Effect.map(target, (found) => void seen.push(found))
      const around = (self: Effect.Effect<void>) => Effect.zipRight(see, Effect.zipLeft(self, see))
      yield* around(primary(around(analytics(around(replica(see))))))
      assert.deepStrictEqual(seen, [
        "automatic",
        "primary",
        "analytics",
        "replica",
        "analytics",
        "primary",
        "automatic"
      ])
    })
  )

  it.effect("a combinator ends with a failure, a defect and an interruption too", () =>
    Effect.gen(function* () {
      yield* Effect.exit(primary(Effect.fail("no")))
      assert.strictEqual(yield* target, "automatic")
      yield* Effect.exit(replica(Effect.die("no")))
      assert.strictEqual(yield* target, "automatic")
      yield* Effect.exit(analytics(Effect.interrupt))
      assert.strictEqual(yield* target, "automatic")
    })
  )

  it.effect("data first, data last, and piped mean the same", () =>
    Effect.gen(function* () {
      const found = yield* Effect.all([
        DbRouter.bindGroup(target, "analytics"),
        DbRouter.bindGroup("analytics")(target),
        target.pipe(DbRouter.bindGroup("analytics")),
        RoutingContext.locally(target, { _tag: "Group", name: "analytics" }),
        target.pipe(RoutingContext.locally({ _tag: "Group", name: "analytics" }))
      ])
      assert.deepStrictEqual(new Set(found), new Set(["analytics"]))
    })
  )

  it.effect("the FiberRefs set by hand count like the combinators, inside them and around them", () =>
    Effect.gen(function* () {
      const forced = Effect.locally(RoutingContext.forcePrimary, true)
      const bound = Effect.locally(RoutingContext.bindGroup, Option.some("archive"))
      assert.strictEqual(yield* forced(target), "primary")
      assert.strictEqual(yield* forced(replica(target)), "replica")
      assert.strictEqual(yield* bound(target), "archive")
      assert.strictEqual(yield* bound(primary(target)), "primary")
      assert.strictEqual(yield* primary(bound(forced(target))), "archive and primary")
    })
  )
})

describe("stickiness", () => {
  it.effect("a write sticks, and reset ends it", () =>
    Effect.gen(function* () {
      yield* write
      assert.isTrue(yield* isStuck)
      yield* DbRouter.reset
      assert.isFalse(yield* isStuck)
      yield* write
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("stickToPrimary counts as well, and for itself", () =>
    Effect.gen(function* () {
      yield* FiberRef.set(RoutingContext.stickToPrimary, true)
      assert.isTrue(yield* isStuck)
      yield* RoutingContext.clearStickyPrimary
      assert.isTrue(yield* isStuck)
      yield* FiberRef.set(RoutingContext.stickToPrimary, false)
      assert.isFalse(yield* isStuck)
      assert.isTrue(yield* Effect.locally(isStuck, RoutingContext.stickToPrimary, true))
      yield* write
      assert.isTrue(yield* Effect.locally(isStuck, RoutingContext.stickToPrimary, false))
    })
  )

  for (const [name, combinator] of Object.entries({ primary, replica, analytics })) {
    it.effect(`a write inside ${name} sticks afterwards`, () =>
      Effect.gen(function* () {
        yield* combinator(write)
        assert.isTrue(yield* isStuck)
      })
    )

    it.effect(`a write inside a ${name} that fails sticks afterwards`, () =>
      Effect.gen(function* () {
        yield* Effect.exit(combinator(Effect.zipRight(write, Effect.fail("no"))))
        assert.isTrue(yield* isStuck)
      })
    )
  }

  it.effect("shouldUsePrimary: not inside replica and bindGroup, where no write counts", () =>
    Effect.gen(function* () {
      yield* write
      assert.isTrue(yield* isStuck)
      assert.isFalse(yield* replica(isStuck))
      assert.isFalse(yield* analytics(isStuck))
      assert.isTrue(yield* replica(primary(isStuck)))
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("shouldUsePrimary: inside primary, and not after it", () =>
    Effect.gen(function* () {
      assert.isTrue(yield* primary(isStuck))
      assert.isFalse(yield* isStuck)
    })
  )

  it.effect("reset puts everything back, until the end of the combinator around it", () =>
    Effect.gen(function* () {
      yield* write
      yield* FiberRef.set(RoutingContext.stickToPrimary, true)
      const found = yield* analytics(Effect.zipRight(DbRouter.reset, Effect.all([target, isStuck])))
      assert.deepStrictEqual(found, ["automatic", false])
      assert.strictEqual(yield* primary(Effect.zipRight(DbRouter.reset, target)), "automatic")
      assert.strictEqual(yield* primary(Effect.zipRight(Effect.void, target)), "primary")
      yield* FiberRef.set(RoutingContext.bindGroup, Option.some("archive"))
      yield* FiberRef.set(RoutingContext.forcePrimary, true)
      yield* FiberRef.set(RoutingContext.preferReplica, true)
      yield* DbRouter.reset
      assert.strictEqual(yield* target, "automatic")
      assert.isFalse(yield* isStuck)
    })
  )

  it("the initial value is never changed", async () => {
    const initial = await Effect.runPromise(FiberRef.get(RoutingContext.flow))
    const before = { ...initial }
    const both = Effect.all([write, Effect.fork(write), Effect.all([write, write], { concurrency: "unbounded" })])
    await Effect.runPromise(Effect.zipRight(both, DbRouter.reset))
    await Effect.runPromise(Effect.zipRight(RoutingContext.clearStickyPrimary, both))
    assert.deepStrictEqual({ ...initial }, before)
    assert.strictEqual(await Effect.runPromise(FiberRef.get(RoutingContext.flow)), initial)
    assert.isFalse(await Effect.runPromise(isStuck))
  })

  it.effect("fresh: clean inside whatever is around it, and what is written inside stays there", () =>
    Effect.gen(function* () {
      yield* write
      const inside = yield* analytics(
        RoutingContext.fresh(Effect.all([target, isStuck, Effect.as(write, undefined), isStuck]))
      )
      assert.deepStrictEqual(inside, ["automatic", false, undefined, true])
      yield* DbRouter.reset
      yield* RoutingContext.fresh(write)
      assert.isFalse(yield* isStuck)
    })
  )
})
