import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  ManagedRuntime,
  Queue,
  Ref,
  Runtime,
  Scope
} from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"

const write = RoutingContext.setStickyPrimary
const isStuck = RoutingContext.shouldUsePrimary

class Router extends Context.Tag("test/Router")<Router, { readonly built: number }>() {}

let built = 0

/** What the router's own layer does about the layers above it, and nothing else. */
const makeRouter = () =>
  Layer.scoped(
    Router,
    Effect.zipRight(
      RoutingContext.separateLayers,
      Effect.sync(() => ({ built: ++built }))
    )
  )
const RouterLive = makeRouter()

/** Writes, and reads what it has written. */
const migrate = Effect.gen(function* () {
  yield* Router
  const before = yield* isStuck
  yield* write
  yield* Effect.yieldNow()
  const children = yield* Effect.all([isStuck, isStuck], { concurrency: 2 })
  return { before, after: yield* isStuck, children }
})
const migrated = { before: false, after: true, children: [true, true] }

class Migrated extends Context.Tag("test/Migrated")<Migrated, Effect.Effect.Success<typeof migrate>>() {}
const Migrations = Layer.effect(Migrated, migrate)

const Live = Layer.provideMerge(Migrations, RouterLive)

const program = Effect.gen(function* () {
  assert.deepStrictEqual(yield* Migrated, migrated)
  const before = yield* isStuck
  yield* write
  return [before, yield* isStuck]
})
const asItShould = [false, true]

describe("a layer that writes while it is built", () => {
  it.effect("sees its own writes, and the program does not stick: Layer.provideMerge", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Effect.provide(program, Live), asItShould)
    })
  )

  it.effect("Layer.provide", () =>
    Effect.gen(function* () {
      const Hidden = Layer.provide(Migrations, RouterLive)
      assert.deepStrictEqual(yield* Effect.provide(program, Hidden), asItShould)
    })
  )

  it.effect("Layer.effectDiscard, Layer.scopedDiscard, Layer.unwrapEffect, Layer.flatMap, Layer.tap, Layer.fresh", () =>
    Effect.gen(function* () {
      const migration = Effect.asVoid(migrate)
      const layers = [
        Layer.effectDiscard(migration),
        Layer.scopedDiscard(migration),
        Layer.unwrapEffect(Effect.as(migration, Layer.empty)),
        Layer.unwrapScoped(Effect.as(migration, Layer.empty)),
        Layer.flatMap(Layer.effectDiscard(migration), () => Layer.empty),
        Layer.tap(Layer.empty, () => migration),
        Layer.fresh(Layer.effectDiscard(migration)),
        Layer.suspend(() => Layer.effectDiscard(migration)),
        Layer.catchAll(Layer.effectDiscard(Effect.zipRight(migration, Effect.fail("no"))), () => Layer.empty)
      ]
      for (const layer of layers) {
        assert.isFalse(yield* Effect.provide(isStuck, Layer.provide(layer, RouterLive)))
        assert.isFalse(yield* Effect.provide(isStuck, Layer.provideMerge(layer, RouterLive)))
      }
    })
  )

  it.effect("parallel builds: Layer.merge, Layer.mergeAll, Effect.provide of several", () =>
    Effect.gen(function* () {
      const more = Layer.effectDiscard(Effect.zipRight(Effect.yieldNow(), migrate))
      const parallel = [
        Layer.provideMerge(Layer.merge(Migrations, more), RouterLive),
        Layer.provideMerge(Layer.mergeAll(more, Migrations, more), RouterLive),
        Layer.merge(Layer.provide(Migrations, RouterLive), Layer.provide(more, RouterLive)),
        Layer.mergeAll(RouterLive, Layer.provide(more, RouterLive), Layer.provide(Migrations, RouterLive)),
        Layer.zipWith(Live, Layer.provide(more, RouterLive), (left) => left)
      ]
      for (const layer of parallel) {
        assert.deepStrictEqual(yield* Effect.provide(program, layer), asItShould)
        yield* DbRouter.reset
      }
      assert.deepStrictEqual(yield* Effect.provide(program, [Layer.provide(Migrations, RouterLive), Live]), asItShould)
    })
  )

  it.effect("one above the other: each is a flow of its own", () =>
    Effect.gen(function* () {
      const Above = Layer.effectDiscard(
        Effect.flatMap(isStuck, (stuck) =>
          Effect.zipRight(
            Effect.sync(() => assert.isFalse(stuck)),
            write
          )
        )
      )
      const layer = Above.pipe(Layer.provideMerge(Above), Layer.provideMerge(Live))
      assert.deepStrictEqual(yield* Effect.provide(program, layer), asItShould)
    })
  )

  it.effect("the router's layer memoized and shared, or built twice", () =>
    Effect.gen(function* () {
      const before = built
      const shared = Layer.merge(Layer.provide(Migrations, RouterLive), RouterLive)
      assert.deepStrictEqual(yield* Effect.provide(program, shared), asItShould)
      assert.strictEqual(built, before + 1)
      yield* DbRouter.reset
      const twice = Layer.merge(Layer.provide(Migrations, RouterLive), makeRouter())
      assert.deepStrictEqual(yield* Effect.provide(program, twice), asItShould)
      assert.strictEqual(built, before + 3)
      yield* DbRouter.reset
      const memoized = Effect.flatMap(Layer.memoize(Live), (layer) =>
        Effect.all([Effect.provide(program, layer), DbRouter.reset, Effect.provide(program, layer)])
      )
      assert.deepStrictEqual(yield* Effect.scoped(memoized), [asItShould, undefined, asItShould])
    })
  )

  it("ManagedRuntime: every run begins clean, the first that builds the layer too", async () => {
    const runtime = ManagedRuntime.make(Live)
    try {
      for (let i = 0; i < 5; i++) {
        assert.deepStrictEqual(await runtime.runPromise(program), asItShould)
      }
      assert.deepStrictEqual(await Effect.runPromise(Fiber.join(runtime.runFork(program))), asItShould)
      const provided = Effect.all([Effect.provide(program, runtime), DbRouter.reset, Effect.provide(program, runtime)])
      assert.deepStrictEqual(await Effect.runPromise(provided), [asItShould, undefined, asItShould])
      const other = ManagedRuntime.make(Live, runtime.memoMap)
      assert.deepStrictEqual(await other.runPromise(program), asItShould)
      await other.dispose()
    } finally {
      await runtime.dispose()
    }
  })

  it.effect("Layer.toRuntime: the runtime has nothing that covers the flow which it is provided to", () =>
    Effect.gen(function* () {
      const runtime = yield* Layer.toRuntime(Live)
      assert.deepStrictEqual(yield* Effect.promise(() => Runtime.runPromise(runtime)(program)), asItShould)
      assert.isFalse(yield* Effect.provide(isStuck, runtime))
      yield* Effect.provide(write, runtime)
      assert.isTrue(yield* isStuck)
      assert.isTrue(yield* Effect.provide(isStuck, runtime))
    }).pipe(Effect.scoped)
  )

  it.effect("what the program had written before it stays, and what other FiberRefs layers set does too", () =>
    Effect.gen(function* () {
      yield* write
      assert.isTrue(yield* Effect.provide(isStuck, Live))
      yield* DbRouter.reset
      const Forced = Layer.effectDiscard(Effect.zipRight(Router, Effect.asVoid(RoutingContext.reset)))
      assert.isFalse(yield* Effect.provide(isStuck, Layer.provide(Forced, RouterLive)))
      const Sticky = Layer.locally(Layer.effectDiscard(Router), RoutingContext.stickToPrimary, true)
      assert.isFalse(yield* Effect.provide(isStuck, Layer.provide(Sticky, RouterLive)))
    })
  )

  it.effect("a service that keeps the context of its build writes for its caller", () =>
    Effect.gen(function* () {
      class Repository extends Context.Tag("test/Repository")<
        Repository,
        { readonly save: Effect.Effect<void>; readonly isStuck: Effect.Effect<boolean> }
      >() {}
      const RepositoryLive = Layer.effect(
        Repository,
        Effect.map(Effect.context<Router>(), (context) => ({
          save: Effect.provide(Effect.zipRight(Router, write), context),
          isStuck: Effect.mapInputContext(Effect.zipRight(Router, isStuck), () => context)
        }))
      )
      const uses = Effect.gen(function* () {
        const repository = yield* Repository
        const before = [yield* isStuck, yield* repository.isStuck]
        yield* repository.save
        return [...before, yield* isStuck, yield* repository.isStuck]
      })
      const App = Layer.provideMerge(RepositoryLive, Live)
      assert.deepStrictEqual(yield* Effect.provide(uses, App), [false, false, true, true])
    })
  )

  it.effect("a build that fails or is interrupted leaves nothing", () =>
    Effect.gen(function* () {
      const Failing = Layer.effectDiscard(Effect.zipRight(migrate, Effect.fail("no")))
      const Stopped = Layer.effectDiscard(Effect.zipRight(migrate, Effect.interrupt))
      yield* Effect.exit(Effect.provide(Effect.void, Layer.provide(Failing, RouterLive)))
      assert.isFalse(yield* isStuck)
      yield* Effect.exit(Effect.provide(Effect.void, Layer.provide(Stopped, RouterLive)))
      assert.isFalse(yield* isStuck)
    })
  )
})

describe("servers and workers that a layer forks", () => {
  class Worker extends Context.Tag("test/Worker")<
    Worker,
    { readonly ask: (job: Effect.Effect<boolean>) => Effect.Effect<boolean> }
  >() {}

  /** Runs jobs, each in a fiber of its own that it waits for, or in its own fiber. */
  const WorkerLive = (how: "forks" | "inline") =>
    Layer.scoped(
      Worker,
      Effect.gen(function* () {
        yield* Router
        const jobs = yield* Queue.unbounded<readonly [Effect.Effect<boolean>, Deferred.Deferred<boolean>]>()
        yield* Effect.forkScoped(
          Effect.forever(
            Effect.flatMap(Queue.take(jobs), ([job, answer]) =>
              how === "forks"
                ? Effect.asVoid(Effect.flatMap(Effect.fork(Deferred.complete(answer, job)), Fiber.await))
                : Effect.asVoid(Deferred.complete(answer, job))
            )
          )
        )
        return {
          ask: (job) =>
            Effect.flatMap(Deferred.make<boolean>(), (answer) =>
              Effect.zipRight(Queue.offer(jobs, [job, answer]), Deferred.await(answer))
            )
        }
      })
    )

  const App = (how: "forks" | "inline") => WorkerLive(how).pipe(Layer.provideMerge(Live))

  it.effect("do not begin stuck to what another layer wrote", () =>
    Effect.gen(function* () {
      const { ask } = yield* Worker
      assert.isFalse(yield* ask(isStuck))
      assert.isFalse(yield* isStuck)
    }).pipe(Effect.provide(App("inline")))
  )

  it.effect("nor when they are built at the same time as it", () =>
    Effect.gen(function* () {
      const { ask } = yield* Worker
      assert.isFalse(yield* ask(isStuck))
    }).pipe(Effect.provide(Layer.merge(Layer.provide(WorkerLive("inline"), Live), Live)))
  )

  it.effect("their own writes stick, for their own forks too, and not for the program", () =>
    Effect.gen(function* () {
      const { ask } = yield* Worker
      assert.isTrue(yield* ask(Effect.zipRight(write, isStuck)))
      assert.isTrue(yield* ask(isStuck))
      assert.isTrue(yield* ask(Effect.flatMap(Effect.fork(isStuck), Fiber.join)))
      assert.isFalse(yield* isStuck)
      assert.isFalse(yield* ask(Effect.zipRight(DbRouter.reset, isStuck)))
    }).pipe(Effect.provide(App("inline")))
  )

  it.effect("a job that is a fiber of its own leaves nothing to the next", () =>
    Effect.gen(function* () {
      const { ask } = yield* Worker
      assert.isTrue(yield* ask(Effect.zipRight(write, isStuck)))
      assert.isFalse(yield* ask(isStuck))
    }).pipe(Effect.provide(App("forks")))
  )

  it.effect("Layer.launch", () =>
    Effect.gen(function* () {
      const found = yield* Deferred.make<ReadonlyArray<boolean>>()
      const Main = Layer.scopedDiscard(
        Effect.forkScoped(
          Effect.gen(function* () {
            const before = yield* isStuck
            yield* write
            const forked = yield* Effect.flatMap(Effect.fork(isStuck), Fiber.join)
            yield* Deferred.succeed(found, [before, yield* isStuck, forked])
          })
        )
      )
      const launched = yield* Effect.fork(Layer.launch(Layer.provide(Main, Live)))
      assert.deepStrictEqual(yield* Deferred.await(found), [false, true, true])
      yield* Fiber.interrupt(launched)
    })
  )

  it.effect("a program that is a layer is a flow like any other", () =>
    Effect.gen(function* () {
      const found = yield* Ref.make(Chunk.empty<boolean>())
      const see = Effect.flatMap(isStuck, (stuck) => Ref.update(found, Chunk.append(stuck)))
      const Main = Layer.effectDiscard(
        Effect.all([see, write, see, Effect.all([see, see], { concurrency: 2 }), DbRouter.reset, see])
      )
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Layer.provide(Main, Live), scope)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([...(yield* Ref.get(found))], [false, true, true, true, false])
    })
  )

  it.effect("in a session or a request, a layer that it provides to itself is a part of it", () =>
    Effect.gen(function* () {
      const within = RoutingContext.fresh(Effect.zipRight(Effect.provide(isStuck, Live), isStuck), { shared: true })
      assert.isTrue(yield* within)
      assert.isFalse(yield* isStuck)
    })
  )
})

describe("limit: layers that were not built with the router", () => {
  it.effect("are a part of the flow that provides them, and stick to it; reset is the remedy", () =>
    Effect.gen(function* () {
      assert.isTrue(yield* Effect.provide(isStuck, Migrations))
      const Remedied = Layer.effectDiscard(Effect.zipRight(migrate, DbRouter.reset))
      assert.isFalse(yield* Effect.zipRight(DbRouter.reset, Effect.provide(isStuck, Remedied)))
    }).pipe(Effect.provide(RouterLive))
  )

  it.effect("nor does a router in Layer.fresh know of the layers around it", () =>
    Effect.gen(function* () {
      assert.isTrue(yield* Effect.provide(isStuck, Layer.provide(Migrations, Layer.fresh(RouterLive))))
    })
  )

  it.effect("nor one whose layers are memoized by something that is not Effect's own; it works all the same", () =>
    Effect.gen(function* () {
      yield* RoutingContext.separateLayers
      yield* Effect.provideService(RoutingContext.separateLayers, Layer.CurrentMemoMap, {} as Layer.MemoMap)
    })
  )

  it.effect("a worker that is forked after a write in the very same layer begins stuck; reset is the remedy", () =>
    Effect.gen(function* () {
      const found = yield* Deferred.make<ReadonlyArray<boolean>>()
      const Both = Layer.scopedDiscard(
        Effect.zipRight(
          migrate,
          Effect.forkScoped(
            Effect.flatMap(Effect.all([isStuck, Effect.zipRight(DbRouter.reset, isStuck)]), (stuck) =>
              Deferred.succeed(found, stuck)
            )
          )
        )
      )
      const seen = yield* Effect.provide(Deferred.await(found), Layer.provide(Both, RouterLive))
      assert.deepStrictEqual(seen, [true, false])
    })
  )
})
