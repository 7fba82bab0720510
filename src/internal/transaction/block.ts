import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as RouterError from "../../RouterError.js"

/** Blocks that are part of a transaction, or of a block around them: without one of them it is not whole. */
export class Parts {
  private open = 0
  private hasFailed = false

  /** Runs one of them. */
  add<A, E, R>(part: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.open++
      return Effect.onExit(part, (exit) =>
        Effect.sync(() => {
          this.open--
          if (Exit.isFailure(exit)) this.hasFailed = true
        })
      )
    })
  }

  /** Whether one of them still runs. */
  get areOpen(): boolean {
    return this.open > 0
  }

  /** Why what they are part of must not be committed; none if it may be. */
  get error(): RouterError.RouterError | undefined {
    return this.hasFailed || this.areOpen ? RouterError.partNotDone() : undefined
  }
}

/**
 * An atomic block of a session: all of it is committed, or nothing. Until it may be committed, nothing else commits the session's
 * transaction.
 */
export class Block {
  readonly parts = new Parts()
  /** Whether it has ended. */
  isOver = false
  /** Whether nothing runs in it any more, because the session has ended first, or it has ended before a part of it. */
  isStopped = false

  constructor(
    /** Whether something that is not in it shares its transaction, or waits for the end of it. */
    public isShared: boolean
  ) {}

  /** It has ended by itself. */
  end(): void {
    this.isOver = true
    if (this.parts.areOpen) this.isStopped = true
  }
}
