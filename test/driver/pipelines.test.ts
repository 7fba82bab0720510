import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Random, Schedule } from "effect"
import type { Engine } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

const primary = Effect.map(PgCluster.PgCluster, (cluster) => cluster.primary)

const engine = (maxConnections: number) => Effect.flatMap(primary, (node) => engines.on(node, { maxConnections }))

/** As slow as its parameters say, which its text does not show. */
const text = "select $1::int as n, pg_sleep($2) is null as slept"

const read = (on: Engine.Engine, n: number, seconds = 0) =>
  Effect.map(on.query(engines.statement(text, [n, seconds]), true), (result) => {
    const [row] = (result as { readonly rows: ReadonlyArray<{ readonly n: number }> }).rows
    return row!.n
  })

/** Makes the text known as a short one, on every connection. */
const warmUp = (on: Engine.Engine, maxConnections: number) =>
  Effect.forEach([1, 2, 3], () =>
    Effect.forEach(Array.from({ length: maxConnections * 4 }), (_, i) => read(on, i), {
      concurrency: "unbounded",
      discard: true
    })
  )

const ready = (maxConnections: number) => Effect.tap(engine(maxConnections), (on) => warmUp(on, maxConnections))

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)

const all = <A, E>(count: number, run: (n: number) => Effect.Effect<A, E>) =>
  Effect.forEach(numbers(count), run, { concurrency: "unbounded" })

/** Children of a fiber end with it, so that all have to be this one's. */
const forkAll = <A, E>(count: number, run: (n: number) => Effect.Effect<A, E>) =>
  Effect.forEach(numbers(count), (n) => Effect.fork(run(n)))

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("short reads share connections", (it) => {
  it.scoped("when all are taken, and every one gets its own rows", () =>
    Effect.gen(function* () {
      const on = yield* ready(2)
      let most = 0
      let opened = 0
      const watch = Effect.sync(() => {
        most = Math.max(most, on.inFlight)
        opened = Math.max(opened, on.poolStatus.total)
      })
      for (let round = 0; round < 50; round++) {
        const found = yield* Effect.zipRight(
          Effect.yieldNow(),
          all(100, (n) => Effect.zipLeft(Effect.zipRight(watch, read(on, n)), watch))
        )
        assert.deepStrictEqual(found, numbers(100))
      }
      assert.isAbove(most, 8)
      assert.strictEqual(opened, 2)
      assert.strictEqual(yield* engines.settled(on), 2)
    })
  )

  it.scoped("not where they are not prepared, and not what may write", () =>
    Effect.gen(function* () {
      const on = yield* ready(2)
      let most = 0
      const watch = Effect.sync(() => {
        most = Math.max(most, on.inFlight)
      })
      const run = (request: ReturnType<typeof engines.statement>, movable: boolean) =>
        all(50, () => Effect.zipLeft(on.query(request, movable), watch))
      yield* run(engines.statement(text, [1, 0], false), true)
      yield* run(engines.statement(text, [1, 0]), false)
      assert.isAtMost(most, 2)
    })
  )

  it.scoped("and an interruption cancels no other one", () =>
    Effect.gen(function* () {
      const on = yield* ready(2)
      let failed = 0
      let interrupted = 0
      for (let round = 0; round < 100; round++) {
        const fibers = yield* forkAll(20, (n) => read(on, n, n % 7 === 0 ? 0.003 : 0))
        yield* Effect.sleep(yield* Random.nextIntBetween(0, 4))
        const chosen = fibers.filter((_, i) => (i + round) % 3 === 0)
        yield* Fiber.interruptAll(chosen)
        for (const fiber of fibers) {
          const exit = yield* Fiber.await(fiber)
          if (Exit.isInterrupted(exit)) interrupted++
          else if (Exit.isFailure(exit)) failed++
          if (Exit.isFailure(exit) && !Exit.isInterrupted(exit)) assert.fail(String(exit.cause))
        }
      }
      assert.strictEqual(failed, 0)
      assert.isAbove(interrupted, 100)
      assert.isAtMost(yield* engines.settled(on), 2)
    })
  )

  it.scoped("and one that turns out to be long is cancelled once no statement waits behind it", () =>
    Effect.gen(function* () {
      const node = yield* primary
      const on = yield* ready(1)
      const long = yield* Effect.fork(read(on, 1, 60))
      yield* Effect.yieldNow()
      const others = yield* Effect.fork(all(5, (n) => read(on, n)))
      yield* Effect.sleep("50 millis")
      yield* Fiber.interrupt(long)
      // With one connection they could not have run before.
      assert.deepStrictEqual(yield* Fiber.join(others), numbers(5))
      assert.strictEqual(yield* engines.settled(on), 1)
      const active = (yield* engines.activity(node)).filter(({ state }) => state === "active")
      assert.deepStrictEqual(active, [])
    })
  )

  it.scoped("and all of them being interrupted, the long one first, frees the connection", () =>
    Effect.gen(function* () {
      const on = yield* ready(1)
      for (const order of [1, -1]) {
        const fibers = yield* forkAll(6, (n) => read(on, n, n === 0 ? 60 : 0))
        yield* Effect.sleep("1 millis")
        for (const fiber of fibers.toSorted(() => order)) yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* read(on, 7), 7)
        yield* engines.settled(on)
      }
    })
  )

  it.scoped("and no short one waits for a long one while another connection is idle", () =>
    Effect.gen(function* () {
      const on = yield* ready(2)
      const ended: Array<number> = []
      const noted = (n: number, seconds: number) =>
        Effect.tap(read(on, n, seconds), () => Effect.sync(() => void ended.push(n)))
      // The long one is the first on its connection.
      yield* all(30, (n) => noted(n, n === 0 ? 1 : 0))
      assert.strictEqual(ended.at(-1), 0)
      assert.sameMembers(ended, numbers(30))
      // Those that moved were answered once.
      assert.strictEqual(ended.length, 30)
      yield* engines.settled(on)
    })
  )

  it.scoped("and what needs a connection of its own gets one in its turn", () =>
    Effect.gen(function* () {
      const on = yield* ready(2)
      const stop = yield* Deferred.make<void>()
      const busy = yield* Effect.fork(
        Effect.raceFirst(
          Deferred.await(stop),
          all(40, (n) => Effect.forever(read(on, n)))
        )
      )
      yield* Effect.sleep("50 millis")
      for (let i = 0; i < 20; i++) {
        const own = Effect.scoped(Effect.flatMap(on.reserve, (mine) => engines.value(mine, "select 1")))
        assert.strictEqual(yield* Effect.timeout(own, "5 seconds"), 1)
      }
      yield* Deferred.succeed(stop, undefined)
      yield* Fiber.await(busy)
      yield* engines.settled(on)
    })
  )

  it.scoped("and a connection that breaks fails its own alone", () =>
    Effect.gen(function* () {
      const node = yield* primary
      const on = yield* ready(4)
      let failed = 0
      let answered = 0
      let most = 0
      let killed = 0
      const kill = Effect.map(
        node.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'effect-db-router' limit 1"
        ),
        (rows) => {
          killed += rows.length
        }
      )
      const once = (n: number) =>
        Effect.match(read(on, n), {
          onFailure: () => {
            failed++
          },
          onSuccess: (found) => {
            assert.strictEqual(found, n)
            answered++
            most = Math.max(most, on.inFlight)
          }
        })
      const killing = yield* Effect.fork(Effect.repeat(kill, Schedule.spaced("50 millis")))
      yield* all(40, (n) => Effect.repeatN(once(n), 300))
      yield* Fiber.interrupt(killing)
      assert.strictEqual(failed + answered, 40 * 301)
      assert.isAbove(most, 8)
      assert.isAbove(killed, 0)
      // No connection has more than 16 at a time.
      assert.isAtMost(failed, killed * 16)
      assert.isAtMost(yield* engines.settled(on), 4)
    })
  )

  it.scoped("and one that fails leaves the others as they are", () =>
    Effect.gen(function* () {
      const on = yield* engine(1)
      const division = "select 100 / $1::int as n"
      const divide = (by: number) => Effect.either(on.query(engines.statement(division, [by]), true))
      for (let i = 0; i < 5; i++) yield* divide(1)
      for (let round = 0; round < 50; round++) {
        const found = yield* all(10, (n) => divide(n % 3))
        assert.deepStrictEqual(
          found.map(({ _tag }) => _tag),
          numbers(10).map((n) => (n % 3 === 0 ? "Left" : "Right"))
        )
      }
      assert.strictEqual(yield* engines.settled(on), 1)
    })
  )

  it.scoped("and what DDL has changed under them is prepared again", () =>
    Effect.gen(function* () {
      const node = yield* primary
      yield* node.query("create table wide (id int primary key, one int)")
      yield* node.query("insert into wide select g, g from generate_series(1, 100) g")
      const on = yield* engine(2)
      const find = (id: number) => engines.rows(movable(on), "select * from wide where id = $1", [id])
      for (let i = 0; i < 3; i++) yield* all(8, (n) => find(n + 1))
      for (const column of ["two", "three", "four"]) {
        const readers = yield* Effect.fork(all(20, (n) => Effect.repeatN(find(n + 1), 50)))
        yield* node.query(`alter table wide add column ${column} int default 7`)
        const found = yield* Fiber.join(readers)
        assert.deepStrictEqual(
          found.map((rows) => rows[0]!.id),
          numbers(20).map((n) => n + 1)
        )
      }
      assert.deepStrictEqual(yield* find(1), [{ id: 1, one: 1, two: 7, three: 7, four: 7 }])
      yield* engines.settled(on)
    })
  )

  describe("on a server that answers no more", () => {
    it.scoped("and all fail at once when it is known", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const proxy = yield* proxies.make(node)
        const { host, port } = proxy
        const on = yield* engines.make({ ...engines.partsOf(node), host, port, maxConnections: 1 })
        yield* warmUp(on, 1)
        proxy.silent = true
        const fibers = yield* forkAll(10, (n) => Effect.flip(read(on, n)))
        yield* Effect.sleep("10 millis")
        on.lose("the probes say so")
        for (const fiber of fibers) assert.include(String((yield* Fiber.join(fiber)).cause), "the probes say so")
        proxy.silent = false
        assert.strictEqual(yield* read(on, 1), 1)
      })
    )

    it.scoped("also those that were about to go to another connection at that moment", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const proxy = yield* proxies.make(node)
        const { host, port } = proxy
        const round = Effect.gen(function* () {
          const on = yield* engines.make({ ...engines.partsOf(node), host, port, maxConnections: 1 })
          yield* warmUp(on, 1)
          proxy.silent = true
          const fibers = yield* forkAll(10, (n) => Effect.flip(read(on, n)))
          // Once it was seen that the first one takes long, and the second look is due as soon as this returns.
          yield* Effect.sleep("8 millis")
          yield* Effect.sync(() => {
            const until = performance.now() + 10
            while (performance.now() < until);
            on.lose("the probes say so")
          })
          for (const fiber of fibers) assert.include(String((yield* Fiber.join(fiber)).cause), "the probes say so")
          proxy.silent = false
        })
        yield* Effect.repeatN(Effect.scoped(round), 9)
      })
    )
  })
})

const movable = (on: Engine.Engine) => ({
  query: (request: Parameters<Engine.Engine["query"]>[0]) => on.query(request, true)
})
