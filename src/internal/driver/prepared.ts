import { createHash } from "node:crypto"
import { SqlError } from "@effect/sql/SqlError"
import { TextCache } from "../util/textCache.js"
import { saysTheSame } from "./parameters.js"
import { changesSchema, schema } from "./schema.js"
import { mayMoveByCall, type Surroundings } from "./surroundings.js"
import { hasTimeOfNow } from "./timeOfNow.js"
import { writtenTypes } from "./writtenTypes.js"

// A statement is worth a name from its second use on: most texts that are used once are never used again.
const maxTextLength = 16_384
const isQuery = /^\s*(?:select|insert|update|delete|with|values|merge)\b/i

/** Bounds of what is known of texts, per pool: how many, and their UTF-16 code units in all. */
const maxTexts = 4_096
const maxUnits = 2_097_152

/** A statement that takes no longer than this, in milliseconds, is short. */
const shortMillis = 3

/** Types below this oid are PostgreSQL's own: no DDL changes them. */
const firstOfUsers = 16_384
const noTypes: ReadonlySet<number> = new Set()

/** How often one that is short may turn out not to be: once in so many runs, and so often at once. */
const runsForOne = 2_000
const mostAtOnce = 3

/** How long what was parsed is used, in milliseconds. It bounds what a change that shows in nothing can do. */
const lifeMillis = 1_000

/** How long a text runs without a name that went stale twice, or that the server plans badly: in milliseconds. */
const restMillis = 60_000

/** What is known of a text's parameters is asked again after this time, in milliseconds. */
const typesMillis = 60_000

/** A run under a name is slow that takes as long as this, in milliseconds, and so many times as long as the fastest. */
const slowMillis = 2
const slowTimes = 4

/** So much faster without a name, for so many slow runs, and a plan of its own is worth it. That many runs make up for one. */
const fasterTimes = 4
const slowRuns = 3
const runsForSlow = 300

/**
 * Beside other statements a run may be slow because the process or the server is busy: then runs without a name are slow as often.
 * That is judged once so many slow ones were to be expected among them. If at most one in so many of those is slow, it is the name;
 * else nothing is compared for so many milliseconds.
 */
const expectedSlow = 10
const fewerTimes = 4
const acquittedMillis = 10_000

/** What a text may do to the connection, or to the schema, but for the statement that it is. */
export type Effects = "none" | "call" | "command" | "schema"

/** How many runs there were, and how many of them were slow. */
class Tally {
  runs = 0
  slow = 0

  add(isSlow: boolean): void {
    this.runs++
    if (isSlow) this.slow++
  }

  get share(): number {
    return this.runs === 0 ? 0 : this.slow / this.runs
  }

  clear(): void {
    this.runs = 0
    this.slow = 0
  }
}

/** A text that was used before. */
export class Text {
  readonly effects: Effects
  /** Its fastest run, in milliseconds. What else is in a measurement, such as the program's own work, only adds to it. */
  private fastest = Number.POSITIVE_INFINITY
  private credit = 1
  /** The types of its parameters, as they were heard last. */
  private types: ReadonlyArray<number> | undefined
  private typesUntil = 0
  private typesVersion = 0
  private restsUntil = Number.NEGATIVE_INFINITY
  private wentStaleAt = Number.NEGATIVE_INFINITY
  /** The last slow run under a name, until one without has shown how long it takes. */
  private slow: { readonly millis: number; readonly isBeside: boolean } | undefined
  private slowness = 0
  /** Runs beside others: under a name, and without one right after a slow one. */
  private readonly named = new Tally()
  private readonly compared = new Tally()
  private acquittedUntil = Number.NEGATIVE_INFINITY
  /** The parameters whose types its text says. Most texts need no look at it. */
  private written: ReadonlySet<number> | undefined

  /** `name` is for its prepared statement; none for what cannot or need not be prepared. */
  constructor(
    readonly name: string | undefined,
    private readonly sql: string,
    isSingle: boolean
  ) {
    this.effects = effectsOf(sql, isSingle)
  }

  /** It has run; for how long, where that is known. */
  ran(millis = Number.POSITIVE_INFINITY): void {
    if (millis < this.fastest) this.fastest = millis
    if (this.credit < mostAtOnce) this.credit += 1 / runsForOne
  }

  /**
   * How long it has taken, with a plan for any values under a name, or one for its own. PostgreSQL settles for the former by
   * what it believes to cost for most values, which may be far more for others. `isBeside`: other statements ran meanwhile.
   */
  took(millis: number, isNamed: boolean, now: number, isBeside: boolean): void {
    const isSlow = millis >= slowMillis && millis > slowTimes * this.fastest
    if (isNamed) {
      if (isBeside) this.named.add(isSlow)
      if (isSlow) {
        if (!isBeside || now >= this.acquittedUntil) this.slow = { millis, isBeside }
      } else if (this.slowness > 0) {
        this.slowness = Math.max(0, this.slowness - 1 / runsForSlow)
      }
    } else if (this.slow !== undefined) {
      const { slow } = this
      this.slow = undefined
      if (isBeside || slow.isBeside) this.compare(isSlow, now)
      else if (millis * fasterTimes < slow.millis && ++this.slowness >= slowRuns) this.rest(now)
    }
    if (millis < this.fastest) this.fastest = millis
  }

  /** A run without a name has followed a slow one. */
  private compare(isSlow: boolean, now: number): void {
    const { compared, named } = this
    compared.add(isSlow)
    const expected = compared.runs * named.share
    if (expected < expectedSlow) return
    if (compared.slow * fewerTimes <= expected) this.rest(now)
    else this.acquittedUntil = now + acquittedMillis
    compared.clear()
    named.clear()
  }

  /** The server has found its prepared statement out of date, for no reason that is known here. */
  wentStale(now: number): void {
    if (now - this.wentStaleAt < restMillis) this.rest(now)
    this.wentStaleAt = now
  }

  /** The types of its parameters are these. */
  hasTypes(types: ReadonlyArray<number>, now: number): void {
    this.types = types
    this.typesUntil = now + typesMillis
    this.typesVersion = schema.version
  }

  /** Whether it is not to be parsed under a name, as far as is known. */
  isBetterUnnamed(params: ReadonlyArray<unknown>, now: number): boolean {
    if (this.slow !== undefined || now < this.restsUntil) return true
    const { types } = this
    if (types === undefined || this.typesVersion !== schema.version || now >= this.typesUntil) return false
    return !this.isSafe(types, params)
  }

  /** Whether a statement that was parsed with these types reads these values as one that is parsed now does. */
  isSafe(
    types: ReadonlyArray<number>,
    params: ReadonlyArray<unknown>,
    unsafeTypes: ReadonlySet<number> = noTypes
  ): boolean {
    for (let i = 0; i < types.length; i++) {
      const type = types[i]!
      const isSafe = saysTheSame(type, params[i]) && !unsafeTypes.has(type)
      if (!isSafe && !(type < firstOfUsers && this.isWritten(i))) return false
    }
    return true
  }

  private isWritten(position: number): boolean {
    this.written ??= writtenTypes(this.sql)
    return this.written.has(position)
  }

  /** It has kept others waiting. */
  wasLong(): void {
    this.credit--
  }

  /** Whether others may wait behind it. */
  get isShort(): boolean {
    return this.fastest <= shortMillis && this.credit >= 1
  }

  private rest(now: number): void {
    this.restsUntil = now + restMillis
    this.slowness = 0
  }
}

/** What a text does that is sent for the first time. One with parameters is a single statement. */
export const effectsOf = (sql: string, isSingle: boolean): Effects => {
  if (isQuery.test(sql) && (isSingle || !sql.includes(";"))) return mayMoveByCall(sql) ? "call" : "none"
  return changesSchema(sql) ? "schema" : "command"
}

/** A statement that is prepared on a connection. */
export class Prepared {
  /** When it was last used: later is more. */
  use = 0
  /** The types of its parameters, once the server has told them. */
  types: ReadonlyArray<number> | undefined
  /** What the driver keeps of its columns, once it has run. */
  columns: unknown

  constructor(
    private readonly parsedAt: number,
    private version: number
  ) {}

  /** It is out of date from now on. */
  end(): void {
    this.version = -1
  }

  /** Whether it may still be used. */
  isFresh(now: number): boolean {
    return this.version === schema.version && now - this.parsedAt < lifeMillis
  }

  /** Whether nothing that is known here explains that the server finds it out of date. */
  get isUpToDate(): boolean {
    return this.version === schema.version
  }
}

/** A connection, as far as it matters here. */
export interface Holder {
  /** The statements that are prepared on it, by their names. */
  readonly prepared: Map<string, Prepared>
  readonly surroundings: Surroundings
  /** The types that casts of extensions lead away from, once that is known. */
  readonly unsafeTypes: ReadonlySet<number> | undefined
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
    if (text === undefined) this.texts.set(sql, new Text(newName(sql, parameters), sql, parameters > 0))
    return text
  }

  /** The name that is for the prepared statement of a text, if it was used before. */
  nameOf(sql: string): string | undefined {
    return this.texts.get(sql)?.name
  }

  /**
   * The name under which a text is to run on a connection with these values. None if the statement that is prepared there
   * might read them otherwise than one that is parsed now.
   */
  nameOn(connection: Holder, text: Text, params: ReadonlyArray<unknown>, now: number): string | undefined {
    if (text.name === undefined || connection.surroundings.isUnknown || schema.isChanging(now)) return undefined
    if (text.isBetterUnnamed(params, now)) return undefined
    const name = connection.surroundings.nameOf(text.name)
    const prepared = connection.prepared.get(name)
    // What is parsed now is right for all values.
    if (prepared === undefined || !prepared.isFresh(now)) return name
    const { types } = prepared
    const { unsafeTypes } = connection
    if (types === undefined) return undefined
    if (types.length === 0) return name
    return unsafeTypes !== undefined && text.isSafe(types, params, unsafeTypes) ? name : undefined
  }

  /**
   * Notes that a connection is about to use a name. Returns the names that have to be closed there first: one that it
   * holds beyond the limit, and this one where it is to be parsed, because it is out of date, or because another client may
   * have prepared a statement under it (a former user of the same connection, behind a proxy).
   */
  use(connection: Holder, name: string, now: number): ReadonlyArray<string> {
    const { prepared } = connection
    const known = prepared.get(name)
    const isFresh = known?.isFresh(now) === true
    const current = isFresh ? known : new Prepared(now, schema.version)
    // Not by taking it out and putting it in again: that would make a new table after every few statements.
    current.use = ++this.uses
    if (isFresh) return none
    prepared.set(name, current)
    if (known !== undefined || prepared.size <= this.maxPerConnection) return [name]
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

const leastOf = (all: ReadonlyMap<string, Prepared>): string => {
  let least: string | undefined
  for (const [name, { use }] of all) if (least === undefined || use < all.get(least)!.use) least = name
  return least!
}

const newName = (sql: string, parameters: number): string | undefined => {
  // Without parameters a text may hold several statements, which only the simple protocol takes.
  const isSingle = parameters > 0 || !sql.includes(";")
  return isSingle && isQuery.test(sql) && !hasTimeOfNow(sql)
    ? `edr_${createHash("sha256").update(sql).digest("hex").slice(0, 40)}`
    : undefined
}

/** The statement was prepared, and would run if it were parsed again: in a transaction that can begin again, or not at all. */
export class Stale extends SqlError {}

// The re-analysis of a statement whose parameters have the types that columns had when it was prepared.
const mismatches = ["42883", "42804", "42846"]

/** Whether the server found that the result of a prepared statement has changed. No statement of a user's can say so. */
export const isOutOfDate = (error: Error): boolean => {
  const { code, routine } = error as { readonly code?: string; readonly routine?: string }
  return code === "0A000" && routine === "RevalidateCachedQuery"
}

/**
 * The state of a prepared statement by the error of its execution. `"stale"`: it never ran, and would if it were prepared
 * again. The server does not know it (26000: after DEALLOCATE or DISCARD ALL), knows it although the driver does not
 * (42P05), or DDL has changed its result (0A000 of RevalidateCachedQuery) or the types of its parameters. `"suspect"`: it
 * failed on its own account, or on that of the old types of its parameters, so it is better prepared again before its next
 * use.
 */
export const judge = (error: Error, isReused: boolean): "stale" | "suspect" | "fine" => {
  const { code } = error as { readonly code?: string }
  if (code === "26000" || code === "42P05" || isOutOfDate(error)) return "stale"
  if (code === undefined || !isReused) return "fine"
  if (mismatches.includes(code)) return "stale"
  return code.startsWith("22") || code.startsWith("42") ? "suspect" : "fine"
}
