import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type * as RouterError from "../RouterError.js"
import * as check from "./config/check.js"
import type { SessionOptions } from "./session.js"

const isolation = check.oneOf("read uncommitted", "read committed", "repeatable read", "serializable")

// PostgreSQL takes any name with a dot as a setting of one's own; others must exist, and it says so itself.
const settings: check.Check<ReadonlyArray<readonly [string, string]>> = (field, value) => {
  if (!check.isObject(value)) return check.invalid(field, value, 'It must be an object: { "app.user_id": "42" }')
  const entries: Array<readonly [string, string]> = []
  for (const [name, setting] of Object.entries(value)) {
    if (typeof setting !== "string") {
      return check.invalidSecret(`${field}.${name}`, "It must be a text: write numbers as String(value)")
    }
    entries.push([name, setting])
  }
  return Either.right(entries)
}

const fields = check.struct({
  isolation,
  readOnly: check.boolean,
  deferrable: check.boolean,
  statementTimeout: check.duration({ positive: true }),
  idleTimeout: check.duration({ positive: true }),
  reads: check.oneOf("replica", "snapshot"),
  settings
})

/** Whether reads have to be of one state because of the isolation, whose reads nothing else is said of. */
const isRepeatable = (given: {
  readonly isolation?: string | undefined
  readonly reads?: string | undefined
}): boolean => given.isolation === "repeatable read" && given.reads === undefined

const milliseconds = (duration: Duration.Duration): string =>
  `${Math.max(1, Math.round(Duration.toMillis(duration)))}ms`

/** Validates a session's options. */
export const resolve = (options: unknown): Either.Either<SessionOptions, RouterError.RouterConfigError> =>
  Either.map(fields("session", options), (given) => ({
    isolation: given.isolation,
    readOnly: given.readOnly ?? false,
    deferrable: given.deferrable ?? false,
    snapshot: given.reads === "snapshot" || (isRepeatable(given) && given.readOnly === true),
    // What reads and then writes at that level has to read where it writes: else another's write in between goes unnoticed.
    readsOnPrimary: given.isolation === "serializable" || (isRepeatable(given) && given.readOnly !== true),
    settings: [
      ...(given.statementTimeout ? [["statement_timeout", milliseconds(given.statementTimeout)] as const] : []),
      ...(given.idleTimeout ? [["idle_in_transaction_session_timeout", milliseconds(given.idleTimeout)] as const] : []),
      ...(given.settings ?? [])
    ],
    settingsForReads: given.statementTimeout !== undefined || (given.settings ?? []).length > 0
  }))
