import { assert, describe, it } from "@effect/vitest"
import { Consistency, type EngineGroup } from "effect-db-router"
import { Causal } from "../../src/internal/consistency/causal.js"
import { Tracker } from "../../src/internal/wal/lsnTracker.js"

/** A primary and two replicas at one position, all just asked, under a clock that is set by hand. */
const setUp = () => {
  let now = 1_000
  const tell = (tracker: Tracker, role: "primary" | "replica", position: bigint) =>
    tracker.report(tracker.ask(), now, { role, system: "7001", timeline: 1, position, startedAt: 1 })
  const trackers = [new Tracker(() => now), new Tracker(() => now), new Tracker(() => now)] as const
  const [primary, one, two] = trackers
  for (const tracker of trackers) tell(tracker, tracker === primary ? "primary" : "replica", 100n)
  const group = (...trackers: ReadonlyArray<Tracker>) =>
    ({ engines: trackers.map((positions) => ({ positions })) }) as unknown as EngineGroup.EngineGroup
  const causal = new Causal(Consistency.causal().positions!, group(primary), group(one, two))
  /** After how many milliseconds a replica is to be asked again. */
  const dueAfter = (tracker: Tracker) => {
    const began = now
    while (!causal.isDue(tracker)) now++
    const after = now - began
    now = began
    return after
  }
  return { dueAfter, one, primary, tell, two }
}

describe("a replica is asked with a read", () => {
  it("every 5 ms while others are known to have more, be it the primary or a replica", () => {
    for (const other of ["primary", "two"] as const) {
      const { dueAfter, one, tell, ...all } = setUp()
      tell(all[other], other === "primary" ? "primary" : "replica", 200n)
      assert.strictEqual(dueAfter(one), 5)
    }
  })

  it("every 20 ms while it has all that anybody has told", () => {
    const { dueAfter, one, primary, tell, two } = setUp()
    assert.deepStrictEqual([dueAfter(one), dueAfter(two)], [20, 20])
    tell(primary, "primary", 200n)
    tell(one, "replica", 200n)
    assert.deepStrictEqual([dueAfter(one), dueAfter(two)], [20, 5])
  })

  it("every 5 ms while nothing is known of it", () => {
    const { dueAfter, one } = setUp()
    one.forget()
    assert.strictEqual(dueAfter(one), 5)
  })
})
