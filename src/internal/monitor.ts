/**
 * Watches the servers: a loop per engine that probes it, one probe at a time, and says what has changed.
 */
import type { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Engine } from "../Engine.js"
import type { EngineGroup } from "../EngineGroup.js"
import * as Health from "../Health.js"
import type { ResolvedHealth } from "../RouterConfig.js"
import { acquireFailed, isServerError, judge, saysSerializableDefault } from "./failure.js"

/** How many events a subscriber may be behind before it misses the oldest. */
const maxEvents = 1_024

/** An engine, and the probes of it. */
interface Watched {
  readonly engine: Engine
  readonly group: string
  readonly isWriter: boolean
  readonly lock: Effect.Semaphore
  /** Open when a probe is to run at once. */
  readonly hurry: Effect.Latch
  /** Whether the next probe has to connect anew: what made the server suspect may not touch a connection that is open. */
  fresh: boolean
  /** When it was last probed at once. */
  hurriedAt: number
}

/** The health of all engines. */
export class Monitor {
  /** The last report of the server that takes the writes, as long as it is a primary. */
  private primary: Health.Report | undefined
  private history: Health.History | undefined
  private readonly watched: ReadonlyArray<Watched>

  private constructor(
    private readonly config: ResolvedHealth | undefined,
    groups: Iterable<EngineGroup>,
    writer: Engine,
    private readonly clock: Clock.Clock,
    readonly events: PubSub.PubSub<Health.Event>,
    private readonly changes: Queue.Queue<Health.Event>
  ) {
    this.watched = Array.from(groups).flatMap(({ engines, name }) =>
      engines.map((engine) => ({
        engine,
        group: name,
        isWriter: engine === writer,
        lock: Effect.unsafeMakeSemaphore(1),
        hurry: Effect.unsafeMakeLatch(false),
        fresh: false,
        hurriedAt: Number.NEGATIVE_INFINITY
      }))
    )
  }

  /**
   * Probes every engine once, and then until the scope closes. Fails when the server that takes the writes cannot be
   * reached; any other may be down.
   */
  static make(options: {
    readonly config: ResolvedHealth | undefined
    readonly groups: Iterable<EngineGroup>
    readonly writer: Engine
  }): Effect.Effect<Monitor, SqlError, Scope.Scope> {
    return Effect.gen(function* () {
      const { config, groups, writer } = options
      const events = yield* Effect.acquireRelease(PubSub.sliding<Health.Event>(maxEvents), PubSub.shutdown)
      const changes = yield* Effect.acquireRelease(Queue.unbounded<Health.Event>(), Queue.shutdown)
      const monitor = new Monitor(config, groups, writer, yield* Effect.clock, events, changes)
      yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(changes), log)))
      if (config !== undefined) yield* monitor.start(config)
      return monitor
    })
  }

  /** Takes an engine out of the choice, or puts it back. */
  setDrained(engine: Engine, drained: boolean): Effect.Effect<void> {
    return Effect.sync(() => {
      if (engine.isDrained === drained) return
      engine.setDrained(drained)
      const { group } = this.find(engine)
      const event = { group, engine: engine.name, at: this.clock.unsafeCurrentTimeMillis() }
      this.publish(drained ? Health.Event.Drained(event) : Health.Event.Undrained(event))
    })
  }

  /** Probes an engine now. */
  check(engine: Engine): Effect.Effect<void> {
    const { config } = this
    return config === undefined ? Effect.void : Effect.suspend(() => this.probe(this.find(engine), config))
  }

  private find(engine: Engine): Watched {
    return this.watched.find((watched) => watched.engine === engine)!
  }

  private start(config: ResolvedHealth): Effect.Effect<void, SqlError, Scope.Scope> {
    return Effect.gen(this, function* () {
      for (const watched of this.watched) watched.engine.setHealth(Health.starting(this.now))
      const first = yield* Effect.forEach(
        this.watched,
        (watched) =>
          Effect.map(
            Effect.either(ask(watched, this.firstLimit(watched, config), true)),
            (found) => [watched, found] as const
          ),
        { concurrency: "unbounded" }
      )
      // The others are judged by what the writer says.
      const isWriter = ([watched]: (typeof first)[number]) => watched.isWriter
      for (const [watched, found] of [...first.filter(isWriter), ...first.filter((one) => !isWriter(one))]) {
        if (watched.isWriter && Either.isLeft(found) && found.left.message === acquireFailed) {
          return yield* Effect.fail(found.left)
        }
        this.settle(watched, found, config)
      }
      for (const watched of this.watched) {
        watched.engine.onError((error) => this.hear(watched, error))
        yield* Effect.forkScoped(
          Effect.forever(Effect.zipRight(this.pause(watched, config), this.probe(watched, config)))
        )
      }
    })
  }

  /** The layer fails with the writer, so it gets the time that connecting may take. */
  private firstLimit({ engine, isWriter }: Watched, { timeout }: ResolvedHealth): Duration.Duration {
    const { connectTimeout } = engine.client
    const connecting =
      connectTimeout === undefined || Duration.toMillis(connectTimeout) === 0 ? Duration.seconds(5) : connectTimeout
    return isWriter ? Duration.max(timeout, connecting) : timeout
  }

  private get now(): number {
    return this.clock.unsafeCurrentTimeMillis()
  }

  /** Waits for the next probe: a fifth more or less than the interval, so that many routers do not probe all at once. */
  private pause(watched: Watched, { interval }: ResolvedHealth): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      const jitter = yield* Random.nextRange(0.8, 1.2)
      const soon = Duration.toMillis(interval) / 4
      // What has failed once is to be known to be down, or not, soon.
      const isDoubtful = watched.engine.health?.state === "suspect"
      const wait = (isDoubtful ? soon : Duration.toMillis(interval)) * jitter
      const hurried = yield* Effect.raceFirst(
        Effect.as(Effect.sleep(wait), false),
        Effect.as(watched.hurry.await, true)
      )
      if (!hurried) return
      // A server that answers probes and fails statements would be probed without end.
      const early = watched.hurriedAt + soon * jitter - this.now
      if (early > 0) yield* Effect.sleep(early)
      watched.hurriedAt = this.now
    })
  }

  private probe(watched: Watched, config: ResolvedHealth): Effect.Effect<void> {
    const { engine } = watched
    return watched.lock.withPermits(1)(
      Effect.suspend(() => {
        const { client } = engine
        const { fresh } = watched
        watched.fresh = false
        watched.hurry.unsafeClose()
        return Effect.map(Effect.either(ask(watched, config.timeout, fresh)), (found) => {
          // Of the server that it was bound to before.
          if (engine.client !== client) return watched.hurry.unsafeOpen()
          // It has become suspect meanwhile: that may be the news.
          if (watched.fresh && Either.isRight(found)) return
          this.settle(watched, found, config)
        })
      })
    )
  }

  private settle(watched: Watched, found: Either.Either<Health.Report, SqlError>, config: ResolvedHealth): void {
    const { engine } = watched
    const { now } = this
    if (Either.isRight(found)) {
      this.become(watched, this.answered(watched, found.right, config, now))
      return
    }
    const { cause, message } = found.left
    const reason = cause instanceof Error ? cause.message : message
    this.become(watched, Health.unanswered(engine.health!, `its probe failed: ${reason}`, config, now))
    // A server that refuses the probe may well work on what it has.
    if (engine.health?.state === "down" && !isServerError(found.left)) {
      engine.lose(`The server ${engine.name} does not answer`)
    }
  }

  private answered(watched: Watched, report: Health.Report, config: ResolvedHealth, now: number): Health.Health {
    const health = watched.engine.health!
    if (!watched.isWriter) {
      const { history, primary } = this
      const comparable = history !== undefined && primary !== undefined && Health.follows(report, primary)
      const lag = comparable ? Health.lagOf(history, report.position, now) : undefined
      return Health.answered(health, report, primary, lag, config, now)
    }
    if (report.role === "replica") return Health.demoted(health, report, now)
    const before = this.primary
    this.primary = report
    this.history = Health.record(this.history, report, now)
    if (before !== undefined && (before.system !== report.system || before.timeline !== report.timeline)) {
      for (const other of this.watched) if (other !== watched) other.hurry.unsafeOpen()
    }
    return Health.answered(health, report, report, undefined, config, now)
  }

  /** A statement has failed on an engine. */
  private hear(watched: Watched, error: SqlError): void {
    const { engine } = watched
    const found = judge(error, engine.health?.report?.role ?? (watched.isWriter ? "primary" : "replica"))
    // A primary that takes no writes has become a standby.
    if (watched.isWriter && found.why === "25006") watched.hurry.unsafeOpen()
    if (!found.suspect) return
    const next = Health.suspected(engine.health!, `a statement failed: ${found.why}`, this.now)
    if (next === engine.health) return
    watched.fresh = true
    watched.hurry.unsafeOpen()
    this.become(watched, next)
  }

  private become({ engine, group }: Watched, health: Health.Health): void {
    const from = engine.health!.state
    engine.setHealth(health)
    const { reason, since, state } = health
    if (state === from) return
    this.publish(Health.Event.StateChanged({ group, engine: engine.name, from, to: state, reason, at: since }))
  }

  private publish(event: Health.Event): void {
    this.events.unsafeOffer(event)
    this.changes.unsafeOffer(event)
  }
}

const ask = ({ engine, group }: Watched, limit: Duration.Duration, fresh: boolean) =>
  Effect.catchIf(engine.probe(limit, fresh), saysSerializableDefault, (error) =>
    engine.avoidSerializable()
      ? Effect.logWarning(
          `${engine.name} is a standby and its default_transaction_isolation is serializable, which standbys refuse: ` +
            "the router reads there at repeatable read"
        ).pipe(Effect.annotateLogs({ engine: engine.name, group }), Effect.zipRight(engine.probe(limit, true)))
      : Effect.fail(error)
  )

const log: (event: Health.Event) => Effect.Effect<void> = Health.Event.$match({
  StateChanged: ({ engine, from, group, reason, to }) => {
    const line = `${engine} is ${to}${reason === undefined ? "" : `: ${reason}`}`
    const write =
      to !== "up" ? Effect.logWarning(line) : from === "starting" ? Effect.logDebug(line) : Effect.logInfo(line)
    return Effect.annotateLogs(write, { engine, group, from, to })
  },
  Drained: ({ engine, group }) => Effect.annotateLogs(Effect.logInfo(`${engine} is drained`), { engine, group }),
  Undrained: ({ engine, group }) => Effect.annotateLogs(Effect.logInfo(`${engine} is back`), { engine, group })
})
