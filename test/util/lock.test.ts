import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Utils } from "effect"
import { Lock } from "../../src/internal/util/lock.js"

const yields = (times: number) => Effect.repeatN(Effect.yieldNow(), times)

type Event = readonly [what: "came" | "got" | "left", who: number]

/**
 * What a lock that is first come, first served would do, step by step: of those who came and have not got it, the first
 * one gets it, unless it gave up. Returns what is against that.
 */
const violations = (events: ReadonlyArray<Event>, gaveUp: ReadonlySet<number>): ReadonlyArray<string> => {
  const queue: Array<number> = []
  const found: Array<string> = []
  let holder: number | undefined
  for (const [what, who] of events) {
    if (what === "came") {
      queue.push(who)
    } else if (what === "left") {
      if (holder !== who) found.push(`${who} left while ${holder} had it`)
      holder = undefined
    } else {
      if (holder !== undefined) found.push(`${who} got it while ${holder} had it`)
      holder = who
      for (let first = queue.shift(); first !== who; first = queue.shift()) {
        if (first === undefined) return [...found, `${who} got it without having come`]
        if (!gaveUp.has(first)) found.push(`${who} got it before ${first}`)
      }
    }
  }
  if (holder !== undefined) found.push(`${holder} kept it`)
  for (const who of queue) {
    if (!gaveUp.has(who)) found.push(`${who} never got it`)
  }
  return found
}

/** A few fibers that want a lock, some of which are interrupted at some time; what was against the rules. */
const interleaving = (seed: number) =>
  Effect.gen(function* () {
    const chance = new Utils.PCGRandom(seed)
    const upTo = (most: number) => chance.integer(most + 1)
    const lock = new Lock()
    const events: Array<Event> = []
    const gaveUp = new Set<number>()

    const user = (who: number, before: number, inside: number, fails: boolean) =>
      Effect.zipRight(
        yields(before),
        Effect.zipRight(
          Effect.sync(() => events.push(["came", who])),
          lock.run(
            Effect.suspend(() => {
              events.push(["got", who])
              return yields(inside).pipe(
                Effect.zipRight(fails ? Effect.fail("on purpose") : Effect.void),
                Effect.ensuring(Effect.sync(() => events.push(["left", who])))
              )
            })
          )
        )
      )

    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    const interrupters: Array<Fiber.Fiber<unknown>> = []
    for (let who = 0; who < 2 + upTo(5); who++) {
      const fiber = yield* Effect.fork(user(who, upTo(4), upTo(3), chance.number() < 0.2))
      fibers.push(fiber)
      if (chance.number() < 0.5) {
        const interrupt = Effect.zipRight(yields(upTo(12)), Fiber.interrupt(fiber))
        interrupters.push(yield* Effect.fork(interrupt))
      }
    }
    for (const fiber of interrupters) yield* Fiber.join(fiber)
    for (const [who, fiber] of fibers.entries()) {
      const exit = yield* Fiber.await(fiber)
      if (Exit.isInterrupted(exit)) gaveUp.add(who)
    }
    const probe = yield* Effect.fork(lock.run(Effect.void))
    yield* yields(3)
    const isFree = (yield* Fiber.poll(probe))._tag === "Some"
    return [...violations(events, gaveUp), ...(isFree ? [] : ["it was lost"])]
  })

describe("the lock", () => {
  it.live("is first come, first served, and never lost, in 10,000 interleavings with interruptions", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= 10_000; seed++) {
        assert.deepStrictEqual(yield* interleaving(seed), [], `seed ${seed}`)
      }
    })
  )

  it.live("is passed on when its next owner is interrupted at the moment of getting it", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      for (let delay = 0; delay < 10; delay++) {
        const release = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(lock.run(Deferred.await(release)))
        yield* Effect.yieldNow()
        const next = yield* Effect.fork(lock.run(Effect.void))
        const last = yield* Effect.fork(lock.run(Effect.succeed("mine")))
        yield* yields(2)
        yield* Deferred.succeed(release, undefined)
        yield* yields(delay)
        yield* Fiber.interrupt(next)
        assert.strictEqual(yield* Fiber.join(last), "mine")
        yield* Fiber.join(holder)
      }
    })
  )

  it.live("the model sees a lock that serves out of turn, or forgets a waiter", () =>
    Effect.sync(() => {
      const none = new Set<number>()
      assert.deepStrictEqual(
        violations(
          [
            ["came", 0],
            ["came", 1],
            ["got", 1],
            ["left", 1],
            ["got", 0],
            ["left", 0]
          ],
          none
        ).slice(0, 1),
        ["1 got it before 0"]
      )
      assert.deepStrictEqual(violations([["came", 0]], none), ["0 never got it"])
      assert.deepStrictEqual(
        violations(
          [
            ["came", 0],
            ["came", 1],
            ["got", 0],
            ["got", 1]
          ],
          none
        ),
        ["1 got it while 0 had it", "1 kept it"]
      )
      assert.deepStrictEqual(
        violations(
          [
            ["came", 0],
            ["came", 1],
            ["got", 1],
            ["left", 1]
          ],
          new Set([0])
        ),
        []
      )
    })
  )
})
