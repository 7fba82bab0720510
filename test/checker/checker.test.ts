import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { check } from "./Checker.js"
import { History } from "./History.js"
import { violations } from "./Report.js"

describe("what a client must see", () => {
  const kinds = (history: History, version: number) => history.check(1, version).map(({ kind }) => kind)

  it("is what it has written and read", () => {
    assert.deepStrictEqual(kinds(History.empty, 0), [])
    assert.deepStrictEqual(kinds(History.empty.wrote(1, 2), 1), ["read your writes"])
    assert.deepStrictEqual(kinds(History.empty.wrote(1, 2), 2), [])
    assert.deepStrictEqual(kinds(History.empty.saw(1, 3), 2), ["monotonic reads"])
    assert.deepStrictEqual(kinds(History.empty.wrote(2, 9), 0), [])
    // Seen out of order, the greatest counts.
    assert.deepStrictEqual(kinds(History.empty.saw(1, 3).saw(1, 2), 2), ["monotonic reads"])
  })

  it("is what a joined fiber has done, and not what one does that still runs", () => {
    const before = History.empty.wrote(1, 1)
    const child = before.wrote(1, 2)
    assert.deepStrictEqual(kinds(before, 1), [])
    assert.deepStrictEqual(kinds(before.join(child), 1), ["read your writes"])
    assert.deepStrictEqual(kinds(child.join(before), 1), ["read your writes"])
  })

  it("says whether only a token tells of it", () => {
    const history = History.empty.wrote(1, 2).next()
    assert.isTrue(history.check(1, 1)[0]?.isAcross)
    assert.isFalse(history.wrote(1, 3).check(1, 2)[0]?.isAcross)
  })
})

// The thorough run is `npm run checker`.
describe("while servers are paused, delayed, killed and promoted", { timeout: 240_000 }, () => {
  const options = { seed: 3, reads: 3_000, troubles: 4, clients: 12, promotions: 1, trouble: 200 }

  it.live("causal: no read misses a write of its flow, none goes back in time, none fails", () =>
    Effect.map(check("causal", options), ({ deeds, findings }) => {
      assert.deepStrictEqual(findings.violations, [])
      assert.deepStrictEqual(findings.failedReads, [])
      assert.isAtLeast(findings.reads, options.reads)
      assert.isAbove(findings.writes, 100)
      assert.isAbove(findings.tokens, 50)
      assert.isNotEmpty(deeds)
    })
  )

  it.live("eventual: the same clients find both, so that they can", () =>
    Effect.map(check("eventual", { ...options, promotions: 0 }), ({ findings }) => {
      assert.isAbove(violations(findings, "read your writes"), 0)
      assert.isAbove(violations(findings, "monotonic reads"), 0)
    })
  )
})
