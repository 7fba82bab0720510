import { assert, describe, it } from "@effect/vitest"
import type { Health } from "effect-db-router"
import * as FastCheck from "fast-check"
import { type Candidate, type Election, elect, isSameServer } from "../../src/internal/health/election.js"

const report = (role: Health.Report["role"], timeline: number | undefined, startedAt: number, system = "1") => ({
  role,
  system,
  timeline,
  position: 1n,
  startedAt
})

/** "a" is the engine of the default group, all others are of the read group. */
const candidate = (
  server: string,
  said: Health.Report | undefined,
  answers = said !== undefined,
  more: Partial<Candidate<string>> = {}
): Candidate<string> => ({ server, report: said, answers, isNamed: server === "a", isConfirmed: true, ...more })

const primary = (server: string, timeline: number, answers = true, more: Partial<Candidate<string>> = {}) =>
  candidate(server, report("primary", timeline, server.charCodeAt(0)), answers, more)
const replica = (server: string, timeline: number | undefined, more: Partial<Candidate<string>> = {}) =>
  candidate(server, report("replica", timeline, server.charCodeAt(0)), true, more)
const once = { isConfirmed: false }
const gone = { isGone: true }
const barred = { mayWrite: false }
const silent = (server: string) => candidate(server, undefined)

const outcome = ({ rivals, writer }: Election<string>) => [writer, rivals.join()]

/** "a" as a server of another system. */
const of = (role: Health.Report["role"], answers: boolean) => candidate("a", report(role, 1, 7, "other"), answers)

const era = (timeline: number) => ({ system: "1", timeline })
const first = { system: "1", timeline: 1 }
const second = { system: "1", timeline: 2 }

describe("the election of the primary", () => {
  const rows: ReadonlyArray<
    readonly [string, ReadonlyArray<Candidate<string>>, Health.Era | undefined, string | undefined, string]
  > = [
    ["as the options have it", [primary("a", 1), replica("b", 1)], first, "a", ""],
    ["one that is down may come back", [primary("a", 1, false), replica("b", 1)], first, "a", ""],
    ["one that is down loses to who was promoted", [primary("a", 1, false), primary("b", 2)], first, "b", ""],
    ["one that lives loses to who was promoted", [primary("a", 1), primary("b", 2)], first, "b", "a"],
    ["one that has become a standby", [replica("a", 1), replica("b", 1)], first, undefined, ""],
    ["one that has become a standby of another", [replica("a", 2), primary("b", 2)], first, "b", ""],
    ["a standby has seen a newer timeline than the primary", [primary("a", 1), replica("b", 2)], first, undefined, "a"],
    ["a standby has said so once", [primary("a", 1), replica("b", 2, once)], first, "a", ""],
    [
      "a standby says an absurd timeline again and again",
      [primary("a", 1), replica("b", 2_147_483_647)],
      first,
      "a",
      ""
    ],
    ["the same at the start", [replica("b", 2_147_483_647), primary("a", 1)], undefined, "a", ""],
    ["who was promoted is silent", [primary("a", 1), primary("b", 2, false)], second, undefined, "a"],
    ["who was promoted is gone", [primary("a", 1), primary("b", 2, false, gone)], second, "a", ""],
    ["both are gone", [primary("a", 2, false, gone), replica("b", 1)], second, "a", ""],
    [
      "who was promoted is gone, and others follow it",
      [primary("a", 1), replica("b", 2), primary("c", 2, false, gone)],
      second,
      undefined,
      "a"
    ],
    ["who was promoted is a standby of the other again", [primary("a", 1), replica("b", 1)], second, "a", ""],
    ["who was promoted is another server now", [primary("a", 1), silent("b")], second, "a", ""],
    ["one that may not write is promoted", [primary("a", 1), primary("b", 2, true, barred)], first, "a", "b"],
    ["one that may not write is all there is", [silent("a"), primary("b", 2, true, barred)], first, "a", "b"],
    ["one that is down and was left behind", [primary("a", 1, false), replica("b", 2)], first, undefined, ""],
    ["two on one timeline: the one that has it stays", [primary("a", 2), primary("b", 2)], first, "a", "b"],
    ["two, and neither had it: the first", [silent("a"), primary("b", 2), primary("c", 2)], undefined, "b", "c"],
    ["of two on one timeline the one that has it dies", [primary("a", 2, false), primary("b", 2)], first, "b", ""],
    ["no server has reported", [silent("a"), silent("b")], undefined, "a", ""],
    ["at the start: it is down, another one was promoted", [silent("a"), primary("b", 2)], undefined, "b", ""],
    ["at the start: one that others follow", [silent("a"), primary("b", 1), replica("c", 1)], undefined, "b", ""],
    ["at the start: a stranger among the replicas", [silent("a"), primary("b", 1)], undefined, "a", ""],
    ["a replica that does not say its timeline", [primary("a", 2), replica("b", undefined)], first, "a", ""],
    ["the holder answers, and may not write", [primary("a", 1, true, barred)], first, undefined, "a"],
    ["a server answers, and has reported nothing", [primary("a", 1), candidate("b", undefined, true)], first, "a", ""],
    [
      "the holder answers, and has reported nothing",
      [candidate("a", undefined, true), primary("b", 1)],
      first,
      "b",
      ""
    ],
    ["the holder is a standby of another system", [of("replica", true), primary("b", 1)], first, "b", ""],
    ["the holder is silent, and of another system", [of("primary", false), primary("b", 1)], first, "b", ""],
    [
      "a standby has named once a timeline known before",
      [primary("a", 1), replica("b", 2, once)],
      second,
      undefined,
      "a"
    ],
    ["a thousand promotions between two looks", [primary("a", 1), replica("b", 1_001)], first, undefined, "a"],
    ["more than a thousand promotions", [primary("a", 1), replica("b", 1_002)], first, "a", ""],
    ["a promotion of a cluster that was promoted often", [primary("a", 600), primary("b", 601)], era(600), "b", "a"],
    ["at the start: a high timeline, and an old standby", [primary("a", 2_000), replica("b", 1)], undefined, "a", ""],
    [
      "at the start: a high timeline, and an old primary that is silent",
      [primary("a", 2_000), primary("b", 1, false)],
      undefined,
      "a",
      ""
    ],
    [
      "at the start: a high timeline, and an old primary that may not write",
      [primary("a", 2_000), primary("b", 1, true, barred)],
      undefined,
      "a",
      "b"
    ],
    ["at the start: a high timeline, and an old primary", [primary("a", 2_000), primary("b", 1)], undefined, "b", "a"]
  ]
  for (const [name, candidates, known, writer, rivals] of rows) {
    it(name, () => assert.deepStrictEqual(outcome(elect(candidates, "a", known)), [writer, rivals]))
  }

  it("a server of another system does not count, whatever its timeline", () => {
    const stranger = candidate("b", report("primary", 9, 2, "other"))
    assert.deepStrictEqual(outcome(elect([primary("a", 1), stranger], "a", first)), ["a", ""])
    assert.deepStrictEqual(outcome(elect([primary("a", 1, false), stranger], "a", first)), ["a", ""])
    const another = candidate("c", report("replica", 1, 3))
    assert.deepStrictEqual(outcome(elect([silent("a"), stranger, another], "a", undefined)), ["a", ""])
  })

  it("a name that leads to another system than before is followed", () => {
    const successor = candidate("a", report("primary", 1, 7, "upgraded"))
    const { era, writer } = elect([successor, replica("b", 3)], "a", { system: "1", timeline: 3 })
    assert.deepStrictEqual([writer, era], ["a", { system: "upgraded", timeline: 1 }])
  })

  it("a server under two names is no rival of itself", () => {
    const twin = candidate("b", report("primary", 1, "a".charCodeAt(0)))
    assert.deepStrictEqual(outcome(elect([primary("a", 1), twin], "a", first)), ["a", ""])
  })

  it("keeps the holder wherever it stands among the candidates", () => {
    assert.deepStrictEqual(outcome(elect([primary("a", 2), primary("b", 2)], "b", second)), ["b", "a"])
    assert.deepStrictEqual(outcome(elect([replica("a", 1), primary("b", 1, false)], "b", first)), ["b", ""])
  })

  it("elects another server in place of one that is no candidate any more, or none", () => {
    assert.deepStrictEqual(outcome(elect([primary("b", 2)], "a", undefined)), ["b", ""])
    assert.deepStrictEqual(outcome(elect([replica("b", 1)], "a", first)), [undefined, ""])
  })

  it("lets a silent holder return that has not said its timeline, while none is known", () => {
    assert.deepStrictEqual(elect([candidate("a", report("primary", undefined, 1), false)], "a", undefined), {
      writer: "a",
      rivals: [],
      era: undefined
    })
  })

  it("knows no timeline of a system whose servers have not said theirs", () => {
    const successor = candidate("a", report("primary", undefined, 7, "upgraded"))
    assert.deepStrictEqual(elect([successor], "a", second), { writer: "a", rivals: [], era: undefined })
  })

  it("goes back to an older timeline when no server is on the newest, even if it was named once", () => {
    assert.deepStrictEqual(elect([silent("a"), replica("b", 1, once)], "a", second).era, first)
    assert.isUndefined(elect([silent("a"), replica("b", 3, once)], "a", undefined).era)
  })

  it("takes two reports for one server where system, start and role agree", () => {
    const one = report("primary", 1, 7)
    assert.isTrue(isSameServer(one, { ...one, timeline: 2 }))
    assert.isFalse(isSameServer(one, { ...one, role: "replica" }))
    assert.isFalse(isSameServer(one, { ...one, startedAt: 8 }))
    assert.isFalse(isSameServer(one, { ...one, system: "2" }))
  })

  const any = FastCheck.record({
    role: FastCheck.constantFrom("primary" as const, "replica" as const),
    timeline: FastCheck.integer({ min: 1, max: 3 }),
    answers: FastCheck.boolean(),
    isSilent: FastCheck.boolean()
  })

  it("never elects one that is known to be left behind, a standby, or a silent one that is not the holder", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(any, { minLength: 1, maxLength: 4 }),
        FastCheck.integer({ min: 1, max: 3 }),
        (all, seen) => {
          const candidates = all.map(({ answers, isSilent, role, timeline }, i): Candidate<string> => {
            const server = "abcd"[i]!
            return isSilent ? silent(server) : candidate(server, report(role, timeline, i), answers)
          })
          const { era, rivals, writer } = elect(candidates, "a", { system: "1", timeline: seen })
          const said = candidates.flatMap((one) => one.report?.timeline ?? [])
          const newest = said.length === 0 ? seen : Math.max(...said)
          assert.strictEqual(era?.timeline, newest)
          const elected = candidates.find(({ server }) => server === writer)
          if (elected?.report !== undefined) {
            assert.deepStrictEqual([elected.report.role, elected.report.timeline], ["primary", newest])
          }
          if (writer !== undefined && writer !== "a") assert.isTrue(elected?.answers)
          assert.notInclude(rivals, writer)
        }
      ),
      { numRuns: 2_000 }
    )
  })
})
