import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, FiberRef, Option, Ref, Schedule, Sink, Stream } from "effect"
import { DbRouter, RoutingContext } from "effect-db-router"

const write = RoutingContext.setStickyPrimary
const isStuck = RoutingContext.shouldUsePrimary

/** What the router would find here. */
const target = Effect.gen(function* () {
  if (yield* FiberRef.get(RoutingContext.forcePrimary)) return "primary"
  if (yield* FiberRef.get(RoutingContext.preferReplica)) return "replica"
  return Option.getOrElse(yield* FiberRef.get(RoutingContext.bindGroup), () => "none")
})

const source = Stream.repeatEffect(target).pipe(Stream.take(3))
const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), (chunk) => [...chunk])

const combinators = {
  primary: DbRouter.stream.primary,
  replica: DbRouter.stream.replica,
  analytics: DbRouter.stream.bindGroup("analytics")
}

/** Runs an effect and says what the flow finds during it, and after it. */
const holds = <A>(expected: ReadonlyArray<A>, stream: Stream.Stream<A>) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* collect(stream), [...expected])
    assert.strictEqual(yield* target, "none")
  })

for (const [name, combinator] of Object.entries(combinators)) {
  const all = Array(3).fill(name)
  const none = Array(3).fill("none")

  describe(`DbRouter.stream: ${name}`, () => {
    it.effect("holds while the stream runs, and ends with it", () => holds(all, combinator(source)))

    it.effect("holds for everything upstream of it: mapEffect, flatMap, unwrap, scoped, suspend", () =>
      Effect.gen(function* () {
        yield* holds(all, combinator(Stream.mapEffect(Stream.range(1, 3), () => target)))
        yield* holds(all, combinator(Stream.mapEffect(Stream.range(1, 3), () => target, { concurrency: 2 })))
        yield* holds(all, combinator(Stream.flatMap(Stream.range(1, 3), () => Stream.fromEffect(target))))
        yield* holds(
          all,
          combinator(Stream.flatMap(Stream.range(1, 3), () => Stream.fromEffect(target), { concurrency: 2 }))
        )
        yield* holds(all, combinator(Stream.unwrap(Effect.map(target, (found) => Stream.make(found, found, found)))))
        yield* holds(
          all,
          combinator(
            Stream.unwrapScoped(
              Effect.map(target, (found) => Stream.concat(Stream.make(found), Stream.take(source, 2)))
            )
          )
        )
        yield* holds([...all, ...all], combinator(Stream.merge(source, source)))
        yield* holds(all, combinator(Stream.buffer(source, { capacity: 1 })))
        yield* holds(all, combinator(Stream.zipLatestWith(source, Stream.make(0), (found) => found)))
        yield* holds(
          all,
          combinator(
            Stream.paginateEffect(1, (page) =>
              Effect.map(target, (found) => [found, page < 3 ? Option.some(page + 1) : Option.none()] as const)
            )
          )
        )
        yield* holds([name, name], combinator(Stream.repeatEffectWithSchedule(target, Schedule.recurs(1))))
      })
    )

    it.effect("does not leak downstream: map, mapEffect, flatMap, tap, concat, merge, zip, run", () =>
      Effect.gen(function* () {
        const stream = combinator(source)
        yield* holds(
          none,
          Stream.mapEffect(stream, () => target)
        )
        yield* holds(
          none,
          Stream.mapEffect(stream, () => target, { concurrency: 2 })
        )
        yield* holds(
          none,
          Stream.mapEffect(stream, () => target, { concurrency: 2, unordered: true })
        )
        yield* holds(
          none,
          Stream.flatMap(stream, () => Stream.fromEffect(target))
        )
        yield* holds(
          none,
          Stream.flatMap(stream, () => Stream.fromEffect(target), { concurrency: 2 })
        )
        yield* holds(
          none,
          Stream.flatMap(stream, () => Stream.fromEffect(target), { switch: true, concurrency: 1 }).pipe(
            Stream.concat(source),
            Stream.take(3)
          )
        )
        yield* holds([...all, ...none], Stream.concat(stream, source))
        yield* holds([...none, ...all], Stream.concat(source, stream))
        yield* holds(
          [...all, ...none].sort(),
          Stream.fromIterableEffect(Effect.map(collect(Stream.merge(stream, source)), (found) => found.sort()))
        )
        yield* holds(
          all.map((found) => [found, "none"]),
          Stream.zip(stream, source)
        )
        const seen = yield* Ref.make<ReadonlyArray<string>>([])
        const see = Effect.flatMap(target, (found) => Ref.update(seen, (all) => [...all, found]))
        const seeing = Sink.forEachWhile(() => Effect.as(see, true))
        yield* Stream.runForEach(
          Stream.tap(stream, () => see),
          () => see
        )
        yield* Stream.run(stream, seeing)
        yield* Stream.runDrain(Stream.ensuring(stream, see))
        assert.deepStrictEqual(yield* Ref.get(seen), Array(10).fill("none"))
      })
    )

    it.effect("does not leak upstream, out of an inner stream", () =>
      Effect.gen(function* () {
        const seen = yield* Ref.make<ReadonlyArray<string>>([])
        const outer = Stream.mapEffect(Stream.range(1, 3), () =>
          Effect.flatMap(target, (found) => Ref.update(seen, (all) => [...all, found]))
        )
        yield* holds(
          all,
          Stream.flatMap(outer, () => combinator(Stream.take(source, 1)))
        )
        yield* holds(
          all,
          Stream.flatMap(outer, () => combinator(Stream.take(source, 1)), { concurrency: 2 })
        )
        assert.deepStrictEqual(yield* Ref.get(seen), [...none, ...none])
      })
    )

    it.effect("does not leak to the subscribers of a broadcast, nor from one partition to another", () =>
      Effect.gen(function* () {
        const found = yield* Effect.scoped(
          Effect.flatMap(Stream.broadcast(combinator(source), 2, 4), (streams) =>
            Effect.forEach(
              streams,
              (stream) => collect(Stream.mapEffect(stream, (from) => Effect.map(target, (here) => [from, here]))),
              {
                concurrency: "unbounded"
              }
            )
          )
        )
        assert.deepStrictEqual(found, Array(2).fill(all.map((from) => [from, "none"])))
      })
    )

    it.effect("the innermost wins", () =>
      Effect.gen(function* () {
        for (const [inner, within] of Object.entries(combinators)) {
          yield* holds(Array(3).fill(inner), combinator(within(source)))
          yield* holds(Array(3).fill(inner), combinator(Stream.concat(within(source), Stream.empty)))
          yield* holds([...Array(3).fill(inner), ...all], combinator(Stream.concat(within(source), source)))
        }
        assert.deepStrictEqual(yield* DbRouter.bindGroup(collect(combinator(source)), "archive"), all)
        assert.deepStrictEqual(
          yield* DbRouter.bindGroup(collect(Stream.mapEffect(combinator(source), () => target)), "archive"),
          Array(3).fill("archive")
        )
      })
    )

    it.effect("holds for what the stream acquires and releases, however it ends", () =>
      Effect.gen(function* () {
        const seen = yield* Ref.make<ReadonlyArray<string>>([])
        const see = Effect.flatMap(target, (found) => Ref.update(seen, (all) => [...all, found]))
        const resource = Stream.acquireRelease(see, () => see).pipe(
          Stream.flatMap(() => source),
          Stream.ensuring(see)
        )
        yield* Stream.runDrain(combinator(resource))
        yield* Stream.runDrain(Stream.take(combinator(resource), 1))
        yield* Effect.exit(Stream.runForEach(combinator(resource), () => Effect.fail("no")))
        yield* Effect.exit(Stream.runForEach(combinator(resource), () => Effect.interrupt))
        yield* Effect.exit(Stream.runDrain(combinator(Stream.concat(resource, Stream.fail("no")))))
        assert.deepStrictEqual(yield* Ref.get(seen), Array(15).fill(name))
        assert.strictEqual(yield* target, "none")
      })
    )

    it.effect("a write of a pull sticks to the consumer, at once", () =>
      Effect.gen(function* () {
        const stream = Stream.mapEffect(Stream.range(1, 3).pipe(Stream.rechunk(1)), (n) =>
          Effect.as(n === 2 ? write : Effect.void, n)
        )
        const found = yield* collect(
          Stream.mapEffect(combinator(stream), (n) => Effect.map(isStuck, (stuck) => [n, stuck]))
        )
        assert.deepStrictEqual(found, [
          [1, false],
          [2, true],
          [3, true]
        ])
        assert.isTrue(yield* isStuck)
      })
    )

    it.effect("keeps chunks, errors and defects as they are", () =>
      Effect.gen(function* () {
        const chunked = Stream.fromChunks(Chunk.make(1, 2), Chunk.make(3))
        assert.deepStrictEqual(
          yield* collect(Stream.mapChunks(combinator(chunked), (chunk) => Chunk.of(chunk.length))),
          [2, 1]
        )
        assert.strictEqual(yield* Effect.flip(Stream.runDrain(combinator(Stream.fail("no")))), "no")
        assert.strictEqual((yield* Effect.exit(Stream.runDrain(combinator(Stream.die("no")))))._tag, "Failure")
      })
    )
  })
}

describe("streams and stickiness", () => {
  const each = <A, E>(stream: Stream.Stream<A, E>, expected: boolean) =>
    Effect.gen(function* () {
      yield* Stream.runDrain(stream)
      assert.strictEqual(yield* isStuck, expected)
    })

  it.effect("a write of a stream that one fiber runs sticks", () =>
    Effect.gen(function* () {
      yield* each(
        Stream.mapEffect(Stream.range(1, 3), () => write),
        true
      )
      yield* DbRouter.reset
      yield* each(
        Stream.flatMap(Stream.range(1, 3), () => Stream.fromEffect(write)),
        true
      )
      yield* DbRouter.reset
      yield* each(Stream.ensuring(Stream.range(1, 3), write), true)
      yield* DbRouter.reset
      yield* Stream.runForEach(Stream.range(1, 3), () => write)
      assert.isTrue(yield* isStuck)
    })
  )

  it.effect("limit outside a session: operators that fork lose it", () =>
    Effect.gen(function* () {
      yield* each(
        Stream.mapEffect(Stream.range(1, 3), () => write, { concurrency: 2 }),
        false
      )
      yield* each(
        Stream.flatMap(Stream.range(1, 3), () => Stream.fromEffect(write), { concurrency: 2 }),
        false
      )
      yield* each(Stream.mergeAll([Stream.fromEffect(write), Stream.empty], { concurrency: 2 }), false)
      yield* each(Stream.aggregate(Stream.fromEffect(write), Sink.collectAll()), false)
      const shared = RoutingContext.fresh(
        Effect.zipRight(
          Stream.runDrain(Stream.mapEffect(Stream.range(1, 3), () => write, { concurrency: 2 })),
          isStuck
        ),
        { shared: true }
      )
      assert.isTrue(yield* shared)
    })
  )
})
