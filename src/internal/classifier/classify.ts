import { analyze } from "./analyze.js"
import * as Cache from "./cache.js"
import type { Verdict } from "./finding.js"
import { schemaChange, write } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
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

export const make = (initial: Knowledge, cacheSize: number): Core => {
  const cache = Cache.make<Verdict>(cacheSize, heldUnits)
  const remembered = Cache.make<Verdict>(rememberedEntries, heldUnits)
  let knowledge = initial

  const miss = (sql: string): Verdict => {
    const refused = remembered.get(sql)
    if (refused !== undefined) {
      cache.set(sql, refused)
      return refused
    }
    const parsed = parse(sql)
    if (parsed === "unavailable") return write("the parser is starting again")
    const verdict = typeof parsed === "string" ? notParsed[parsed] : analyze(parsed, knowledge)
    cache.set(sql, verdict)
    return verdict
  }

  return {
    classify: (sql) => {
      const hit = cache.get(sql)
      if (hit !== undefined) return hit
      try {
        return miss(sql)
      } catch {
        // The caller's stack is nearly full: nothing that is a property of the text.
        return write("not analysed for want of stack")
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
      const [a, b] = [cache.size(), remembered.size()]
      return { entries: a.entries + b.entries, units: a.units + b.units }
    }
  }
}

const notParsed = {
  broken: schemaChange("does not parse"),
  long: schemaChange("too long to analyse")
}

const parse = (sql: string) => (sql.length > Parser.maxLength ? "long" : Parser.parse(sql))
