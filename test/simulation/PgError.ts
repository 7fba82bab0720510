/** An error, or a notice, as the server reports it. */
export class PgError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly routine: string,
    readonly severity: "ERROR" | "FATAL" | "WARNING" | "NOTICE" = "ERROR"
  ) {
    super(message)
  }
}

/** No code of PostgreSQL's: a text that the simulator does not know must not pass for an error of the server's. */
export const unsupportedCode = "XX999"

export const unsupported = (what: string): PgError =>
  new PgError(unsupportedCode, `The simulator does not know ${what}`, "simulator")

export const readOnly = (what: string): PgError =>
  new PgError("25006", `cannot execute ${what} in a read-only transaction`, "PreventCommandIfReadOnly")

export const duringRecovery = (what: string): PgError =>
  new PgError("25006", `cannot execute ${what} during recovery`, "PreventCommandDuringRecovery")

export const recoveryInProgress = (routine: string): PgError => new PgError("55000", "recovery is in progress", routine)

export const aborted = new PgError(
  "25P02",
  "current transaction is aborted, commands ignored until end of transaction block",
  "exec_simple_query"
)

export const canceledByUser = new PgError("57014", "canceling statement due to user request", "ProcessInterrupts")
