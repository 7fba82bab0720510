import { createHash } from "node:crypto"
import { TextCache } from "../textCache.js"

// A statement is worth a name from its second use on: most texts that are used once are never used again.
const maxTextLength = 16_384
const preparable = /^\s*(?:select|insert|update|delete|with|values|merge)\b/i

/** Bounds of what is known of texts, per pool: how many, and their UTF-16 code units in all. */
const maxTexts = 4_096
const maxUnits = 2_097_152

/** A statement that takes no longer than this, in milliseconds, is short. */
const shortMillis = 3

/** How often one that is short may turn out not to be: once in so many runs, and so often at once. */
const runsForOne = 2_000
const mostAtOnce = 3

/** A text that was used before. */
export class Text {
  /** Its fastest run, in milliseconds. What else is in a measurement, such as the program's own work, only adds to it. */
  private fastest = Number.POSITIVE_INFINITY
  private credit = 1

  /** `name` is for its prepared statement; none for what cannot or need not be prepared. */
  constructor(readonly name: string | undefined) {}

  /** It has run; for how long, where that is known. */
  ran(millis = Number.POSITIVE_INFINITY): void {
    if (millis < this.fastest) this.fastest = millis
    if (this.credit < mostAtOnce) this.credit += 1 / runsForOne
  }

  /** It has kept others waiting. */
  wasLong(): void {
    this.credit--
  }

  /** Whether others may wait behind it. */
  get isShort(): boolean {
    return this.fastest <= shortMillis && this.credit >= 1
  }
}

/** A connection, as far as it matters here. */
interface Holder {
  /** The names of the statements that are prepared on it, and when each was last used: later is more. */
  readonly prepared: Map<string, number>
}

/**
 * Which statements of one pool are prepared on the server, and under which names. A name is a hash of the text, so it is
 * the same on every connection and shorter than the 63 bytes that PostgreSQL keeps of one.
 */
export class PreparedStatements {
  private readonly texts = new TextCache<Text>(maxTexts, maxUnits)
  private uses = 0

  constructor(private readonly maxPerConnection: number) {}

  /** What is known of a text, unless this is its first use. */
  textOf(sql: string, parameters: number): Text | undefined {
    if (sql.length > maxTextLength) return undefined
    const text = this.texts.get(sql)
    if (text === undefined) this.texts.set(sql, new Text(newName(sql, parameters)))
    return text
  }

  /** The name of the prepared statement of a text, if it has one by now. */
  nameOf(sql: string): string | undefined {
    return this.texts.get(sql)?.name
  }

  /**
   * Notes that a connection is about to use a name. Returns the names that have to be closed there first: one that it
   * holds beyond the limit, and this one at its first use, because somebody else may have prepared a statement under
   * it (a former user of the same connection, behind a proxy).
   */
  use(connection: Holder, name: string): ReadonlyArray<string> {
    const { prepared } = connection
    const isKnown = prepared.has(name)
    // Not by taking it out and putting it in again: that would make a new table after every few statements.
    prepared.set(name, ++this.uses)
    if (isKnown) return none
    if (prepared.size <= this.maxPerConnection) return [name]
    const oldest = leastOf(prepared)
    prepared.delete(oldest)
    return [oldest, name]
  }

  /** Forgets a name on a connection, so that its next use parses the text again. */
  forget(connection: Holder, name: string): void {
    connection.prepared.delete(name)
  }
}

const none: ReadonlyArray<string> = []

const leastOf = (uses: ReadonlyMap<string, number>): string => {
  let least: string | undefined
  for (const [name, use] of uses) if (least === undefined || use < uses.get(least)!) least = name
  return least!
}

const newName = (sql: string, parameters: number): string | undefined => {
  // Without parameters a text may hold several statements, which only the simple protocol takes.
  const isSingle = parameters > 0 || !sql.includes(";")
  return isSingle && preparable.test(sql)
    ? `edr_${createHash("sha256").update(sql).digest("hex").slice(0, 40)}`
    : undefined
}

// The re-analysis of a statement whose parameters have the types that columns had when it was prepared.
const mismatches = ["42883", "42804", "42846"]

/**
 * What the error of a statement says about its being prepared. `"stale"`: it never ran, and would if it were prepared
 * again. The server does not know it (26000: somebody ran DEALLOCATE or DISCARD ALL), knows it although the driver does not
 * (42P05), or DDL has changed its result (0A000 of RevalidateCachedQuery) or the types of its parameters. `"suspect"`: it
 * failed on its own account, or on that of the old types of its parameters (22003 for an integer that has become a
 * bigint), so it is better prepared again before its next use.
 */
export const judge = (error: Error, isReused: boolean): "stale" | "suspect" | "fine" => {
  const { code, routine } = error as { readonly code?: string; readonly routine?: string }
  if (code === "26000" || code === "42P05" || (code === "0A000" && routine === "RevalidateCachedQuery")) return "stale"
  if (code === undefined || !isReused) return "fine"
  if (mismatches.includes(code)) return "stale"
  return code.startsWith("22") || code.startsWith("42") ? "suspect" : "fine"
}
