import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type * as RouterError from "../../RouterError.js"
import { areSame, make, merge, type Rules, readsOtherwise } from "../context/rules.js"
import * as check from "../validation/check.js"
import type { SessionOptions } from "./session.js"

const isolation = check.oneOf("read uncommitted", "read committed", "repeatable read", "serializable")

/** A session's options as they were given, after validation. */
export interface Given {
  readonly isolation?: string | undefined
  readonly readOnly?: boolean | undefined
  readonly deferrable?: boolean | undefined
  readonly reads?: string | undefined
  readonly settings?: ReadonlyArray<readonly [string, string]> | "none" | undefined
  readonly statementTimeout?: Duration.Duration | undefined
  readonly idleTimeout?: Duration.Duration | undefined
}

// PostgreSQL takes any name with a dot as a setting of one's own; others must exist, and it says so itself.
const settings: check.Check<ReadonlyArray<readonly [string, string]> | "none"> = (field, value) => {
  if (value === "none") return Either.right(value)
  if (!check.isObject(value) || !check.hasFields(value)) {
    return check.invalid(field, value, 'It must be an object, such as { "app.user_id": "42" }, or "none"')
  }
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

const leaving = check.struct({ readOnly: check.only(false), settings: check.only("none") })

/** Validates what `detached` leaves behind. */
export const resolveDetached = (options: unknown) => leaving("detached", options)

/** Validates a session's options. */
export const resolve = (options: unknown): Either.Either<Given, RouterError.RouterConfigError> =>
  fields("session", options)

/** The options of a session inside a unit of work, whose rules hold where it does not say otherwise. */
export const within = (given: Given, around: Rules | undefined): SessionOptions => {
  const readOnly = given.readOnly ?? around?.readOnly ?? false
  const settings = merge(around?.settings ?? [], given.settings)
  return {
    isolation: given.isolation,
    readOnly,
    deferrable: given.deferrable ?? false,
    snapshot: given.reads === "snapshot" || (isRepeatable(given) && readOnly),
    // What reads and then writes at that level has to read where it writes: else another's write in between goes unnoticed.
    readsOnPrimary:
      given.isolation === "serializable" || (isRepeatable(given) && !readOnly) || readsOtherwise(settings),
    timeouts: [
      ...(given.statementTimeout ? [["statement_timeout", milliseconds(given.statementTimeout)] as const] : []),
      ...(given.idleTimeout ? [["idle_in_transaction_session_timeout", milliseconds(given.idleTimeout)] as const] : [])
    ],
    settings,
    settingsForReads: given.statementTimeout !== undefined || settings.length > 0
  }
}

/** Whether what a session's options ask for holds already in the session around. */
export const holds = (given: Given, around: Rules | undefined): boolean => {
  const { readOnly, settings } = within(given, around)
  const others = [given.isolation, given.deferrable, given.reads, given.statementTimeout, given.idleTimeout]
  return others.every((option) => option === undefined) && areSame(make(settings, readOnly), around)
}
