/**
 * The choice of one engine among the eligible engines of a group.
 *
 * A `Strategy` is a recipe: every group makes its own `Select` from it, and with it a state of its own. Choosing is
 * pure and synchronous, knows nothing of pools, and takes chance only from the `random` it was made with.
 *
 * @since 0.1.0
 */

/**
 * The live view of an engine that a strategy chooses by.
 *
 * Every property is read anew at each choice, so an implementation answers with the present value, and cheaply. Within
 * a group a name belongs to one engine: strategies keep their state by name.
 *
 * @since 0.1.0
 * @category models
 */
export interface Candidate {
  /** The name of the engine, unique in its group. */
  readonly name: string
  /** The share of the work that this engine should get, relative to the others. Always positive and finite. */
  readonly weight: number
  /** The zone of the engine, for `preferZone`. */
  readonly zone: string | undefined
  /** Statements that run on the engine now. */
  readonly inFlight: number
  /** Statements that wait for a connection to the engine now. */
  readonly waiting: number
  /** A decaying average of the time that a statement takes there, in milliseconds. `0` while it is unknown. */
  readonly latency: number
}

/**
 * Chooses one of the candidates, of which there is at least one. It is called synchronously, once per statement, and
 * the list may differ from call to call; it must not be kept or changed.
 *
 * @since 0.1.0
 * @category models
 */
export type Select = <A extends Candidate>(candidates: ReadonlyArray<A>) => A

/**
 * A named way to choose.
 *
 * @since 0.1.0
 * @category models
 */
export interface Strategy {
  /** Its name in `explain`, logs and error messages. */
  readonly name: string
  /** Makes the `Select` of one group. `random` yields numbers in `[0, 1)`; the router seeds it from Effect's `Random`. */
  readonly make: (random: () => number) => Select
}

/**
 * A strategy of your own.
 *
 * @example
 * ```ts
 * import { Selector } from "effect-db-router"
 *
 * // Always the first engine that is eligible: the others are spares.
 * const firstOf = Selector.make("first", () => (candidates) => candidates[0]!)
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (name: string, makeSelect: (random: () => number) => Select): Strategy => ({
  name,
  make: makeSelect
})

// Engines that come and go (autoscaling) bring new names. Beyond this many the absent ones are forgotten.
const maxRemembered = 1024

interface Standing {
  current: number
}

// nginx's smooth weighted round robin: every participant gains its weight, the leader is chosen and pays the sum
// (nginx 1.3.1, src/http/ngx_http_upstream_round_robin.c, ngx_http_upstream_get_peer).
const makeSmooth = (random: () => number) => {
  const standings = new Map<string, Standing>()

  const standingOf = (name: string, candidates: ReadonlyArray<Candidate>): Standing => {
    const known = standings.get(name)
    if (known !== undefined) return known
    if (standings.size >= maxRemembered) {
      const present = new Set(candidates.map((candidate) => candidate.name))
      for (const other of standings.keys()) {
        if (!present.has(other)) standings.delete(other)
      }
    }
    const fresh = { current: 0 }
    standings.set(name, fresh)
    return fresh
  }

  const next = <A extends Candidate>(candidates: ReadonlyArray<A>, takesPart: (candidate: A) => boolean): A => {
    let total = 0
    let leader: A | undefined
    let leading: Standing | undefined
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i]!
      if (!takesPart(candidate)) continue
      const standing = standingOf(candidate.name, candidates)
      const weight = candidate.weight
      total += weight
      standing.current += weight
      if (leading === undefined || standing.current > leading.current) {
        leader = candidate
        leading = standing
      }
    }
    if (leader === undefined || leading === undefined) return candidates[0]!
    leading.current -= total
    return leader
  }

  // Many processes that start together must not all begin with the same engine: start at a random point of the cycle.
  let started = false
  return <A extends Candidate>(candidates: ReadonlyArray<A>, takesPart: (candidate: A) => boolean): A => {
    if (!started) {
      started = true
      for (let skip = Math.floor(random() * candidates.length); skip > 0; skip--) next(candidates, takesPart)
    }
    return next(candidates, takesPart)
  }
}

const everyone = () => true

/**
 * Each engine in turn, as often as its weight says, without bursts: weights 3 and 1 give `a a b a`, not `a a a b`
 * (nginx's smooth weighted round robin). Engines that are absent for a while lose and gain no turns.
 *
 * @since 0.1.0
 * @category strategies
 */
export const roundRobin: Strategy = make("round-robin", (random) => {
  const next = makeSmooth(random)
  return (candidates) => next(candidates, everyone)
})

const weighted = <A extends Candidate>(candidates: ReadonlyArray<A>, random: () => number): A => {
  let total = 0
  for (let i = 0; i < candidates.length; i++) total += candidates[i]!.weight
  let point = random() * total
  for (let i = 0; i < candidates.length; i++) {
    point -= candidates[i]!.weight
    if (point < 0) return candidates[i]!
  }
  return candidates[candidates.length - 1]!
}

/**
 * Any engine, with a probability in proportion to its weight.
 *
 * @since 0.1.0
 * @category strategies
 */
export const random: Strategy = make("random", (random) => (candidates) => weighted(candidates, random))

/**
 * The engine with the least work for its weight: `(inFlight + waiting) / weight`. Engines that are equally busy take
 * turns by weight, as in `roundRobin`.
 *
 * @since 0.1.0
 * @category strategies
 */
export const leastBusy: Strategy = make("least-busy", (random) => {
  const next = makeSmooth(random)
  let least = 0
  const busyness = (candidate: Candidate) => (candidate.inFlight + candidate.waiting) / candidate.weight
  const isLeast = (candidate: Candidate) => busyness(candidate) === least
  return (candidates) => {
    least = busyness(candidates[0]!)
    for (let i = 1; i < candidates.length; i++) {
      const score = busyness(candidates[i]!)
      if (score < least) least = score
    }
    return next(candidates, isLeast)
  }
})

// How often `lowestLatency` takes the slower of the two: an average that is never measured again never recovers.
const lookAgain = 1 / 32

const pending = (candidate: Candidate) => candidate.inFlight + candidate.waiting

// What a statement more would meet there: the average, times the queue that it joins. An engine that is being tried for
// the first time counts as slow until its first answer, or every statement until then would pile up on it.
const expected = (candidate: Candidate) =>
  candidate.latency > 0 ? candidate.latency * (1 + pending(candidate) / candidate.weight) : Number.POSITIVE_INFINITY

/**
 * Of two engines chosen at random, the one that answers sooner: the lower of `latency * (1 + pending / weight)`, so that
 * the fastest engine is not flooded. An idle engine whose latency is still unknown comes first, so that it becomes
 * known; one choice in 32 takes the slower of the two, so that an engine that has recovered is found again.
 *
 * Comparing two at random instead of all is what keeps many processes from rushing to the same engine (Mitzenmacher,
 * "The Power of Two Choices in Randomized Load Balancing", 2001).
 *
 * @since 0.1.0
 * @category strategies
 */
export const lowestLatency: Strategy = make("lowest-latency", (random) => {
  const unknown = <A extends Candidate>(candidates: ReadonlyArray<A>): A | undefined => {
    let found: A | undefined
    let seen = 0
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i]!
      if (candidate.latency > 0 || pending(candidate) > 0) continue
      seen++
      if (seen === 1 || random() * seen < 1) found = candidate
    }
    return found
  }
  return (candidates) => {
    const size = candidates.length
    if (size === 1) return candidates[0]!
    const untried = unknown(candidates)
    if (untried !== undefined) return untried
    const first = Math.floor(random() * size)
    const second = (first + 1 + Math.floor(random() * (size - 1))) % size
    const a = candidates[first]!
    const b = candidates[second]!
    const costA = expected(a)
    const costB = expected(b)
    const sooner = costA < costB || (costA === costB && pending(a) <= pending(b)) ? a : b
    return random() < lookAgain ? (sooner === a ? b : a) : sooner
  }
})

/**
 * Chooses by `inner` among the engines of one zone; engines elsewhere are chosen, by `inner` too, only when the zone has
 * none that is eligible. It composes: `preferZone("eu-1a", preferZone("eu-1", leastBusy))` needs engines whose `zone`
 * is one or the other.
 *
 * @example
 * ```ts
 * import { Selector } from "effect-db-router"
 *
 * const strategy = Selector.preferZone("eu-1a", Selector.leastBusy)
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const preferZone = (zone: string, inner: Strategy): Strategy =>
  make(`${inner.name} in ${zone} first`, (random) => {
    const select = inner.make(random)
    return (candidates) => {
      let near = 0
      for (let i = 0; i < candidates.length; i++) {
        if (candidates[i]!.zone === zone) near++
      }
      return near === 0 || near === candidates.length
        ? select(candidates)
        : select(candidates.filter((candidate) => candidate.zone === zone))
    }
  })
