import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, FiberRef, FiberSet, Option, Ref, Request, RequestResolver, Runtime } from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"

const write = RoutingContext.setStickyPrimary
const isStuck = RoutingContext.shouldUsePrimary
const clean = Effect.zipRight(write, DbRouter.reset)

/** A test of what the flow knows after an effect. */
const sticks = (name: string, effect: Effect.Effect<unknown, unknown>, expected: boolean) =>
  it.live(name, () =>
    Effect.gen(function* () {
      yield* Effect.exit(effect)
      assert.strictEqual(yield* isStuck, expected)
    })
  )

describe("a write sticks to the flow that joins it", () => {
  sticks("one after the other", Effect.zipRight(Effect.yieldNow(), write), true)
  sticks("fork and join", Effect.flatMap(Effect.fork(write), Fiber.join), true)
  sticks("fork in a scope and join", Effect.scoped(Effect.flatMap(Effect.forkScoped(write), Fiber.join)), true)
  sticks("a daemon that is joined", Effect.flatMap(Effect.forkDaemon(write), Fiber.join), true)
  sticks(
    "a child of a child",
    Effect.flatMap(Effect.fork(Effect.flatMap(Effect.fork(write), Fiber.join)), Fiber.join),
    true
  )
  sticks("Fiber.inheritAll", Effect.flatMap(Effect.tap(Effect.fork(write), Fiber.await), Fiber.inheritAll), true)
  sticks(
    "Effect.inheritFiberRefs",
    Effect.flatMap(Effect.fork(Effect.zipRight(write, Effect.getFiberRefs)), (fiber) =>
      Effect.flatMap(Fiber.await(fiber), (exit) =>
        exit._tag === "Success" ? Effect.inheritFiberRefs(exit.value) : Effect.void
      )
    ),
    true
  )
  sticks("the winner of a race", Effect.race(write, Effect.never), true)
  sticks("the winner of raceFirst", Effect.raceFirst(write, Effect.never), true)
  sticks("the winner of raceAll", Effect.raceAll([Effect.never, write]), true)
  sticks("the only success of a race", Effect.race(Effect.fail("no"), Effect.delay(write, 1)), true)
  sticks("within a timeout", Effect.timeout(write, "1 minute"), true)
  sticks("before a failure", Effect.zipRight(write, Effect.fail("no")), true)
  sticks("before a defect", Effect.zipRight(write, Effect.die("no")), true)
  sticks("before an interruption of itself", Effect.zipRight(write, Effect.interrupt), true)
  sticks("in a finalizer", Effect.ensuring(Effect.fail("no"), write), true)
  sticks("in a scope's finalizer", Effect.scoped(Effect.addFinalizer(() => write)), true)
  sticks(
    "before a finalizer that does nothing",
    Effect.scoped(
      Effect.zipRight(
        Effect.addFinalizer(() => Effect.void),
        write
      )
    ),
    true
  )
  sticks("disconnected from an interruption", Effect.disconnect(write), true)
  sticks(
    "Effect.forEach over one with batching",
    Effect.forEach([1], () => write, { batching: true }),
    true
  )

  const modes = [
    { concurrency: 1 },
    { concurrency: 2 },
    { concurrency: "unbounded" },
    { concurrency: "inherit" },
    { concurrency: "unbounded", batching: true },
    { concurrency: 2, discard: true },
    { concurrency: 2, concurrentFinalizers: true },
    { concurrency: 2, mode: "either" },
    { concurrency: 2, mode: "validate" },
    { concurrency: 1, mode: "either", batching: true },
    { concurrency: 1, mode: "validate", discard: true }
  ] as const
  for (const options of modes) {
    for (const position of [0, 1, 2, 3]) {
      const effects = [0, 1, 2, 3].map((index) => (index === position ? write : Effect.yieldNow()))
      sticks(`Effect.all ${JSON.stringify(options)}, written by number ${position}`, Effect.all(effects, options), true)
    }
  }
  sticks(
    "Effect.all with another that fails, in mode either",
    Effect.all([write, Effect.fail("no")], { concurrency: 2, mode: "either" }),
    true
  )
  sticks(
    "Effect.all with another that fails, in mode validate",
    Effect.all([write, Effect.fail("no")], { concurrency: 2, mode: "validate" }),
    true
  )
  sticks("Effect.zip, concurrently", Effect.zip(write, Effect.yieldNow(), { concurrent: true }), true)
  sticks("Effect.all, one after the other, before one that fails", Effect.all([write, Effect.fail("no")]), true)

  it.effect("a write of one child is not known to the others, nor are later ones of the parent", () =>
    Effect.gen(function* () {
      const written = yield* Deferred.make<void>()
      const before = yield* Effect.fork(Effect.zipRight(Deferred.await(written), isStuck))
      const found = yield* Effect.all([write, Effect.zipRight(Effect.yieldNow(), isStuck)], {
        concurrency: "unbounded"
      })
      assert.isFalse(found[1])
      assert.isTrue(yield* isStuck)
      yield* Deferred.succeed(written, undefined)
      assert.isFalse(yield* Fiber.join(before))
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("a child knows what its parent had written", () =>
    Effect.gen(function* () {
      yield* write
      assert.isTrue(yield* Effect.flatMap(Effect.fork(isStuck), Fiber.join))
      assert.deepStrictEqual(yield* Effect.all([isStuck, isStuck], { concurrency: 2 }), [true, true])
      assert.isTrue(yield* Effect.flatMap(Effect.forkDaemon(isStuck), Fiber.join))
    })
  )

  it.effect("a reset of a child is its own", () =>
    Effect.gen(function* () {
      yield* write
      yield* Effect.flatMap(Effect.fork(DbRouter.reset), Fiber.join)
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("a write of a child counts, though the parent was reset in between and the child had begun stuck", () =>
    Effect.gen(function* () {
      yield* write
      const go = yield* Deferred.make<void>()
      const child = yield* Effect.fork(Effect.zipRight(Deferred.await(go), write))
      const idle = yield* Effect.fork(Deferred.await(go))
      yield* DbRouter.reset
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(idle)
      assert.isFalse(yield* isStuck)
      yield* Fiber.join(child)
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("stickToPrimary is or-ed on a join, too", () =>
    Effect.gen(function* () {
      yield* FiberRef.set(RoutingContext.stickToPrimary, true)
      const child = yield* Effect.fork(FiberRef.set(RoutingContext.stickToPrimary, false))
      yield* Fiber.join(child)
      assert.isTrue(yield* isStuck)
    })
  )
})

describe("a write does not stick", () => {
  sticks(
    "out of a fiber that is never joined",
    Effect.flatMap(Effect.fork(write), () => Effect.sleep(1)),
    false
  )
  sticks(
    "out of a daemon",
    Effect.flatMap(Effect.forkDaemon(write), () => Effect.sleep(1)),
    false
  )
  sticks(
    "out of a fiber in a FiberSet",
    Effect.scoped(Effect.flatMap(FiberSet.make(), (set) => FiberSet.run(set, write))),
    false
  )
  sticks("after a reset", clean, false)

  it("out of one request into the next, one after the other and at once, forked from one runtime", async () => {
    const request = (writes: boolean) =>
      Effect.gen(function* () {
        const before = yield* isStuck
        if (writes) yield* write
        yield* Effect.sleep(1)
        const after = yield* isStuck
        return !before && after === writes
      })
    // A runtime as a layer's build leaves it: its FiberRefs have been used.
    const runtime = await Effect.runPromise(Effect.zipRight(clean, Effect.runtime<never>()))
    const run = Runtime.runPromise(runtime)
    for (let i = 0; i < 50; i++) {
      assert.isTrue(await run(request(i % 2 === 0)))
    }
    const all = await Promise.all(Array.from({ length: 500 }, (_, i) => run(request(i % 2 === 0))))
    assert.notInclude(all, false)
    const provided = Effect.forEach(
      Array.from({ length: 100 }, (_, i) => i % 2 === 0),
      (writes) => Effect.provide(request(writes), runtime),
      { concurrency: 10 }
    )
    assert.notInclude(await Effect.runPromise(provided), false)
    assert.isFalse(await run(isStuck))
  })

  it.effect("out of one job of a worker into the next, when every job is a fiber", () =>
    Effect.gen(function* () {
      const found = yield* Ref.make<ReadonlyArray<boolean>>([])
      const job = Effect.zipRight(
        Effect.flatMap(isStuck, (stuck) => Ref.update(found, (all) => [...all, stuck])),
        write
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const jobs = yield* FiberSet.make()
          for (let i = 0; i < 20; i++) yield* FiberSet.run(jobs, job)
          yield* FiberSet.awaitEmpty(jobs)
        })
      )
      assert.deepStrictEqual(yield* Ref.get(found), Array(20).fill(false))
    })
  )
})

describe("limit outside a session: what FiberRefs lose, this loses", () => {
  sticks("the loser of a race", Effect.race(Effect.zipRight(write, Effect.never), Effect.sleep(1)), false)
  sticks("a timeout", Effect.timeout(Effect.zipRight(write, Effect.never), 1), false)
  sticks(
    "timeoutFail",
    Effect.timeoutFail(Effect.zipRight(write, Effect.never), { duration: 1, onTimeout: () => 1 }),
    false
  )
  sticks(
    "a child that fails and is joined",
    Effect.flatMap(Effect.fork(Effect.zipRight(write, Effect.fail("no"))), Fiber.join),
    false
  )
  sticks("a child that is awaited instead of joined", Effect.flatMap(Effect.fork(write), Fiber.await), false)
  sticks(
    "a child that is interrupted",
    Effect.flatMap(Effect.fork(Effect.zipRight(write, Effect.never)), (fiber) =>
      Effect.delay(Fiber.interrupt(fiber), 1)
    ),
    false
  )
  sticks(
    "one of an Effect.all in which another fails",
    Effect.all([write, Effect.delay(Effect.fail("no"), 1)], { concurrency: 2 }),
    false
  )
  sticks(
    "what has its answer from elsewhere: a Deferred",
    Effect.flatMap(Deferred.make<void>(), (answer) =>
      Effect.zipRight(Effect.fork(Effect.zipRight(write, Deferred.succeed(answer, undefined))), Deferred.await(answer))
    ),
    false
  )
  sticks(
    "Runtime.runPromise",
    Effect.flatMap(Effect.runtime<never>(), (runtime) => Effect.promise(() => Runtime.runPromise(runtime)(write))),
    false
  )
  sticks(
    "Runtime.runFork",
    Effect.flatMap(Effect.runtime<never>(), (runtime) => Fiber.await(Runtime.runFork(runtime)(write))),
    false
  )
  sticks(
    "Effect.runPromise",
    Effect.promise(() => Effect.runPromise(write)),
    false
  )

  it.effect("a finalizer finds the FiberRefs of the moment when it was added, so not what was written since", () =>
    Effect.gen(function* () {
      const found = yield* Ref.make<ReadonlyArray<boolean>>([])
      const see = Effect.flatMap(isStuck, (stuck) => Ref.update(found, (all) => [...all, stuck]))
      const scoped = Effect.scoped(
        Effect.zipRight(
          Effect.acquireRelease(Effect.void, () => see),
          write
        )
      )
      yield* scoped
      assert.isTrue(yield* isStuck)
      yield* RoutingContext.fresh(scoped, { shared: true })
      yield* DbRouter.reset
      yield* Effect.acquireUseRelease(
        Effect.void,
        () => write,
        () => see
      )
      assert.deepStrictEqual(yield* Ref.get(found), [false, true, true])
    })
  )

  it.live("setStickyPrimary in the flow that goes on is the remedy", () =>
    Effect.gen(function* () {
      yield* Effect.ensuring(Effect.timeout(Effect.zipRight(write, Effect.never), 1), write).pipe(Effect.ignore)
      assert.isTrue(yield* isStuck)
    })
  )

  it.live("a shared flow, as a session has it, keeps all of that", () =>
    Effect.gen(function* () {
      const lost: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Effect.race(Effect.zipRight(write, Effect.never), Effect.sleep(1)),
        Effect.timeout(Effect.zipRight(write, Effect.never), 1),
        Effect.flatMap(Effect.fork(Effect.zipRight(write, Effect.fail("no"))), Fiber.join),
        Effect.flatMap(Effect.fork(write), Fiber.await),
        Effect.all([write, Effect.delay(Effect.fail("no"), 1)], { concurrency: 2 }),
        Effect.flatMap(Effect.runtime<never>(), (runtime) => Effect.promise(() => Runtime.runPromise(runtime)(write))),
        Effect.delay(Effect.forkDaemon(write), 1).pipe(Effect.flatMap(Fiber.await))
      ]
      for (const effect of lost) {
        assert.isTrue(yield* RoutingContext.fresh(Effect.zipRight(Effect.exit(effect), isStuck), { shared: true }))
        assert.isFalse(yield* isStuck)
      }
    })
  )
})

describe("what a fiber has seen need not be noted again", () => {
  const isNoted = Effect.withFiberRuntime<boolean>((fiber) => Effect.succeed(RoutingContext.unsafeIsNoted(fiber)))

  it.effect("where it has noted it itself, not where it has inherited it", () =>
    Effect.gen(function* () {
      assert.isFalse(yield* isNoted)
      const child = Effect.flatMap(Effect.fork(Effect.all([isNoted, Effect.as(write, true), isNoted])), Fiber.join)
      assert.deepStrictEqual(yield* child, [false, true, true])
      assert.isFalse(yield* isNoted, "what a join has brought is not its own")
      yield* write
      assert.isTrue(yield* isNoted)
      assert.deepStrictEqual(yield* child, [false, true, true])
      yield* DbRouter.reset
      assert.isFalse(yield* isNoted)
    })
  )

  it.effect("where all fibers share it", () =>
    Effect.gen(function* () {
      const forked = Effect.flatMap(Effect.fork(isNoted), Fiber.join)
      assert.isTrue(yield* RoutingContext.fresh(Effect.zipRight(write, forked), { shared: true }))
    })
  )

  it.effect("not in a resolver, whose requesters wait to be told", () =>
    Effect.gen(function* () {
      class Get extends Request.TaggedClass("Get")<boolean, never, { readonly id: number }> {}
      const resolver = RequestResolver.fromEffect((_: Get) => Effect.zipRight(write, isNoted))
      assert.isFalse(yield* Effect.request(new Get({ id: 1 }), resolver))
      assert.isTrue(yield* isStuck)
    })
  )
})

describe("a position that was only read", () => {
  const position = (lsn: bigint) => ({ system: "7001", timeline: 1, lsn })
  const read = (lsn: bigint) =>
    Effect.withFiberRuntime((fiber) => {
      RoutingContext.unsafeNoteRead(fiber, (seen) => ({ ...seen, positions: [position(lsn)] }))
      return Effect.void
    })
  const seen = Effect.map(FiberRef.get(RoutingContext.flow), ({ seen }) => seen.positions[0]?.lsn)

  it.effect("is the fiber's own, and a fiber that joins it has seen it", () =>
    Effect.gen(function* () {
      const child = Effect.zipRight(read(7n), seen)
      assert.strictEqual(yield* Effect.flatMap(Effect.fork(child), Fiber.await).pipe(Effect.flatten), 7n)
      assert.isUndefined(yield* seen)
      assert.strictEqual(yield* Effect.flatMap(Effect.fork(child), Fiber.join), 7n)
      assert.strictEqual(yield* seen, 7n)
      yield* read(8n)
      assert.strictEqual(yield* seen, 8n)
      // More than once: the second time in place.
      const again = Effect.forEach([9n, 10n], read)
      yield* Effect.flatMap(Effect.fork(again), Fiber.join)
      assert.strictEqual(yield* seen, 10n)
    })
  )

  it.effect("in a child is nothing that the parent has seen, however often it reads", () =>
    Effect.gen(function* () {
      yield* read(1n)
      yield* Effect.flatMap(Effect.fork(Effect.forEach([2n, 3n, 4n], read)), Fiber.await)
      assert.strictEqual(yield* seen, 1n)
      yield* DbRouter.reset
      assert.isUndefined(yield* seen)
    })
  )

  it.effect("takes no write along to fibers that were forked before it", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      yield* read(1n)
      const child = yield* Effect.fork(Effect.zipRight(Deferred.await(go), Effect.all([isStuck, seen])))
      const [stuck] = yield* Effect.zipRight(
        Effect.all([read(2n), write, read(3n)], { discard: true }),
        Effect.zipRight(Deferred.succeed(go, undefined), Effect.flatten(Fiber.await(child)))
      )
      assert.isFalse(stuck)
      assert.deepStrictEqual(yield* Effect.all([isStuck, seen]), [true, 3n])
    })
  )
})

describe("combinators and fibers", () => {
  const bound = Effect.map(
    FiberRef.get(RoutingContext.bindGroup),
    Option.getOrElse(() => "none")
  )
  const analytics = DbRouter.bindGroup("analytics")

  it.effect("children inside are inside, those forked outside are not", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const outside = yield* Effect.fork(Effect.zipRight(Deferred.await(go), bound))
      const found = yield* analytics(
        Effect.gen(function* () {
          const inside = yield* Effect.fork(bound)
          const daemon = yield* Effect.forkDaemon(Effect.zipRight(Deferred.await(go), bound))
          const all = yield* Effect.all([bound, bound], { concurrency: 2 })
          yield* Deferred.succeed(go, undefined)
          return { inside: yield* Fiber.join(inside), daemon, all, outside: yield* Fiber.join(outside) }
        })
      )
      assert.strictEqual(found.inside, "analytics")
      assert.deepStrictEqual(found.all, ["analytics", "analytics"])
      assert.strictEqual(found.outside, "none")
      // It was forked inside, and goes on as it was forked.
      assert.strictEqual(yield* Fiber.await(found.daemon).pipe(Effect.flatten), "analytics")
      assert.strictEqual(yield* bound, "none")
    })
  )

  it.live("races, timeouts and interruptions inside leave nothing behind", () =>
    Effect.gen(function* () {
      const within = yield* analytics(
        Effect.all([
          Effect.race(DbRouter.primary(Effect.never), Effect.sleep(1)),
          Effect.ignore(Effect.timeout(DbRouter.replica(Effect.never), 1)),
          Effect.flatMap(Effect.fork(DbRouter.primary(Effect.never)), (fiber) =>
            Effect.delay(Fiber.interrupt(fiber), 1)
          ),
          bound
        ])
      )
      assert.strictEqual(within[3], "analytics")
      assert.strictEqual(yield* bound, "none")
      assert.isFalse(yield* isStuck)
    })
  )
})

describe("the memory of flows", () => {
  it("a flow refers to no other, whatever its fibers have forked, joined, written and reset", async () => {
    const step = (depth: number): Effect.Effect<RoutingContext.Flow> =>
      depth === 0
        ? FiberRef.get(RoutingContext.flow)
        : Effect.zipRight(
            depth % 3 === 0 ? DbRouter.reset : write,
            Effect.flatMap(Effect.fork(step(depth - 1)), Fiber.join)
          )
    const last = await Effect.runPromise(step(500))
    const { marks, positions, ...rest } = last.seen
    assert.deepStrictEqual([marks, positions], [[], []])
    assert.deepStrictEqual(
      [last, rest]
        .flatMap((all) => Object.values(all))
        .filter((value) => typeof value === "object" && value !== last.seen),
      []
    )
  })

  it("forking does not make the history of the FiberRef longer", async () => {
    // Effect itself keeps a step of history for each fiber of a chain that forks its successors; this adds none.
    const chain = (depth: number): Effect.Effect<number> =>
      depth === 0
        ? Effect.map(Effect.getFiberRefs, (refs) => refs.locals.get(RoutingContext.flow)?.length ?? 0)
        : Effect.flatMap(Effect.forkDaemon(chain(depth - 1)), (fiber) => Effect.flatten(Fiber.await(fiber)))
    assert.strictEqual(await Effect.runPromise(Effect.zipRight(write, chain(1_000))), 1)
    assert.strictEqual(await Effect.runPromise(chain(1_000)), 0)
  })

  it("flows of fibers that ended are collected", async () => {
    setFlagsFromString("--expose-gc")
    const gc: () => void = runInNewContext("gc")
    const flows: Array<WeakRef<RoutingContext.Flow>> = []
    const request = Effect.zipRight(
      write,
      Effect.map(FiberRef.get(RoutingContext.flow), (flow) => void flows.push(new WeakRef(flow)))
    )
    const server = Effect.forEach(
      Array.from({ length: 1_000 }),
      () => Effect.flatMap(Effect.fork(request), Fiber.await),
      { discard: true }
    )
    await Effect.runPromise(Effect.zipRight(write, server))
    assert.strictEqual(flows.length, 1_000)
    gc()
    await new Promise((resolve) => setTimeout(resolve, 0))
    gc()
    assert.isBelow(flows.filter((flow) => flow.deref() !== undefined).length, 10)
  })
})
