/** When a server has started, in milliseconds, to the microsecond: it tells servers of one system apart. */
import type { Result } from "./connection.js"

export const start = "(extract(epoch FROM pg_postmaster_start_time()) * 1000)::text"

export const startQuery = `SELECT ${start}`

/** A time as a server tells it. */
export const parseStart = (told: unknown): number | undefined =>
  typeof told === "string" && /^\d{1,20}(?:\.\d{1,20})?$/.test(told) ? Number(told) : undefined

/** What it has answered to `startQuery`, with rows as arrays. */
export const startOf = (result: Result | undefined): number | undefined => {
  const rows = result !== undefined && "rows" in result ? (result.rows as ReadonlyArray<unknown>) : []
  const [row] = rows
  return parseStart(Array.isArray(row) ? row[0] : undefined)
}
