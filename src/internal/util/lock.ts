import * as Effect from "effect/Effect"
import type { Restore } from "./restore.js"

interface Waiter {
  granted: boolean
  wake: () => void
}

/**
 * Mutual exclusion, first come, first served. `Effect.Semaphore` can lose a permit when an interruption arrives together
 * with it; here the permit is found again, because it is not only in the value that the interruption drops.
 */
export class Lock {
  private held = false
  private readonly waiters = new Set<Waiter>()

  /** Whether it is taken. */
  get isHeld(): boolean {
    return this.held
  }

  /** Takes the lock; the caller must be uninterruptible, and {@link release} it. `restore` makes the waiting interruptible. */
  take(restore: Restore): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.tryTake()) return Effect.void
      const waiter: Waiter = { granted: false, wake: () => {} }
      const wait = Effect.async<void>((resume) => {
        waiter.wake = () => resume(Effect.void)
        this.waiters.add(waiter)
      })
      return Effect.onError(restore(wait), () =>
        Effect.sync(() => {
          if (waiter.granted) this.unlock()
          else this.waiters.delete(waiter)
        })
      )
    })
  }

  readonly release: Effect.Effect<void> = Effect.sync(() => this.unlock())

  /** Takes the lock if it is free. Then the caller must {@link release} it, and be uninterruptible. */
  tryTake(): boolean {
    if (this.held) return false
    this.held = true
    return true
  }

  /** Runs an effect while holding the lock. */
  run<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.uninterruptibleMask((restore) => {
      const running = Effect.ensuring(restore(effect), this.release)
      return this.tryTake() ? running : Effect.zipRight(this.take(restore), running)
    })
  }

  /** Runs an effect while holding this lock and another one, which is never taken before this one. */
  runWith<A, E, R>(inner: Lock, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.uninterruptibleMask((restore) => {
      if (this.held || inner.held) {
        return Effect.zipRight(
          this.take(restore),
          Effect.ensuring(
            Effect.zipRight(inner.take(restore), Effect.ensuring(restore(effect), inner.release)),
            this.release
          )
        )
      }
      // Nearly always, and for every statement of a transaction.
      this.held = true
      inner.held = true
      return Effect.ensuring(
        restore(effect),
        Effect.sync(() => {
          inner.unlock()
          this.unlock()
        })
      )
    })
  }

  private unlock(): void {
    for (const waiter of this.waiters) {
      this.waiters.delete(waiter)
      waiter.granted = true
      waiter.wake()
      return
    }
    this.held = false
  }
}
