/**
 * Engines under one name, and the choice among them.
 *
 * @since 0.1.0
 */
import type { Engine } from "./Engine.js"
import type { Strategy } from "./Selector.js"

/**
 * A named list of engines with one strategy.
 *
 * @since 0.1.0
 * @category models
 */
export interface EngineGroup {
  readonly name: string
  readonly engines: ReadonlyArray<Engine>
  /** The engine for the next statement, of those that are eligible; `undefined` when none is. */
  readonly choose: () => Engine | undefined
  /** The engine that a statement could get, without taking a turn. */
  readonly peek: () => Engine | undefined
}

const eligible = (engines: ReadonlyArray<Engine>): ReadonlyArray<Engine> => {
  for (let i = 0; i < engines.length; i++) {
    if (!engines[i]!.isEligible) return engines.filter((engine) => engine.isEligible)
  }
  return engines
}

/**
 * Makes a group. `random` yields numbers in `[0, 1)`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: {
  readonly name: string
  readonly engines: ReadonlyArray<Engine>
  readonly strategy: Strategy
  readonly random: () => number
}): EngineGroup => {
  const { engines, name, random, strategy } = options
  // Two, so that explaining a statement changes nothing for the ones that run.
  const select = strategy.make(random)
  const preview = strategy.make(random)
  const from = (choose: typeof select) => () => {
    const candidates = eligible(engines)
    return candidates.length === 0 ? undefined : choose(candidates)
  }
  return { name, engines, choose: from(select), peek: from(preview) }
}
