import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { elapsedOf } from "./clock.js"
import { Lock } from "./lock.js"

/** Something that is done every so often, one at a time, and before a session when that was too long ago. */
export class Refresh {
  private readonly lock = new Lock()
  private doneAt = Number.NEGATIVE_INFINITY

  constructor(
    private readonly work: Effect.Effect<void>,
    private readonly schedule: {
      readonly interval: Duration.Duration
      /** `undefined`: sessions do not wait for it. */
      readonly beforeSession: Duration.Duration | undefined
    }
  ) {}

  /** Does it until the scope closes. It has been done just now. */
  readonly start: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.asVoid(Effect.forkScoped(Effect.forever(Effect.delay(this.now, this.schedule.interval))))
  )

  /** Does it now. */
  readonly now: Effect.Effect<void> = Effect.suspend(() => this.lock.run(this.once))

  readonly beforeSession: Effect.Effect<void> = Effect.suspend(() => {
    const { beforeSession } = this.schedule
    if (beforeSession === undefined) return Effect.void
    const isDue = Effect.clockWith((clock) =>
      Effect.sync(() => elapsedOf(clock) - this.doneAt >= Duration.toMillis(beforeSession))
    )
    // Somebody else may have done it while this one waited.
    return Effect.asVoid(Effect.whenEffect(this.lock.run(Effect.whenEffect(this.once, isDue)), isDue))
  })

  private readonly once: Effect.Effect<void> = Effect.suspend(() =>
    Effect.ensuring(
      this.work,
      Effect.clockWith((clock) =>
        Effect.sync(() => {
          this.doneAt = elapsedOf(clock)
        })
      )
    )
  )
}
