import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Effect, TestClock, Utils } from "effect"
import { type Engine, EngineGroup, Selector } from "effect-db-router"
import { make } from "../support/engine.js"

const chance = () => {
  const numbers = new Utils.PCGRandom(7)
  return () => numbers.number()
}

/** Replicas without servers: none is connected to. */
const replicas = (count: number) =>
  Effect.forEach(Array.from({ length: count }), (_, i) => make({ name: `replica${i + 1}`, host: "nowhere.invalid" }))

const groupOf = (engines: ReadonlyArray<Engine.Engine>, strategy: Selector.Strategy) =>
  EngineGroup.make({ name: "read", engines, strategy, random: chance(), admission: "healthy" })

const choices = 6_000

/** Which part of the choices one has. */
const shareOf = (group: EngineGroup.EngineGroup, name: string): number => {
  let count = 0
  for (let i = 0; i < choices; i++) if (group.choose()?.name === name) count++
  return count / choices
}

describe("a replica that has come back", () => {
  for (const strategy of [Selector.roundRobin, Selector.random, Selector.leastBusy, Selector.lowestLatency]) {
    it.scoped(`begins with a tenth of its share, which grows until it has all of it: ${strategy.name}`, () =>
      Effect.gen(function* () {
        const engines = yield* replicas(3)
        for (const engine of engines) engine.observeLatency(1)
        const group = groupOf(engines, strategy)
        const share = () => shareOf(group, "replica2")
        assert.approximately(share(), 1 / 3, 0.04)
        engines[1]!.warmUp(10_000)
        const shares = [share()]
        for (let i = 0; i < 4; i++) {
          yield* TestClock.adjust("2500 millis")
          shares.push(share())
        }
        assert.isBelow(shares[0]!, 0.06)
        for (let i = 1; i < shares.length; i++) assert.isAbove(shares[i]!, shares[i - 1]!)
        assert.approximately(shares[4]!, 1 / 3, 0.04)
        assert.strictEqual(engines[1]!.warmth, 1)
      })
    )
  }

  it.scoped("gets everything where there is no other, and where no other may be used", () =>
    Effect.gen(function* () {
      const engines = yield* replicas(2)
      const group = groupOf(engines, Selector.roundRobin)
      engines[0]!.warmUp(10_000)
      const except = new Set([engines[1]!])
      for (let i = 0; i < 100; i++) assert.strictEqual(group.choose(except)?.name, "replica1")
      engines[1]!.warmUp(10_000)
      assert.approximately(shareOf(group, "replica1"), 1 / 2, 0.1)
    })
  )
})

describe("connections to a server that has failed", () => {
  const wishes = 5

  /** When the router tries to connect, in milliseconds from the first time on, for so many statements at once. */
  const attempts = (unsettled: boolean) =>
    Effect.gen(function* () {
      const times: Array<number> = []
      const engine = yield* make({
        host: "nowhere.invalid",
        stream: () => {
          times.push(performance.now())
          throw new Error("no network")
        }
      })
      if (unsettled) engine.unsettle()
      const one = Effect.flip(engine.query({ sql: "SELECT 1", params: [], asArrays: false, prepare: false }))
      const errors = yield* Effect.all(
        Array.from({ length: wishes }, () => one),
        { concurrency: "unbounded" }
      )
      for (const error of errors) assert.instanceOf(error, SqlError.SqlError)
      return times.map((time) => time - times[0]!)
    })

  it.scopedLive("are opened one after the other, at most ten a second", () =>
    Effect.gen(function* () {
      const spread = yield* attempts(true)
      assert.lengthOf(spread, wishes)
      // A busy process notes one late, and so the next one too early after it: not all of them.
      for (let i = 1; i < spread.length; i++) assert.isAtLeast(spread[i]! - spread[i - 1]!, 50)
      assert.isAtLeast(spread[wishes - 1]! - spread[0]!, 90 * (wishes - 1))
    })
  )

  it.scopedLive("are opened at once to one that has not", () =>
    Effect.gen(function* () {
      const all = yield* attempts(false)
      assert.lengthOf(all, wishes)
      assert.isBelow(all[wishes - 1]!, 99)
    })
  )
})
