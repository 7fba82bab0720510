import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as bounded from "../util/bounded.js"
import { elapsedOf } from "../util/clock.js"
import * as limits from "../util/limits.js"
import { Lock } from "../util/lock.js"

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
      /** How long a session waits for it. Default: 5 seconds. */
      readonly timeout?: Duration.Duration | undefined
    }
  ) {}

  /** Does it until the scope closes. It has been done just now. */
  readonly start: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.asVoid(
      Effect.forkScoped(Effect.interruptible(Effect.forever(Effect.delay(this.now, this.schedule.interval))))
    )
  )

  /** Does it now. */
  readonly now: Effect.Effect<void> = Effect.suspend(() => this.lock.run(this.once))

  /** Does it where it is due. A session begins with what is known when that takes too long. */
  readonly beforeSession: Effect.Effect<void> = Effect.suspend(() => {
    const { beforeSession, timeout = limits.beforeSession } = this.schedule
    if (beforeSession === undefined) return Effect.void
    const isDue = Effect.clockWith((clock) =>
      Effect.sync(() => elapsedOf(clock) - this.doneAt >= Duration.toMillis(beforeSession))
    )
    // Another session may have done it while this one waited.
    const done = this.lock.run(Effect.whenEffect(this.once, isDue))
    return Effect.asVoid(Effect.whenEffect(bounded.within(done, timeout), isDue))
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
