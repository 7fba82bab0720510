import { assert, describe, it } from "@effect/vitest"
import type { Health } from "effect-db-router"
import * as Seen from "../../src/internal/context/causalState.js"
import { Mark, Tracker } from "../../src/internal/wal/lsnTracker.js"
import type { Answer } from "../../src/internal/wal/positionSample.js"

const answer = (lsn: bigint, timeline: number | undefined = 1, isStandby = true): Answer => ({
  isStandby,
  lsn,
  timeline
})

const report = (position: bigint, options: Partial<Health.Report> = {}): Health.Report => ({
  role: "replica",
  system: "7001",
  timeline: 1,
  position,
  startedAt: 1,
  ...options
})

const tracked = (position = 100n) => {
  const tracker = new Tracker(() => 0)
  tracker.report(tracker.ask(), 0, report(position))
  return tracker
}

const at = (lsn: bigint, timeline = 1) => ({ system: "7001", timeline, lsn })

describe("what is known of a server's positions", () => {
  it("is the furthest that it has told, in whatever order the answers come", () => {
    const tracker = tracked()
    const [first, second] = [tracker.ask(), tracker.ask()]
    tracker.hear(second, 0, answer(300n))
    assert.deepStrictEqual(tracker.known, at(300n))
    tracker.hear(first, 0, answer(200n))
    assert.deepStrictEqual(tracker.known, at(300n))
  })

  it("is of the timeline that it is on now, not of one that an older answer says", () => {
    const tracker = tracked()
    const [first, second] = [tracker.ask(), tracker.ask()]
    tracker.hear(second, 0, answer(50n, 2))
    tracker.hear(first, 0, answer(900n, 1))
    assert.deepStrictEqual(tracker.known, at(50n, 2))
  })

  it("is nothing after it was lost, started anew, or became another server", () => {
    for (const [i, lose] of [
      (tracker: Tracker) => tracker.forget(),
      (tracker: Tracker) => tracker.rebind(),
      (tracker: Tracker) => tracker.report(tracker.ask(), 0, report(10n, { startedAt: 2 })),
      (tracker: Tracker) => tracker.report(tracker.ask(), 0, report(10n, { system: "7002" }))
    ].entries()) {
      const tracker = tracked()
      const late = tracker.ask()
      const mark = new Mark(tracker).end()
      lose(tracker)
      assert.isTrue(mark.isLost, String(i))
      assert.isUndefined(tracker.hear(late, 0, answer(500n)))
      tracker.report(tracker.ask(), 0, report(600n, { startedAt: 2 }))
      assert.isUndefined(mark.known)
      assert.strictEqual(tracker.known!.lsn, 600n)
    }
  })

  it("needs one mark for all that ends between two questions", () => {
    const tracker = tracked()
    const mark = new Mark(tracker)
    assert.isFalse(mark.covers(tracker), "it has not ended")
    mark.end()
    assert.isTrue(mark.covers(tracker))
    assert.isFalse(new Mark(tracker, tracker.epoch - 1).end().covers(tracker), "it began before a restart")
    const late = tracker.ask()
    assert.isFalse(mark.covers(tracker), "the answer may be of before what ends now")
    tracker.hear(late, 0, answer(200n))
    assert.isFalse(mark.covers(tracker))
    assert.strictEqual(mark.known!.lsn, 200n)
    const asking = new Mark(tracker)
    const own = asking.send()
    asking.end()
    assert.isFalse(asking.covers(tracker), "its own question comes before what ends now")
    asking.heard(own, answer(300n))
    assert.isFalse(asking.covers(tracker), "and so does its position")
    const next = new Mark(tracker).end()
    assert.isTrue(next.covers(tracker))
    tracker.forget()
    assert.isFalse(next.covers(tracker), "it has started anew")
  })

  it("is hopeless after a read has waited in vain: for a while, or until the server has the wanted position", () => {
    let now = 0
    const tracker = new Tracker(() => now)
    tracker.report(tracker.ask(), 0, report(100n))
    assert.isFalse(tracker.isHopeless)
    tracker.giveUp(1_000, [at(200n)])
    assert.isTrue(tracker.isHopeless)
    tracker.hear(tracker.ask(), 0, answer(199n))
    assert.isTrue(tracker.isHopeless)
    tracker.hear(tracker.ask(), 0, answer(200n))
    assert.isFalse(tracker.isHopeless)
    tracker.giveUp(1_000, [at(300n)])
    now = 999
    assert.isTrue(tracker.isHopeless)
    now = 1_000
    assert.isFalse(tracker.isHopeless)
  })

  it("is nothing to rely on where it refuses to tell", () => {
    const tracker = tracked()
    assert.isTrue(tracker.isTelling)
    tracker.fail(Object.assign(new Error("canceled"), { code: "57014" }))
    assert.isTrue(tracker.isTelling)
    tracker.fail(Object.assign(new Error("permission denied"), { code: "42501" }))
    assert.isFalse(tracker.isTelling)
    assert.strictEqual(tracker.refused, "permission denied")
    tracker.rebind()
    assert.isFalse(tracker.isTelling)
    assert.isFalse(new Tracker(() => 0).isTelling)
  })
})

describe("a mark", () => {
  it("knows the answer to its own question, once its statement has ended", () => {
    const tracker = tracked()
    const mark = new Mark(tracker)
    const question = mark.send()
    assert.isFalse(mark.isAwaited)
    mark.heard(question, answer(200n))
    assert.isUndefined(mark.known)
    assert.deepStrictEqual(mark.end().known, at(200n))
  })

  it("knows what its server says to questions that were sent after its end, and to none before", () => {
    const tracker = tracked()
    const mark = new Mark(tracker)
    const before = tracker.ask()
    mark.end()
    tracker.hear(before, 0, answer(200n))
    assert.isUndefined(mark.known)
    tracker.hear(tracker.ask(), 0, answer(150n))
    assert.deepStrictEqual(mark.known, at(200n))
  })

  it("goes by the last question of a statement that was sent again", () => {
    const tracker = tracked()
    const mark = new Mark(tracker)
    mark.heard(mark.send(), answer(200n))
    const second = mark.send()
    mark.end()
    assert.isUndefined(mark.known)
    assert.isTrue(mark.isAwaited)
    let heard = 0
    mark.onHeard(() => heard++)
    mark.heard(second, answer(300n))
    assert.deepStrictEqual([mark.known, heard], [at(300n), 1])
  })

  it("is not awaited any more when its question has failed", () => {
    const tracker = tracked()
    const mark = new Mark(tracker)
    const question = mark.send()
    mark.end()
    let heard = 0
    mark.onHeard(() => heard++)
    mark.heard(question, new Error("no"))
    assert.deepStrictEqual([mark.isAwaited, mark.known, heard], [false, undefined, 1])
  })
})

describe("the positions that a flow has seen", () => {
  const [one, two] = [tracked(), tracked()]
  const ours = () => false

  it("keeps the later of two marks on a server, and those on others", () => {
    const [first, other] = [new Mark(one).end(), new Mark(two).end()]
    one.ask()
    const second = new Mark(one).end()
    const seen = [first, other, second].reduce(Seen.withMark, Seen.nothing)
    assert.deepStrictEqual(seen.marks, [other, second])
    assert.strictEqual(Seen.withMark(seen, first).marks, seen.marks)
    const running = new Mark(one)
    const both = [running, second].reduce(Seen.withMark, Seen.nothing)
    assert.deepStrictEqual(both.marks, [running, second])
  })

  it("is what the primary has after something there that has ended, but for what came in between", () => {
    const before = { ...Seen.nothing, positions: [at(100n), at(900n, 0)], marks: [new Mark(two).end()] }
    const mark = new Mark(one).end()
    assert.deepStrictEqual(Seen.superseded(before, before, mark, ours), {
      ...Seen.nothing,
      marks: [mark],
      ofPrimary: true
    })
    const running = new Mark(two)
    const busy = { ...before, marks: [running] }
    assert.deepStrictEqual(Seen.superseded(busy, busy, mark, ours).marks, [running, mark])
    // It has failed meanwhile, and may have written all the same.
    running.end()
    const failed = Seen.withFailure(busy, busy.writtenAt)
    assert.deepStrictEqual(Seen.superseded(failed, busy, mark, ours).marks, [running, mark])
    const changed = Seen.withPosition(before, at(500n))
    assert.deepStrictEqual(Seen.superseded(changed, before, mark, ours).positions, [at(500n), at(900n, 0)])
  })

  it("is what a later timeline has as before, after something on the primary of an earlier one", () => {
    const promoted = tracked()
    promoted.hear(promoted.ask(), promoted.epoch, { isStandby: false, lsn: 950n, timeline: 2 })
    const mark = new Mark(one).end()
    const [earlier, later] = [new Mark(two).end(), new Mark(promoted).end()]
    const before = { ...Seen.nothing, positions: [at(100n), at(900n, 2)], marks: [earlier, later] }
    const after = Seen.superseded(before, before, mark, ours)
    assert.deepStrictEqual([after.positions, after.marks], [[at(900n, 2)], [later, mark]])
    assert.isTrue(Seen.hasPast(after, one.known))
    const ignored = Seen.withoutPast(after, one.known)
    assert.deepStrictEqual([ignored.positions, ignored.marks], [[], [mark]])
    assert.isFalse(Seen.hasPast(ignored, one.known))
  })

  it("is what another system has as before, after something on the primary of this one", () => {
    const mark = new Mark(one).end()
    const isForeign = (system: string | undefined) => system === "other"
    const elsewhere = { system: "other", timeline: 7, lsn: 5n }
    const before = { ...Seen.nothing, positions: [at(100n), elsewhere], marks: [new Mark(two).end()] }
    const after = Seen.superseded(before, before, mark, isForeign)
    assert.deepStrictEqual(after.positions, [elsewhere])
    assert.deepStrictEqual(Seen.without(after, isForeign).positions, [])
    assert.deepStrictEqual(Seen.without(after, isForeign).marks, [mark])
    const own = Seen.without(before, ours)
    assert.strictEqual(own, before)
  })
})

describe("flows that are joined", () => {
  /** Two writes at the same time: the first one was sent, and its position taken, before the second one was. */
  const twoWrites = () => {
    const tracker = tracked()
    const [first, second] = [new Mark(tracker), new Mark(tracker)]
    const questions = [first.send(), second.send()] as const
    second.end()
    first.end()
    return { first, second, questions }
  }

  const joined = (marks: ReadonlyArray<Mark>) =>
    marks.reduce((seen, mark) => Seen.merge(seen, Seen.withMark(Seen.nothing, mark)), Seen.nothing)

  for (const isSecondFirst of [false, true]) {
    it(`lack neither's write, the ${isSecondFirst ? "second" : "first"} being joined first`, () => {
      const { first, questions, second } = twoWrites()
      const marks = isSecondFirst ? [second, first] : [first, second]
      const seen = joined(marks)
      first.heard(questions[0], answer(200n, 1, false))
      second.heard(questions[1], answer(300n, 1, false))
      const { marks: left, positions } = Seen.resolved(seen)
      assert.deepStrictEqual({ left, positions }, { left: [], positions: [at(300n)] })
    })

    it(`nor where one of them is known, the ${isSecondFirst ? "second" : "first"} being joined first`, () => {
      const { first, questions, second } = twoWrites()
      first.heard(questions[0], answer(200n, 1, false))
      const marks = isSecondFirst ? [second, first] : [first, second]
      const seen = joined(marks)
      second.heard(questions[1], answer(300n, 1, false))
      const { marks: left, positions } = Seen.resolved(seen)
      assert.deepStrictEqual({ left, positions }, { left: [], positions: [at(300n)] })
    })
  }

  it("keep one mark of statements one after the other", () => {
    const tracker = tracked()
    let seen = Seen.nothing
    for (let i = 0; i < 5; i++) {
      const mark = new Mark(tracker)
      mark.send()
      seen = Seen.withMark(seen, mark.end())
    }
    assert.strictEqual(seen.marks.length, 1)
  })

  it("keep one mark of reads on one server, in whatever order they are joined", () => {
    const tracker = tracked()
    const marks = Array.from({ length: 5 }, () => {
      tracker.ask()
      return new Mark(tracker).end()
    })
    for (const all of [marks, marks.toReversed()]) assert.deepStrictEqual(joined(all).marks, [marks.at(-1)!])
  })
})
