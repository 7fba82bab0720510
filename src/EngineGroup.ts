/**
 * Engines under one name, and the choice among them.
 *
 * @since 0.1.0
 */
import type { Engine } from "./Engine.js"
import * as Health from "./Health.js"
import type { Strategy } from "./Selector.js"

/**
 * A named list of engines with one strategy.
 *
 * @since 0.1.0
 * @category models
 */
export interface EngineGroup {
  readonly name: string
  /** The engines that it has now. */
  readonly engines: ReadonlyArray<Engine>
  /** Gives it other engines. What runs on those of before goes on. */
  readonly setEngines: (engines: ReadonlyArray<Engine>) => void
  /** Returns `true` if statements of this group may be sent to an engine of it now. */
  readonly isEligible: (engine: Engine) => boolean
  /**
   * The engine for the next statement, of those that are eligible and not excluded; `undefined` when none is. One with a free
   * connection, if there is any.
   */
  readonly choose: (except?: ReadonlySet<Engine>) => Engine | undefined
  /** The engine that a statement could get, without taking a turn. */
  readonly peek: (except?: ReadonlySet<Engine>) => Engine | undefined
  /** The reasons why none of its engines is eligible, engine by engine; `undefined` when it has none. */
  readonly whyNone: () => string | undefined
}

/**
 * The engines of a group that its statements may be sent to:
 *
 * - `healthy`: engines that are `up`. The caller has not chosen this group, so the engine has to be a good one
 * - `answering`: engines that answer, lagging and foreign ones too: the caller has chosen this group. Where none answers,
 *   those that are `suspect` or `ejected`
 * - a function: the engines that it accepts, in any state
 *
 * A drained engine gets nothing. An engine that is not probed counts as `healthy` and as `answering`.
 *
 * @since 0.1.0
 * @category models
 */
export type Admission = "healthy" | "answering" | ((engine: Engine) => boolean)

const isDoubtful = ({ health, isDrained }: Engine) =>
  !isDrained && (health?.state === "suspect" || health?.state === "ejected")

const whyNot = (engines: ReadonlyArray<Engine>) =>
  engines.length === 0
    ? undefined
    : engines
        .map(({ health, isDrained, name }) => {
          const reason = health?.reason === undefined ? "" : `, ${health.reason}`
          return `${name}: ${isDrained ? "drained" : `${health?.state ?? "unchecked"}${reason}`}`
        })
        .join("; ")

/**
 * Those with a free connection; where none has one, those on whose connections something ends now and then; else all. Before
 * the strategy is asked: it knows nothing of pools.
 */
const withRoom = (engines: ReadonlyArray<Engine>): ReadonlyArray<Engine> => {
  if (engines.length === 1 || !engines.some(isFull)) return engines
  const free = engines.filter(({ hasRoom }) => hasRoom)
  if (free.length > 0) return free
  const moving = engines.filter(({ isStuck }) => !isStuck)
  return moving.length === 0 ? engines : moving
}

const isCold = ({ warmth }: Engine) => warmth < 1

/**
 * Those that take part in one choice: one that has come back does so with the chance that is its warmth, so that it has its
 * caches and its connections again before it has its share of the work. (Slow start, as Envoy's, HAProxy's and nginx's load
 * balancers have it. By chance and not by weight, since not every strategy looks at that.) Where there is no other it takes part.
 */
const taking = (engines: ReadonlyArray<Engine>, random: () => number): ReadonlyArray<Engine> => {
  if (engines.length === 1 || !engines.some(isCold)) return engines
  const taking = engines.filter(({ warmth }) => warmth >= 1 || random() < warmth)
  return taking.length === 0 ? engines : taking
}

const isFull = ({ hasRoom }: Engine) => !hasRoom

const admits = (admission: Admission): ((engine: Engine) => boolean) => {
  if (typeof admission === "function") return (engine) => !engine.isDrained && admission(engine)
  const accepts = { healthy: Health.isUsable, answering: Health.answers }[admission]
  return ({ health, isDrained }) => !isDrained && (health === undefined || accepts(health))
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
  readonly admission: Admission
}): EngineGroup => {
  const { admission, name, random, strategy } = options
  let { engines } = options
  const isEligible = admits(admission)
  const isIneligible = (engine: Engine) => !isEligible(engine)
  // Two, so that explaining a statement changes nothing for the ones that run.
  const select = strategy.make(random)
  const preview = strategy.make(random)
  const from = (choose: typeof select) => (except?: ReadonlySet<Engine>) => {
    const eligible =
      except !== undefined && except.size > 0
        ? engines.filter((engine) => isEligible(engine) && !except.has(engine))
        : engines.some(isIneligible)
          ? engines.filter(isEligible)
          : engines
    if (eligible.length > 0) return choose(withRoom(taking(eligible, random)))
    // Better than to refuse: the next probe may show that it was but one connection.
    const doubtful = admission === "answering" ? engines.filter(isDoubtful) : []
    return doubtful.length === 0 ? undefined : choose(doubtful)
  }
  return {
    name,
    get engines() {
      return engines
    },
    setEngines: (others) => {
      engines = others
    },
    isEligible,
    choose: from(select),
    peek: from(preview),
    whyNone: () => whyNot(engines)
  }
}
