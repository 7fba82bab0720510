/**
 * What an error of a statement says of the server that it ran on, and where the statement may run instead. Pure.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as RouterError from "../../RouterError.js"

/** What is used of a server's error. */
interface DatabaseError {
  readonly code: string
  /** In the server's language (`lc_messages`). */
  readonly severity: string
  readonly routine: string | undefined
  readonly message: string
}

/** Whether all connections of a pool stayed in use. It says nothing of the server. */
export const isPoolBusy = ({ cause }: { readonly cause?: unknown }): boolean =>
  RouterError.isRouterError(cause) && cause.reason === "PoolBusy"

/** The message of a `SqlError` without a connection: the statement was never sent. */
export const acquireFailed = "Failed to acquire connection"

/** The message where a connection of the caller's own had broken before: the statement was never sent either. */
export const brokenBefore = "The connection had broken before, so the statement was not sent"

/** The failure of a statement that was sent and never answered: its outcome is unknown. */
export class Unanswered extends SqlError {}

/** The server has stopped answering while a statement ran that may run elsewhere. */
export class ServerLost extends Error {
  override readonly name = "ServerLost"
}

/** A server has sent what is not PostgreSQL's protocol. */
export class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation"
}

/**
 * What follows from an error.
 *
 * - `caller`: it is the caller's
 * - `again`: the statement has not run; a new connection to the same server will do
 * - `elsewhere`: a read may run on another server
 * - `primary`: a read may run on the primary, whose answer counts: the replica may be behind, or set up in another way
 * - `refused`: a standby refuses what only a primary can do, or so it seems: it runs on the primary, as a write
 */
export interface Failure {
  readonly action: "caller" | "again" | "elsewhere" | "primary" | "refused"
  /** Whether the server is to blame, so that nothing is sent to it until it has answered a probe. */
  readonly suspect: boolean
  /** What has failed, in a few words: the SQLSTATE, the socket's error. */
  readonly why: string
}

/** What is known of the server that an error came from. */
export type Role = "primary" | "replica"

/** The server's error underneath a `SqlError`, if it is one. */
const databaseError = (cause: unknown): DatabaseError | undefined =>
  cause instanceof Error && "severity" in cause && "code" in cause && typeof cause.code === "string"
    ? (cause as unknown as DatabaseError)
    : undefined

/** Whether it was the server that said so: it runs, and can be reached. */
export const isServerError = ({ cause }: { readonly cause?: unknown }): boolean => databaseError(cause) !== undefined

/** Whether an error is what the server has answered to a statement. */
export const isAnswer = (error: SqlError): boolean => !(error instanceof Unanswered) && isServerError(error)

/** Whether it is the answer to a statement that was sent: values alone can provoke it. */
export const isOfStatement = (error: SqlError): boolean => isAnswer(error) && error.message !== acquireFailed

/**
 * Whether the server is certain to go on with the connection after an error. Where it is not it may be FATAL in the server's
 * language: the driver passes only the translated severity on.
 */
export const isOnlyOfStatement = (error: Error): boolean => databaseError(error)?.severity === "ERROR"

const failure = (action: Failure["action"], suspect: boolean, why: string): Failure => ({ action, suspect, why })

/** What an error means that came from a server in that role. */
export const judge = (error: SqlError, role: Role): Failure => {
  const found = databaseError(error.cause)
  if (found === undefined) return judgeDriver(error)
  // "cannot connect to invalid database": it is being dropped. That is no refusal of the statement, which was never sent.
  if (found.code === "55000" && error.message === acquireFailed) return failure("elsewhere", false, found.code)
  return judgeServer(found, role, error instanceof Unanswered)
}

/** Socket errors of Node, those of its resolver included. */
const socketCodes = new Set([
  "EAI_AGAIN",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT"
])

/** The messages of `pg` 8, without a code, for a connection that ends under a statement (its client.js). */
const closed = /^Connection terminated|is not queryable$/

const judgeDriver = (error: SqlError): Failure => {
  const { cause } = error
  if (isPoolBusy(error)) return failure("elsewhere", false, "its pool is busy")
  // A probe has found that already.
  if (cause instanceof ServerLost) return failure("elsewhere", false, "it stopped answering")
  if (cause instanceof ProtocolViolation) return failure("elsewhere", true, cause.message)
  if (!(cause instanceof Error) || RouterError.isRouterError(cause)) return failure("caller", false, error.message)
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : undefined
  const isSocket = code === undefined ? closed.test(cause.message) : socketCodes.has(code)
  return isSocket || error.message === acquireFailed
    ? failure("elsewhere", true, code ?? cause.message)
    : failure("caller", false, cause.message)
}

const judgeServer = (found: DatabaseError, role: Role, hasBroken: boolean): Failure => {
  const { code } = found
  const refusal = role === "replica" ? refusalOf(found) : undefined
  if (refusal !== undefined) return refusal
  switch (code) {
    // idle_session_timeout: it was idle when the server closed it, so the statement came too late to run.
    case "57P05":
      return failure("again", false, code)
    // The database was dropped.
    case "57P04":
      return failure("elsewhere", false, code)
    // admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections, disk_full, out_of_memory
    case "57P01":
    case "57P02":
    case "57P03":
    case "53300":
    case "53100":
    case "53200":
      return failure("elsewhere", true, code)
    // protocol_violation: also what a statement with too few parameters gets, from a server that goes on.
    case "08P01":
      return failure(hasBroken ? "elsewhere" : "caller", hasBroken, code)
    case "40001":
    case "40P01":
      return failure(role === "replica" && isRecoveryConflict(found) ? "elsewhere" : "caller", false, code)
    // undefined_table, undefined_column, undefined_function, undefined_object, insufficient_privilege,
    // invalid_authorization_specification, invalid_password, invalid_catalog_name
    case "42P01":
    case "42703":
    case "42883":
    case "42704":
    case "42501":
    case "28000":
    case "28P01":
    case "3D000":
      return failure(role === "replica" ? "primary" : "caller", false, code)
    // invalid_parameter_value of a setting (guc.c), such as a role that is not there: statements that set go to the primary.
    case "22023":
      return failure(role === "replica" && isOfSetting(found) ? "primary" : "caller", false, code)
    default:
      // connection_exception, system_error, internal_error
      return /^(?:08|58|XX)/.test(code) ? failure("elsewhere", true, code) : failure("caller", false, code)
  }
}

const isOfSetting = ({ routine }: DatabaseError): boolean =>
  routine !== undefined && /^(?:call_\w+_check_hook|parse_and_validate_value)$/.test(routine)

/**
 * A standby ends a statement that is in the way of replay: an error, or FATAL with which the connection ends. The routine is
 * that of the version: PostgreSQL 17 and 18 have one for it, 14 to 16 say so where they look for interrupts. A statement that
 * is in the way of another one, on a primary, is told elsewhere (`CheckForSerializableConflictOut`, `heap_lock_tuple`, ...).
 */
const isRecoveryConflict = ({ code, routine, severity }: DatabaseError): boolean =>
  code === "40P01" || severity === "FATAL" || (routine !== undefined && recoveryConflicts.test(routine))

const recoveryConflicts = /^ProcessRecoveryConflict|^ProcessInterrupts$/

/** What of an error says that a standby cannot do this, however well it is. */
const refusalOf = (found: DatabaseError): Failure | undefined => {
  const { code, routine } = found
  switch (code) {
    // read_only_sql_transaction, object_not_in_prerequisite_state ("recovery is in progress")
    case "25006":
    case "55000":
      return failure("refused", false, code)
    case "0A000":
      // A cached plan whose result type has changed is the driver's to prepare again.
      if (routine === "RevalidateCachedQuery") return undefined
      return failure(isSerializableDefault(found) ? "primary" : "refused", isSerializableDefault(found), code)
    // A function that writes to the log under a declaration that says it does not. These messages are never translated.
    case "XX000":
      return /cannot (?:make new WAL entries|assign TransactionIds)/.test(found.message)
        ? failure("refused", false, code)
        : undefined
    default:
      return undefined
  }
}

/** Every statement on a standby fails where `default_transaction_isolation` is serializable. */
const isSerializableDefault = ({ code, routine }: DatabaseError): boolean =>
  code === "0A000" && routine === "GetSerializableTransactionSnapshot"

/** Whether a statement was not run because the server had closed its connection before: idle_session_timeout. */
export const cameTooLate = (error: SqlError): boolean => judge(error, "primary").action === "again"

/** Whether it was the server, or the connection to it, that has failed. */
export const isOfServer = (error: SqlError): boolean => ["again", "elsewhere"].includes(judge(error, "primary").action)

/** What the caller gets of a write outside transactions that has failed: an error that says so where its outcome is unknown. */
export const ofWrite =
  (where: { readonly group?: string; readonly engine: { readonly name: string } }) =>
  (error: SqlError): SqlError => {
    if (!(error instanceof Unanswered) || cameTooLate(error)) return error
    const { cause } = error
    const { engine, group } = where
    return RouterError.toSqlError(RouterError.outcomeUnknown("statement", { group, engine: engine.name, cause }))
  }

/** Whether a probe has failed because the session's default isolation is one that standbys do not have. */
export const saysSerializableDefault = (error: SqlError): boolean => {
  const found = databaseError(error.cause)
  return found !== undefined && isSerializableDefault(found)
}

/**
 * The functions of the server that refuse a statement because the server is a standby, whatever its values are. The same
 * SQLSTATEs come of users' values (`date_trunc('timezone', ...)`), and of RAISE.
 */
const refusing: Readonly<Record<string, RegExp>> = {
  "25006": /^(?:PreventCommand\w+|InitTempTableNamespace)$/,
  "55000":
    /^(?:LockAcquireExtended|pg_current_wal_\w+|pg_walfile_\w+|pg_switch_wal|pg_create_restore_point|do_pg_backup_\w+|pg_log_standby_snapshot|brin_\w+|gin_clean_pending_list|CheckLogicalDecodingRequirements)$/,
  "0A000": /^(?:get_relation_info|mdopen\w*)$/,
  XX000: /^(?:XLog\w+|GetNewTransactionId|AssignTransactionId|GetNewMultiXactId)$/
}

/**
 * The SQLSTATE with which a standby refuses a statement because it is a standby; `undefined` for any other error. The primary
 * has the last word on whether it runs there.
 */
export const isStandbyRefusal = (error: SqlError): string | undefined => {
  const { action, why } = judge(error, "replica")
  if (action !== "refused") return undefined
  const routine = databaseError(error.cause)?.routine
  return routine !== undefined && refusing[why]?.test(routine) === true ? why : undefined
}
