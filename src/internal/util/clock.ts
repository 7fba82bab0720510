import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

/** The clock of a fiber. */
export const clockOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): Clock.Clock =>
  Context.get(fiber.currentDefaultServices, Clock.Clock)

/**
 * The milliseconds of a clock that never goes back, for differences. `currentTimeMillis` is a date: it jumps when the
 * system's clock is set.
 */
export const elapsedOf = (clock: Clock.Clock): number => Math.floor(Number(clock.unsafeCurrentTimeNanos()) / 1e6)

/** The same as an effect. */
export const elapsed: Effect.Effect<number> = Effect.map(Effect.clock, elapsedOf)

/** Asks the clock of a fiber for those. */
export const nowOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>) => (): number => elapsedOf(clockOf(fiber))
