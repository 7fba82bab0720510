import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Outcome } from "../telemetry/outcome.js"
import { outcomeOf, type Transaction } from "../transaction/transaction.js"
import type { Router } from "./router.js"

/** Commits a transaction, gives its connection back, and tells everybody who has to know. */
export const committing = (
  router: Router,
  transaction: Transaction,
  commit: Effect.Effect<void, SqlError>,
  note: (outcome: Outcome) => void
): Effect.Effect<void, SqlError> =>
  Effect.onExit(Effect.ensuring(commit, transaction.giveBack), (exit) => {
    const outcome = Exit.isSuccess(exit) ? transaction.committedAs : outcomeOf(exit.cause)
    note(outcome)
    return outcome === "rolled back" ? Effect.void : router.afterCommit(transaction)
  })

/** Rolls a transaction back, gives its connection back, and tells of what a text has committed in it, if one has. */
export const aborting = (
  router: Router,
  transaction: Transaction,
  note: (outcome: Outcome) => void
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const hasEnded = transaction.isEnded
    return Effect.zipRight(
      transaction.abort,
      Effect.suspend(() => {
        note(transaction.rolledBackAs)
        return hasEnded || !transaction.mayStay ? Effect.void : router.afterCommit(transaction)
      })
    )
  })
