import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"

/** An attempt that is under way, and how many fibers wait for it. */
class Attempt<A, E> {
  waiting = 0
  /** Whether all have left, so that it was interrupted. */
  isLeft = false
  fiber: Fiber.RuntimeFiber<unknown> | undefined
  readonly ended = Deferred.unsafeMake<Exit.Exit<A, E>>(FiberId.none)

  /** `isOwn`: it ends with the fiber that makes it. */
  constructor(readonly isOwn: boolean) {}
}

/**
 * What fibers attempt together: those that come while an attempt is under way have the outcome of that one. One after the other,
 * each would wait for the limits of all before it. The attempt goes on when the fiber that has begun it is interrupted, until the
 * last one has left.
 */
export class Together<A, E> {
  private current: Attempt<A, E> | undefined

  /**
   * Waits for the attempt that is under way, else makes one: where it `isShort`, which ends without waiting, in this fiber. The
   * fiber that leaves last waits until what it has interrupted has ended.
   */
  join(make: Effect.Effect<A, E>, isShort = false): Effect.Effect<A, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const begun = this.current
        const attempt = begun ?? new Attempt<A, E>(isShort)
        this.current = attempt
        attempt.waiting++
        if (begun === undefined && isShort) return this.make(attempt, restore(make))
        const outcome = Effect.flatMap(
          Effect.onInterrupt(restore(Deferred.await(attempt.ended)), () => this.leave(attempt)),
          (exit) =>
            (attempt.isLeft || attempt.isOwn) && Exit.isInterrupted(exit) ? restore(this.join(make, isShort)) : exit
        )
        return begun === undefined ? Effect.zipRight(this.begin(attempt, make), outcome) : outcome
      })
    )
  }

  private begin(attempt: Attempt<A, E>, make: Effect.Effect<A, E>): Effect.Effect<void> {
    const made = this.make(attempt, Effect.interruptible(make))
    return Effect.map(Effect.forkDaemon(Effect.uninterruptible(Effect.exit(made))), (fiber) => {
      attempt.fiber = fiber
    })
  }

  private make(attempt: Attempt<A, E>, make: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.flatMap(Effect.exit(make), (exit) => {
      this.current = undefined
      Deferred.unsafeDone(attempt.ended, Exit.succeed(exit))
      return exit
    })
  }

  private leave(attempt: Attempt<A, E>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (--attempt.waiting > 0) return Effect.void
      attempt.isLeft = true
      attempt.fiber?.unsafeInterruptAsFork(FiberId.none)
      return Effect.asVoid(Deferred.await(attempt.ended))
    })
  }
}
