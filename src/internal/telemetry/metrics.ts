/** What a router measures of its statements, transactions, sessions and engines. Names: see `Telemetry`. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Metric from "effect/Metric"
import * as MetricKey from "effect/MetricKey"
import type * as MetricKeyType from "effect/MetricKeyType"
import * as MetricLabel from "effect/MetricLabel"
import type * as Scope from "effect/Scope"
import type { Engine } from "../../Engine.js"
import * as Health from "../../Health.js"
import type { StatementKind } from "../../SqlClassifier.js"
import { attributes, instruments, type Rule } from "../../Telemetry.js"
import { clockOf } from "../util/clock.js"
import { histogramKey, keyOf } from "../util/metricKey.js"
import type { Outcome as Ended } from "./outcome.js"
import { failureOf, other, type Trip, type Went } from "./statementRun.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>
type Labels = Readonly<Record<string, string>>
type Tags = ReadonlyArray<MetricLabel.MetricLabel>

/** Servers may be told to raise any code, and errors may have any name. */
const maxErrorTypes = 100

/** How a statement ends. */
type Outcome = "success" | "error" | "interrupted"

/** How a transaction or session ends, as its label. */
const endedAs = { committed: "committed", "rolled back": "rolled_back", unknown: "unknown" } as const satisfies Record<
  Ended,
  string
>

const stateNames: ReadonlyArray<Health.Shown> = [
  "starting",
  "up",
  "lagging",
  "foreign",
  "suspect",
  "down",
  "ejected",
  "draining",
  "unchecked"
]

/** One series of a metric. Finding it is what costs: it is to be kept where it is used for every statement. */
const series = <Type extends MetricKeyType.MetricKeyType.Untyped>(key: MetricKey.MetricKey<Type>, labels: Labels) =>
  Metric.fromMetricKey(
    MetricKey.taggedWithLabels(
      key,
      Object.entries(labels).map(([name, value]) => MetricLabel.make(name, value))
    )
  )

const statementKey = keyOf.counter(instruments.statements)
const durationKey = histogramKey(instruments.duration)
const movedKey = keyOf.counter(instruments.movedReads)
const transactionKey = keyOf.counter(instruments.transactions)
const transactionsOf = (labels: Labels) => series(transactionKey, labels)
const sessionKey = keyOf.counter(instruments.sessions)
const sessionSeries = (outcome: string) => series(sessionKey, { [attributes.outcome]: outcome })
/** How sessions end. */
const sessions = {
  committed: sessionSeries("committed"),
  "rolled back": sessionSeries("rolled_back"),
  unknown: sessionSeries("unknown"),
  unused: sessionSeries("unused")
} as const satisfies Record<Ended | "unused", unknown>
const activeKey = keyOf.upDownCounter(instruments.activeSessions)

const counterOf = (labels: Labels) => series(statementKey, labels)
const histogramOf = (labels: Labels) => series(durationKey, labels)

type Counter = ReturnType<typeof counterOf>
type Histogram = ReturnType<typeof histogramOf>

/** How long statements of one kind take on one engine. */
class Durations {
  private readonly answered: Histogram
  private readonly failed = new Map<string, Histogram>()

  constructor(private readonly labels: Labels) {
    this.answered = histogramOf(labels)
  }

  observe(seconds: number, type: string | undefined, state: string | undefined, tags: Tags): void {
    if (type === undefined) {
      this.answered.unsafeUpdate(seconds, tags)
      return
    }
    // A type with a code may also be seen without one.
    const key = state === undefined ? type : `${type} ${state}`
    let histogram = this.failed.get(key)
    if (histogram === undefined) {
      const code = state === undefined ? {} : { [attributes.statusCode]: state }
      histogram = histogramOf({ ...this.labels, [attributes.errorType]: type, ...code })
      this.failed.set(key, histogram)
    }
    histogram.unsafeUpdate(seconds, tags)
  }
}

/** The statements of one kind that one rule has sent to one engine. */
class Statements {
  private readonly counters: { [ended in Outcome]?: Counter } = {}

  constructor(
    private readonly labels: Labels,
    readonly durations: Durations
  ) {}

  count(outcome: Outcome, tags: Tags): void {
    let counter = this.counters[outcome]
    if (counter === undefined) {
      counter = counterOf({ ...this.labels, [attributes.outcome]: outcome })
      this.counters[outcome] = counter
    }
    counter.unsafeUpdate(1, tags)
  }
}

type ByRule = { [rule in Rule]?: Statements }

const namespaceOf = ({ address, client }: Engine): string => address.database ?? client.username ?? "postgres"

/** Where the statements of one engine are counted. */
class EngineStatements {
  /** Where it was when this was made. */
  readonly address: Engine["address"]
  private readonly groups = new Map<string, { [kind in StatementKind]?: ByRule }>()
  private readonly durations = new Map<string, Durations>()

  constructor(private readonly engine: Engine) {
    this.address = engine.address
  }

  of({ group, kind, rule }: Went): Statements {
    let kinds = this.groups.get(group)
    if (kinds === undefined) {
      kinds = {}
      this.groups.set(group, kinds)
    }
    let rules = kinds[kind]
    if (rules === undefined) {
      rules = {}
      kinds[kind] = rules
    }
    let found = rules[rule]
    if (found === undefined) {
      found = this.make(group, kind, rule)
      rules[rule] = found
    }
    return found
  }

  private make(group: string, kind: StatementKind, rule: Rule): Statements {
    const { address, name } = this.engine
    const where = { [attributes.group]: group, [attributes.engine]: name, [attributes.kind]: kind }
    const key = `${kind} ${group}`
    const durations =
      this.durations.get(key) ??
      new Durations({
        [attributes.system]: "postgresql",
        [attributes.namespace]: namespaceOf(this.engine),
        ...(address.host === undefined ? {} : { [attributes.serverAddress]: address.host }),
        ...(address.port === undefined ? {} : { [attributes.serverPort]: String(address.port) }),
        ...where
      })
    this.durations.set(key, durations)
    return new Statements({ ...where, [attributes.rule]: rule }, durations)
  }
}

/** Statements that were sent nowhere. */
const nowhere = () => {
  const where = { [attributes.group]: "none", [attributes.engine]: "none", [attributes.kind]: "none" }
  return new Statements(
    { ...where, [attributes.rule]: "none" satisfies Rule },
    new Durations({ [attributes.system]: "postgresql", ...where })
  )
}

/** The gauges of one engine. */
class EngineGauges {
  private readonly states
  private readonly writer
  private readonly lagDuration
  private readonly lagSize
  private readonly used
  private readonly idle
  private readonly max
  private readonly pending

  constructor(
    { name }: Engine,
    private readonly tags: Tags
  ) {
    const own = { [attributes.engine]: name }
    const pool = { [attributes.poolName]: name }
    const states = keyOf.gauge(instruments.engineState)
    this.states = new Map(stateNames.map((state) => [state, series(states, { ...own, [attributes.state]: state })]))
    this.writer = series(keyOf.gauge(instruments.engineWriter), own)
    this.lagDuration = series(keyOf.gauge(instruments.lagDuration), own)
    this.lagSize = series(keyOf.gauge(instruments.lagSize), own)
    const connections = keyOf.gauge(instruments.connections)
    this.used = series(connections, { ...pool, [attributes.connectionState]: "used" })
    this.idle = series(connections, { ...pool, [attributes.connectionState]: "idle" })
    this.max = series(keyOf.gauge(instruments.connectionLimit), pool)
    this.pending = series(keyOf.gauge(instruments.pendingRequests), pool)
  }

  set({ health, isDrained, poolStatus: { idle, max, total, waiting } }: Engine, isWriter: boolean): void {
    const { tags } = this
    const shown = Health.shown(health, isDrained)
    for (const [state, gauge] of this.states) gauge.unsafeUpdate(state === shown ? 1 : 0, tags)
    this.writer.unsafeUpdate(isWriter ? 1 : 0, tags)
    if (isWriter) this.setLag(0, 0)
    else if (health?.lag !== undefined) this.setLag(health.lag.millis / 1_000, Number(health.lag.bytes))
    this.setPool(total - idle, idle, max, waiting)
  }

  clear(): void {
    for (const gauge of this.states.values()) gauge.unsafeUpdate(0, this.tags)
    this.writer.unsafeUpdate(0, this.tags)
    this.setLag(0, 0)
    this.setPool(0, 0, 0, 0)
  }

  private setLag(seconds: number, bytes: number): void {
    this.lagDuration.unsafeUpdate(seconds, this.tags)
    this.lagSize.unsafeUpdate(bytes, this.tags)
  }

  private setPool(used: number, idle: number, max: number, pending: number): void {
    this.used.unsafeUpdate(used, this.tags)
    this.idle.unsafeUpdate(idle, this.tags)
    this.max.unsafeUpdate(max, this.tags)
    this.pending.unsafeUpdate(pending, this.tags)
  }
}

const tagsOf = (fiber: AnyFiber): Tags => fiber.getFiberRef(FiberRef.currentMetricLabels)

/** A read that has failed on an engine runs again. */
export const countMoved = (engine: Engine, rule: Extract<Rule, "again" | "moved" | "refused">, fiber: AnyFiber): void =>
  series(movedKey, { [attributes.engine]: engine.name, [attributes.rule]: rule }).unsafeUpdate(1, tagsOf(fiber))

/** What one router measures. */
export class Telemetry {
  private readonly engines = new WeakMap<Engine, EngineStatements>()
  private readonly transactions = new WeakMap<Engine, Map<string, ReturnType<typeof transactionsOf>>>()
  private readonly nowhere = nowhere()
  private readonly errorTypes = new Set<string>()
  private readonly gauges = new Map<Engine, EngineGauges>()
  private readonly active = series(activeKey, {})

  private constructor(
    /** Labels of the fiber that has built the router. */
    private readonly tags: Tags
  ) {}

  /** Ends with the scope: what it has set is zero then. */
  static readonly make: Effect.Effect<Telemetry, never, Scope.Scope> = Effect.acquireRelease(
    Effect.map(FiberRef.get(FiberRef.currentMetricLabels), (tags) => new Telemetry(tags)),
    (telemetry) => Effect.sync(() => telemetry.clear())
  )

  /** Measures a statement, from now to the end of its trip. */
  begin(trip: Trip): void {
    const { fiber } = trip
    const clock = clockOf(fiber)
    const began = clock.unsafeCurrentTimeNanos()
    trip.onEnd = (cause) => this.ended(fiber, clock, trip, began, cause)
  }

  /** A statement that began then has ended. */
  private ended(
    fiber: AnyFiber,
    clock: Clock.Clock,
    trip: Trip,
    began: bigint,
    cause: Cause.Cause<unknown> | undefined
  ): void {
    const { went } = trip
    const tags = tagsOf(fiber)
    const seconds = Number(clock.unsafeCurrentTimeNanos() - began) / 1e9
    const statements = went === undefined ? this.nowhere : this.of(went)
    if (cause === undefined) {
      statements.count("success", tags)
      statements.durations.observe(seconds, undefined, undefined, tags)
      return
    }
    const isInterrupted = Cause.isInterruptedOnly(cause)
    const error = Cause.squash(cause)
    const { state, type } = isInterrupted ? { state: undefined, type: "interrupted" } : failureOf(error)
    statements.count(isInterrupted ? "interrupted" : "error", tags)
    const known = this.isKnown(type)
    statements.durations.observe(seconds, known ? type : other, known ? state : undefined, tags)
  }

  /** A transaction has ended. */
  transaction(fiber: AnyFiber, group: string, engine: Engine, outcome: Ended): void {
    let ofEngine = this.transactions.get(engine)
    if (ofEngine === undefined) {
      ofEngine = new Map()
      this.transactions.set(engine, ofEngine)
    }
    const key = `${outcome} ${group}`
    let transactions = ofEngine.get(key)
    if (transactions === undefined) {
      transactions = transactionsOf({
        [attributes.group]: group,
        [attributes.engine]: engine.name,
        [attributes.outcome]: endedAs[outcome]
      })
      ofEngine.set(key, transactions)
    }
    transactions.unsafeUpdate(1, tagsOf(fiber))
  }

  /** A session has begun its first transaction. */
  sessionBegun(): void {
    this.active.unsafeUpdate(1, this.tags)
  }

  /** A session has ended. */
  sessionEnded(fiber: AnyFiber, outcome: Ended, hasBegun: boolean): void {
    if (hasBegun) this.active.unsafeUpdate(-1, this.tags)
    sessions[hasBegun ? outcome : "unused"].unsafeUpdate(1, tagsOf(fiber))
  }

  /** Sets the gauges of an engine to what it is now. */
  sample(engine: Engine, isWriter: boolean): void {
    let gauges = this.gauges.get(engine)
    if (gauges === undefined) {
      gauges = new EngineGauges(engine, this.tags)
      this.gauges.set(engine, gauges)
    }
    gauges.set(engine, isWriter)
  }

  /** An engine is no more. */
  forget(engine: Engine): void {
    this.gauges.get(engine)?.clear()
    this.gauges.delete(engine)
  }

  private clear(): void {
    for (const engine of this.gauges.keys()) this.forget(engine)
  }

  private of(went: Went): Statements {
    const { engine } = went
    let found = this.engines.get(engine)
    if (found === undefined || found.address !== engine.address) {
      found = new EngineStatements(engine)
      this.engines.set(engine, found)
    }
    return found.of(went)
  }

  private isKnown(type: string): boolean {
    if (this.errorTypes.has(type)) return true
    if (this.errorTypes.size >= maxErrorTypes) return false
    this.errorTypes.add(type)
    return true
  }
}
