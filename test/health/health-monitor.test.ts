import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Logger, TestClock } from "effect"
import { type Engine, type Health, RouterConfig, Selector } from "effect-db-router"
import { Monitor } from "../../src/internal/health/monitor.js"
import { Servers } from "../../src/internal/health/serverSet.js"
import { Tracker } from "../../src/internal/wal/lsnTracker.js"

const config = Effect.runSync(
  RouterConfig.resolve({ groups: { default: [{}] }, health: { interval: "10 seconds", timeout: "3 seconds" } })
).health!

const report: Health.Report = { role: "replica", system: "1", timeline: 1, position: 1n, startedAt: 0 }

const refused = new SqlError.SqlError({
  cause: Object.assign(new Error("refused"), { code: "ECONNREFUSED", syscall: "connect" }),
  message: "Failed to acquire connection"
})

/** A server that answers what it is told to, and counts. */
class Server {
  probes = 0
  fresh = 0
  lost = 0
  dropped = 0
  provenTimes = 0
  /** Statements that were answered. */
  answered = 0
  silent = false
  warmedFor: number | undefined
  readonly positions: Tracker
  answer: Effect.Effect<Health.Report, SqlError.SqlError>
  health: Health.Health | undefined
  isDrained = false
  private listener: (error: SqlError.SqlError) => void = () => {}

  constructor(
    readonly name: string,
    role: Health.Report["role"],
    private readonly now = () => 0
  ) {
    this.answer = Effect.succeed({ ...report, role })
    this.positions = new Tracker(now)
  }

  /** A statement is answered there, and so is the question behind it. */
  tell(answer: { readonly isStandby: boolean; readonly lsn: bigint; readonly timeline: number | undefined }): void {
    this.answered++
    this.positions.hear(this.positions.ask(), this.positions.epoch, answer)
  }

  /** A statement fails there. */
  fail(error: SqlError.SqlError): void {
    this.listener(error)
  }

  get engine(): Engine.Engine {
    const self = this as unknown as { -readonly [K in keyof Engine.Engine]: Engine.Engine[K] }
    self.client = {} as Engine.Engine["client"]
    self.setHealth = (health) => {
      this.health = health
    }
    self.onError = (listener) => {
      this.listener = listener
    }
    self.lose = () => {
      this.lost++
    }
    self.restoreIsolation = () => {}
    self.positions = this.positions
    self.unsettle = () => {}
    self.warmUp = (millis) => {
      this.warmedFor = millis
    }
    self.isSilent = () => this.silent
    self.proven = () => {
      this.provenTimes++
    }
    self.trial = () => Effect.void
    self.drop = () =>
      Effect.sync(() => {
        this.dropped++
      })
    self.probe = (_, fresh) =>
      Effect.suspend(() => {
        this.probes++
        if (fresh) this.fresh++
        const question = this.positions.ask()
        return Effect.tap(this.answer, (report) => void this.positions.report(question, this.now(), report))
      })
    return self
  }
}

const start = (engines: ReadonlyArray<Server>, startTimeout: Duration.DurationInput = 0) => {
  const [first, ...rest] = engines.map((server) => server.engine)
  const servers = new Servers({
    engines: [first!, ...rest],
    defaultGroup: "default",
    readGroup: "read",
    strategy: Selector.roundRobin,
    random: () => 0
  })
  return Monitor.make({
    config,
    servers,
    others: [],
    named: new Set([first!]),
    needsReplica: false,
    startTimeout: Duration.decode(startTimeout),
    telemetry: undefined
  })
}

const watched = Effect.gen(function* () {
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const primary = new Server("primary", "primary", now)
  const replica = new Server("replica", "replica", now)
  const monitor = yield* start([primary, replica]).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  yield* Effect.yieldNow()
  return { monitor, primary, replica }
})

/** Time passes, in steps that no wait is shorter than. */
const pass = (seconds: number) => Effect.replicateEffect(TestClock.adjust("250 millis"), seconds * 4)

describe("the monitor", () => {
  it.scoped("probes once before anything else, then every interval, a fifth more or less", () =>
    Effect.gen(function* () {
      const { primary, replica } = yield* watched
      assert.deepStrictEqual([primary.probes, replica.probes], [1, 1])
      yield* pass(7)
      assert.deepStrictEqual([primary.probes, replica.probes], [1, 1])
      yield* pass(100)
      for (const { probes } of [primary, replica]) {
        assert.isAtLeast(probes, 1 + 107 / 12.3)
        assert.isAtMost(probes, 2 + 107 / 8)
      }
    })
  )

  describe("where statements tell what a probe would find", () => {
    const standby = { isStandby: true, lsn: 5n, timeline: 1 }
    const traffic = (
      replica: Server,
      seconds: number,
      each: () => void = () => replica.tell(standby)
    ): Effect.Effect<unknown> =>
      Effect.forEach(Array.from({ length: seconds }), () => Effect.zipRight(Effect.sync(each), pass(1)))

    it.scoped("leaves probes out, and knows the position all the same", () =>
      Effect.gen(function* () {
        const { primary, replica } = yield* watched
        yield* traffic(replica, 40)
        assert.strictEqual(replica.probes, 1)
        assert.isAtLeast(replica.provenTimes, 2)
        assert.strictEqual(replica.health?.report?.position, 5n)
        assert.isAtLeast(primary.probes, 3)
        // Without statements it is probed as ever.
        yield* pass(25)
        assert.isAtLeast(replica.probes, 2)
      })
    )

    it.scoped("probes all the same for one of many statements", () =>
      Effect.gen(function* () {
        const { replica } = yield* watched
        const all = 20 * 60
        yield* traffic(replica, 60, () => {
          for (let i = 0; i < 20; i++) replica.tell(standby)
        })
        assert.isAtLeast(replica.probes, 3)
        assert.isAtMost(replica.probes, 1 + all / 256)
      })
    )

    const differently = {
      "says that it is the primary": { ...standby, isStandby: false },
      "is on another timeline": { ...standby, timeline: 2 }
    }
    for (const [what, answer] of Object.entries(differently)) {
      it.scoped(`probes one that ${what}`, () =>
        Effect.gen(function* () {
          const { replica } = yield* watched
          yield* traffic(replica, 20, () => replica.tell(answer))
          assert.isAtLeast(replica.probes, 2)
        })
      )
    }

    it.scoped("probes one on which nothing ends any more", () =>
      Effect.gen(function* () {
        const { replica } = yield* watched
        replica.silent = true
        yield* traffic(replica, 20)
        assert.isAtLeast(replica.probes, 2)
      })
    )

    it.scoped("probes one that tells its position without any statement, as it does to who listens", () =>
      Effect.gen(function* () {
        const { replica } = yield* watched
        yield* traffic(replica, 26, () => {
          replica.tell(standby)
          replica.answered = 0
        })
        assert.isAtLeast(replica.probes, 3)
      })
    )
  })

  it.scoped("probes at once after a statement has failed, on a new connection, and hides nothing meanwhile", () =>
    Effect.gen(function* () {
      const { replica } = yield* watched
      assert.strictEqual(replica.health?.state, "up")
      const before = replica.probes
      replica.fail(refused)
      assert.strictEqual(replica.health?.state, "suspect")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(replica.probes, before + 1)
      assert.strictEqual(replica.fresh, 2)
      assert.strictEqual(replica.health?.state, "up")
    })
  )

  it.scoped("does not probe without end a server that answers probes and fails statements", () =>
    Effect.gen(function* () {
      const { replica } = yield* watched
      for (let i = 0; i < 400; i++) {
        replica.fail(refused)
        yield* TestClock.adjust("100 millis")
      }
      // 40 seconds: a probe every quarter of an interval at most, give or take a fifth.
      assert.isAtMost(replica.probes, 2 + 40 / 2)
    })
  )

  it.scoped("a failed probe is repeated soon; then the server is down, and loses what may run elsewhere", () =>
    Effect.gen(function* () {
      const { replica } = yield* watched
      replica.answer = Effect.fail(refused)
      yield* pass(8)
      while (replica.health?.state === "up") yield* pass(1)
      assert.strictEqual(replica.health?.state, "suspect")
      assert.strictEqual(replica.lost, 0)
      yield* pass(4)
      assert.deepStrictEqual([replica.health?.state, replica.lost], ["down", 1])
      assert.include(replica.health?.reason, "refused")
      replica.answer = Effect.succeed(report)
      yield* pass(13)
      assert.strictEqual(replica.health?.state, "up")
      assert.strictEqual(replica.warmedFor, 10_000)
    })
  )

  it.scoped("after one failure a replica is used as before, unless it has started anew", () =>
    Effect.gen(function* () {
      const { replica } = yield* watched
      replica.fail(refused)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(replica.health?.state, "up")
      assert.isUndefined(replica.warmedFor)
      replica.answer = Effect.succeed({ ...report, startedAt: 1 })
      replica.fail(refused)
      yield* pass(5)
      assert.strictEqual(replica.health?.state, "up")
      assert.strictEqual(replica.warmedFor, 10_000)
    })
  )

  it.scoped("runs one probe at a time, however many statements fail and callers ask for one", () =>
    Effect.gen(function* () {
      const { monitor, replica } = yield* watched
      let running = 0
      let most = 0
      replica.answer = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++running)
        }),
        () => Effect.as(Effect.sleep("1 second"), report),
        () =>
          Effect.sync(() => {
            running--
          })
      )
      for (let i = 0; i < 5; i++) {
        yield* Effect.forkScoped(monitor.check(replica.engine))
        yield* TestClock.adjust("600 millis")
      }
      replica.fail(refused)
      yield* pass(20)
      assert.strictEqual(most, 1)
      assert.isAbove(replica.probes, 5)
    })
  )

  it.scoped("of all that ask meanwhile the next probe is the answer, and no earlier one", () =>
    Effect.gen(function* () {
      const { monitor, replica } = yield* watched
      const before = replica.probes
      let answered = 0
      const asking = Effect.forkScoped(
        Effect.map(monitor.check(replica.engine), () => {
          answered++
        })
      )
      replica.answer = Effect.as(Effect.sleep("3 seconds"), report)
      yield* asking
      yield* TestClock.adjust("1 second")
      yield* Effect.replicateEffect(asking, 20)
      yield* TestClock.adjust("2100 millis")
      assert.deepStrictEqual([answered, replica.probes - before], [1, 2])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual([answered, replica.probes - before], [21, 2])
    })
  )

  it.scoped("a failure during a probe is not hidden by its success", () =>
    Effect.gen(function* () {
      const { monitor, replica } = yield* watched
      replica.answer = Effect.as(Effect.sleep("1 second"), report)
      yield* Effect.forkScoped(monitor.check(replica.engine))
      yield* TestClock.adjust("500 millis")
      replica.answer = Effect.fail(refused)
      replica.fail(refused)
      yield* TestClock.adjust("500 millis")
      assert.notStrictEqual(replica.health?.state, "up")
    })
  )

  it.scoped("the replicas are judged anew as soon as the primary is on another timeline", () =>
    Effect.gen(function* () {
      const { monitor, primary, replica } = yield* watched
      primary.answer = Effect.succeed({ ...report, role: "primary", timeline: 2 })
      yield* monitor.check(primary.engine)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(replica.health?.state, "foreign")
    })
  )

  it.scoped("while the primary does not answer, replicas do not fall further behind it", () =>
    Effect.gen(function* () {
      const { monitor, primary, replica } = yield* watched
      primary.answer = Effect.succeed({ ...report, role: "primary", position: 1_000n })
      yield* monitor.check(primary.engine)
      yield* monitor.check(replica.engine)
      assert.strictEqual(replica.health?.state, "up")
      // It dies with WAL that no replica has or ever will have.
      primary.answer = Effect.fail(refused)
      yield* pass(60)
      yield* monitor.check(replica.engine)
      assert.deepStrictEqual([primary.health?.state, replica.health?.state], ["down", "up"])
      primary.answer = Effect.succeed({ ...report, role: "primary", position: 1_000n })
      yield* monitor.check(primary.engine)
      yield* monitor.check(replica.engine)
      assert.strictEqual(replica.health?.state, "lagging")
    })
  )

  it.scoped("of two primaries on one timeline the second gets the writes only when the first is down", () =>
    Effect.gen(function* () {
      const { monitor, primary, replica } = yield* watched
      replica.answer = Effect.succeed({ ...report, role: "primary", startedAt: 1 })
      yield* monitor.check(replica.engine)
      assert.strictEqual(replica.health?.state, "foreign")
      primary.fail(refused)
      assert.strictEqual(primary.health?.state, "suspect")
      yield* monitor.check(replica.engine)
      assert.strictEqual(replica.health?.state, "foreign")
      assert.strictEqual(primary.dropped, 0)
      primary.answer = Effect.fail(refused)
      yield* pass(15)
      yield* monitor.check(replica.engine)
      assert.deepStrictEqual([primary.health?.state, replica.health?.state], ["down", "up"])
      assert.strictEqual(primary.dropped, 1)
    })
  )

  it.effect("a primary that cannot be reached at the start is an error; a replica is not", () =>
    Effect.gen(function* () {
      const primary = new Server("primary", "primary")
      primary.answer = Effect.fail(refused)
      const error = yield* Effect.flip(Effect.scoped(start([primary])))
      assert.strictEqual(error, refused)
    })
  )
})
