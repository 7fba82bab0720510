import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"

/** The clock of a fiber. */
export const clockOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): Clock.Clock =>
  Context.get(fiber.currentDefaultServices, Clock.Clock)

/** Asks that clock, in milliseconds. */
export const nowOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>) => (): number =>
  clockOf(fiber).unsafeCurrentTimeMillis()
