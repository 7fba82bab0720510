/**
 * The names of all metrics of the router and of the attributes of its spans, with their units.
 *
 * Metrics are Effect's own, in its global registry, so whatever exports those (`@effect/opentelemetry`, `Metric.snapshot`)
 * exports these too; no layer is needed. Names are OpenTelemetry's where its database conventions have one
 * (`db.client.*`), else they begin with `db.router.`; the labels of metrics, the attributes of spans and the annotations of
 * log lines are one vocabulary. Exporters to Prometheus turn the dots into underscores and append the unit.
 *
 * Labels are bounded: groups and engines by the configuration, everything else by the lists of this module. No text of a
 * statement, no name out of one, and no message of an error is ever a label. Labels of the fiber that runs a statement
 * (`Effect.labelMetrics`) are added to those of its metrics.
 *
 * Gauges are set when an engine has been probed or has changed (every 5 seconds with `health: false`), and are zero once the
 * router is closed or the engine is gone. Effect's registry forgets no series: servers that come and go should keep to few
 * names. Two routers in one process need engines of different names to be told apart.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"
import { histogramKey, keyOf } from "./internal/util/metricKey.js"

/**
 * The names of labels, and of the attributes of spans and log lines that the router adds to those of `@effect/sql`.
 *
 * @since 0.1.0
 * @category attributes
 */
export const attributes = {
  /** `postgresql`. */
  system: "db.system.name",
  /** The database. */
  namespace: "db.namespace",
  /** The server's host, or the directory of its socket. */
  serverAddress: "server.address",
  serverPort: "server.port",
  /** The SQLSTATE, where the server has said one. */
  statusCode: "db.response.status_code",
  /**
   * The kind of the failure: the SQLSTATE, the code of the socket's error (`ECONNREFUSED`), the reason of a `RouterError`
   * (`NoEngineAvailable`), `interrupted`, or the name of the error; `_OTHER` beyond the first 100 of a router.
   */
  errorType: "error.type",
  /** The engine whose pool it is. */
  poolName: "db.client.connection.pool.name",
  /** `used` or `idle`. */
  connectionState: "db.client.connection.state",
  /** The group; `none` for a statement that was sent nowhere. */
  group: "db.router.group",
  /** The engine; `none` for a statement that was sent nowhere. */
  engine: "db.router.engine",
  /** `read`, `write` or `session`; `none` for a statement that was sent nowhere. */
  kind: "db.router.kind",
  /** The rule of routing that decided: one of {@link rules}. */
  rule: "db.router.rule",
  /** The outcome: see the metric. */
  outcome: "db.router.outcome",
  /** The state of an engine: see `Health.Shown`. */
  state: "db.router.state",
  /** The attempt that has answered a read that was sent twice: `first`, `second` or `neither`. */
  winner: "db.router.winner",
  /** `hit` or `miss`. */
  lookup: "db.router.lookup",
  /** Spans only: why, in words, with what the rule was about. */
  reason: "db.router.reason",
  /** Spans only: how often a read was sent that has moved. */
  attempts: "db.router.attempts",
  /** Spans only: the engines on which it has failed, and how. */
  failed: "db.router.failed",
  /** Spans only: the engine that a read was also sent to. */
  hedged: "db.router.hedged",
  /** Spans only, with `reads: "observe"`: where the read would have gone. */
  observedGroup: "db.router.observed.group",
  observedEngine: "db.router.observed.engine",
  /** Log lines only: what has happened: `state_changed`, `primary_changed`, ... */
  event: "db.router.event",
  /** Log lines only: the state of an engine before. */
  previousState: "db.router.previous.state",
  /** Log lines only: the engine that took the writes before. */
  previousEngine: "db.router.previous.engine",
  /** Log lines only: the engine, or the topology, with which something has been wrong for some time. */
  thing: "db.router.thing",
  /** Log lines only: the engines that claim to be the primary too. */
  rivals: "db.router.rivals"
} as const

/**
 * The rules of routing, and what each has found: the bounded form of the reason that spans and `explain` give in words.
 *
 * @since 0.1.0
 * @category attributes
 */
export const rules = {
  transaction: "it runs inside a transaction",
  test: "it runs inside a test's transaction",
  reserved: "it runs on a connection from `sql.reserve`",
  bound: "`bindGroup`",
  disabled: "`enabled: false`",
  forced: "`DbRouter.primary`",
  write: "the classifier calls it a write",
  session: "the classifier says that it holds for one session or server",
  session_wrote: "a read, and its session has written",
  consistency: "a read after a write, by the policy of consistency",
  explicit: 'a read outside `replica`, with `reads: "explicit"`',
  serializable: "a read of a serializable session, which standbys do not have",
  no_read_group: "a read, and there are no replicas",
  no_replica: "a read, and no replica is available",
  stale: "a read, and no replica is as fresh as `maxStaleness` asks for",
  behind: "a read, and no replica is known to have what its flow has seen",
  observed: 'a read, with `reads: "observe"`',
  read: "a read that any replica may answer",
  caught_up: "a read, on a replica that has what its flow has seen",
  again: "a read that had not run, on the same server again",
  moved: "a read that has failed on another server",
  refused: "a statement that a standby has refused as a standby",
  hedged: "a read that another replica had not answered in time",
  none: "it was sent nowhere: it was refused, or no server was available"
} as const

/**
 * The rule of routing that decided about a statement: one of {@link rules}.
 *
 * @since 0.1.0
 * @category models
 */
export type Rule = keyof typeof rules

/**
 * The name and the meaning of a metric.
 *
 * @since 0.1.0
 * @category models
 */
export interface Instrument {
  readonly name: string
  readonly type: "counter" | "up-down counter" | "gauge" | "histogram"
  /**
   * By UCUM, as OpenTelemetry has it. Seconds (`s`) and bytes (`By`) are a label `unit` too: there `@effect/opentelemetry`
   * reads the unit.
   */
  readonly unit: string
  readonly description: string
  readonly attributes: ReadonlyArray<string>
}

const { engine, errorType, group, kind, namespace, outcome, poolName, rule, serverAddress, serverPort, system } =
  attributes

/**
 * All metrics, by what they are called here.
 *
 * @since 0.1.0
 * @category metrics
 */
export const instruments = {
  statements: {
    name: "db.router.statements",
    type: "counter",
    unit: "{statement}",
    description: "Statements, by where they were answered and how they ended: success, error or interrupted",
    attributes: [group, engine, kind, rule, outcome]
  },
  duration: {
    name: "db.client.operation.duration",
    type: "histogram",
    unit: "s",
    description: "Duration of statements as their callers see it, waiting and repetitions included",
    attributes: [system, namespace, serverAddress, serverPort, group, engine, kind, errorType, attributes.statusCode]
  },
  movedReads: {
    name: "db.router.moved_reads",
    type: "counter",
    unit: "{read}",
    description: "Reads that failed on an engine and ran again, on it or on another one",
    attributes: [engine, rule]
  },
  hedgedReads: {
    name: "db.router.hedged_reads",
    type: "counter",
    unit: "{read}",
    description: "Reads that an engine had not answered in time and that were sent to another one too",
    attributes: [engine, attributes.winner]
  },
  positionQuestions: {
    name: "db.router.position_questions",
    type: "counter",
    unit: "{question}",
    description: "Extra round trips that asked a server for its position",
    attributes: [engine]
  },
  rejectedTokens: {
    name: "db.router.rejected_tokens",
    type: "counter",
    unit: "{token}",
    description: "Tokens of positions that were ignored",
    attributes: [errorType]
  },
  lookups: {
    name: "db.router.classifier.lookups",
    type: "counter",
    unit: "{lookup}",
    description: "Texts that the classifier was asked for, by whether it knew them",
    attributes: [attributes.lookup]
  },
  transactions: {
    name: "db.router.transactions",
    type: "counter",
    unit: "{transaction}",
    description: "Transactions that have ended: committed, rolled_back or unknown",
    attributes: [group, engine, outcome]
  },
  sessions: {
    name: "db.router.sessions",
    type: "counter",
    unit: "{session}",
    description: "Sessions that have ended: committed, rolled_back, unknown, or unused without a transaction",
    attributes: [outcome]
  },
  activeSessions: {
    name: "db.router.active_sessions",
    type: "up-down counter",
    unit: "{session}",
    description: "Sessions that have begun a transaction and have not ended",
    attributes: []
  },
  engineState: {
    name: "db.router.engine.state",
    type: "gauge",
    unit: "1",
    description: "1 for the state that an engine is in, 0 for all others",
    attributes: [engine, attributes.state]
  },
  engineWriter: {
    name: "db.router.engine.writer",
    type: "gauge",
    unit: "1",
    description: "1 for the engine that takes the writes, else 0",
    attributes: [engine]
  },
  lagDuration: {
    name: "db.router.lag.duration",
    type: "gauge",
    unit: "s",
    description: "How long ago a replica had all that the primary had, at its last answer",
    attributes: [engine]
  },
  lagSize: {
    name: "db.router.lag.size",
    type: "gauge",
    unit: "By",
    description: "Write-ahead log that a replica had not replayed, at its last answer",
    attributes: [engine]
  },
  connections: {
    name: "db.client.connection.count",
    type: "gauge",
    unit: "{connection}",
    description: "Open connections of an engine's pool, used or idle",
    attributes: [poolName, attributes.connectionState]
  },
  connectionLimit: {
    name: "db.client.connection.limit",
    type: "gauge",
    unit: "{connection}",
    description: "The most connections that an engine's pool may have",
    attributes: [poolName]
  },
  pendingRequests: {
    name: "db.client.connection.pending_requests",
    type: "gauge",
    unit: "{request}",
    description: "Statements and transactions that wait for a connection of an engine's pool",
    attributes: [poolName]
  }
} as const satisfies Record<string, Instrument>

/**
 * `db.router.statements`, by `db.router.group`, `db.router.engine`, `db.router.kind`, `db.router.rule` and
 * `db.router.outcome`: every statement of the routed client once, where it was answered or given up, however often it was
 * sent. `success`, `error` or `interrupted`. What the router says of its own (`BEGIN`, `COMMIT`, `SAVEPOINT`, probes) is not
 * among them.
 *
 * @since 0.1.0
 * @category metrics
 */
export const statements: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.statements))

/**
 * `db.client.operation.duration`, in seconds, by `db.system.name`, `db.namespace`, `server.address`, `server.port`,
 * `db.router.group`, `db.router.engine` and `db.router.kind`; of failures also by `error.type` and
 * `db.response.status_code`. As long as the statement's span: waiting for a connection, a replica or a primary counts, and
 * so do repetitions; a stream lasts until its last row was taken. The boundaries are OpenTelemetry's.
 *
 * @since 0.1.0
 * @category metrics
 */
export const duration: Metric.Metric.Histogram<number> = Metric.fromMetricKey(histogramKey(instruments.duration))

/**
 * `db.router.moved_reads`, by `db.router.engine`, which has failed, and `db.router.rule`, what followed: `again`, `moved` or
 * `refused`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const movedReads: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.movedReads))

/**
 * `db.router.hedged_reads`, by `db.router.engine`, which was too slow, and `db.router.winner`: `first`, `second` or `neither`.
 *
 * @since 0.1.0
 * @category metrics
 */
export const hedgedReads: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.hedgedReads))

/**
 * `db.router.position_questions`, by `db.router.engine`. Most positions come with a statement and are not among them.
 *
 * @since 0.1.0
 * @category metrics
 */
export const positionQuestions: Metric.Metric.Counter<number> = Metric.fromMetricKey(
  keyOf.counter(instruments.positionQuestions)
)

/**
 * `db.router.rejected_tokens`, by `error.type`: `malformed`, `tooLong`, `version`, `signature`, `expired`, `impossible`, or
 * `unavailable` where there is no router, or where the request's store of tokens could not be read.
 *
 * @since 0.1.0
 * @category metrics
 */
export const rejectedTokens: Metric.Metric.Counter<number> = Metric.fromMetricKey(
  keyOf.counter(instruments.rejectedTokens)
)

/**
 * `db.router.classifier.lookups`, by `db.router.lookup`: `hit` or `miss`. Many misses: texts hold values instead of
 * parameters, or `classifier.cacheSize` is too small.
 *
 * @since 0.1.0
 * @category metrics
 */
export const lookups: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.lookups))

/**
 * `db.router.transactions`, by `db.router.group`, `db.router.engine` and `db.router.outcome`: `committed`, `rolled_back`, or
 * `unknown` where the server has not answered the COMMIT. Savepoints are not among them, nor what sessions begin on replicas
 * only to read.
 *
 * @since 0.1.0
 * @category metrics
 */
export const transactions: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.transactions))

/**
 * `db.router.sessions`, by `db.router.outcome`: `committed`, `rolled_back`, `unknown`, or `unused` where no transaction was
 * begun. Request scopes are sessions too.
 *
 * @since 0.1.0
 * @category metrics
 */
export const sessions: Metric.Metric.Counter<number> = Metric.fromMetricKey(keyOf.counter(instruments.sessions))

/**
 * `db.router.active_sessions`: sessions that have begun a transaction and have not ended.
 *
 * @since 0.1.0
 * @category metrics
 */
export const activeSessions: Metric.Metric.Counter<number> = Metric.fromMetricKey(
  keyOf.upDownCounter(instruments.activeSessions)
)

/**
 * `db.router.engine.state`, by `db.router.engine` and `db.router.state`: `1` for the state that an engine is in, `0` for all
 * others.
 *
 * @since 0.1.0
 * @category metrics
 */
export const engineState: Metric.Metric.Gauge<number> = Metric.fromMetricKey(keyOf.gauge(instruments.engineState))

/**
 * `db.router.engine.writer`, by `db.router.engine`: `1` for the engine that takes the writes. While the sum is `0`, none does.
 *
 * @since 0.1.0
 * @category metrics
 */
export const engineWriter: Metric.Metric.Gauge<number> = Metric.fromMetricKey(keyOf.gauge(instruments.engineWriter))

/**
 * `db.router.lag.duration`, in seconds, by `db.router.engine`: how long ago a replica had all that the primary had, at its last
 * answer.
 *
 * @since 0.1.0
 * @category metrics
 */
export const lagDuration: Metric.Metric.Gauge<number> = Metric.fromMetricKey(keyOf.gauge(instruments.lagDuration))

/**
 * `db.router.lag.size`, in bytes of write-ahead log, by `db.router.engine`: what a replica had not replayed at its last answer.
 *
 * @since 0.1.0
 * @category metrics
 */
export const lagSize: Metric.Metric.Gauge<number> = Metric.fromMetricKey(keyOf.gauge(instruments.lagSize))

/**
 * `db.client.connection.count`, by `db.client.connection.pool.name`, which is the engine, and `db.client.connection.state`:
 * `used` or `idle`. Without the connection of the probes.
 *
 * @since 0.1.0
 * @category metrics
 */
export const connections: Metric.Metric.Gauge<number> = Metric.fromMetricKey(keyOf.gauge(instruments.connections))

/**
 * `db.client.connection.limit`, by `db.client.connection.pool.name`: the most connections that the pool may have.
 *
 * @since 0.1.0
 * @category metrics
 */
export const connectionLimit: Metric.Metric.Gauge<number> = Metric.fromMetricKey(
  keyOf.gauge(instruments.connectionLimit)
)

/**
 * `db.client.connection.pending_requests`, by `db.client.connection.pool.name`: statements and transactions that wait for a
 * connection.
 *
 * @since 0.1.0
 * @category metrics
 */
export const pendingRequests: Metric.Metric.Gauge<number> = Metric.fromMetricKey(
  keyOf.gauge(instruments.pendingRequests)
)
