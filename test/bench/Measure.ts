/**
 * How things are measured here: contestants take turns in short slices, in an order that changes from round to round, and
 * only what happened in one round is compared. What the machine does meanwhile happens to all of them.
 */
import { Effect } from "effect"

export interface Pace {
  /** How often every contestant has its turn. */
  readonly rounds: number
  readonly sliceMillis: number
  /** How long everyone runs before anything counts. */
  readonly warmUpMillis: number
}

/**
 * One of those that are compared. Runs one operation again and again for some milliseconds, and returns the microseconds
 * for one: what has passed, divided by the operations of all fibers.
 */
export type Contestant<E = never, R = never> = (millis: number) => Effect.Effect<number, E, R>

/** The time that passes, or the processor time of this process: where nothing waits for a server, what costs is that. */
export type Time = "passed" | "processor"

/** Begins to measure a time; tells its microseconds. */
export const stopwatch = (time: Time): (() => number) => {
  if (time === "passed") {
    const began = performance.now()
    return () => (performance.now() - began) * 1000
  }
  const began = process.cpuUsage()
  return () => {
    const { system, user } = process.cpuUsage(began)
    return user + system
  }
}

const counter = (millis: number, time: Time) => {
  const micros = stopwatch(time)
  const end = performance.now() + millis
  let done = 0
  return {
    isRunning: () => performance.now() < end,
    count: () => {
      done++
    },
    microsEach: () => micros() / done
  }
}

/** Operations that are effects, in some fibers at the same time. */
export const effects =
  <E, R>(
    fibers: number,
    operation: (fiber: number) => Effect.Effect<unknown, E, R>,
    time: Time = "passed"
  ): Contestant<E, R> =>
  (millis) =>
    Effect.suspend(() => {
      const { count, isRunning, microsEach } = counter(millis, time)
      const loop = (fiber: number) => Effect.whileLoop({ while: isRunning, body: () => operation(fiber), step: count })
      return Effect.all(
        Array.from({ length: fibers }, (_, fiber) => loop(fiber)),
        { concurrency: "unbounded", discard: true }
      ).pipe(Effect.map(microsEach))
    })

/** Operations that are promises: as many at the same time as others have fibers. */
export const promises =
  (fibers: number, operation: () => PromiseLike<unknown>): Contestant =>
  (millis) =>
    Effect.promise(async () => {
      const { count, isRunning, microsEach } = counter(millis, "passed")
      const loop = async () => {
        while (isRunning()) {
          await operation()
          count()
        }
      }
      await Promise.all(Array.from({ length: fibers }, loop))
      return microsEach()
    })

/** What operations cost, round by round. */
export type Costs = ReadonlyArray<number>

// A contestant that never waits for anything lets nothing else happen: no probe is answered, and servers count as lost.
const pause = Effect.sleep("1 millis")

/** Lets contestants take turns; returns the costs of each, in the order in which they were given. */
export const compare = <E, R>(
  contestants: ReadonlyArray<Contestant<E, R>>,
  { rounds, sliceMillis, warmUpMillis }: Pace
): Effect.Effect<ReadonlyArray<Costs>, E, R> =>
  Effect.gen(function* () {
    for (const contestant of contestants) yield* Effect.zipRight(contestant(warmUpMillis), pause)
    const costs = contestants.map((): Array<number> => [])
    for (let round = 0; round < rounds; round++) {
      for (let turn = 0; turn < contestants.length; turn++) {
        const i = (round + turn) % contestants.length
        costs[i]!.push(yield* contestants[i]!(sliceMillis))
        yield* pause
      }
    }
    return costs
  })

/** What many rounds come to: the median, and the quartiles around it. */
export interface Summary {
  readonly median: number
  readonly low: number
  readonly high: number
}

export const summary = (values: ReadonlyArray<number>): Summary => {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number) => {
    const place = share * (sorted.length - 1)
    const below = sorted[Math.floor(place)]!
    return below + (sorted[Math.ceil(place)]! - below) * (place - Math.floor(place))
  }
  return { median: at(0.5), low: at(0.25), high: at(0.75) }
}

/** What becomes of the costs of two contestants, round by round. */
export const perRound = (
  against: Costs,
  measured: Costs,
  combine: (against: number, measured: number) => number
): Summary => summary(measured.map((cost, round) => combine(against[round]!, cost)))

/** How many times as fast as the other. */
export const speed = (against: Costs, measured: Costs): Summary => perRound(against, measured, (a, b) => a / b)
