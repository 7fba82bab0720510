import * as Effect from "effect/Effect"
import * as bounded from "../util/bounded.js"
import { elapsed } from "../util/clock.js"
import * as limits from "../util/limits.js"

/** How long it is at least from one look at the server to the next, in milliseconds. */
const pauseMillis = 1_000

/** The pause is at least this many times as long as the look took, which may include a reading of the catalog. */
const pauseFactor = 20

/**
 * Names that the catalog does not know, which it may have by now. What texts say must not keep the server busy: it is asked
 * for its stamp first, and all of that takes a small share of the time.
 */
export class NewNames {
  private isNoticed = false
  private wake: (() => void) | undefined
  /** The stamp at the last reading of the catalog for such a name. */
  private stamp: string | undefined

  /** A text has such a name. */
  notice(): void {
    this.isNoticed = true
    this.wake?.()
  }

  /** Reads the catalog again where that may help. Never ends. */
  follow<E>(stamp: Effect.Effect<string, E> | undefined, refresh: Effect.Effect<void>): Effect.Effect<never> {
    const look = stamp === undefined ? refresh : this.refreshIfNew(stamp, refresh)
    const turn = Effect.gen(this, function* () {
      yield* this.noticed
      const began = yield* elapsed
      yield* look
      const took = (yield* elapsed) - began
      yield* Effect.sleep(Math.max(pauseMillis, took * pauseFactor))
    })
    return Effect.forever(turn)
  }

  private readonly noticed: Effect.Effect<void> = Effect.async<void>((resume) => {
    const taken = () => {
      this.wake = undefined
      this.isNoticed = false
      resume(Effect.void)
    }
    if (this.isNoticed) taken()
    else this.wake = taken
  })

  private refreshIfNew<E>(stamp: Effect.Effect<string, E>, refresh: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.flatMap(bounded.within(stamp, limits.catalog), (now) => {
      if (now.state !== "answered" || now.exit.value === this.stamp) return Effect.void
      this.stamp = now.exit.value
      return refresh
    })
  }
}
