import { TextCache } from "../textCache.js"
import { analyze } from "./analyze.js"
import { isTooDeep } from "./depth.js"
import type { Verdict } from "./finding.js"
import { schemaChange, write } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import * as Leaves from "./leaves.js"
import * as Parser from "./parser.js"

/** Texts that a standby refused are few; they are kept through changes of the catalog. */
const rememberedEntries = 2_000

/** UTF-16 code units of text per cache: with `cacheSize` 10,000 an average of 800 a statement. */
const heldUnits = 8_000_000

/** The synchronous half of a classifier. */
export interface Core {
  readonly classify: (sql: string) => Verdict
  readonly remember: (sql: string, reason: string) => void
  readonly use: (knowledge: Knowledge) => void
  readonly held: () => { readonly entries: number; readonly units: number }
}

/** Hears whether a text was known. */
export type OnLookup = (isHit: boolean) => void

export const make = (initial: Knowledge, cacheSize: number, onLookup?: OnLookup): Core => {
  const cache = new TextCache<Verdict>(cacheSize, heldUnits)
  const remembered = new TextCache<Verdict>(rememberedEntries, heldUnits)
  let knowledge = initial

  const miss = (sql: string): Verdict => {
    const refused = remembered.get(sql)
    if (refused !== undefined) {
      cache.set(sql, refused)
      return refused
    }
    const verdict = sql.length > longText ? (evident(sql) ?? judge(sql, knowledge)) : judge(sql, knowledge)
    if (verdict !== unavailable) cache.set(sql, verdict)
    return verdict
  }

  return {
    classify: (sql) => {
      try {
        const known = cache.get(sql)
        onLookup?.(known !== undefined)
        return known ?? miss(sql)
      } catch {
        // The caller's stack is nearly full, which says nothing of the text.
        return noStack
      }
    },
    remember: (sql, reason) => {
      const verdict = write(reason)
      remembered.set(sql, verdict)
      cache.set(sql, verdict)
    },
    use: (next) => {
      knowledge = next
      cache.clear()
    },
    held: () => {
      const [a, b] = [cache.held, remembered.held]
      return { entries: a.entries + b.entries, units: a.units + b.units }
    }
  }
}

const noStack = write("no stack left to analyse it")

const unavailable = write("the parser is starting again")

const judge = (sql: string, knowledge: Knowledge): Verdict => {
  if (sql.length > Parser.maxLength) return notAnalysed(sql, "too long to analyse")
  if (isTooDeep(sql)) return notAnalysed(sql, "nested too deeply to analyse")
  if (knowledge.escapedStrings && sql.includes("\\"))
    return notAnalysed(sql, "backslash, with standard_conforming_strings off")
  const parsed = Parser.parse(sql)
  if (parsed === "unavailable") return unavailable
  if (parsed === "broken") return notAnalysed(sql, "does not parse")
  const verdict = analyze(parsed, knowledge)
  if (verdict.kind === "read") return verdict
  const leaves = Leaves.leavesOf(parsed, knowledge) ?? (verdict.kind === "session" ? Leaves.inTransaction : undefined)
  return leaves === undefined ? verdict : { ...verdict, leaves }
}

/** Bulk inserts and the like need no parser: whatever follows these words is a write, or an error. */
const longText = 4_096

const leading = /^\s*(insert|update|delete|merge)\b/i

/** Functions that leave something behind. */
const leaving = /set_config|advisory/i

const evident = (sql: string): Verdict | undefined => {
  const word = leading.exec(sql)?.[1]?.toUpperCase()
  if (word === undefined || leaving.test(sql)) return undefined
  return sql.includes(";") ? notAnalysed(sql, word) : write(word)
}

const schemaWord = /\b(alter|call|create|do|drop|import)\b/i

const notAnalysed = (sql: string, reason: string): Verdict => ({
  ...(schemaWord.test(sql) ? schemaChange(reason) : write(reason)),
  leaves: Leaves.unknown
})
