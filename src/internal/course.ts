/** What transaction control that a program sends as text does to a transaction that the router has begun. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { ExclusiveConnection } from "../Engine.js"
import * as RouterError from "../RouterError.js"
import type { Result } from "./driver/pool.js"

/** What became of a transaction that a text has ended. */
type Fate = "committed" | "prepared" | "rolled back" | "unknown"

type Connection = Pick<ExclusiveConnection, "isOver" | "isUsable">

const ends: ReadonlySet<string> = new Set(["COMMIT", "PREPARE", "ROLLBACK"])
const begins: ReadonlySet<string> = new Set(["BEGIN", "START"])

const controlling = /\b(?:abort|commit|end|prepare|rollback)\b/i
const beginning = /\b(?:begin|chain|start)\b/i
const chaining = /\band\b[^;]*\bchain\b/i
const isSeveral = /;\s*\S/

const tagsOf = (result: Result): ReadonlyArray<string> =>
  "command" in result ? [result.command] : result.map(({ command }) => command)

/** After which no transaction is open. */
const fateOf = (tags: ReadonlyArray<string>): Fate => {
  const ending = tags.filter((tag) => ends.has(tag))
  const last = tags[tags.length - 1]
  if (ending.length === 0) return "unknown"
  if (ending.every((tag) => tag === "COMMIT")) return "committed"
  // ROLLBACK TO is answered with the same word.
  if (last === "ROLLBACK" && ending.every((tag) => tag === "ROLLBACK")) return "rolled back"
  return last === "PREPARE" && ending.length === 1 ? "prepared" : "unknown"
}

/** After which a transaction is open: another one, if this tells what became of ours. */
const fateOfChained = (tags: ReadonlyArray<string>, sql: string): Fate | undefined => {
  if (tags.includes("COMMIT")) {
    return tags.every((tag) => tag === "COMMIT" || begins.has(tag)) ? "committed" : "unknown"
  }
  if (!tags.includes("ROLLBACK")) return undefined
  if (tags.length === 1) return chaining.test(sql) ? "rolled back" : undefined
  return tags.some((tag) => begins.has(tag)) || chaining.test(sql) ? "unknown" : undefined
}

/** Whether a transaction is still the one that was begun, as its statements are answered. */
export class Course {
  private fate: Fate | undefined
  /** Whether a statement was refused since. */
  private isCut = false
  /** Whether a text that may end the transaction was sent and not answered. */
  private isUnderWay = false

  /** A statement is sent; `controls`: one of the transaction was transaction control. */
  begin(sql: string, controls: boolean): void {
    if (controls && controlling.test(sql)) this.isUnderWay = true
  }

  /** A statement was answered. */
  hear(connection: Connection, sql: string, result: Result): void {
    this.isUnderWay = false
    if (connection.isOver) this.fate ??= fateOf(tagsOf(result))
    else if (!("command" in result) || result.command === "COMMIT" || result.command === "ROLLBACK") {
      this.fate ??= fateOfChained(tagsOf(result), sql)
    }
  }

  /** A statement has failed, and the server is ready again or the connection is gone. */
  fail(connection: Connection, sql: string): void {
    if (!connection.isUsable) return
    const wasUnderWay = this.isUnderWay
    this.isUnderWay = false
    if (connection.isOver) this.fate ??= isSeveral.test(sql) ? "unknown" : "rolled back"
    else if (wasUnderWay && isSeveral.test(sql) && beginning.test(sql)) this.fate ??= "unknown"
  }

  /** Whether a text has ended the transaction, or may have. Nothing must run on the connection. */
  hasEnded(connection: Connection): boolean {
    if (this.fate === undefined && (connection.isOver || (this.isUnderWay && !connection.isUsable))) {
      this.fate = "unknown"
    }
    return this.fate !== undefined
  }

  /** Whether what it did may be there, or may yet come, though the transaction was not committed by the router. */
  get mayStay(): boolean {
    return this.fate !== undefined && this.fate !== "rolled back"
  }

  /** Whether it waits for COMMIT PREPARED. */
  get isPrepared(): boolean {
    return this.fate === "prepared"
  }

  /** What comes after is refused: it would commit by itself. */
  refuse(where: RouterError.Where): Effect.Effect<never, SqlError> {
    return Effect.suspend(() => {
      this.isCut = true
      return Effect.fail(this.error(where))
    })
  }

  /** How a transaction ends that a text has ended: well, where all of it was committed or prepared. */
  end(where: RouterError.Where): Effect.Effect<void, SqlError> {
    return Effect.suspend(() =>
      !this.isCut && (this.fate === "committed" || this.fate === "prepared")
        ? Effect.void
        : Effect.fail(this.error(where))
    )
  }

  private error(where: RouterError.Where): SqlError {
    return RouterError.toSqlError(RouterError.endedByText(this.mayStay ? "unknown" : "rolled back", where))
  }
}
