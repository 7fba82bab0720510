/**
 * Positions in the write-ahead log, and their arithmetic. Pure: it knows nothing of servers.
 *
 * A position says "everything up to here". It compares with positions of the same system and timeline only: a standby that
 * still follows a demoted primary may have replayed far past the first position of the new one, and have none of its data.
 *
 * @since 0.1.0
 */
import * as Option from "effect/Option"

/**
 * A place in the write-ahead log of a system.
 *
 * @since 0.1.0
 * @category models
 */
export interface Position {
  /** `system_identifier` of `pg_control_system()`: the same for all servers that stem from one `initdb`. */
  readonly system: string
  /** The timeline: a promotion begins a new one. */
  readonly timeline: number
  /** Bytes of log before it; PostgreSQL's `pg_lsn`. */
  readonly lsn: bigint
}

const lsnPattern = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/

/**
 * Reads a `pg_lsn` as PostgreSQL prints it, such as `16/B374D848`. `None` for any other text.
 *
 * @since 0.1.0
 * @category conversions
 */
export const parseLsn = (text: string): Option.Option<bigint> =>
  Option.map(
    Option.fromNullable(lsnPattern.exec(text)),
    ([, high, low]) => (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`)
  )

/**
 * Prints a log sequence number as PostgreSQL does.
 *
 * @since 0.1.0
 * @category conversions
 */
export const printLsn = (lsn: bigint): string =>
  `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`

/** `XLOG_BLCKSZ`, and the sizes of the headers of a page and of a segment's first page. */
const pageSize = 8_192n
const pageHeader = 24n
const segmentHeader = 40n

/**
 * The end of the WAL records before an insert position. The insert position of an idle primary may sit just past the header
 * of a page (24 bytes) or of a segment's first page (40 bytes), which holds nothing to replay: then standbys have replayed all
 * there is when they are at the start of that page.
 *
 * It holds for segments of every size: a record that ends 40 bytes into another page began on a page before, so a standby
 * that has replayed up to the start of this page has replayed that record too.
 *
 * @since 0.1.0
 * @category questions
 */
export const contentEnd = (lsn: bigint): bigint => {
  const inPage = lsn % pageSize
  return inPage === pageHeader || inPage === segmentHeader ? lsn - inPage : lsn
}

/**
 * Returns `true` if two positions can be compared: they are of one system and one timeline.
 *
 * @since 0.1.0
 * @category questions
 */
export const isComparable = (a: Position, b: Position): boolean => a.timeline === b.timeline && a.system === b.system

/**
 * Returns `true` if a server that has replayed the one position holds everything before the other. Never across systems or
 * timelines.
 *
 * @since 0.1.0
 * @category questions
 */
export const covers = (replayed: Position, wanted: Position): boolean =>
  isComparable(replayed, wanted) && (replayed.lsn >= wanted.lsn || replayed.lsn >= contentEnd(wanted.lsn))

/**
 * Returns `true` if the one position is at or after all the others.
 *
 * @since 0.1.0
 * @category questions
 */
export const coversAll = (replayed: Position, wanted: ReadonlyArray<Position>): boolean => {
  for (const position of wanted) if (!covers(replayed, position)) return false
  return true
}

/**
 * Positions with one more: the furthest of each system and timeline. The same array when it adds nothing.
 *
 * @since 0.1.0
 * @category merging
 */
export const add = (positions: ReadonlyArray<Position>, position: Position): ReadonlyArray<Position> => {
  const index = positions.findIndex((other) => isComparable(other, position))
  if (index < 0) return [...positions, position]
  return positions[index]!.lsn >= position.lsn ? positions : positions.with(index, position)
}

/**
 * The furthest positions of both, for each system and timeline. The first array when the second adds nothing.
 *
 * @since 0.1.0
 * @category merging
 */
export const merge = (self: ReadonlyArray<Position>, that: ReadonlyArray<Position>): ReadonlyArray<Position> =>
  that.reduce(add, self)
