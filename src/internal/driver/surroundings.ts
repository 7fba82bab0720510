import { createHash } from "node:crypto"

const setsByCall = /\bset_config\b/i
const decides = /\b(?:search_path|role|session_authorization|authorization|reset\s+all)\b/i
const decidesRole = /\b(?:role|authorization|session_authorization)\b/i
/** A `set_config` whose first argument cannot be seen, as it is neither a literal nor a parameter. */
const isHidden = /\bset_config\b(?!\s*\(\s*(?:'[^']*'|\$\d+)\s*,)/i
const discardsAll = /^\s*discard\s+all\b/i
const isBlock = /^\s*do\b/i
const isLocal = /\blocal\b|,\s*true\s*\)/i
const literals = /'(?:[^']|'')*'/g

/** Whether a query may change what names without a schema stand for. */
export const mayMoveByCall = (sql: string): boolean => setsByCall.test(sql)

/**
 * What decides on a connection what names without a schema stand for: `search_path`, and the role, which is in it as `"$user"`.
 * A statement that is prepared under one search path is another statement under the next one. From PostgreSQL 18 on the server
 * tells every change of the path. Before it, and of the role, only what the program sends is known.
 */
export class Surroundings {
  /** As at first, as the server tells. */
  private home: string | undefined
  private path: string | undefined
  /** What the transaction has set for itself, as `search_path` and `role`. */
  private local: ReadonlyMap<string, string> | undefined
  private isUnknownForNow = false
  private isUnknownForGood = false
  private mark = ""

  /** Whether a name without a schema may stand for something that is not known here. */
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

  /** The server has told the search path. */
  heard(path: string): void {
    this.path = path
    this.update()
  }

  /** The connection is open: all is as the server begins. */
  opened(): void {
    this.home = this.path
    this.update()
  }

  /** A query is sent that calls `set_config`. */
  called(sql: string, params: ReadonlyArray<unknown>): void {
    const isNamed = decides.test(sql) || params.some((value) => typeof value === "string" && decides.test(value))
    if (!isNamed && !isHidden.test(sql)) return
    const settings = settingsOf(sql, params)
    if (settings === undefined) {
      this.lose(isLocal.test(sql))
      return
    }
    this.local = new Map([...(this.local ?? []), ...settings])
    this.update()
  }

  /** A text is sent that is no query. What a string in it says does not count, unless it is a program. */
  sent(sql: string): void {
    if (!decides.test(sql) && !discardsAll.test(sql)) return
    const bare = isBlock.test(sql) ? sql : sql.replace(literals, "''")
    if (discardsAll.test(bare)) this.reset()
    else if (decides.test(bare) && (this.path === undefined || decidesRole.test(bare))) this.lose(isLocal.test(bare))
  }

  /** The transaction has ended, and with it what it had set for itself. */
  ended(): void {
    if (this.local === undefined && !this.isUnknownForNow) return
    this.local = undefined
    this.isUnknownForNow = false
    this.update()
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
    const path = this.path ?? this.local?.get("search_path")
    const role = this.local?.get("role")
    const isSame = (path === undefined || path === this.home) && role === undefined
    this.mark = isSame
      ? ""
      : createHash("sha256")
          .update(JSON.stringify([path, role]))
          .digest("hex")
          .slice(0, 16)
  }
}

const deciding = ["search_path", "role"]

/** What of the settings that units of work begin with decides; `undefined` where that cannot be seen. */
const settingsOf = (
  sql: string,
  params: ReadonlyArray<unknown>
): ReadonlyArray<readonly [name: string, value: string]> | undefined => {
  if (!/^SELECT (?:set_config\(\$\d+, \$\d+, true\)(?:, )?)+$/.test(sql)) return undefined
  const settings: Array<readonly [string, string]> = []
  for (let i = 0; i < params.length; i += 2) {
    const name = String(params[i]).toLowerCase()
    if (deciding.includes(name)) settings.push([name, String(params[i + 1])])
    else if (decides.test(name)) return undefined
  }
  return settings
}
