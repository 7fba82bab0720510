/** What the error of an operation tells its caller. */
import { SqlError } from "@effect/sql"
import { Cause, Option } from "effect"
import { RouterError } from "effect-db-router"
import { Told } from "./Ledger.js"

/** An operation that failed. */
export interface Failure {
  readonly kind: string
  /** The error in a few words: its reason, or its SQLSTATE. */
  readonly label: string
  /** The outcome of a write by its error: nothing of it is there, or it is unknown. The ledger holds the error to its word. */
  readonly told: Told
  /** Whether it is a `SqlError`, as the interface promises. */
  readonly typed: boolean
  readonly began: number
  readonly ended: number
  readonly message: string
}

/** The first error in a chain of causes for which there is an answer. */
const search = <A>(error: unknown, ask: (error: object) => A | undefined): A | undefined => {
  const seen = new Set<unknown>()
  let current = error
  while (typeof current === "object" && current !== null && !seen.has(current)) {
    const found = ask(current)
    if (found !== undefined) return found
    seen.add(current)
    current = "cause" in current ? current.cause : undefined
  }
  return undefined
}

/** The SQLSTATE of a server's error: only the server's errors have a severity. */
const sqlState = (error: unknown): string | undefined =>
  search(error, (one) => ("severity" in one && "code" in one && typeof one.code === "string" ? one.code : undefined))

const socketCode = (error: unknown): string | undefined =>
  search(error, (one) => ("code" in one && typeof one.code === "string" ? one.code : undefined))

const toldBy = (error: unknown): Told => (RouterError.outcomeOf(error) === "not done" ? Told.failed : Told.unknown)

const labelOf = (error: unknown): string =>
  [Option.getOrUndefined(RouterError.reasonOf(error)), sqlState(error) ?? socketCode(error)]
    .filter((part) => part !== undefined)
    .join(" ") || (error instanceof Error ? error.message : String(error))

export const of = (kind: string, cause: Cause.Cause<unknown>, began: number, ended: number): Failure => {
  const error = Cause.squash(cause)
  return {
    kind,
    label: labelOf(error),
    told: toldBy(error),
    typed: Cause.isFailure(cause) && error instanceof SqlError.SqlError,
    began,
    ended,
    message: `${kind}: ${labelOf(error)}: ${Cause.pretty(cause).split("\n")[0]}`
  }
}

/** How often which error came, the most frequent first. */
export const summary = (failures: ReadonlyArray<Failure>): ReadonlyArray<string> => {
  const counts = new Map<string, number>()
  for (const { message } of failures) counts.set(message, (counts.get(message) ?? 0) + 1)
  return [...counts].sort(([, a], [, b]) => b - a).map(([message, n]) => `${n} x ${message}`)
}
