/** An engine is one server. Which server answers at its address is asked on every new connection. */
import { assert, describe, it } from "@effect/vitest"
import type { Health } from "effect-db-router"
import { Tracker } from "../../src/internal/wal/lsnTracker.js"

const report = (startedAt: number): Health.Report => ({
  role: "replica",
  system: "1",
  timeline: 1,
  position: 100n,
  startedAt
})

describe("the servers that answer at one address", () => {
  it("one that has started anew is one server: what it told before counts no more", () => {
    const tracker = new Tracker(() => 0)
    tracker.report(tracker.ask(), 0, report(1), true)
    assert.isDefined(tracker.known)
    assert.isTrue(tracker.meet(2))
    assert.isUndefined(tracker.known)
    assert.isFalse(tracker.meet(2))
    assert.isTrue(tracker.report(tracker.ask(), 0, report(2), true))
    assert.isFalse(tracker.isBalanced)
    assert.isTrue(tracker.isTelling)
  })

  it("one that comes again after another is one of several: nothing that it tells holds", () => {
    const tracker = new Tracker(() => 0)
    tracker.report(tracker.ask(), 0, report(1), true)
    assert.isTrue(tracker.meet(2))
    assert.isFalse(tracker.meet(1))
    assert.isTrue(tracker.isBalanced)
    assert.isFalse(tracker.isTelling)
  })

  it("what an old connection tells of another server than new ones lead to does not count", () => {
    const tracker = new Tracker(() => 0)
    tracker.report(tracker.ask(), 0, report(1), true)
    tracker.meet(2)
    assert.isFalse(tracker.report(tracker.ask(), 0, report(1), false))
    assert.isUndefined(tracker.known)
    assert.isFalse(tracker.isBalanced)
    assert.isTrue(tracker.isTelling, "nothing is known of it; that is not to say that it never tells")
  })

  it("another engine's address is another matter", () => {
    const tracker = new Tracker(() => 0)
    for (const startedAt of [1, 2, 1]) tracker.meet(startedAt)
    tracker.rebind()
    tracker.report(tracker.ask(), 0, report(1), true)
    assert.isTrue(tracker.isTelling)
  })
})
