import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import type { Engine, EngineGroup } from "effect-db-router"
import { vi } from "vitest"
import { Approach } from "../../src/internal/consistency/approach.js"
import { Inquiries } from "../../src/internal/consistency/inquiries.js"
import { Learner } from "../../src/internal/consistency/learner.js"
import type { Callback, Result } from "../../src/internal/driver/pool.js"
import { Mark, Tracker } from "../../src/internal/wal/lsnTracker.js"

beforeEach(() => {
  vi.useFakeTimers()
})

afterEach(() => {
  vi.useRealTimers()
})

const report = (role: "primary" | "replica", position: bigint, timeline = 1) =>
  ({ role, system: "7001", timeline, position, startedAt: 1 }) as const

/** A replica that answers when it is told to. */
class Replica {
  readonly positions = new Tracker(() => Date.now())
  readonly waiting: Array<Callback> = []
  isEligible = true
  idle = 1
  inFlight = 0
  asked = 0

  constructor(readonly name: string) {
    this.positions.report(this.positions.ask(), 0, report("replica", 100n))
  }

  get poolStatus() {
    return { total: 1, idle: this.idle, waiting: 0, max: 10 }
  }

  begin(_request: unknown, callback: Callback) {
    this.asked++
    this.waiting.push(callback)
  }

  answer(lsn: bigint, timeline = 1) {
    const text = `0/${lsn.toString(16)}`
    for (const callback of this.waiting.splice(0)) {
      callback(undefined, { rows: [[text, String(timeline)]] } as unknown as Result)
    }
  }
}

const setUp = () => {
  const replicas = [new Replica("one"), new Replica("two")] as const
  const primary = new Tracker(() => Date.now())
  primary.report(primary.ask(), 0, report("primary", 100n))
  const group = {
    engines: replicas as unknown as ReadonlyArray<Engine.Engine>,
    isEligible: (engine: unknown) => (engine as Replica).isEligible
  } as EngineGroup.EngineGroup
  const inquiries = new Inquiries()
  const learner = new Learner(inquiries, group)
  /** A write up to there, whose position is known at once. */
  const write = (lsn: bigint, timeline = 1) => {
    const mark = new Mark(primary)
    const question = mark.send()
    mark.heard(question, { isStandby: false, lsn, timeline })
    learner.follow(mark.end())
  }
  const asked = () => replicas.map((replica) => replica.asked)
  vi.advanceTimersByTime(10)
  return { replicas, primary, group, inquiries, learner, write, asked }
}

describe("replicas after a write", () => {
  it("are asked once its position is known, again when they answer, and no more once they have it", () => {
    const { asked, learner, primary, replicas } = setUp()
    const mark = new Mark(primary)
    const question = mark.send()
    learner.follow(mark.end())
    vi.advanceTimersByTime(100)
    assert.deepStrictEqual(asked(), [0, 0])
    mark.heard(question, { isStandby: false, lsn: 200n, timeline: 1 })
    assert.deepStrictEqual(asked(), [1, 1])
    replicas[0].answer(200n)
    replicas[1].answer(150n)
    assert.deepStrictEqual(asked(), [1, 2])
    replicas[1].answer(201n)
    vi.advanceTimersByTime(1_000)
    assert.deepStrictEqual(asked(), [1, 2])
    assert.strictEqual(vi.getTimerCount(), 0)
  })

  it("are asked at once as long as they have nothing else to do", () => {
    const { asked, replicas, write } = setUp()
    replicas[1].inFlight = 1
    write(200n)
    assert.deepStrictEqual(asked(), [1, 0])
    replicas[0].answer(150n)
    assert.deepStrictEqual(asked(), [2, 0])
    replicas[0].inFlight = 1
    replicas[0].answer(150n)
    assert.deepStrictEqual(asked(), [2, 0])
    vi.advanceTimersByTime(1)
    assert.deepStrictEqual(asked(), [3, 1])
  })

  it("are asked a few times, at once and with growing pauses", () => {
    const { asked, replicas, write } = setUp()
    replicas[1].isEligible = false
    write(200n)
    for (const times of [1, 2, 3, 4]) {
      assert.deepStrictEqual([...asked(), vi.getTimerCount()], [times, 0, 0])
      replicas[0].answer(150n)
    }
    assert.deepStrictEqual([...asked(), vi.getTimerCount()], [4, 0, 1])
    const times: Array<number> = []
    for (let millis = 1; millis <= 200; millis++) {
      const before = replicas[0].asked
      vi.advanceTimersByTime(1)
      if (replicas[0].asked > before) times.push(millis)
      replicas[0].answer(150n)
    }
    assert.deepStrictEqual(times, [1, 3, 7, 15, 31, 63])
    assert.deepStrictEqual(asked(), [10, 0])
    assert.strictEqual(vi.getTimerCount(), 0)
  })

  it("are asked one question at a time, however many writes there are, and for the last of them", () => {
    const { asked, learner, replicas, write } = setUp()
    for (let i = 0n; i < 50n; i++) {
      learner.isNeeded()
      write(200n + i)
      vi.advanceTimersByTime(1)
    }
    assert.deepStrictEqual(asked(), [1, 1])
    for (const replica of replicas) replica.answer(248n)
    vi.advanceTimersByTime(32)
    assert.deepStrictEqual(asked(), [2, 2])
    for (const replica of replicas) replica.answer(249n)
    vi.advanceTimersByTime(1_000)
    assert.deepStrictEqual(asked(), [2, 2])
  })

  const reasons: ReadonlyArray<readonly [why: string, change: (replica: Replica) => void]> = [
    ["nothing of theirs is idle", (replica) => (replica.idle = 0)],
    ["they are not eligible", (replica) => (replica.isEligible = false)],
    ["they do not tell positions", (replica) => (replica.positions.refused = "no")],
    ["they were waited for in vain", (replica) => replica.positions.giveUp(10_000, [])],
    [
      "they are on another timeline",
      (replica) => replica.positions.hear(replica.positions.ask(), 0, { isStandby: true, lsn: 1n, timeline: 2 })
    ],
    [
      "reads tell it anyway",
      (replica) => {
        replica.inFlight = 1
        setInterval(() => replica.positions.ask(), 1)
      }
    ]
  ]
  for (const [why, change] of reasons) {
    it(`are not asked where ${why}`, () => {
      const { asked, replicas, write } = setUp()
      change(replicas[0])
      write(200n)
      vi.advanceTimersByTime(100)
      assert.strictEqual(asked()[0], 0)
      assert.isAbove(asked()[1]!, 0)
    })
  }

  it("are not polled when nothing was written, or the position of the write is unknown", () => {
    const { asked, learner, primary } = setUp()
    learner.isNeeded()
    learner.follow(new Mark(primary).end())
    vi.advanceTimersByTime(100)
    assert.deepStrictEqual(asked(), [0, 0])
    assert.strictEqual(vi.getTimerCount(), 0)
  })

  it("are not polled after some writes without a read that needs one, until such a read comes", () => {
    const { asked, learner, replicas, write } = setUp()
    const next = (lsn: bigint) => {
      write(lsn)
      vi.advanceTimersByTime(5)
      for (const replica of replicas) replica.answer(lsn)
    }
    for (let i = 0n; i < 40n; i++) next(200n + i)
    assert.deepStrictEqual(asked(), [16, 16])
    learner.isNeeded()
    next(300n)
    assert.deepStrictEqual(asked(), [17, 17])
  })

  it("are not asked after the end of the router, which leaves no timer", () => {
    const { asked, learner, replicas, write } = setUp()
    replicas[1].inFlight = 1
    write(200n)
    vi.advanceTimersByTime(1)
    assert.deepStrictEqual(asked(), [1, 1])
    assert.strictEqual(vi.getTimerCount(), 1)
    learner.close()
    assert.strictEqual(vi.getTimerCount(), 0)
    for (const replica of replicas) replica.answer(150n)
    write(300n)
    vi.advanceTimersByTime(100)
    assert.deepStrictEqual(asked(), [1, 1])
    assert.strictEqual(vi.getTimerCount(), 0)
  })
})

describe("a read that waits for a replica", () => {
  it("asks again at once at first, then with pauses, until there is nothing to ask", () => {
    const { inquiries, replicas } = setUp()
    const [replica] = replicas
    const ends: Array<boolean> = []
    const engines = [replica] as unknown as ReadonlyArray<Engine.Engine>
    const isThere = () => replica.positions.known!.lsn >= 200n
    const approach = new Approach(
      inquiries,
      () => (isThere() ? undefined : { marks: [], engines }),
      (isLate) => ends.push(isLate),
      50
    )
    approach.go()
    for (const asked of [1, 2, 3, 4, 5]) {
      assert.strictEqual(replica.asked, asked)
      replica.answer(150n)
    }
    assert.strictEqual(replica.asked, 5)
    vi.advanceTimersByTime(1)
    assert.strictEqual(replica.asked, 6)
    replica.answer(200n)
    vi.advanceTimersByTime(2)
    assert.deepStrictEqual([ends, replica.asked], [[false], 6])
    assert.strictEqual(vi.getTimerCount(), 0)
  })

  it("waits no longer than it may, and shares a question with others", () => {
    const { inquiries, replicas } = setUp()
    const [replica] = replicas
    const ends: Array<string> = []
    const step = { marks: [], engines: [replica] as unknown as ReadonlyArray<Engine.Engine> }
    const make = (name: string, millis: number) => {
      let left = 1
      const next = () => (left-- > 0 ? step : undefined)
      const approach = new Approach(
        inquiries,
        next,
        (isLate) => ends.push(`${name} ${isLate ? "late" : "done"}`),
        millis
      )
      approach.go()
      return approach
    }
    make("short", 10)
    make("long", 1_000)
    make("stopped", 1_000).stop()
    make("endless", Number.POSITIVE_INFINITY)
    assert.deepStrictEqual([replica.asked, inquiries.sent], [1, { read: 1, write: 0 }])
    vi.advanceTimersByTime(10)
    replica.answer(200n)
    vi.advanceTimersByTime(1)
    assert.deepStrictEqual(ends, ["short late", "long done", "endless done"])
    assert.strictEqual(vi.getTimerCount(), 0)
  })
})
