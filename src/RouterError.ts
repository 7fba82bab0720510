/**
 * Every error that this package can produce.
 *
 * Wrong options are a `RouterConfigError`, in the error channel of the layer. What goes wrong while a statement is
 * routed is a `RouterError` with a `reason`. The interface of `SqlClient` allows only `SqlError`, so there it arrives as
 * the `cause` of one: `fromSqlError` and `reasonOf` get it back.
 *
 * @since 0.1.0
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * An option, or an environment variable, that cannot be used. No part of it ever holds a secret: passwords in URLs are
 * masked, and values of secret and of unknown fields are left out.
 *
 * @since 0.1.0
 * @category errors
 */
export class RouterConfigError extends Schema.TaggedError<RouterConfigError>(
  "effect-db-router/RouterError/RouterConfigError"
)("RouterConfigError", {
  /** The path of the field, such as `groups.read[1].weight`. */
  field: Schema.String,
  /** The value that was given, as printed text. */
  value: Schema.String,
  /** The allowed values, or what to do. */
  remedy: Schema.String,
  /** The environment variable that the value came from. */
  variable: Schema.optional(Schema.String)
}) {
  /**
   * A code that stays the same from version to version.
   *
   * @since 0.1.0
   */
  get code(): "DB_ROUTER_CONFIG" {
    return "DB_ROUTER_CONFIG"
  }

  override get message(): string {
    const where = this.variable === undefined ? this.field : `${this.variable} (${this.field})`
    return `Invalid ${where}: ${this.value}. ${this.remedy}`
  }
}

/**
 * A list of servers that could not be read: a name that does not resolve, an endpoint that does not answer or that answers
 * something else. No part of it holds a secret.
 *
 * @since 0.1.0
 * @category errors
 */
export class TopologyError extends Schema.TaggedError<TopologyError>("effect-db-router/RouterError/TopologyError")(
  "TopologyError",
  {
    /** The name of the topology. */
    topology: Schema.String,
    /** The source that was asked: a host name, a URL without its credentials. */
    target: Schema.String,
    /** The failure, and what to do. */
    description: Schema.String,
    /** The error underneath. */
    cause: Schema.optional(Schema.Defect)
  }
) {
  /**
   * A code that stays the same from version to version.
   *
   * @since 0.1.0
   */
  get code(): "DB_ROUTER_TOPOLOGY" {
    return "DB_ROUTER_TOPOLOGY"
  }

  override get message(): string {
    return `The topology ${this.topology} could not read ${this.target}: ${this.description}`
  }
}

/**
 * The reason of a `RouterError`.
 *
 * - `UnknownGroup`: a group was named that does not exist
 * - `UnknownEngine`: an engine was named that does not exist
 * - `NoEngineAvailable`: no engine of the group may be used now
 * - `SessionClosed`: a statement, or `commit`, `rollback`, ... came after the end of its session
 * - `ReadOnlyViolation`: a write inside `readOnly`, or inside a session that is read-only
 * - `PartialCommit`: of several groups that a session wrote to, some committed and some did not
 * - `CommitRolledBack`: COMMIT was answered with ROLLBACK, because a statement of the transaction had failed; or a ROLLBACK that
 *   was sent as text had ended the transaction; or an atomic block of another fiber was half done when its session ended, or when
 *   what it was appended to ended
 * - `ConnectionLost`: the connection of a transaction broke before its COMMIT; nothing of it is there. Or a stream of `listen` has
 *   lost the server that it listened to; notifications may have been missed
 * - `OutcomeUnknown`: the connection broke during a write or a COMMIT; it may be there or not. Or a COMMIT that was sent as text
 *   had ended the transaction: what came before it may be there
 * - `SettingsMissing`: a text would go on after the end of the transaction of a session with `settings`, without them (`COMMIT; SELECT`);
 *   or a statement was bound to another group than the one in whose transaction SQL (`SET LOCAL`, `SET ROLE`,
 *   `set_config`, a temporary table) has set what it would run without
 * - `TransactionActive`: `atomic` with `current: "fail"` inside a transaction, or with one that ends transactions inside another block
 * - `RouterClosed`: a statement came after the layer had begun to close
 * - `PoolBusy`: all connections to a server stayed in use for as long as a statement waits for one; it was not sent
 * - `ListenerBehind`: a stream of `listen` had not taken as many notifications as are kept for one; later ones were missed
 * - `CopyUnsupported`: COPY FROM STDIN or TO STDOUT, which `SqlClient` has no means to feed or to read; it was not sent
 *
 * @since 0.1.0
 * @category errors
 */
export const Reason = Schema.Literal(
  "UnknownGroup",
  "UnknownEngine",
  "NoEngineAvailable",
  "SessionClosed",
  "ReadOnlyViolation",
  "PartialCommit",
  "CommitRolledBack",
  "ConnectionLost",
  "OutcomeUnknown",
  "SettingsMissing",
  "TransactionActive",
  "RouterClosed",
  "PoolBusy",
  "ListenerBehind",
  "CopyUnsupported"
)

/**
 * @since 0.1.0
 * @category errors
 */
export type Reason = typeof Reason.Type

/**
 * The stable code of each reason.
 *
 * @since 0.1.0
 * @category errors
 */
export const codes = {
  UnknownGroup: "DB_ROUTER_UNKNOWN_GROUP",
  UnknownEngine: "DB_ROUTER_UNKNOWN_ENGINE",
  NoEngineAvailable: "DB_ROUTER_NO_ENGINE_AVAILABLE",
  SessionClosed: "DB_ROUTER_SESSION_CLOSED",
  ReadOnlyViolation: "DB_ROUTER_READ_ONLY_VIOLATION",
  PartialCommit: "DB_ROUTER_PARTIAL_COMMIT",
  CommitRolledBack: "DB_ROUTER_COMMIT_ROLLED_BACK",
  ConnectionLost: "DB_ROUTER_CONNECTION_LOST",
  OutcomeUnknown: "DB_ROUTER_OUTCOME_UNKNOWN",
  SettingsMissing: "DB_ROUTER_SETTINGS_MISSING",
  TransactionActive: "DB_ROUTER_TRANSACTION_ACTIVE",
  RouterClosed: "DB_ROUTER_CLOSED",
  PoolBusy: "DB_ROUTER_POOL_BUSY",
  ListenerBehind: "DB_ROUTER_LISTENER_BEHIND",
  CopyUnsupported: "DB_ROUTER_COPY_UNSUPPORTED"
} as const satisfies Record<Reason, string>

/**
 * An error of routing a statement, or of ending a session. `reason` says what happened; the other fields say where.
 *
 * @since 0.1.0
 * @category errors
 */
export class RouterError extends Schema.TaggedError<RouterError>("effect-db-router/RouterError/RouterError")(
  "RouterError",
  {
    reason: Reason,
    /** The failure, without advice. */
    description: Schema.String,
    /** The advice: what to do about it. */
    remedy: Schema.String,
    /** The group it is about. */
    group: Schema.optional(Schema.String),
    /** The engine it is about. */
    engine: Schema.optional(Schema.String),
    /** `UnknownGroup`: the groups there are. */
    groups: Schema.optional(Schema.Array(Schema.String)),
    /** `PartialCommit`: the groups whose COMMIT succeeded. */
    committed: Schema.optional(Schema.Array(Schema.String)),
    /** `PartialCommit`: the groups whose work is not there. */
    rolledBack: Schema.optional(Schema.Array(Schema.String)),
    /** `PartialCommit`: the groups whose outcome is unknown. */
    unknown: Schema.optional(Schema.Array(Schema.String)),
    /** The error underneath, mostly the driver's. */
    cause: Schema.optional(Schema.Defect)
  }
) {
  override get message(): string {
    return `${this.description}. ${this.remedy}.`
  }

  /**
   * A code that stays the same from version to version.
   *
   * @since 0.1.0
   */
  get code(): (typeof codes)[Reason] {
    return codes[this.reason]
  }
}

/**
 * The place of an error, and the error underneath.
 *
 * @since 0.1.0
 * @category models
 */
export interface Where {
  readonly group?: string | undefined
  readonly engine?: string | undefined
  readonly cause?: unknown
}

const list = (names: ReadonlyArray<string>) =>
  names.length === 0 ? "none" : names.map((name) => JSON.stringify(name)).join(", ")

const at = (engine: string | undefined) => (engine === undefined ? "" : ` to ${JSON.stringify(engine)}`)

/**
 * There is no such group. `groups` are those there are.
 *
 * @since 0.1.0
 * @category constructors
 */
export const unknownGroup = (group: string, groups: ReadonlyArray<string>): RouterError =>
  new RouterError({
    reason: "UnknownGroup",
    description: `There is no group ${JSON.stringify(group)}`,
    remedy: `The groups are ${list(groups)}; add it to the option "groups", or correct the name`,
    group,
    groups
  })

/**
 * There is no such engine. `engines` are those there are.
 *
 * @since 0.1.0
 * @category constructors
 */
export const unknownEngine = (engine: string, engines: ReadonlyArray<string>): RouterError =>
  new RouterError({
    reason: "UnknownEngine",
    description: `There is no engine ${JSON.stringify(engine)}`,
    remedy: `The engines are ${list(engines)}; router.status lists them`,
    engine
  })

/**
 * `why` says, for each engine, what keeps it out ("replica-1: connection refused"); leave it out when the group has none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noEngineAvailable = (
  group: string,
  options: {
    readonly why?: string | undefined
    readonly cause?: unknown
    readonly onNoReplica?: "fail" | undefined
  } = {}
): RouterError =>
  new RouterError({
    reason: "NoEngineAvailable",
    description: `No engine of the group ${JSON.stringify(group)} is available${options.why === undefined ? "" : ` (${options.why})`}`,
    remedy: `Check that its servers run, can be reached and are not drained${options.onNoReplica === undefined ? "" : '; with onNoReplica: "primary" reads use the default group meanwhile'}`,
    group,
    cause: options.cause
  })

/**
 * `operation` is what was tried: "a statement", "commit".
 *
 * @since 0.1.0
 * @category constructors
 */
export const sessionClosed = (operation = "a statement"): RouterError =>
  new RouterError({
    reason: "SessionClosed",
    description: `The session had ended before ${operation} came`,
    remedy:
      "Join the fiber inside the session, or run work that outlives it, such as a daemon, in DbRouter.detached(effect)"
  })

/**
 * `why` is the classifier's reason ("INSERT", "calls nextval").
 *
 * @since 0.1.0
 * @category constructors
 */
export const readOnlyViolation = (why: string, options: Where = {}): RouterError =>
  new RouterError({
    reason: "ReadOnlyViolation",
    description: `A statement that is not a plain read was refused in a read-only section (${why})`,
    remedy:
      "Move it out of DbRouter.readOnly, or out of the read-only session, or wrap it in DbRouter.detached(effect, { readOnly: false })",
    ...options
  })

/**
 * Of the groups of a session, some committed and some did not.
 *
 * @since 0.1.0
 * @category constructors
 */
export const partialCommit = (options: {
  readonly committed: ReadonlyArray<string>
  readonly rolledBack: ReadonlyArray<string>
  readonly unknown?: ReadonlyArray<string> | undefined
  readonly cause?: unknown
}): RouterError => {
  const { unknown = [], ...rest } = options
  const parts = [
    `committed: ${list(options.committed)}`,
    `rolled back: ${list(options.rolledBack)}`,
    ...(unknown.length === 0 ? [] : [`outcome unknown: ${list(unknown)}`])
  ]
  return new RouterError({
    reason: "PartialCommit",
    description: `Not every group of the session committed (${parts.join("; ")})`,
    remedy: "Undo or repeat the work of one side; groups are separate transactions, so write to one group per session",
    unknown,
    ...rest
  })
}

/**
 * A COMMIT was answered with ROLLBACK.
 *
 * @since 0.1.0
 * @category constructors
 */
export const commitRolledBack = (options: Where = {}): RouterError =>
  new RouterError({
    reason: "CommitRolledBack",
    description:
      "PostgreSQL answered COMMIT with ROLLBACK: a statement of the transaction had failed, nothing of it is there",
    remedy:
      "Let the error of the failed statement fail the transaction, or run that statement in sql.withTransaction, a savepoint",
    ...options
  })

/**
 * A session has ended while an atomic block of another fiber in it was half done, in a transaction that both have used.
 *
 * @since 0.1.0
 * @category constructors
 */
export const blockUnfinished = (): RouterError =>
  new RouterError({
    reason: "CommitRolledBack",
    description:
      "An atomic block of another fiber was half done when the session ended: its transaction was rolled back",
    remedy: "Wait for the fiber, or let it run the block in DbRouter.newSession, which has a transaction of its own"
  })

/**
 * A transaction has ended without an atomic block that was appended to it: that had failed, or had not ended.
 *
 * @since 0.1.0
 * @category constructors
 */
export const partNotDone = (): RouterError =>
  new RouterError({
    reason: "CommitRolledBack",
    description:
      "An atomic block that was appended to the transaction had failed, or had not ended: all of it was rolled back",
    remedy: `Let its failure fail the transaction, wait for its fiber, or use current: "savepoint" for a block that may fail alone`
  })

/**
 * The connection of a transaction broke before its COMMIT.
 *
 * @since 0.1.0
 * @category constructors
 */
export const connectionLost = (options: Where = {}): RouterError =>
  new RouterError({
    reason: "ConnectionLost",
    description: `The connection of the transaction${at(options.engine)} broke before its COMMIT; nothing of it is there`,
    remedy: "Run the whole transaction again",
    ...options
  })

/**
 * A stream of `listen` has lost the server that it listened to. `why` says how ("primary is drained").
 *
 * @since 0.1.0
 * @category constructors
 */
export const listenEnded = (why: string, options: Where = {}): RouterError =>
  new RouterError({
    reason: "ConnectionLost",
    description: `The connection that listens was given up, because ${why}: notifications may have been missed`,
    remedy: "Listen again (Stream.retry), and read what the missed ones would have told",
    ...options
  })

/**
 * A write, or a COMMIT, was sent and not answered; `"odd answer"`: a COMMIT that was answered with neither COMMIT nor ROLLBACK.
 *
 * @since 0.1.0
 * @category constructors
 */
export const outcomeUnknown = (operation: "statement" | "commit" | "odd answer", options: Where = {}): RouterError =>
  new RouterError({
    reason: "OutcomeUnknown",
    description: {
      statement: `A write was sent${at(options.engine)} and no answer came; whether it took effect is unknown`,
      commit: `The connection${at(options.engine)} broke during COMMIT; whether the transaction is there is unknown`,
      "odd answer": `A COMMIT that was sent${at(options.engine)} was answered with neither COMMIT nor ROLLBACK; whether the transaction is there is unknown`
    }[operation],
    remedy: "Look whether the data is there before you repeat it; it was not retried",
    ...options
  })

/**
 * A text of the program's own (`COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`, ...) has ended a transaction of the router's. What
 * comes after it in the unit of work is refused, and so is the end of the unit, unless all of it was committed or prepared.
 * `"rolled back"`: nothing of it is there. `"unknown"`: what came before that text may be there.
 *
 * @since 0.1.0
 * @category constructors
 */
export const endedByText = (outcome: "rolled back" | "unknown", options: Where = {}): RouterError =>
  new RouterError({
    reason: outcome === "unknown" ? "OutcomeUnknown" : "CommitRolledBack",
    description:
      outcome === "unknown"
        ? "Transaction control that was sent as text has ended the transaction; what came before it may be there, what came after it was refused"
        : "Transaction control that was sent as text has rolled the transaction back; nothing of it is there, what came after it was refused",
    remedy:
      "Use DbRouter.commit and DbRouter.rollback, or sql.withTransaction for a savepoint, instead of COMMIT and ROLLBACK as text",
    ...options
  })

/**
 * There is a transaction already, and there may be none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const transactionActive = (group?: string): RouterError =>
  new RouterError({
    reason: "TransactionActive",
    description: `A transaction is already active${group === undefined ? "" : ` on the group ${JSON.stringify(group)}`}`,
    remedy: `Commit or roll it back first, or choose another "current": "commit" or "rollback", and inside another unit of work "append" or "savepoint"`,
    group
  })

/**
 * A unit of work that names options of its own is to join a session that has none of them.
 *
 * @since 0.1.0
 * @category constructors
 */
export const sessionActive = (): RouterError =>
  new RouterError({
    reason: "TransactionActive",
    description:
      "A session with options was to begin inside another session, which it joins, and which does not have them",
    remedy: "Use DbRouter.newSession, or give the options to the session (or HttpSession.middleware) around"
  })

/**
 * A statement would run on a group without what SQL has set in the transaction on another one.
 *
 * @since 0.1.0
 * @category constructors
 */
export const settingsMissing = (group: string, holder: string): RouterError =>
  new RouterError({
    reason: "SettingsMissing",
    description: `A statement for the group ${JSON.stringify(group)} was refused: it would run without what a statement (SET, set_config, a temporary table) has set in the transaction on the group ${JSON.stringify(holder)}`,
    remedy: `Give the session its "settings", which hold on every group, or run the statement in a newSession`,
    group
  })

/**
 * A text would end the transaction of a session that has settings, and go on without them.
 *
 * @since 0.1.0
 * @category constructors
 */
export const settingsEnded = (): RouterError =>
  new RouterError({
    reason: "SettingsMissing",
    description:
      "A text was refused that ends the transaction of its session and has more statements after that: they would run without the session's settings",
    remedy: "Leave the end to the session, or send what follows by itself in another one"
  })

/**
 * The router is closing, or closed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const routerClosed = (): RouterError =>
  new RouterError({
    reason: "RouterClosed",
    description: "The router is closing or closed: the scope of its layer has ended",
    remedy: "End the fibers that use the router before its layer, or provide the layer further outside"
  })

/**
 * All connections to a server stayed in use, `max` of them for `millis` milliseconds.
 *
 * @since 0.1.0
 * @category constructors
 */
export const poolBusy = (engine: string, max: number, millis: number): RouterError =>
  new RouterError({
    reason: "PoolBusy",
    description: `All ${max} connections to ${JSON.stringify(engine)} were in use for ${millis} ms; the statement was not sent`,
    remedy:
      "End sooner what holds them (transactions that wait for something else, streams that are read slowly), or allow more (maxConnections) or a longer wait (connectTimeout)",
    engine
  })

/**
 * A stream of `listen` on `channel` has not taken `most` notifications, and one more has come.
 *
 * @since 0.1.0
 * @category constructors
 */
export const listenerBehind = (channel: string, most: number): RouterError =>
  new RouterError({
    reason: "ListenerBehind",
    description: `A stream that listens to ${JSON.stringify(channel)} had ${most} notifications to take when more came, which were missed`,
    remedy:
      "Take them sooner (hand slow work to other fibers), or allow more (maxPendingNotifications); listen again, and read what the missed ones would have told"
  })

/**
 * COPY through the connection, of which nothing was sent.
 *
 * @since 0.1.0
 * @category constructors
 */
export const copyUnsupported = (): RouterError =>
  new RouterError({
    reason: "CopyUnsupported",
    description: "COPY FROM STDIN and COPY TO STDOUT are not supported here; the statement was not sent",
    remedy:
      "Insert with unnest of arrays, read with a SELECT as a stream, COPY from or to a file of the server, or use pg-copy-streams on a client of `pg`"
  })

/**
 * Returns `true` if a value is a `RouterError`, not for an error that was caused by one: see {@link fromSqlError}.
 *
 * @since 0.1.0
 * @category guards
 */
export const isRouterError = (u: unknown): u is RouterError => u instanceof RouterError

/**
 * The error as the `SqlClient` interface can carry it: a `SqlError` with the same message and the `RouterError` as its
 * `cause`.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toSqlError = (error: RouterError): SqlError => new SqlError({ cause: error, message: error.message })

/**
 * The `RouterError` in an error: itself, or the first in its chain of causes.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromSqlError = (error: unknown): Option.Option<RouterError> => {
  const seen = new Set<unknown>()
  let current = error
  while (typeof current === "object" && current !== null && !seen.has(current)) {
    if (isRouterError(current)) return Option.some(current)
    seen.add(current)
    current = "cause" in current ? current.cause : undefined
  }
  return Option.none()
}

/**
 * The reason of the `RouterError` in an error, if there is one.
 *
 * @example
 * ```ts
 * import type { SqlError } from "@effect/sql/SqlError"
 * import { Effect, Option } from "effect"
 * import { RouterError } from "effect-db-router"
 *
 * declare const rows: Effect.Effect<ReadonlyArray<object>, SqlError>
 *
 * const orNone = Effect.catchTag(rows, "SqlError", (error) =>
 *   Option.contains(RouterError.reasonOf(error), "NoEngineAvailable") ? Effect.succeed([]) : Effect.fail(error)
 * )
 * ```
 *
 * @since 0.1.0
 * @category conversions
 */
export const reasonOf = (error: unknown): Option.Option<Reason> =>
  Option.map(fromSqlError(error), (found) => found.reason)

/**
 * The known outcome of the work that has failed with an error:
 *
 * - `"not done"`: nothing of it is there, so it may be repeated
 * - `"unknown"`: it may be there or not, because the server did not answer what was sent (`OutcomeUnknown`)
 * - `"partly done"`: of several groups some have committed (`PartialCommit`, which names them, and those whose outcome is
 *   unknown)
 *
 * @since 0.1.0
 * @category models
 */
export type KnownOutcome = "not done" | "unknown" | "partly done"

/**
 * The known outcome of a write that has failed with an error: a statement outside transactions, a whole transaction, a session.
 *
 * A statement that was never sent (no connection could be had: the message is "Failed to acquire connection"), one that the
 * server has refused, and a transaction whose connection broke before its COMMIT are `"not done"`. A text that commits in
 * between by itself (`CALL` of a procedure that commits, several statements with a COMMIT among them, `CREATE INDEX
 * CONCURRENTLY`) and then fails is too, as far as the error can tell: what came before that COMMIT is there.
 *
 * @example
 * ```ts
 * import { RouterError } from "effect-db-router"
 * import { Effect } from "effect"
 *
 * const onceMore = <A, E, R>(write: Effect.Effect<A, E, R>) =>
 *   Effect.retry(write, { times: 1, while: (error) => RouterError.outcomeOf(error) === "not done" })
 * ```
 *
 * @since 0.1.0
 * @category conversions
 */
export const outcomeOf = (error: unknown): KnownOutcome => {
  const reason = Option.getOrUndefined(reasonOf(error))
  return reason === "OutcomeUnknown" ? "unknown" : reason === "PartialCommit" ? "partly done" : "not done"
}

/**
 * Returns `true` if the failed work may be there or not: to repeat it blindly could do it twice.
 *
 * @since 0.1.0
 * @category guards
 */
export const isOutcomeUnknown = (error: unknown): boolean =>
  Option.exists(
    fromSqlError(error),
    ({ reason, unknown }) => reason === "OutcomeUnknown" || (reason === "PartialCommit" && (unknown ?? []).length > 0)
  )
