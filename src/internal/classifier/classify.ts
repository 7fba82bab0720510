import { TextCache } from "../util/textCache.js"
import { analyze } from "./analyze.js"
import { harmlessLength, isDeepTree, isTooDeep } from "./depth.js"
import type { Verdict } from "./finding.js"
import { schemaChange, write } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import * as Leaves from "./leaves.js"
import * as Parser from "./parser.js"

/** Texts that a standby refused are few. Other texts cannot push them out. */
const rememberedEntries = 2_000

/** How long a refusal is remembered, in milliseconds. */
const rememberedMillis = 60_000

/** UTF-16 code units of text per cache: with `cacheSize` 10,000 an average of 800 a statement. */
const heldUnits = 8_000_000

/** What is known of a text. */
class Entry {
  readonly verdict: Verdict
  /** Whether something has to be looked at before the verdict is used. */
  readonly isSpecial: boolean

  constructor(
    { guess: _, ...verdict }: Verdict,
    readonly guess: Verdict["guess"],
    /** Until when it holds, in milliseconds of the clock. */
    readonly until: number
  ) {
    this.verdict = verdict
    this.isSpecial = guess === "new" || until !== Number.POSITIVE_INFINITY
  }
}

/** The synchronous half of a classifier. */
export interface Core {
  readonly classify: (sql: string) => Verdict
  readonly isGuess: (sql: string) => boolean
  readonly remember: (sql: string, reason: string) => void
  readonly use: (knowledge: Knowledge) => void
  readonly held: () => { readonly entries: number; readonly units: number }
}

export interface Hooks {
  /** The clock, in milliseconds. */
  readonly now?: () => number
  /** Hears whether a text was known. */
  readonly onLookup?: ((isHit: boolean) => void) | undefined
  /** Hears that a text has a name that the catalog does not know. */
  readonly onNewName?: () => void
}

export const make = (initial: Knowledge, cacheSize: number, hooks: Hooks = {}): Core => {
  const { now = () => 0, onLookup, onNewName } = hooks
  const cache = new TextCache<Entry>(cacheSize, heldUnits)
  const remembered = new TextCache<Entry>(rememberedEntries, heldUnits)
  let knowledge = initial

  /** Whether it folds settings is a matter of the text alone, whatever else is known of it. */
  const folding = <A extends Verdict>(sql: string, verdict: A): A =>
    knowledge.mayFold?.(sql) === true ? { ...verdict, foldsSettings: true } : verdict

  const miss = (sql: string): Entry => {
    const refused = remembered.get(sql)
    if (refused !== undefined && refused.until > now()) {
      cache.set(sql, refused)
      return refused
    }
    const verdict = sql.length > longText ? (evident(sql, knowledge) ?? judge(sql, knowledge)) : judge(sql, knowledge)
    if (verdict === unavailable) return unavailableEntry
    const entry = new Entry(folding(sql, verdict), verdict.guess, Number.POSITIVE_INFINITY)
    cache.set(sql, entry)
    return entry
  }

  const special = (sql: string, entry: Entry): Entry => {
    const current = entry.until <= now() ? miss(sql) : entry
    if (current.guess === "new") onNewName?.()
    return current
  }

  const entryOf = (sql: string): Entry => {
    try {
      const known = cache.get(sql)
      onLookup?.(known !== undefined)
      const entry = known ?? miss(sql)
      return entry.isSpecial ? special(sql, entry) : entry
    } catch {
      // The caller's stack is nearly full, which says nothing of the text.
      return noStackEntry
    }
  }

  return {
    classify: (sql) => entryOf(sql).verdict,
    isGuess: (sql) => entryOf(sql).guess !== undefined,
    remember: (sql, reason) => {
      const entry = new Entry(folding(sql, write(reason)), "text", now() + rememberedMillis)
      remembered.set(sql, entry)
      cache.set(sql, entry)
    },
    use: (next) => {
      knowledge = next
      cache.clear()
      remembered.clear()
    },
    held: () => {
      const [a, b] = [cache.held, remembered.held]
      return { entries: a.entries + b.entries, units: a.units + b.units }
    }
  }
}

const noStackEntry = new Entry(write("no stack left to analyse it"), "text", Number.POSITIVE_INFINITY)

const unavailable = write("the parser is starting again")

const unavailableEntry = new Entry(unavailable, "text", Number.POSITIVE_INFINITY)

const judge = (sql: string, knowledge: Knowledge): Verdict => {
  if (sql.length > Parser.maxLength) return notAnalysed(sql, "too long to analyse")
  if (isTooDeep(sql)) return notAnalysed(sql, "nested too deeply to analyse")
  if (knowledge.escapedStrings && sql.includes("\\"))
    return notAnalysed(sql, "backslash, with standard_conforming_strings off")
  const wasThere = Parser.isThere()
  const parsed = Parser.parse(sql)
  if (parsed === "unavailable") {
    // What has broken the parser once is not to break it again. A short text has not, but a stack that was nearly full.
    return wasThere && sql.length > harmlessLength ? notAnalysed(sql, "nested too deeply to analyse") : unavailable
  }
  if (parsed === "broken") return notAnalysed(sql, "does not parse")
  try {
    return verdictOf(parsed, knowledge)
  } catch (error) {
    // The stack is full. Of a tree that is not deep the caller had used it up: nothing is known of the text then.
    if (!isDeepTree(parsed)) throw error
    return notAnalysed(sql, "nested too deeply to analyse")
  }
}

const verdictOf = (parsed: Parser.Parsed, knowledge: Knowledge): Verdict => {
  const verdict = analyze(parsed, knowledge)
  if (verdict.kind === "read") return verdict
  const leaves = Leaves.leavesOf(parsed, knowledge) ?? (verdict.kind === "session" ? Leaves.inTransaction : undefined)
  return leaves === undefined ? verdict : { ...verdict, leaves }
}

/** Bulk inserts and the like need no parser: whatever follows these words is a write, or an error. */
const longText = 4_096

const leading = /^\s*(insert|update|delete|merge)\b/i

/** Functions that leave something behind. */
const leaving = /set_config|advisory|_to_xml|pg_settings/i

const evident = (sql: string, { leftBehind }: Knowledge): Verdict | undefined => {
  const word = leading.exec(sql)?.[1]?.toUpperCase()
  if (word === undefined || leaving.test(sql) || leftBehind?.mayBeIn(sql) === true) return undefined
  return sql.includes(";") ? { ...notAnalysed(sql, word), guess: undefined } : write(word)
}

const schemaWord = /\b(alter|call|create|do|drop|import)\b/i

const notAnalysed = (sql: string, reason: string): Verdict => ({
  ...(schemaWord.test(sql) ? schemaChange(reason) : write(reason)),
  leaves: Leaves.unknown,
  guess: "text"
})
