/**
 * Watches the servers: a loop per engine that probes it, one probe at a time, and says what has changed.
 */
import { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Engine } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import * as Health from "../../Health.js"
import { acquireFailed, isOfStatement, isServerError, judge, saysSerializableDefault } from "../driver/failure.js"
import type { ResolvedEngine, ResolvedHealth } from "../engine/settings.js"
import type { Telemetry } from "../telemetry/metrics.js"
import * as bounded from "../util/bounded.js"
import { elapsedOf } from "../util/clock.js"
import { Later } from "../util/later.js"
import { Lock } from "../util/lock.js"
import * as Log from "../validation/log.js"
import { printable } from "../validation/printValue.js"
import { isSameServer } from "./election.js"
import { log, logBalanced, logReadOnly, logRebound, logRenewed, logSerializable } from "./eventLog.js"
import { Outlier } from "./outlier.js"
import { Proof } from "./proof.js"
import type { Servers } from "./serverSet.js"

/** How many events a subscriber may be behind before it misses the oldest. */
const maxEvents = 1_024

/** An engine, and the probes of it. */
interface Watched {
  readonly engine: Engine
  readonly lock: Lock
  /** A probe that begins later. */
  readonly check: Later<void>
  /** Open when a probe is to run at once. */
  readonly hurry: Effect.Latch
  /** Whether the next probe has to connect anew: what made the server suspect may not touch a connection that is open. */
  fresh: boolean
  /** How statements do there. */
  outlier: Outlier
  /** What they have told of it. */
  readonly proof: Proof
  /** When it was last tried with a statement. */
  triedAt: number
  /** When it was last probed at once. */
  hurriedAt: number
  /** Whether it has named its timeline at two probes in a row. */
  isConfirmed: boolean
  /** Since when its probes have failed. */
  silentSince: number | undefined
  /** Whether, as the primary, it has refused a write because it is read-only: a new connection shows whether it still is. */
  hasRefused: boolean
  /** Whether, as the primary, it was found to be read-only. */
  isReadOnly: boolean
  /** Whether it was logged that it is several servers. */
  isToldBalanced: boolean
  /** When its connections were last replaced because of that. */
  renewedAt: number
  /** Ends its probes. */
  stop: Effect.Effect<void>
}

/** What a monitor watches over. */
export interface Options {
  /** `undefined`: nothing is probed. */
  readonly config: ResolvedHealth | undefined
  readonly servers: Servers
  /** Groups of other servers, for those who bind to them. */
  readonly others: ReadonlyArray<EngineGroup>
  /** Those that were named as ones that may be the primary. */
  readonly named: ReadonlySet<Engine>
  /** Reads fail where there is no replica. */
  readonly needsReplica: boolean
  /** The longest wait of the start for a primary. */
  readonly startTimeout: Duration.Duration
  /** The receiver of the engines' metrics; `undefined` without metrics. */
  readonly telemetry: Telemetry | undefined
}

/** The health of all engines, and which one takes the writes. */
export class Monitor {
  /** The last report of the server that takes the writes. */
  private primary: Health.Report | undefined
  /** The time of that report, by the monotonic clock. While the writer does not answer, no replica's lag grows. */
  private primaryAt = 0
  private history: Health.History | undefined
  private rivals: ReadonlyArray<Engine> = []
  private readonly watched = new Map<Engine, Watched>()
  /** Waits for a primary. */
  private readonly awaiting = new Set<() => void>()

  private constructor(
    private readonly options: Options,
    private readonly clock: Clock.Clock,
    readonly events: PubSub.PubSub<Health.Event>,
    private readonly changes: Queue.Queue<Health.Event>
  ) {}

  /**
   * Probes every engine once, and then until the scope closes. Fails when there is no server that takes the writes, once
   * `startTimeout` has passed; any other may be down.
   */
  static make(options: Options): Effect.Effect<Monitor, SqlError, Scope.Scope> {
    return Effect.gen(function* () {
      const events = yield* Effect.acquireRelease(PubSub.sliding<Health.Event>(maxEvents), PubSub.shutdown)
      const changes = yield* Effect.acquireRelease(Queue.unbounded<Health.Event>(), Queue.shutdown)
      const monitor = new Monitor(options, yield* Effect.clock, events, changes)
      yield* Effect.forkScoped(Effect.interruptible(Effect.forever(Effect.flatMap(Queue.take(changes), log))))
      const { config, others, servers } = options
      const engines = [...servers.engines, ...others.flatMap((group) => group.engines)]
      if (config === undefined) {
        for (const engine of engines) monitor.note(engine)
        yield* Effect.forkScoped(
          Effect.interruptible(
            Effect.repeat(
              Effect.sync(() => monitor.sampleAll()),
              sampling
            )
          )
        )
      } else yield* monitor.start(engines, config)
      return monitor
    })
  }

  /** Takes an engine out of the choice, or puts it back. */
  setDrained(engine: Engine, drained: boolean): Effect.Effect<void> {
    return Effect.sync(() => {
      if (engine.isDrained === drained) return
      engine.setDrained(drained)
      this.sample(engine)
      this.publish(drained ? Health.Event.Drained(this.eventOf(engine)) : Health.Event.Undrained(this.eventOf(engine)))
      this.tellWriter()
    })
  }

  /** Probes an engine now: once for all who want to know, after what each of them has seen. */
  check(engine: Engine): Effect.Effect<void> {
    return Effect.suspend(() => this.watched.get(engine)?.check.get ?? Effect.void)
  }

  /** Probes all engines now, each once. */
  readonly checkAll: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(this.watched.keys(), (engine) => this.check(engine), { concurrency: "unbounded", discard: true })
  )

  /** Probes an engine soon. */
  hasten(engine: Engine): void {
    this.watched.get(engine)?.hurry.unsafeOpen()
  }

  /** Moves an engine to another server, once that answers. What was known of the one before does not count there. */
  rebind(engine: Engine, config: ResolvedEngine): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      const { binding } = engine
      return Effect.zipRight(
        engine.rebind(config),
        Effect.suspend(() =>
          engine.binding === binding ? logRenewed(this.eventOf(engine).group, engine) : this.moved(engine)
        )
      )
    })
  }

  private moved(engine: Engine): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (engine === this.options.servers.lastWriter) this.options.servers.forget()
      if (engine.health !== undefined) engine.setHealth(Health.starting(this.date))
      const watched = this.watched.get(engine)
      if (watched !== undefined) Object.assign(watched, unknown, { outlier: new Outlier(this.options.config) })
      this.sample(engine)
      return Effect.zipRight(logRebound(this.eventOf(engine).group, engine), this.check(engine))
    })
  }

  /** Watches one engine more, until the scope closes. */
  add(engine: Engine): Effect.Effect<void, never, Scope.Scope> {
    return Effect.suspend(() => {
      const { config } = this.options
      const watched = this.note(engine)
      this.publish(Health.Event.EngineAdded(this.eventOf(engine)))
      if (config === undefined) return Effect.void
      engine.setHealth(Health.starting(this.date))
      watched.hurry.unsafeOpen()
      return this.watch(watched, config)
    })
  }

  /** An engine is no more. */
  remove(engine: Engine): Effect.Effect<void> {
    return Effect.suspend(() => {
      const watched = this.watched.get(engine)
      if (watched === undefined) return Effect.void
      this.watched.delete(engine)
      this.options.telemetry?.forget(engine)
      this.publish(Health.Event.EngineRemoved(this.eventOf(engine)))
      return watched.stop
    })
  }

  /** Waits for a server that takes writes, and says whether there is one. */
  awaitWriter(limit: Duration.Duration): Effect.Effect<boolean> {
    const there = Effect.async<void>((resume) => {
      if (this.isWriterUp) return resume(Effect.void)
      const tell = () => resume(Effect.void)
      this.awaiting.add(tell)
      return Effect.sync(() => this.awaiting.delete(tell))
    })
    return Effect.map(bounded.within(there, limit), ({ state }) => state === "answered")
  }

  private get isWriterUp(): boolean {
    const { writer } = this.options.servers
    return writer !== undefined && !writer.isDrained && (writer.health === undefined || Health.isUsable(writer.health))
  }

  private tellWriter(): void {
    if (this.awaiting.size === 0 || !this.isWriterUp) return
    const all = [...this.awaiting]
    this.awaiting.clear()
    for (const tell of all) tell()
  }

  private note(engine: Engine): Watched {
    const { config } = this.options
    const watched: Watched = {
      engine,
      lock: new Lock(),
      check: new Later(config === undefined ? Effect.void : Effect.suspend(() => this.probe(watched, config))),
      hurry: Effect.unsafeMakeLatch(false),
      fresh: false,
      outlier: new Outlier(this.options.config),
      proof: new Proof(),
      triedAt: Number.NEGATIVE_INFINITY,
      hurriedAt: Number.NEGATIVE_INFINITY,
      ...unknown,
      stop: Effect.void
    }
    this.watched.set(engine, watched)
    return watched
  }

  private start(engines: ReadonlyArray<Engine>, config: ResolvedHealth): Effect.Effect<void, SqlError, Scope.Scope> {
    return Effect.gen(this, function* () {
      const { servers, startTimeout } = this.options
      for (const engine of engines) {
        this.note(engine)
        engine.setHealth(Health.starting(this.date))
      }
      const began = this.now
      let left = engines
      for (let isFirst = true; ; isFirst = false) {
        const error = yield* this.firstProbes(left, config)
        if (error === undefined) break
        if (this.now - began >= Duration.toMillis(startTimeout)) return yield* Effect.fail(error)
        if (isFirst) yield* Log.warning(`The router waits for a primary: ${error.message}`, error.cause)
        yield* Effect.sleep(soon(config))
        left = servers.engines
      }
      for (const watched of this.watched.values()) yield* this.watch(watched, config)
    })
  }

  /** Probes engines, all at the same time. The error of the one that is to take the writes, while none does. */
  private firstProbes(engines: ReadonlyArray<Engine>, config: ResolvedHealth): Effect.Effect<SqlError | undefined> {
    const { named, servers } = this.options
    return Effect.gen(this, function* () {
      const found = yield* Effect.forEach(
        engines,
        (engine) => {
          const watched = this.watched.get(engine)!
          // The layer fails with the primary, so it gets the time that connecting may take.
          const limit = named.has(engine) ? Duration.max(config.timeout, connectTimeoutOf(engine)) : config.timeout
          return Effect.map(Effect.either(ask(watched, limit, true)), (found) => [watched, found] as const)
        },
        { concurrency: "unbounded" }
      )
      // The others are judged by what the primary says.
      const isFirst = ([{ engine }, answer]: readonly [Watched, Either.Either<Health.Report, SqlError>]) =>
        servers.has(engine) && Either.isRight(answer) && answer.right.role === "primary"
      for (const [watched, one] of [...found.filter(isFirst), ...found.filter((one) => !isFirst(one))]) {
        yield* this.settle(watched, one, config)
      }
      const { lastWriter } = servers
      const [, writer] = found.find(([{ engine }]) => engine === lastWriter) ?? []
      return writer !== undefined && Either.isLeft(writer) && writer.left.message === acquireFailed
        ? writer.left
        : undefined
    })
  }

  private watch(watched: Watched, config: ResolvedHealth): Effect.Effect<void, never, Scope.Scope> {
    watched.engine.onError((error) => this.hear(watched, error))
    const probes = Effect.forever(
      Effect.flatMap(this.pause(watched, config), (mustAsk) =>
        !mustAsk && this.isProven(watched, config) ? Effect.void : this.probe(watched, config, true)
      )
    )
    return Effect.map(Effect.forkScoped(Effect.interruptible(probes)), (fiber) => {
      watched.stop = Fiber.interrupt(fiber).pipe(Effect.asVoid)
    })
  }

  private get now(): number {
    return elapsedOf(this.clock)
  }

  /** For those who read it: events, and since when an engine is as it is. */
  private get date(): number {
    return this.clock.unsafeCurrentTimeMillis()
  }

  /**
   * Waits for the next probe: a fifth more or less than the interval, so that many routers do not probe all at once. Whether
   * there must be news: what is known already will not do.
   */
  private pause(watched: Watched, config: ResolvedHealth): Effect.Effect<boolean> {
    return Effect.gen(this, function* () {
      const { engine } = watched
      const { servers } = this.options
      const jitter = yield* Random.nextRange(0.8, 1.2)
      const early = Duration.toMillis(soon(config)) * jitter
      // What has failed once is to be known to be down, or not, soon; and who takes the place of the primary.
      const isPressing = engine.health?.state === "suspect" || (!this.isWriterUp && servers.has(engine))
      const usual = isPressing ? early : Duration.toMillis(config.interval) * jitter
      const hurried = yield* Effect.raceFirst(
        Effect.as(Effect.sleep(Math.min(usual, untilLimit(engine, config))), false),
        Effect.as(watched.hurry.await, true)
      )
      if (!hurried) return isPressing
      // A server that answers probes and fails statements would be probed without end.
      const tooSoon = watched.hurriedAt + early - this.now
      if (tooSoon > 0) yield* Effect.sleep(tooSoon)
      watched.hurriedAt = this.now
      return true
    })
  }

  /** Whether statements have told what the next probe would find, which is noted then. */
  private isProven(watched: Watched, config: ResolvedHealth): boolean {
    const { engine, fresh, hasRefused, isReadOnly, proof } = watched
    const news = fresh || hasRefused || isReadOnly ? undefined : proof.news(engine, config.interval)
    if (news === undefined) return false
    engine.proven(news.at)
    this.become(engine, this.answered(engine, news.report, config, this.date, news.at))
    return true
  }

  /** `isRegular`: it is one of those that go on for ever, and not one that a statement waits for. */
  private probe(watched: Watched, config: ResolvedHealth, isRegular = false): Effect.Effect<void> {
    const { engine } = watched
    return watched.lock.run(
      Effect.suspend(() => {
        const { binding } = engine
        const { lastWriter, writer } = this.options.servers
        // The name of one that is not the primary any more may lead to the next one from any moment on.
        const isMoving = writer === undefined && engine === lastWriter
        const { hasRefused } = watched
        // Those that have been refused wait for their probe, all of a crowd: one anew for all of them is enough.
        const isLooking = isRegular && (hasRefused || watched.isReadOnly)
        const fresh = watched.fresh || isMoving || isLooking
        watched.fresh = false
        if (isRegular) watched.hasRefused = false
        watched.hurry.unsafeClose()
        return Effect.flatMap(Effect.either(ask(watched, config.timeout, fresh)), (found) => {
          watched.proof.probed(engine, this.now)
          // Of the server that it was bound to before.
          if (engine.binding !== binding) return Effect.sync(() => watched.hurry.unsafeOpen())
          // It has become suspect meanwhile: that may be the news.
          if (watched.fresh && Either.isRight(found)) return Effect.void
          const settle = this.settle(watched, found, config)
          // Not before it is known how far it is: a statement without an answer takes its time, and it would be behind by that.
          const tried = Either.isRight(found)
            ? Effect.flatMap(
                Effect.suspend(() => this.tryOut(watched, config)),
                (isBack) => (isBack ? settle : Effect.void)
              )
            : Effect.void
          const settled = Effect.zipRight(Effect.zipRight(settle, tried), tellBalanced(watched))
          return isLooking && Either.isRight(found)
            ? Effect.zipRight(settled, this.heedReadOnly(watched, found.right, hasRefused, config))
            : settled
        })
      })
    )
  }

  /**
   * A new connection to the primary has shown whether it takes writes (`default_transaction_read_only`, which a provider sets
   * when the disk is full). Connections keep what they have begun with, so they are replaced once it takes writes again.
   */
  private heedReadOnly(
    watched: Watched,
    { isReadOnly, role }: Health.Report,
    hasRefused: boolean,
    { interval }: ResolvedHealth
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { engine } = watched
      const was = watched.isReadOnly
      watched.isReadOnly = isReadOnly === true && role === "primary" && engine === this.options.servers.writer
      if (watched.isReadOnly) return was ? Effect.void : logReadOnly(engine, true)
      // The refusal may come from a connection of the server's read-only time, or from the statement itself: so not too often.
      const isDue = this.now - watched.renewedAt > refusalIntervals * Duration.toMillis(interval)
      if (!was && !(hasRefused && isDue)) return Effect.void
      watched.renewedAt = this.now
      engine.renew()
      return was ? logReadOnly(engine, false) : Effect.void
    })
  }

  private settle(
    watched: Watched,
    found: Either.Either<Health.Report, SqlError>,
    config: ResolvedHealth
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const before = this.options.servers.writer
      const last = this.options.servers.lastWriter
      this.take(watched, found, config)
      // Nothing that was begun there may be committed there; and its name may stand for another server now.
      return before === undefined || before === this.options.servers.writer
        ? Effect.void
        : this.drop(last, `${last.name} is not the primary any more`)
    })
  }

  private take(watched: Watched, found: Either.Either<Health.Report, SqlError>, config: ResolvedHealth): void {
    const { date } = this
    const { engine } = watched
    if (Either.isRight(found)) {
      watched.silentSince = undefined
      watched.isConfirmed = saysTheSame(engine.health?.report, found.right)
      this.become(engine, this.unlessOut(watched, this.answered(engine, found.right, config, date), date))
      return
    }
    watched.silentSince ??= this.now
    engine.unsettle()
    const { cause, message } = found.left
    watched.outlier.forget()
    const reason = printable(cause instanceof Error ? cause.message : message)
    this.become(engine, Health.unanswered(engine.health!, `its probe failed: ${reason}`, config, date))
    if (engine.health?.state === "down") watched.outlier.wasDown(this.now)
    // A server that refuses the probe may well work on what it has.
    if (engine.health?.state === "down" && !isServerError(found.left)) {
      engine.lose(`The server ${engine.name} does not answer`)
    }
  }

  /** `at`: when the server was so, by the clock that never goes back. */
  private answered(
    engine: Engine,
    report: Health.Report,
    config: ResolvedHealth,
    date: number,
    at = this.now
  ): Health.Health {
    const { servers } = this.options
    const health = engine.health!
    if (servers.has(engine)) this.elect(engine, report)
    if (engine === servers.writer) {
      const before = this.primary
      this.primary = report
      this.primaryAt = at
      if (before !== undefined && (before.system !== report.system || before.timeline !== report.timeline)) {
        for (const other of this.watched.keys()) if (other !== engine) this.hasten(other)
      }
      if (before?.database !== report.database) this.judgeDatabases(engine, config, date, at)
      this.history = Health.record(this.history, report, at)
      return Health.answered(health, report, { era: undefined, lag: undefined, isRival: false }, config, date)
    }
    if (engine === servers.lastWriter && report.role === "replica") return Health.demoted(health, report, date)
    const { history, primary } = this
    const era = servers.currentEra
    const isRival = report.role === "primary" && (primary === undefined || !isSameServer(report, primary))
    const comparable = history !== undefined && era !== undefined && history.timeline === era.timeline
    const lag =
      comparable && Health.follows(report, era)
        ? Health.lagOf(history, report.position, this.isWriterUp ? at : this.primaryAt)
        : undefined
    const known = servers.has(engine)
      ? { era, lag, isRival, database: primary?.database }
      : { era, lag, isRival: false }
    return Health.answered(health, report, known, config, date)
  }

  /** The primary has said what its database is, perhaps after the others. */
  private judgeDatabases(primary: Engine, config: ResolvedHealth, date: number, at: number): void {
    for (const other of this.options.servers.engines) {
      const report = other.health?.report
      if (other === primary || report === undefined || !this.isElsewhere(report)) continue
      this.become(other, this.answered(other, report, config, date, at))
    }
  }

  /** The server is connected to another database than the primary. */
  private isElsewhere(report: Health.Report | undefined): boolean {
    return report !== undefined && Health.isElsewhere(report, this.primary?.database)
  }

  /** Chooses the engine that takes the writes, when one has said what it is. */
  private elect(engine: Engine, report: Health.Report): void {
    const { named, servers } = this.options
    const before = servers.writer
    const last = servers.lastWriter
    const { rivals: claimants, writer } = servers.elect(
      servers.engines.map((server) => {
        const told = server === engine ? report : server.health?.report
        return {
          server,
          isNamed: named.has(server),
          report: told,
          answers: server === engine || this.counts(server),
          mayWrite: server.isWritable && (server === last || !this.isElsewhere(told)),
          isConfirmed: this.watched.get(server)?.isConfirmed ?? false,
          isGone: this.isGone(server)
        }
      })
    )
    if (writer !== before) this.change(last, writer, report.role)
    // One that has failed may be dead: it is a rival when it says so again.
    const rivals = claimants.filter((rival) => rival === engine || Health.answers(rival.health!))
    const isNew = rivals.some((rival) => !this.rivals.includes(rival))
    this.rivals = rivals
    if (isNew) {
      const names = rivals.map(({ name }) => name)
      this.publish(Health.Event.PrimaryDisputed({ ...this.eventOf(last), engine: writer?.name, rivals: names }))
    }
  }

  /** Whether a server has not answered for so long that what it said last counts no more against a primary that answers. */
  private isGone(engine: Engine): boolean {
    const { config } = this.options
    const since = this.watched.get(engine)?.silentSince
    if (config === undefined || since === undefined || engine.health?.state !== "down") return false
    return this.now - since > goneIntervals * Duration.toMillis(config.interval)
  }

  /** Whether what a server has said last still holds. One failed statement does not take the writes from a primary. */
  private counts(engine: Engine): boolean {
    const { health } = engine
    if (health === undefined) return false
    return Health.answers(health) || (engine === this.options.servers.lastWriter && health.state === "suspect")
  }

  private change(last: Engine, writer: Engine | undefined, role: Health.Report["role"]): void {
    writer?.restoreIsolation()
    writer?.unsettle()
    const reason =
      writer !== undefined
        ? `it is the primary of timeline ${this.options.servers.currentEra?.timeline}`
        : role === "replica"
          ? `${last.name} is a standby`
          : `${last.name} is not on the newest timeline`
    this.publish(
      Health.Event.PrimaryChanged({ ...this.eventOf(writer ?? last), engine: writer?.name, from: last.name, reason })
    )
    this.sampleAll()
    for (const engine of this.watched.keys()) this.hasten(engine)
  }

  private drop(engine: Engine, reason: string): Effect.Effect<void> {
    const watched = this.watched.get(engine)
    if (watched !== undefined) watched.fresh = true
    return engine.drop(reason)
  }

  /** A statement has failed on an engine. */
  private hear(watched: Watched, error: SqlError): void {
    const { engine } = watched
    const isWriter = engine === this.options.servers.lastWriter
    const found = judge(error, engine.health?.report?.role ?? (isWriter ? "primary" : "replica"))
    // A primary that takes no writes has become a standby, or read-only.
    if (isWriter && found.why === "25006") {
      watched.hasRefused = true
      watched.hurry.unsafeOpen()
    }
    // What values can provoke is no reason to take the server from others.
    if (!found.suspect || isOfStatement(error)) return
    // Whether it is out, or down, the next probe tells.
    watched.outlier.fail(this.now, engine.answered, Health.answers(engine.health!))
    engine.unsettle()
    const next = Health.suspected(engine.health!, `a statement failed: ${found.why}`, this.date)
    if (next === engine.health) return
    watched.fresh = true
    watched.hurry.unsafeOpen()
    this.become(engine, next)
  }

  /** The primary stays, and the last replica where reads need one. */
  private mayEject(engine: Engine): boolean {
    const { needsReplica, servers } = this.options
    const { reading } = servers
    if (engine === servers.lastWriter) return false
    return (
      !needsReplica ||
      reading === undefined ||
      !reading.engines.includes(engine) ||
      reading.engines.some((other) => other !== engine && reading.isEligible(other))
    )
  }

  /** How an engine is that has answered a probe. One that has become the primary is out no more. */
  private unlessOut({ engine, outlier }: Watched, next: Health.Health, date: number): Health.Health {
    if (engine === this.options.servers.lastWriter && outlier.isOut) outlier.admit()
    if (next.state === "up" && outlier.verdict !== undefined && this.mayEject(engine)) {
      const why = `it answers probes, but ${outlier.verdict}`
      outlier.eject(this.now)
      return Health.ejected(next, why, date)
    }
    if (!outlier.isOut || next.state !== "up") return next
    const { reason, since, state } = engine.health!
    const why = state === "ejected" && reason !== undefined ? reason : "it answers probes, but statements have failed"
    return { ...Health.ejected(next, why, date), since: state === "ejected" ? since : date }
  }

  private eject({ engine, outlier }: Watched, why: string): void {
    outlier.eject(this.now)
    this.become(engine, Health.ejected(engine.health!, `it answers probes, but ${why}`, this.date))
  }

  /**
   * After a probe that has succeeded: a statement decides whether a server that was taken out comes back, and whether one on
   * which nothing ends is out. Tells whether one has come back.
   */
  private tryOut(watched: Watched, config: ResolvedHealth): Effect.Effect<boolean> {
    const { engine, outlier } = watched
    const { now } = this
    const isSilent =
      Duration.toMillis(config.ejectTime) > 0 &&
      !outlier.isOut &&
      now - watched.triedAt >= silentMillis &&
      engine.isSilent(silentMillis) &&
      this.mayEject(engine)
    if (!isSilent && !outlier.mayReturn(now)) return Effect.succeed(false)
    watched.triedAt = now
    return Effect.match(engine.trial(config.timeout), {
      onSuccess: () => {
        outlier.admit()
        return !isSilent
      },
      onFailure: ({ cause, message }) => {
        const why = cause instanceof Error ? cause.message : message
        this.eject(watched, `a statement fails there: ${why}`)
        // What still waits for its answers has waited in vain.
        if (isSilent) engine.lose(`The server ${engine.name} does not answer statements`)
        return false
      }
    })
  }

  private become(engine: Engine, health: Health.Health): void {
    const before = engine.health!
    const from = before.state
    engine.setHealth(health)
    if (this.options.config !== undefined && isBack(before, health)) {
      engine.warmUp(Duration.toMillis(this.options.config.slowStart))
    }
    this.sample(engine)
    const { reason, state } = health
    if (state !== from) {
      this.publish(Health.Event.StateChanged({ ...this.eventOf(engine), from, to: state, reason }))
    }
    if (engine !== this.options.servers.writer) return
    if (state === "up") this.tellWriter()
    // A promotion may be under way.
    else if (from === "up") for (const other of this.options.servers.engines) this.hasten(other)
  }

  private eventOf(engine: Engine): { readonly group: string; readonly engine: string; readonly at: number } {
    const { others, servers } = this.options
    const group =
      others.find(({ engines }) => engines.includes(engine)) ??
      (servers.reading?.engines.includes(engine) ? servers.reading : servers.writing)
    return { group: group.name, engine: engine.name, at: this.date }
  }

  private sample(engine: Engine): void {
    this.options.telemetry?.sample(engine, engine === this.options.servers.writer)
  }

  private sampleAll(): void {
    for (const engine of this.watched.keys()) this.sample(engine)
  }

  private publish(event: Health.Event): void {
    this.events.unsafeOffer(event)
    this.changes.unsafeOffer(event)
  }
}

/** For how many intervals what a server said last counts against a primary that answers, while it does not answer itself. */
const goneIntervals = 5

/** How many intervals there are between two replacements of connections because a primary refuses writes. */
const refusalIntervals = 5

/** Whether a server gets reads again that may have lost its caches, and that had none for longer than a probe takes. */
const isBack = (before: Health.Health, health: Health.Health): boolean => {
  const { report, state } = before
  if (health.state !== "up" || state === "up" || state === "starting") return false
  return state !== "suspect" || report?.startedAt !== health.report?.startedAt
}

/** What is known of a server that has said nothing yet. */
const unknown = {
  isConfirmed: false,
  silentSince: undefined,
  hasRefused: false,
  isReadOnly: false,
  isToldBalanced: false,
  renewedAt: Number.NEGATIVE_INFINITY
} satisfies Partial<Watched>

/** Whether a server has named the same timeline twice. */
const saysTheSame = (before: Health.Report | undefined, report: Health.Report): boolean =>
  before !== undefined && before.system === report.system && before.timeline === report.timeline

/** A server on which nothing has ended for so long is tried. */
const silentMillis = 5_000

/** The sampling interval of engines that are not probed. */
const sampling = Schedule.spaced("5 seconds")

/** The time to the next probe of a server that is about to change. */
const soon = ({ interval }: ResolvedHealth): Duration.Duration => Duration.times(interval, 0.25)

/** How long until a replica that is behind reaches the limit, in milliseconds, if it goes on as it is. */
const untilLimit = ({ health }: Engine, { interval, maxLag }: ResolvedHealth): number => {
  const lag = health?.state === "up" ? (health.lag?.millis ?? 0) : 0
  if (lag === 0) return Number.POSITIVE_INFINITY
  return Math.max(Duration.toMillis(interval) / 10, Duration.toMillis(maxLag) - lag)
}

const connectTimeoutOf = ({ client: { connectTimeout } }: Engine): Duration.Duration =>
  connectTimeout === undefined || Duration.toMillis(connectTimeout) === 0 ? Duration.seconds(5) : connectTimeout

const tellBalanced = (watched: Watched): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (watched.isToldBalanced || watched.engine.positions?.isBalanced !== true) return Effect.void
    watched.isToldBalanced = true
    return logBalanced(watched.engine)
  })

/** Probes a server. Whatever goes wrong is a probe that has failed, what throws too: it must not end the probing. */
const ask = ({ engine }: Watched, limit: Duration.Duration, fresh: boolean): Effect.Effect<Health.Report, SqlError> =>
  Effect.catchIf(engine.probe(limit, fresh), saysSerializableDefault, (error) =>
    engine.avoidSerializable()
      ? Effect.zipRight(logSerializable(engine), engine.probe(limit, true))
      : Effect.fail(error)
  ).pipe(Effect.catchAllDefect((cause) => Effect.fail(new SqlError({ cause, message: "The probe has thrown" }))))
