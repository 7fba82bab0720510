import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as endings from "../support/endings.js"

/** `npm run soak -- endings` runs 10,000. */
const count = 1_000

/** `npm run soak -- endings --real` runs 1,000. */
const realCount = 60

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

  it.scopedLive(
    `on a real cluster behind proxies that delay what is said, in ${realCount} combinations`,
    () =>
      Effect.gen(function* () {
        const cluster = yield* PgCluster.make({ replicas: 1 })
        yield* endings.prepare(cluster)
        // Others than those above.
        const combinations = Array.from({ length: realCount }, (_, index) => endings.combinationOf(100_001 + index))
        const { failures } = yield* endings.run(combinations, 8, undefined, endings.realRigOf(cluster))
        assert.deepStrictEqual(failures.map(endings.lineOf), [])
      }),
    300_000
  )
})
