import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Selector from "effect-db-router/Selector"
import * as fc from "fast-check"

interface Fake extends Selector.Candidate {
  inFlight: number
  waiting: number
  latency: number
}

const engine = (name: string, fields: Partial<Selector.Candidate> = {}): Fake => ({
  name,
  weight: 1,
  zone: undefined,
  inFlight: 0,
  waiting: 0,
  latency: 0,
  ...fields
})

/** mulberry32: the tests need some seeded generator, the router brings Effect's. */
const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

const picks = (select: Selector.Select, candidates: ReadonlyArray<Fake>, count: number) =>
  Array.from({ length: count }, () => select(candidates).name)

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const heapUsed = () => {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

const countOf = (names: ReadonlyArray<string>, name: string) => names.filter((other) => other === name).length

const strategies = [Selector.roundRobin, Selector.random, Selector.leastBusy, Selector.lowestLatency]

/** Between 1 and 8 engines with whole weights, distinct names and any load. */
const engines = fc
  .array(
    fc.record({
      weight: fc.integer({ min: 1, max: 9 }),
      zone: fc.constantFrom("a", "b", undefined),
      inFlight: fc.nat(20),
      waiting: fc.nat(20),
      latency: fc.constantFrom(0, 1, 5, 80)
    }),
    { minLength: 1, maxLength: 8 }
  )
  .map((all) => all.map((fields, i) => engine(`e${i}`, fields)))

const subsets = (all: ReadonlyArray<Fake>) =>
  fc.array(fc.subarray([...all], { minLength: 1 }), { minLength: 1, maxLength: 60 })

describe("every strategy", () => {
  for (const strategy of [...strategies, ...strategies.map((inner) => Selector.preferZone("a", inner))]) {
    it(`${strategy.name} chooses one of the candidates it was given, whichever they are`, () => {
      fc.assert(
        fc.property(
          engines.chain((all) => fc.tuple(subsets(all), fc.integer())),
          ([calls, seed]) => {
            const select = strategy.make(seeded(seed))
            for (const candidates of calls) assert.include(candidates, select(candidates))
          }
        )
      )
    })

    it(`${strategy.name} chooses the same again with the same seed`, () => {
      fc.assert(
        fc.property(
          engines.chain((all) => fc.tuple(subsets(all), fc.integer())),
          ([calls, seed]) => {
            const once = strategy.make(seeded(seed))
            const again = strategy.make(seeded(seed))
            for (const candidates of calls) assert.strictEqual(once(candidates), again(candidates))
          }
        )
      )
    })

    it(`${strategy.name} leaves the list as it was`, () => {
      const candidates = Object.freeze([engine("a", { zone: "a" }), engine("b", { zone: "b" })])
      const select = strategy.make(seeded(1))
      for (let i = 0; i < 100; i++) select(candidates)
      assert.deepStrictEqual(
        candidates.map(({ name }) => name),
        ["a", "b"]
      )
    })

    it(`${strategy.name} keeps the state of one group out of another`, () => {
      const candidates = [engine("a"), engine("b"), engine("c")]
      const alone = picks(strategy.make(seeded(7)), candidates, 30)
      const one = strategy.make(seeded(7))
      const other = strategy.make(seeded(8))
      const beside = Array.from({ length: 30 }, () => {
        other(candidates)
        return one(candidates).name
      })
      assert.deepStrictEqual(beside, alone)
    })
  }
})

describe("the weights of engines", () => {
  for (const strategy of [
    Selector.roundRobin,
    Selector.random,
    Selector.leastBusy,
    Selector.preferZone("nowhere", Selector.roundRobin)
  ]) {
    it(`${strategy.name}: 3 to 1 gives 3 to 1 within 2% of 10,000 picks`, () => {
      const chosen = picks(strategy.make(seeded(42)), [engine("a", { weight: 3 }), engine("b")], 10_000)
      assert.approximately(countOf(chosen, "a"), 7_500, 200)
    })
  }

  it("count as shares, not as whole numbers", () => {
    for (const strategy of [Selector.roundRobin, Selector.random]) {
      const chosen = picks(
        strategy.make(seeded(3)),
        [engine("a", { weight: 0.3 }), engine("b", { weight: 0.1 })],
        10_000
      )
      assert.approximately(countOf(chosen, "a"), 7_500, 200)
    }
  })

  it("may change while the program runs", () => {
    const a = { ...engine("a"), weight: 1 }
    const select = Selector.roundRobin.make(seeded(1))
    picks(select, [a, engine("b")], 1_000)
    a.weight = 9
    assert.approximately(countOf(picks(select, [a, engine("b")], 1_000), "a"), 900, 10)
  })
})

describe("roundRobin", () => {
  const weights = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 })
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

  it("gives every engine exactly its share in every window of one cycle", () => {
    fc.assert(
      fc.property(weights, fc.integer(), (weights, seed) => {
        const divisor = weights.reduce(gcd)
        const cycle = weights.reduce((a, b) => a + b) / divisor
        const candidates = weights.map((weight, i) => engine(`e${i}`, { weight }))
        const chosen = picks(Selector.roundRobin.make(seeded(seed)), candidates, 3 * cycle)
        for (let start = 0; start <= 2 * cycle; start++) {
          const window = chosen.slice(start, start + cycle)
          weights.forEach((weight, i) => {
            assert.strictEqual(countOf(window, `e${i}`), weight / divisor)
          })
        }
      })
    )
  })

  it("does not send bursts: no engine is ever more than one turn ahead of its share or behind it", () => {
    fc.assert(
      fc.property(weights, (weights) => {
        const total = weights.reduce((a, b) => a + b)
        const candidates = weights.map((weight, i) => engine(`e${i}`, { weight }))
        // The first of a random number in [0, 1) is zero, so this starts at the beginning of the cycle.
        const chosen = picks(
          Selector.roundRobin.make(() => 0),
          candidates,
          2 * total
        )
        const given = weights.map(() => 0)
        chosen.forEach((name, i) => {
          given[Number(name.slice(1))]! += 1
          weights.forEach((weight, j) => {
            assert.isAtMost(Math.abs(given[j]! - ((i + 1) * weight) / total), 1 + 1e-9)
          })
        })
      })
    )
    assert.deepStrictEqual(
      picks(
        Selector.roundRobin.make(() => 0),
        [engine("a", { weight: 3 }), engine("b")],
        8
      ).join(""),
      "aabaaaba"
    )
    assert.deepStrictEqual(
      picks(
        Selector.roundRobin.make(() => 0),
        [engine("a", { weight: 5 }), engine("b"), engine("c")],
        7
      ).join(""),
      "aabacaa"
    )
  })

  it("begins at different engines in different processes", () => {
    const candidates = [engine("a"), engine("b"), engine("c")]
    const first = Array.from({ length: 600 }, (_, seed) => Selector.roundRobin.make(seeded(seed))(candidates).name)
    for (const { name } of candidates) assert.approximately(countOf(first, name), 200, 60)
  })

  it("stays fair while engines come and go", () => {
    const [a, b, c] = [engine("a"), engine("b"), engine("c")]
    const select = Selector.roundRobin.make(seeded(5))
    const served = { a: 0, b: 0, c: 0 }
    const random = seeded(6)
    // Every pair is eligible as often as the others, in any order: each engine is due a third.
    for (let i = 0; i < 9_000; i++) {
      const pair = [
        [a, b],
        [b, c],
        [a, c]
      ][Math.floor(random() * 3)]!
      served[select(pair as ReadonlyArray<Fake>).name as "a" | "b" | "c"]++
    }
    for (const count of Object.values(served)) assert.approximately(count, 3_000, 90)
  })

  it("gives an engine that comes back its share at once, and no more", () => {
    const [a, b, c] = [engine("a"), engine("b"), engine("c")]
    const select = Selector.roundRobin.make(seeded(2))
    picks(select, [a, b, c], 100)
    picks(select, [a, b], 100_001)
    const after = picks(select, [a, b, c], 9)
    for (const name of ["a", "b", "c"]) assert.strictEqual(countOf(after, name), 3)
  })

  it("alternates between engines that join at different times", () => {
    const [a, b] = [engine("a"), engine("b")]
    const select = Selector.roundRobin.make(seeded(2))
    picks(select, [a], 1_001)
    const after = picks(select, [a, b], 100)
    assert.strictEqual(countOf(after, "a"), 50)
  })

  it("goes by name: a view of an engine that is made anew for every call is the same engine", () => {
    const select = Selector.roundRobin.make(seeded(9))
    const chosen = Array.from({ length: 100 }, () => select([engine("a"), engine("b")]).name)
    assert.strictEqual(countOf(chosen, "a"), 50)
  })

  it("forgets engines that are gone, and stays fair to those that are not", () => {
    const select = Selector.roundRobin.make(seeded(4))
    const [a, b] = [engine("a"), engine("b")]
    let chosenA = 0
    let chosenB = 0
    const before = heapUsed()
    for (let i = 0; i < 200_000; i++) {
      const name = select([a, b, engine(`pod-${i}-${"x".repeat(100)}`)]).name
      if (name === "a") chosenA++
      if (name === "b") chosenB++
    }
    const grown = heapUsed() - before
    select([a, b])
    assert.approximately(chosenA, chosenB, 400)
    // 200,000 remembered names would be more than 30 MB.
    assert.isBelow(grown, 10_000_000)
  })
})

describe("leastBusy", () => {
  it("chooses the least (inFlight + waiting) / weight", () => {
    fc.assert(
      fc.property(engines, fc.integer(), (candidates, seed) => {
        const score = (e: Fake) => (e.inFlight + e.waiting) / e.weight
        const chosen = Selector.leastBusy.make(seeded(seed))(candidates)
        assert.strictEqual(score(chosen), Math.min(...candidates.map(score)))
      })
    )
  })

  it("counts what waits for a connection as well as what runs", () => {
    const select = Selector.leastBusy.make(seeded(1))
    assert.strictEqual(select([engine("a", { inFlight: 2, waiting: 9 }), engine("b", { inFlight: 10 })]).name, "b")
  })

  it("lets idle engines take turns by weight", () => {
    const chosen = picks(
      Selector.leastBusy.make(seeded(1)),
      [engine("a", { weight: 2 }), engine("b"), engine("c")],
      400
    )
    assert.deepStrictEqual([countOf(chosen, "a"), countOf(chosen, "b"), countOf(chosen, "c")], [200, 100, 100])
  })

  it("lets only those take turns that are equally idle", () => {
    const chosen = picks(
      Selector.leastBusy.make(seeded(1)),
      [engine("a", { inFlight: 1 }), engine("b"), engine("c")],
      100
    )
    assert.deepStrictEqual([countOf(chosen, "a"), countOf(chosen, "b"), countOf(chosen, "c")], [0, 50, 50])
  })

  it("fills engines in proportion to their weights when nothing ends", () => {
    const candidates = [engine("a", { weight: 4 }), engine("b", { weight: 2 }), engine("c")]
    const select = Selector.leastBusy.make(seeded(1))
    for (let i = 0; i < 700; i++) select(candidates).inFlight++
    assert.deepStrictEqual(
      candidates.map(({ inFlight }) => inFlight),
      [400, 200, 100]
    )
  })
})

describe("lowestLatency", () => {
  it("sends most of the work to the faster of two, and looks at the slower again from time to time", () => {
    const chosen = picks(
      Selector.lowestLatency.make(seeded(1)),
      [engine("fast", { latency: 2 }), engine("slow", { latency: 40 })],
      10_000
    )
    assert.approximately(countOf(chosen, "slow"), 10_000 / 32, 80)
  })

  it("never chooses the slowest of many, but for another look", () => {
    const candidates = Array.from({ length: 8 }, (_, i) => engine(`e${i}`, { latency: i + 1 }))
    const chosen = picks(Selector.lowestLatency.make(seeded(1)), candidates, 10_000)
    const counts = candidates.map(({ name }) => countOf(chosen, name))
    assert.deepStrictEqual(
      counts,
      [...counts].sort((a, b) => b - a)
    )
    // It is one of the two in a quarter of the choices, and the slower one of them in all of these.
    assert.approximately(counts[7]!, 10_000 / 4 / 32, 40)
  })

  it("finds an engine again that has become fast", () => {
    const fast = engine("a", { latency: 5 })
    const slow = engine("b", { latency: 500 })
    const truth = { a: 5, b: 1 }
    const select = Selector.lowestLatency.make(seeded(1))
    const answered = (e: Fake) => {
      e.latency = e.latency * 0.8 + truth[e.name as "a" | "b"] * 0.2
      return e.name
    }
    const chosen = Array.from({ length: 3_000 }, () => answered(select([fast, slow])))
    assert.isAbove(countOf(chosen.slice(-1_000), "b"), 900)
  })

  it("does not flood the fastest engine: what is pending there counts", () => {
    const select = Selector.lowestLatency.make(seeded(1))
    const candidates = [engine("a", { latency: 2, inFlight: 30 }), engine("b", { latency: 10 })]
    assert.isAbove(countOf(picks(select, candidates, 1_000), "b"), 900)
    const wide = [engine("a", { latency: 2, inFlight: 30, weight: 30 }), engine("b", { latency: 10 })]
    assert.isAbove(countOf(picks(select, wide, 1_000), "a"), 900)
  })

  it("tries every engine whose latency is unknown before it compares", () => {
    const candidates = [engine("a", { latency: 1 }), engine("b"), engine("c"), engine("d", { latency: 2 })]
    const select = Selector.lowestLatency.make(seeded(1))
    const first = select(candidates)
    assert.include(["b", "c"], first.name)
    first.latency = 3
    const second = select(candidates)
    assert.include(["b", "c"], second.name)
    assert.notStrictEqual(second.name, first.name)
  })

  it("takes unknown engines in any order", () => {
    const chosen = picks(Selector.lowestLatency.make(seeded(1)), [engine("a"), engine("b"), engine("c")], 3_000)
    for (const name of ["a", "b", "c"]) assert.approximately(countOf(chosen, name), 1_000, 120)
  })

  it("does not pile statements on an engine that is still to give its first answer", () => {
    const candidates = [engine("known", { latency: 1 }), engine("new")]
    const select = Selector.lowestLatency.make(seeded(1))
    const chosen = Array.from({ length: 200 }, () => {
      const one = select(candidates)
      one.inFlight++
      return one.name
    })
    assert.isBelow(countOf(chosen, "new"), 20)
  })

  it("shares work out evenly while nothing is known of anybody", () => {
    const candidates = Array.from({ length: 4 }, (_, i) => engine(`e${i}`))
    const select = Selector.lowestLatency.make(seeded(1))
    for (let i = 0; i < 4_000; i++) select(candidates).inFlight++
    for (const { inFlight } of candidates) assert.approximately(inFlight, 1_000, 50)
  })
})

describe("preferZone", () => {
  for (const inner of strategies) {
    const strategy = Selector.preferZone("a", inner)

    it(`${strategy.name}: engines of the zone only, while one is eligible`, () => {
      fc.assert(
        fc.property(
          engines.chain((all) => fc.tuple(subsets(all), fc.integer())),
          ([calls, seed]) => {
            const select = strategy.make(seeded(seed))
            for (const candidates of calls) {
              const near = candidates.filter(({ zone }) => zone === "a")
              assert.include(near.length > 0 ? near : candidates, select(candidates))
            }
          }
        )
      )
    })
  }

  it("chooses by the inner strategy in the zone and elsewhere", () => {
    const near = [engine("a1", { zone: "a", weight: 3 }), engine("a2", { zone: "a" })]
    const far = [engine("b1", { zone: "b" }), engine("c1", { weight: 3 })]
    const select = Selector.preferZone("a", Selector.roundRobin).make(seeded(1))
    assert.strictEqual(countOf(picks(select, [...far, ...near], 400), "a1"), 300)
    assert.strictEqual(countOf(picks(select, far, 400), "c1"), 300)
    assert.strictEqual(countOf(picks(select, [...far, ...near], 400), "a1"), 300)
  })

  it("takes a strategy of one's own, and another preferZone", () => {
    const last = Selector.make("last", () => (candidates) => candidates[candidates.length - 1]!)
    const candidates = [engine("1", { zone: "a" }), engine("2", { zone: "a" }), engine("3", { zone: "b" })]
    assert.strictEqual(Selector.preferZone("a", last).make(Math.random)(candidates).name, "2")
    const nested = Selector.preferZone("c", Selector.preferZone("b", last))
    assert.strictEqual(nested.make(Math.random)(candidates).name, "3")
    assert.include(nested.name, "last")
  })
})
