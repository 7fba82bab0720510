import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as endings from "./support/endings.js"

/** `npm run soak -- endings` runs 10,000. */
const count = 1_000

describe("a unit of work ends whole", () => {
  it.live(
    `though it is interrupted anywhere and answered late or never, in ${count} combinations`,
    () =>
      Effect.gen(function* () {
        const combinations = Array.from({ length: count }, (_, index) => endings.combinationOf(index + 1))
        const { counts, failures } = yield* endings.run(combinations, 32)
        assert.deepStrictEqual(failures.map(endings.lineOf), [])
        assert.sameMembers([...counts.keys()], [...endings.unitNames])
      }),
    300_000
  )
})
