import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { elapsed } from "../util/clock.js"

/** Servers live in real time, also inside a test that runs on a `TestClock`. */
export const inRealTime: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.withClock(
  Clock.make()
)

/**
 * Asks until the answer is yes, or fails once `within` is over. It counts time itself, as `Effect.timeout` has no effect
 * in a finalizer.
 */
export const until = <E, E2>(
  check: Effect.Effect<boolean, E>,
  options: {
    readonly every: Duration.DurationInput
    readonly within: Duration.DurationInput
    readonly otherwise: Effect.Effect<never, E2>
  }
): Effect.Effect<void, E | E2> =>
  Effect.flatMap(elapsed, (start) => {
    const limit = start + Duration.toMillis(options.within)
    const loop: Effect.Effect<void, E | E2> = Effect.flatMap(check, (done) => {
      if (done) return Effect.void
      return Effect.flatMap(elapsed, (now) =>
        now >= limit ? options.otherwise : Effect.zipRight(Effect.sleep(options.every), loop)
      )
    })
    return loop
  })
