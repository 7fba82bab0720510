/** What an error says beside its message. */
export interface Details {
  readonly detail?: string
  readonly hint?: string
  /** In the text, from 1. */
  readonly position?: number
  readonly schema?: string
  readonly table?: string
  readonly column?: string
  readonly constraint?: string
}

/** An error, or a notice, as the server reports it. */
export class PgError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly routine: string,
    readonly severity: "ERROR" | "FATAL" | "WARNING" | "NOTICE" = "ERROR",
    readonly details: Details = {}
  ) {
    super(message)
  }
}

/** An error in a text, at a place that the parser counts from 0. */
export const errorAt = (location: unknown, code: string, message: string, routine: string): PgError =>
  new PgError(code, message, routine, "ERROR", { position: Number(location ?? 0) + 1 })

/** No code of PostgreSQL's: a text that the simulator does not know must not pass for an error of the server's. */
export const unsupportedCode = "XX999"

export const unsupported = (what: string): PgError =>
  new PgError(unsupportedCode, `The simulator does not know ${what}`, "simulator")

export const readOnly = (what: string): PgError =>
  new PgError("25006", `cannot execute ${what} in a read-only transaction`, "PreventCommandIfReadOnly")

export const duringRecovery = (what: string): PgError =>
  new PgError("25006", `cannot execute ${what} during recovery`, "PreventCommandDuringRecovery")

export const recoveryInProgress = (routine: string): PgError => {
  const what = routine === "pg_walfile_name" ? "pg_walfile_name()" : "WAL control functions"
  const hint = `${what} cannot be executed during recovery.`
  return new PgError("55000", "recovery is in progress", routine, "ERROR", { hint })
}

/** Where the server finds that the transaction has failed. */
export type Refusing =
  | "exec_simple_query"
  | "exec_parse_message"
  | "exec_bind_message"
  | "exec_execute_message"
  | "exec_describe_statement_message"
  | "exec_describe_portal_message"

export const aborted = (routine: Refusing): PgError =>
  new PgError("25P02", "current transaction is aborted, commands ignored until end of transaction block", routine)

export const canceled = (why: string): PgError =>
  new PgError("57014", `canceling statement due to ${why}`, "ProcessInterrupts")

export const canceledByUser = canceled("user request")
