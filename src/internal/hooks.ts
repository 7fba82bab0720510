import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

/** What is to happen around the end of a transaction or a session. */
export class Hooks {
  private beforeCommits: Array<Effect.Effect<void, SqlError>> = []
  private afterCommits: Array<Effect.Effect<void>> = []
  private afterRollbacks: Array<Effect.Effect<void>> = []

  addBeforeCommit(effect: Effect.Effect<void, SqlError>): void {
    this.beforeCommits.push(effect)
  }

  addAfterCommit(effect: Effect.Effect<void>): void {
    this.afterCommits.push(effect)
  }

  addAfterRollback(effect: Effect.Effect<void>): void {
    this.afterRollbacks.push(effect)
  }

  /** Takes over the hooks of a savepoint that was released: they wait for the end of what is around it. */
  absorb(other: Hooks): void {
    this.beforeCommits.push(...other.beforeCommits)
    this.afterCommits.push(...other.afterCommits)
    this.afterRollbacks.push(...other.afterRollbacks)
  }

  /** Runs what comes before a COMMIT, in order, with what these add in turn. The first failure stops it. */
  readonly beforeCommit: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    const hook = this.beforeCommits.shift()
    return hook === undefined ? Effect.void : Effect.zipRight(hook, this.beforeCommit)
  })

  /** Runs what follows a COMMIT. A failure is logged: the work is done, and its result must not be hidden. */
  readonly afterCommit: Effect.Effect<void> = this.runAll("afterCommit", () => this.afterCommits)

  /** Runs what follows a ROLLBACK. A failure is logged: the error that led here must not be hidden. */
  readonly afterRollback: Effect.Effect<void> = this.runAll("afterRollback", () => this.afterRollbacks)

  private runAll(name: string, hooks: () => ReadonlyArray<Effect.Effect<void>>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const due = hooks()
      this.beforeCommits = []
      this.afterCommits = []
      this.afterRollbacks = []
      return due.length === 0
        ? Effect.void
        : Effect.forEach(
            due,
            (hook) => Effect.catchAllCause(hook, (cause) => Effect.logWarning(`${name} failed`, cause)),
            { discard: true }
          )
    })
  }
}
