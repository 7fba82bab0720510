import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as RouterError from "../../RouterError.js"
import type { Outcome } from "../telemetry/outcome.js"
import * as Log from "../validation/log.js"

/** Runs an effect where a transaction or session was opened, wherever it is called from. */
export type Outside = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** What is to happen around the end of a transaction or a session. */
export class Hooks {
  private beforeCommits: Array<Effect.Effect<void, SqlError>> = []
  private afterCommits: Array<Effect.Effect<void>> = []
  private afterRollbacks: Array<Effect.Effect<void>> = []
  /** What became of it, or who has taken over. */
  private end: Outcome | Hooks | undefined

  /** Without `outside`, its end comes from outside. */
  constructor(private readonly outside: Outside = (effect) => effect) {}

  addBeforeCommit(effect: Effect.Effect<void, SqlError>): Effect.Effect<void, SqlError> {
    return this.add(
      (hooks) => hooks.beforeCommits.push(effect),
      () => Effect.fail(RouterError.toSqlError(RouterError.sessionClosed("beforeCommit")))
    )
  }

  addAfterCommit(effect: Effect.Effect<void>): Effect.Effect<void> {
    return this.add(
      (hooks) => hooks.afterCommits.push(effect),
      (end) => (end === "committed" ? this.run("afterCommit", effect) : Effect.void)
    )
  }

  addAfterRollback(effect: Effect.Effect<void>): Effect.Effect<void> {
    return this.add(
      (hooks) => hooks.afterRollbacks.push(effect),
      (end) => (end === "rolled back" ? this.run("afterRollback", effect) : Effect.void)
    )
  }

  /** Takes over the hooks of a savepoint that was released: they wait for the end of what is around it. */
  absorb(other: Hooks): void {
    this.beforeCommits.push(...other.beforeCommits)
    this.afterCommits.push(...other.afterCommits)
    this.afterRollbacks.push(...other.afterRollbacks)
    other.end = this
  }

  /** Runs what comes before a COMMIT, in order, with what these add in turn. The first failure stops it. */
  get beforeCommit(): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      const hook = this.beforeCommits.shift()
      return hook === undefined ? Effect.void : Effect.zipRight(hook, this.beforeCommit)
    })
  }

  /** Whether nothing is to happen. */
  get isEmpty(): boolean {
    return this.beforeCommits.length + this.afterCommits.length + this.afterRollbacks.length === 0
  }

  /** `close` where nothing is to happen. */
  unsafeCloseEmpty(outcome: Outcome): boolean {
    if (!this.isEmpty) return false
    this.end = outcome
    return true
  }

  /**
   * Takes out what has been asked for, and returns how to run it once the outcome is known: what comes later belongs to what is
   * begun later. Neither follows an outcome that is unknown. A failure is logged: the work is done, and neither its result nor
   * the error that led here must be hidden. An interruption waits for them.
   */
  take(): (outcome: Outcome) => Effect.Effect<void> {
    const { afterCommits, afterRollbacks } = this
    this.beforeCommits = []
    this.afterCommits = []
    this.afterRollbacks = []
    return (outcome) => {
      const [name, due] =
        outcome === "committed"
          ? ["afterCommit", afterCommits]
          : ["afterRollback", outcome === "rolled back" ? afterRollbacks : []]
      return due.length === 0 ? Effect.void : Effect.forEach(due, (hook) => this.run(name, hook), { discard: true })
    }
  }

  /** Runs what follows the end, after which nothing waits any more. */
  close(outcome: Outcome): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.end = outcome
      return this.take()(outcome)
    })
  }

  private add<E>(push: (hooks: Hooks) => void, late: (end: Outcome) => Effect.Effect<void, E>): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      const { end } = this
      if (end instanceof Hooks) return end.add(push, late)
      if (end !== undefined) return late(end)
      push(this)
      return Effect.void
    })
  }

  // In a fiber of its own it can be bounded by a timeout, as it could not be in a region that nothing interrupts. In a daemon:
  // an interruption reaches the children of a fiber at once.
  private run(name: string, hook: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.forkDaemon(Effect.interruptible(this.outside(hook))).pipe(
      Effect.flatMap(Fiber.join),
      Effect.catchAllCause((cause) => Log.warning(`${name} failed`, cause)),
      Effect.uninterruptible
    )
  }
}
