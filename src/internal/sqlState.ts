import type { SqlError } from "@effect/sql/SqlError"

/** The fields of a server's error that are free of locale. */
interface DatabaseError {
  readonly code: string
  readonly routine: string | undefined
  readonly message: string
}

/** The server's error underneath a `SqlError`, if it is one. */
export const databaseError = (error: SqlError): DatabaseError | undefined => {
  const cause = error.cause
  return cause instanceof Error && "severity" in cause && "code" in cause && typeof cause.code === "string"
    ? (cause as unknown as DatabaseError)
    : undefined
}

/**
 * The SQLSTATE with which a standby refuses a statement because it is a standby; `undefined` for any other error.
 *
 * 25006 read_only_sql_transaction; 55000 object_not_in_prerequisite_state ("recovery is in progress"); 0A000
 * feature_not_supported (unlogged relations, serializable), except a cached plan whose result type has changed; XX000 of a
 * function that writes WAL under a non-volatile declaration.
 */
export const isStandbyRefusal = (error: SqlError): string | undefined => {
  const found = databaseError(error)
  switch (found?.code) {
    case "25006":
    case "55000":
      return found.code
    case "0A000":
      return found.routine === "RevalidateCachedQuery" ? undefined : found.code
    case "XX000":
      return found.message.includes("cannot make new WAL entries") ? found.code : undefined
    default:
      return undefined
  }
}
