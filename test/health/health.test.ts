import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { Health } from "effect-db-router"

const limits: Health.Limits = { maxLag: Duration.seconds(10), maxLagBytes: 1_000n, failures: 2 }

const primary: Health.Report = { role: "primary", system: "1", timeline: 1, position: 5_000n, startedAt: 0 }
const era = { system: "1", timeline: 1 }
const known = (lag?: Health.Lag, of: Health.Era = era) => ({ era: of, lag, isRival: false })
const replica: Health.Report = { ...primary, role: "replica" }

const up = Health.answered(Health.starting(0), replica, known({ millis: 0, bytes: 0n }), limits, 1)

describe("the state of a server", () => {
  it("is starting, and then what the first probe says", () => {
    assert.strictEqual(Health.starting(0).state, "starting")
    assert.strictEqual(up.state, "up")
    assert.isUndefined(up.reason)
    assert.strictEqual(Health.unanswered(Health.starting(0), "refused", limits, 1).state, "down")
  })

  it("is down after as many failed probes as the option says, and suspect before", () => {
    const once = Health.unanswered(up, "refused", limits, 2)
    assert.deepStrictEqual([once.state, once.since, once.failures, once.reason], ["suspect", 2, 1, "refused"])
    const twice = Health.unanswered(once, "refused", limits, 3)
    assert.deepStrictEqual([twice.state, twice.since, twice.failures], ["down", 3, 2])
    const thrice = Health.unanswered(twice, "refused", limits, 4)
    assert.deepStrictEqual([thrice.state, thrice.since, thrice.failures], ["down", 3, 3])
    const back = Health.answered(thrice, replica, known(), limits, 5)
    assert.deepStrictEqual([back.state, back.since, back.failures, back.reason], ["up", 5, 0, undefined])
  })

  it("is suspect once a statement has failed, whatever succeeds afterwards, until a probe has", () => {
    const suspect = Health.suspected(up, "57P01", 2)
    assert.deepStrictEqual([suspect.state, suspect.reason], ["suspect", "57P01"])
    assert.isFalse(Health.isUsable(suspect))
    assert.strictEqual(Health.suspected(suspect, "57P01", 3), suspect)
    const down = Health.unanswered(Health.unanswered(up, "x", limits, 2), "x", limits, 3)
    assert.strictEqual(Health.suspected(down, "57P01", 4), down)
    // One failed probe is enough to doubt, and two are needed for down.
    assert.strictEqual(Health.unanswered(suspect, "x", limits, 4).state, "suspect")
  })

  it("is lagging beyond a limit of time or of bytes, and not at it", () => {
    const state = (millis: number, bytes: bigint) =>
      Health.answered(up, replica, known({ millis, bytes }), limits, 2).state
    assert.deepStrictEqual([state(10_000, 1_000n), state(10_001, 0n), state(0, 1_001n)], ["up", "lagging", "lagging"])
  })

  it("is foreign with another system or timeline, and then it says which", () => {
    const judged = (report: Health.Report, of = era) => Health.answered(up, report, known(undefined, of), limits, 2)
    const other = judged({ ...replica, system: "2" })
    assert.strictEqual(other.state, "foreign")
    assert.include(other.reason, "system identifier is 2")
    assert.include(judged({ ...replica, timeline: 1 }, { ...era, timeline: 2 }).reason, "timeline 1")
    // A replica that was promoted takes writes of its own.
    assert.strictEqual(judged({ ...primary, timeline: 2 }).state, "foreign")
    // Of two that claim to be the primary, one does not take the writes, and has none of those of the other.
    const rival = Health.answered(up, primary, { ...known(), isRival: true }, limits, 2)
    assert.deepStrictEqual([rival.state, rival.reason?.includes("claims")], ["foreign", true])
    assert.isTrue(Health.answers(other))
    assert.isFalse(Health.isUsable(other))
  })

  it("is foreign when it is connected to another database than it has to be", () => {
    const state = (database: string | undefined, expected: string | undefined) =>
      Health.answered(up, { ...replica, database }, { ...known(), database: expected }, limits, 2).state
    assert.deepStrictEqual(
      [state("a", "a"), state("a", "b"), state(undefined, "b"), state("a", undefined)],
      ["up", "foreign", "up", "up"]
    )
  })

  it("of a server that does not say its timeline: up while there is only one", () => {
    const silent = { ...replica, timeline: undefined }
    assert.isTrue(Health.follows(silent, era))
    assert.isFalse(Health.follows(silent, { ...era, timeline: 2 }))
  })

  it("of the writer: foreign when it turns out to be a standby", () => {
    assert.strictEqual(Health.demoted(up, replica, 2).state, "foreign")
  })

  it("is shown as draining or unchecked where that is so", () => {
    assert.deepStrictEqual(
      [Health.shown(up, false), Health.shown(up, true), Health.shown(undefined, false)],
      ["up", "draining", "unchecked"]
    )
  })
})

describe("the lag of a replica", () => {
  const at = (position: bigint) => ({ ...primary, position })
  const history = [
    [1_000n, 0],
    [2_000n, 1_000],
    [3_000n, 2_000]
  ] as const
  const seen = history.reduce<Health.History | undefined>(
    (before, [position, now]) => Health.record(before, at(position), now),
    undefined
  )!

  it("is the time since the primary was last seen where it is", () => {
    assert.deepStrictEqual(Health.lagOf(seen, 3_000n, 9_000), { millis: 0, bytes: 0n })
    assert.deepStrictEqual(Health.lagOf(seen, 2_500n, 9_000), { millis: 8_000, bytes: 500n })
    assert.deepStrictEqual(Health.lagOf(seen, 500n, 9_000), { millis: 9_000, bytes: 2_500n })
  })

  it("of an idle primary is none, however long it has been idle", () => {
    const idle = [10_000, 100_000].reduce((before, now) => Health.record(before, at(3_000n), now), seen)
    assert.strictEqual(Health.lagOf(idle, 3_000n, 1_000_000).millis, 0)
    // Of what is written after that, at most since then.
    const written = Health.record(idle, at(4_000n), 101_000)
    assert.strictEqual(Health.lagOf(written, 3_000n, 101_500).millis, 1_500)
  })

  it("does not count the header that an insert position may sit behind", () => {
    const segment = Health.record(undefined, at(16_777_216n * 2n + 40n), 0)
    assert.deepStrictEqual(Health.lagOf(segment, 16_777_216n * 2n, 9_000), { millis: 0, bytes: 0n })
    const page = Health.record(undefined, at(8_192n * 5n + 24n), 0)
    assert.deepStrictEqual(Health.lagOf(page, 8_192n * 5n, 9_000), { millis: 0, bytes: 0n })
  })

  it("begins anew with another system or timeline", () => {
    const promoted = Health.record(seen, { ...at(10n), timeline: 2 }, 5_000)
    assert.deepStrictEqual(promoted.seen, [{ position: 10n, at: 5_000, until: 5_000 }])
    assert.strictEqual(Health.record(seen, { ...at(10n), system: "2" }, 5_000).seen.length, 1)
  })

  it("does not count what the primary has lost in a crash", () => {
    const restarted = Health.record(seen, { ...at(2_500n), startedAt: primary.startedAt + 1 }, 3_000)
    assert.deepStrictEqual(Health.lagOf(restarted, 2_500n, 60_000), { millis: 0, bytes: 0n })
    assert.deepStrictEqual(Health.lagOf(restarted, 2_000n, 4_000), { millis: 3_000, bytes: 500n })
    const same = Health.record(seen, { ...at(2_000n), startedAt: primary.startedAt + 1 }, 3_000)
    assert.deepStrictEqual(Health.lagOf(same, 1_500n, 4_000), { millis: 4_000, bytes: 500n })
  })

  it("counts what an answer does not know that comes late, and for five seconds what a primary has lost that says nothing of a restart", () => {
    const late = [2_500, 6_999].reduce((before, now) => Health.record(before, at(2_500n), now), seen)
    assert.strictEqual(Health.lagOf(late, 2_500n, 6_999).bytes, 500n)
    assert.strictEqual(Health.lagOf(Health.record(late, at(3_000n), 7_000), 2_500n, 7_500).bytes, 500n)
    const lost = Health.record(late, at(2_500n), 7_000)
    assert.deepStrictEqual(Health.lagOf(lost, 2_500n, 60_000), { millis: 0, bytes: 0n })
  })

  it("stays bounded in memory, and is never shown as less than it is", () => {
    let long: Health.History | undefined
    for (let i = 1; i <= 10_000; i++) long = Health.record(long, at(BigInt(i)), i)
    assert.isAtMost(long!.seen.length, 256)
    for (const replayed of [0, 1, 4_999, 9_000, 9_990]) {
      assert.isAtLeast(Health.lagOf(long!, BigInt(replayed), 20_000).millis, 20_000 - (replayed + 1))
    }
    assert.strictEqual(Health.lagOf(long!, 10_000n, 20_000).millis, 0)
  })
})
