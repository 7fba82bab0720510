import { createHash } from "node:crypto"

const setsByCall = /\bset_config\b/i
/** Each `set_config` with its first argument, where that is a literal or a parameter. */
const calls = /\bset_config\b(?:\s*\(\s*(?:'([^']*)'|\$(\d+))\s*,)?/gi
const ofUnit = /^SELECT (?:set_config\(\$\d+, \$\d+, true\)(?:, )?)+$/
const discardsAll = /^\s*discard\s+all\b/i
const isBlock = /^\s*(?:do|call)\b/i
const mayDecide = /^\s*(?:set|reset|discard|do|call|load)\b/i
const mayDecideInBlock = /\b(?:set|reset|set_config|execute|perform|call)\b/i
/** What is set at all, by its name: `SET LOCAL x = 1`, `SET SESSION x TO 1`, `SET TIME ZONE`, `RESET x`, `RESET ALL`. */
const setsName = /^\s*(?:set|reset)\s+(?:session\s+(?!authorization|characteristics)|local\s+)?("[^"]*"|[\w.$]+)/i
const isLocal = /\blocal\b|,\s*true\s*\)/i
/** What says nothing: literals and comments. */
const silent = /'(?:[^']|'')*'|--[^\n]*|\/\*[\s\S]*?\*\//g

/**
 * Settings that say nothing of what a text means, nor of the value of what PostgreSQL computes as it plans: limits of time, memory
 * and workers, costs, and what is logged. Settings with a dot in their names are the program's own.
 */
const harmless =
  /^(?:.*\..*|.*_timeout|.*_cost|.*work_mem|log_.*|track_.*|enable_.*|jit.*|max_parallel_.*|parallel_.*|geqo.*|commit_.*|tcp_.*|application_name|client_min_messages|synchronous_commit|plan_cache_mode|effective_.*|cursor_tuple_fraction|.*_collapse_limit|temp_buffers|hash_mem_multiplier|transaction|constraints|default_transaction_.*|transaction_(?:isolation|read_only|deferrable))$/

/** What the server tells of itself whenever it changes; `search_path` from PostgreSQL 18 on. */
const told = new Set(["search_path", "timezone", "datestyle", "intervalstyle", "standard_conforming_strings"])

/** Whether a query may change what texts mean. */
export const mayMoveByCall = (sql: string): boolean => setsByCall.test(sql)

/**
 * What decides on a connection what a text means: what names without a schema stand for (`search_path`, and the role, which is in it
 * as `"$user"`), and how the literals in it are read (`TimeZone`, `DateStyle` and others). A statement that is prepared under
 * some settings is another one under the next. The server tells every change of the most important of them; of the
 * others only what the program sends is known.
 */
export class Surroundings {
  /** As at first, as the server tells. */
  private home: ReadonlyMap<string, string> = new Map()
  private readonly now = new Map<string, string>()
  /** What the transaction has set for itself. */
  private local: ReadonlyMap<string, string> | undefined
  private isUnknownForNow = false
  private isUnknownForGood = false
  private mark = ""

  /** Whether a text may mean something that is not known here. */
  get isUnknown(): boolean {
    return this.isUnknownForNow || this.isUnknownForGood
  }

  /** Whether all is as it was when the connection was opened. */
  get isHome(): boolean {
    return this.mark === "" && !this.isUnknown
  }

  /** The name of a statement under these circumstances. */
  nameOf(name: string): string {
    return this.mark === "" ? name : `${name}_${this.mark}`
  }

  /** The server has told a setting. */
  heard(parameter: string, value: string): void {
    const name = parameter.toLowerCase()
    if (!told.has(name)) return
    this.now.set(name, value)
    this.update()
  }

  /** The connection is open: all is as the server begins. */
  opened(): void {
    this.home = new Map(this.now)
    this.update()
  }

  /** A query is sent that calls `set_config`. */
  called(sql: string, params: ReadonlyArray<unknown>): void {
    if (ofUnit.test(sql)) {
      const settings = settingsOf(params).filter(([name]) => this.counts(name))
      if (settings.length === 0) return
      this.local = new Map([...(this.local ?? []), ...settings])
      this.update()
      return
    }
    for (const [, literal, position] of sql.matchAll(calls)) {
      const name = literal ?? (position === undefined ? undefined : params[Number(position) - 1])
      if (typeof name === "string" && !this.counts(name)) continue
      this.lose(isLocal.test(sql))
    }
  }

  /** A text is sent that is no query. What a string in it says does not count, unless it is a program. */
  sent(sql: string): void {
    if (isBlock.test(sql)) {
      if (mayDecideInBlock.test(sql)) this.lose(false)
      return
    }
    if (!mayDecide.test(sql) && !setsByCall.test(sql) && !/;|--|\/\*/.test(sql)) return
    const bare = sql.replace(silent, " '' ")
    if (setsByCall.test(bare)) this.called(sql, [])
    for (const part of bare.split(";")) {
      if (discardsAll.test(part)) this.reset()
      else if (isBlock.test(part)) this.lose(false)
      else {
        const [, name] = setsName.exec(part) ?? []
        if (name !== undefined && this.counts(nameOf(name, part))) this.lose(isLocal.test(part))
      }
    }
  }

  /** The transaction has ended, and with it what it had set for itself. */
  ended(): void {
    if (this.local === undefined && !this.isUnknownForNow) return
    this.local = undefined
    this.isUnknownForNow = false
    this.update()
  }

  /** Whether a setting counts that the server does not tell. */
  private counts(name: string): boolean {
    const lower = name.toLowerCase()
    return !harmless.test(lower) && !this.now.has(lower)
  }

  private lose(isForNow: boolean): void {
    if (isForNow) this.isUnknownForNow = true
    else this.isUnknownForGood = true
  }

  /** All is as it was when the connection was opened. */
  reset(): void {
    this.isUnknownForGood = false
    this.isUnknownForNow = false
    this.local = undefined
    this.update()
  }

  private update(): void {
    const moved = [...this.now].filter(([name, value]) => this.home.get(name) !== value)
    const settings = [...moved, ...(this.local ?? [])]
    this.mark =
      settings.length === 0
        ? ""
        : createHash("sha256")
            .update(JSON.stringify(settings.sort(byName)))
            .digest("hex")
            .slice(0, 16)
  }
}

type Setting = readonly [name: string, value: string]

const byName = ([a]: Setting, [b]: Setting): number => (a < b ? -1 : a > b ? 1 : 0)

/** The setting that a command names. */
const nameOf = (word: string, command: string): string => {
  const name = word.replaceAll('"', "")
  return /^\s*set\s+(?:session\s+|local\s+)?time\s+zone\b/i.test(command) ? "timezone" : name
}

/** The settings that a unit of work begins with. */
const settingsOf = (params: ReadonlyArray<unknown>): ReadonlyArray<Setting> => {
  const settings: Array<Setting> = []
  for (let i = 0; i < params.length; i += 2) settings.push([String(params[i]).toLowerCase(), String(params[i + 1])])
  return settings
}
