import { assert, describe, it } from "@effect/vitest"
import { Text } from "../../src/internal/driver/prepared.js"

/** Numbers from 0 to 1 that look like chance, the same in every run. */
const chances = (): (() => number) => {
  let state = 1
  return () => {
    state = (state * 48_271) % 2_147_483_647
    return state / 2_147_483_647
  }
}

interface Run {
  readonly isNamed: boolean
  readonly millis: number
}

/** A text that runs a thousand times a second, each time for as long as that says. */
const runs = (count: number, isBeside: boolean, millis: (isNamed: boolean) => number): ReadonlyArray<Run> => {
  const text = new Text("edr_1", "select v from t where id = $1", true)
  text.took(0.5, false, 0, false)
  return Array.from({ length: count }, (_, now) => {
    const isNamed = !text.isBetterUnnamed([], now)
    const run = { isNamed, millis: millis(isNamed) }
    text.took(run.millis, isNamed, now, isBeside)
    return run
  })
}

const shareOf = (all: ReadonlyArray<Run>, is: (run: Run) => boolean): number => all.filter(is).length / all.length

describe("the name of a prepared statement beside others", () => {
  for (const share of [0.01, 0.05, 0.2, 0.6]) {
    it(`is kept where ${share * 100} in a hundred runs are late, with it and without`, () => {
      const chance = chances()
      const all = runs(50_000, true, () => (chance() < share ? 8 : 0.5))
      assert.isBelow(
        shareOf(all, ({ isNamed }) => !isNamed),
        0.05
      )
    })
  }

  for (const share of [0.05, 0.3, 1]) {
    it(`ends where ${share * 100} in a hundred values have a bad plan under it`, () => {
      const chance = chances()
      const all = runs(50_000, true, (isNamed) => {
        const isLate = chance() < 0.01
        return chance() < share && isNamed ? 79 : isLate ? 8 : 0.5
      })
      assert.isBelow(all.filter(({ millis }) => millis === 79).length, 400)
    })
  }

  it("ends after three slow runs where nothing else runs", () => {
    const all = runs(1_000, false, (isNamed) => (isNamed ? 79 : 0.5))
    assert.strictEqual(all.filter(({ millis }) => millis === 79).length, 3)
  })
})
