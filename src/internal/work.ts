import type { SqlError } from "@effect/sql/SqlError"
import type * as Effect from "effect/Effect"
import type { Transaction } from "./transaction.js"

/** What the router needs to know of a session. */
export interface SessionWork {
  /** The session's transaction on a group, begun when it is first asked for. */
  readonly transaction: (group: string) => Effect.Effect<Transaction, SqlError>
  /** Whether the session's transaction on a group has written and not ended. */
  readonly hasWritten: (group: string) => boolean
}

/** The transactions and the session around a statement, innermost first. */
export class Work {
  constructor(
    readonly session: SessionWork | undefined,
    readonly level: Transaction | undefined,
    private readonly outer: Work | undefined
  ) {}

  /** The innermost transaction on a group. */
  transaction(group: string): Transaction | undefined {
    return this.level?.group === group ? this.level : this.outer?.transaction(group)
  }
}
