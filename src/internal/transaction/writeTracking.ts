import type { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Engine, ExclusiveConnection } from "../../Engine.js"
import type { Leaves } from "../classifier/finding.js"
import { both } from "../classifier/finding.js"
import { Unanswered } from "../driver/failure.js"
import type { Request, Result } from "../driver/pool.js"
import { command } from "../driver/run.js"

/** What a statement that may have written is answered with. Not what ends a transaction: that may have committed it. */
const vague: ReadonlySet<string> = new Set(["SELECT", "CALL", "DO", "EXPLAIN", "FETCH", "LOCK", "SET", "SHOW"])
const counted: ReadonlySet<string> = new Set(["DELETE", "INSERT", "MERGE", "UPDATE"])

/** Whether a statement may have written nothing, as far as its answer tells. A text of several is not looked into. */
const mayHaveWrittenNothing = (result: Result): boolean =>
  "command" in result && (vague.has(result.command) || (counted.has(result.command) && result.rowCount === 0))

/**
 * Answered with a row where the transaction was assigned no id: then nothing in it has written to a table, the catalog or a
 * sequence. No column, so that no parser of the user's matters.
 */
const hasNoId = "SELECT WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NULL"

/** What is known of the writes of one transaction, its savepoints included, and of what they leave behind. */
export class Writes {
  private mayHaveWritten = false
  private mayHaveChangedSchema = false
  /** What its statements have left behind. */
  leaves: Leaves | undefined
  /** Whether the server has said that there were none. */
  none = false
  // Statements and streams, and the statements after which there may still have been none.
  private begun = 0
  private unclear = 0

  /** Whether there may be any. After the COMMIT the server may have said that there were none. */
  get any(): boolean {
    return this.mayHaveWritten && !this.none
  }

  /** Whether anything was sent. */
  get hasRun(): boolean {
    return this.begun > 0
  }

  /** Whether what comes after has to stay in the transaction, because of what was left behind in it. */
  get binds(): boolean {
    return this.leaves !== undefined
  }

  /** Whether what comes after would mean something else elsewhere. */
  get sets(): boolean {
    return this.leaves?.sets === true
  }

  get ofSchema(): boolean {
    return this.mayHaveChangedSchema && !this.none
  }

  /** Notes what a statement that is about to run may do. */
  note(statement: {
    readonly kind: string
    readonly changesSchema: boolean
    readonly leaves: Leaves | undefined
  }): void {
    if (statement.kind === "write") this.mayHaveWritten = true
    if (statement.changesSchema) this.mayHaveChangedSchema = true
    if (statement.leaves !== undefined) this.leaves = both(this.leaves, statement.leaves)
  }

  /** A statement, or a stream, is sent. */
  begin(): void {
    this.begun++
  }

  /** A statement was answered. */
  hear(result: Result): void {
    if (mayHaveWrittenNothing(result)) this.unclear++
  }

  /**
   * Sends the COMMIT. Where it is unknown whether there were writes, it asks in the same text, in front of the COMMIT and behind
   * a savepoint: an error of the question (a privilege, a time limit) is undone, and nothing has been committed then.
   */
  commit(
    { positions }: Engine,
    connection: ExclusiveConnection,
    commit: Request,
    savepoint: string,
    limit: Duration.Duration
  ): Effect.Effect<Result, SqlError> {
    if (!this.mayHaveWritten || this.begun !== this.unclear || !positions.tellsIds) {
      return connection.finish(commit, limit)
    }
    const asking = { ...commit, sql: `SAVEPOINT ${savepoint}; ${hasNoId}; COMMIT` }
    return Effect.matchEffect(connection.finish(asking, limit), {
      onSuccess: (result) => {
        if (!Array.isArray(result) || result.length !== 3) return Effect.succeed(result)
        const [, answer, committed] = result
        this.none = committed.command === "COMMIT" && answer.rowCount === 1
        return Effect.succeed(committed)
      },
      onFailure: (error) => {
        if (!connection.isUsable || error instanceof Unanswered) return Effect.fail(error)
        const back = command(`ROLLBACK TO ${savepoint}`)
        return Effect.matchEffect(connection.finish(back, limit), {
          // It was the COMMIT that failed.
          onFailure: () => Effect.fail(error),
          onSuccess: () => {
            positions.failId(error.cause)
            return connection.finish(commit, limit)
          }
        })
      }
    })
  }
}
