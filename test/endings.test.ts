import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as endings from "./support/endings.js"

const count = 1_000

describe("a unit of work ends whole", () => {
  it.live(
    `though it is interrupted anywhere and answered late or never, in ${count} combinations`,
    () =>
      Effect.gen(function* () {
        const seeds = Array.from({ length: count }, (_, index) => index + 1)
        assert.deepStrictEqual(yield* endings.run(seeds, 24), [])
      }),
    300_000
  )
})
