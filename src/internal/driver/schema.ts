/**
 * What this process does to schemas, on any connection to any server. While it changes one nothing runs by a name, and what
 * was prepared before is prepared again: the server would refuse it where its result has changed, which aborts a transaction.
 */

/** How long a change keeps names from being used, if it takes so long: in milliseconds. */
const patience = 5_000

const isChange = /\b(?:alter|create|drop|call|do)\b/i
const isNone = /^\s*create\s+(?:(?:temp|temporary)\b|(?:unique\s+)?index\b|role\b|user\b|database\b|schema\b)/i
const literals = /'(?:[^']|'')*'/g

class Schema {
  /** Goes up with each change: what was prepared before may be out of date. */
  version = 0
  private running = 0
  private quietUntil = 0

  /** Whether something changes now. */
  isChanging(now: number): boolean {
    return this.running > 0 && now < this.quietUntil
  }

  /** A change begins. */
  begin(now: number): void {
    this.running++
    this.quietUntil = now + patience
  }

  /** It is committed, or never will be. */
  end(): void {
    this.running--
    this.version++
  }

  /** The server has said that something has changed. */
  changed(): void {
    this.version++
  }
}

export const schema = new Schema()

/** Whether a text may change a schema so that statements mean something else. What a string in it says does not count. */
export const changesSchema = (sql: string): boolean => {
  if (!isChange.test(sql)) return false
  const bare = sql.includes("'") ? sql.replace(literals, "''") : sql
  return isChange.test(bare) && !(isNone.test(bare) && !bare.includes(";"))
}
