/** What transaction control that a program sends as text does to a transaction that the router has begun. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { ExclusiveConnection } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import { mayEnd } from "../classifier/ending.js"
import { isServerError } from "../driver/failure.js"

/** What became of a transaction that a text has ended. */
type Fate = "committed" | "prepared" | "rolled back" | "unknown"

type Connection = Pick<ExclusiveConnection, "hasBegun" | "isOver" | "isUsable">

/** What a statement was answered with: the first word of its tag. */
interface Answer {
  readonly command: string
}

const ends: ReadonlySet<string> = new Set(["COMMIT", "PREPARE", "ROLLBACK"])
const begins: ReadonlySet<string> = new Set(["BEGIN", "START"])

/** Every text after which another transaction is open has one of them. */
const beginning = /\b(?:begin|chain|start)\b/i
const isSeveral = /;\s*\S/

/** Whether another transaction may be open after a text in place of the one before it. */
const mayReplace = (sql: string): boolean => beginning.test(sql) && mayEnd(sql)

const tagsOf = (answer: Answer | ReadonlyArray<Answer>): ReadonlyArray<string> =>
  "command" in answer ? [answer.command] : answer.map(({ command }) => command)

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
  // ROLLBACK TO is answered with the same word as ROLLBACK, and PREPARE with the same as PREPARE TRANSACTION.
  if (!tags.some((tag) => ends.has(tag)) || !mayReplace(sql)) return undefined
  return tags.length === 1 ? "rolled back" : "unknown"
}

/** Whether a transaction is still the one that was begun, as its statements are answered. */
export class Course {
  private fate: Fate | undefined
  /** Whether a statement was refused since. */
  private isCut = false
  /** The statement that was sent and not answered: it runs, was interrupted, or the connection has broken. */
  private underWay: string | undefined

  /** A statement is sent. */
  begin(sql: string): void {
    this.underWay = sql
  }

  /** A statement was answered, or a batch of its rows. */
  hear(connection: Connection, sql: string, answer: Answer | ReadonlyArray<Answer>): void {
    this.underWay = undefined
    if (connection.isOver) this.fate ??= fateOf(tagsOf(answer))
    else if (!("command" in answer) || answer.command === "COMMIT" || answer.command === "ROLLBACK") {
      this.fate ??= fateOfChained(tagsOf(answer), sql)
    }
  }

  /** A statement has failed, and the server is ready again or the connection is gone. */
  fail(connection: Connection, sql: string, error: SqlError): void {
    // Without an answer of the server's it may have been carried out all the same.
    if (!connection.isUsable || !isServerError(error)) return
    this.underWay = undefined
    if (connection.isOver) this.fate ??= isSeveral.test(sql) ? "unknown" : "rolled back"
    else if (isSeveral.test(sql) && mayReplace(sql)) this.fate ??= "unknown"
  }

  /** Whether a text has ended the transaction, or may have. Nothing must run on the connection. */
  hasEnded(connection: Connection): boolean {
    const { underWay } = this
    this.underWay = undefined
    if (
      this.fate === undefined &&
      (connection.isOver || (underWay !== undefined && connection.hasBegun && mayEnd(underWay)))
    ) {
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
  refuse(where: RouterError.Where, cause?: SqlError): Effect.Effect<never, SqlError> {
    return Effect.suspend(() => {
      this.isCut = true
      return Effect.fail(this.error(cause === undefined ? where : { ...where, cause }))
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
