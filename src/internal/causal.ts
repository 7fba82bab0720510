import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Consistency from "../Consistency.js"
import type { Engine } from "../Engine.js"
import type { EngineGroup } from "../EngineGroup.js"
import * as Position from "../Position.js"
import * as RoutingContext from "../RoutingContext.js"
import type { Request } from "./driver/pool.js"
import { Inquiry } from "./inquiry.js"
import * as Seen from "./seen.js"
import { Mark } from "./tracker.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** How long nobody waits for a server that was waited for in vain, in milliseconds and in times that wait. */
const hopelessMillis = 1_000
const hopelessWaits = 10

/** How often it is asked then, in milliseconds. */
const hopelessEvery = 10

/** How often a replica is asked that others are preferred to, in milliseconds. */
const refreshEvery = 5

/** So many questions follow each other without a pause: a replica that is well has a write before its answer is back. */
const hastyAttempts = 4

/** The longest pause between two questions after that, in milliseconds. The first is of one, the next of two. */
const longestPause = 8

// Of real time: a test's clock that stands still must not keep a read waiting for ever.
const pause = (millis: number): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** A statement that takes the question for a position behind it. COPY takes nothing behind it, and one text may hide one. */
const takesQuestion = ({ params, sql }: Request): boolean =>
  (params.length > 0 || !sql.includes(";")) && /^\s*(?:select|insert|update|delete|with|values|merge)\b/i.test(sql)

/** What has to happen before a read knows its replica. */
interface Missing {
  /** Answers that are on their way. */
  readonly awaited: ReadonlyArray<Mark>
  /** Replicas that the flow has read on, and that have not told a position since. */
  readonly sources: ReadonlyArray<Engine>
  /** Replicas that may have replayed enough. */
  readonly candidates: ReadonlyArray<Engine>
}

/** Decides by positions where the reads of a flow may go. */
export class Causal {
  /** What all flows have written, where that binds them all. */
  private process: Seen.Seen = Seen.nothing
  private readonly asking = new Map<Engine, Deferred.Deferred<void>>()
  private readonly told = new Set<string>()
  private readonly window: number
  private turn = 0

  constructor(
    private readonly policy: Consistency.Positions,
    private readonly writing: EngineGroup,
    private readonly reading: EngineGroup
  ) {
    this.window = Duration.toMillis(policy.window)
  }

  /** What a read of a fiber has to see. */
  needs(fiber: AnyFiber): Seen.Seen {
    const { seen } = fiber.getFiberRef(RoutingContext.flow)
    if (this.policy.scope === "process") {
      this.process = Seen.latest(Seen.resolved(this.process))
      return Seen.resolved(Seen.merge(seen, this.process))
    }
    return seen.marks.length === 0 ? seen : Seen.resolved(seen)
  }

  /** Whether an engine has what a read has to see. */
  has(engine: Engine, { marks, positions, writtenAt }: Seen.Seen, now: number): boolean {
    const { positions: server } = engine
    let isBlind = !server.isTelling
    for (const mark of marks) {
      if (!mark.tracker.isTelling) isBlind = true
      else if (mark.tracker !== server || !mark.hasEnded || mark.isLost) return false
    }
    if (isBlind) return now - writtenAt >= this.window
    if (positions.length === 0) return true
    return server.known !== undefined && Position.coversAll(server.known, positions)
  }

  /** What a fiber does on an engine from now on, until its `end`. */
  begin(fiber: AnyFiber, engine: Engine): Watch {
    return new Watch(this, fiber, engine, this.reading)
  }

  /** Notes a write, for every flow that has to see it. */
  note(fiber: AnyFiber, change: (seen: Seen.Seen) => Seen.Seen): void {
    RoutingContext.unsafeChange(fiber, change)
    if (this.policy.scope === "process") this.process = change(this.process)
  }

  /** Waits, for as long as the policy says, until a replica is known to have what a fiber has to see, if one soon will. */
  await(fiber: AnyFiber, now: () => number): Effect.Effect<void> {
    const millis = Duration.toMillis(this.policy.wait)
    if (millis === 0) return Effect.void
    const isLate = Effect.map(pause(millis), () => {
      // The next ones do not wait for the same.
      const wanted = this.needs(fiber).positions
      for (const { positions } of this.reading.engines) {
        positions.giveUp(Math.max(hopelessMillis, hopelessWaits * millis), wanted)
      }
    })
    return Effect.raceFirst(this.approach(fiber, now, 0), isLate)
  }

  /** What a fiber has seen, as far as that can be known. */
  settled(fiber: AnyFiber): Effect.Effect<Seen.Seen> {
    const settle = Effect.suspend(() => {
      const { marks } = this.needs(fiber)
      const sources = [...this.writing.engines, ...this.reading.engines].filter(({ positions }) =>
        marks.some((mark) => mark.tracker === positions && mark.hasEnded && !mark.isAwaited)
      )
      return Effect.zipRight(
        awaitMarks(marks.filter((mark) => mark.isAwaited)),
        Effect.forEach(sources, (engine) => this.ask(engine), { concurrency: "unbounded", discard: true })
      )
    })
    return Effect.raceFirst(settle, pause(Math.max(1, Duration.toMillis(this.policy.wait)))).pipe(
      Effect.map(() => this.needs(fiber))
    )
  }

  /** Asks a server for its position, once for all who want to know it now. Never fails. */
  ask(engine: Engine): Effect.Effect<void> {
    return Effect.suspend(() => Deferred.await(this.asked(engine)))
  }

  /**
   * Asks replicas that were passed over for what is known of them, without waiting: those that get reads tell their position
   * with every one, and would get all of them for ever.
   */
  refresh(passedOver: Iterable<Engine>): void {
    for (const engine of passedOver) {
      const millis = this.isNear(engine) ? refreshEvery : hopelessEvery * hopelessWaits
      if (engine.positions.isTelling && engine.positions.isDue(millis) && this.reading.isEligible(engine)) {
        this.asked(engine)
      }
    }
  }

  /** Sends a question to a server, unless one is on its way. */
  private asked(engine: Engine): Deferred.Deferred<void> {
    const other = this.asking.get(engine)
    if (other !== undefined) return other
    const done = Deferred.unsafeMake<void>(FiberId.none)
    this.asking.set(engine, done)
    const inquiry = new Inquiry(engine)
    engine.begin(inquiry.request, (error, result) => {
      this.asking.delete(engine)
      if (error === undefined) inquiry.hear(result!)
      else if (error.cause instanceof Error) engine.positions.fail(error.cause)
      Deferred.unsafeDone(done, Exit.void)
    })
    return done
  }

  private approach(fiber: AnyFiber, now: () => number, attempt: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const needs = this.needs(fiber)
      const missing = this.missing(needs, now())
      if (missing === undefined) return this.warnOfBlindness(needs)
      const { awaited, candidates, sources } = missing
      if (awaited.length > 0) return Effect.zipRight(awaitMarks(awaited), this.approach(fiber, now, attempt))
      const worthIt = candidates.filter((engine) => this.isNear(engine) || engine.positions.isDue(hopelessEvery))
      // One after the other, and not always the same one first.
      const asked = sources.length > 0 || worthIt.length === 0 ? sources : [worthIt[this.turn++ % worthIt.length]!]
      if (asked.length === 0) return Effect.void
      const millis = attempt < hastyAttempts ? 0 : Math.min(2 ** (attempt - hastyAttempts), longestPause)
      return Effect.forEach(asked, (engine) => this.ask(engine), { concurrency: "unbounded", discard: true }).pipe(
        Effect.zipRight(millis === 0 ? Effect.void : pause(millis)),
        Effect.zipRight(this.approach(fiber, now, attempt + 1))
      )
    })
  }

  /** Whether a replica may have what is missing within the time that reads wait. */
  private isNear({ positions }: Engine): boolean {
    return !positions.isHopeless
  }

  /** What is missing for a read to go to a replica; `undefined` where nothing is, or nothing helps. */
  private missing(needs: Seen.Seen, now: number): Missing | undefined {
    const eligible = this.reading.engines.filter((engine) => this.reading.isEligible(engine))
    if (eligible.some((engine) => this.has(engine, needs, now))) return undefined
    const { marks, positions } = needs
    if (marks.some((mark) => !mark.hasEnded || mark.isLost)) return undefined
    const awaited = marks.filter((mark) => mark.isAwaited)
    if (awaited.length > 0) return { awaited, sources: [], candidates: [] }
    // What the primary alone can say it says with the read itself.
    const sources = eligible.filter((engine) => marks.some((mark) => mark.tracker === engine.positions))
    if (sources.length < marks.length) return undefined
    if (sources.length > 0) return { awaited, sources, candidates: [] }
    const candidates = eligible.filter(
      ({ positions: { isTelling, known } }) =>
        isTelling && (known === undefined || positions.every((position) => Position.isComparable(known, position)))
    )
    return candidates.length === 0 ? undefined : { awaited, sources, candidates }
  }

  private warnOfBlindness({ marks }: Seen.Seen): Effect.Effect<void> {
    const blind = [...this.writing.engines, ...this.reading.engines].filter(
      ({ name, positions }) =>
        !positions.isTelling &&
        !this.told.has(name) &&
        (this.reading.engines.some((engine) => engine.positions === positions) ||
          marks.some((mark) => mark.tracker === positions))
    )
    for (const { name } of blind) this.told.add(name)
    return Effect.forEach(
      blind,
      ({ name, positions }) =>
        Effect.logWarning(
          `${name} does not tell its position in the write-ahead log (${positions.refused ?? "nobody probes it"}): ` +
            `reads go to the primary for ${Duration.format(this.policy.window)} after a write`
        ).pipe(Effect.annotateLogs({ engine: name })),
      { discard: true }
    )
  }
}

const awaitMarks = (marks: ReadonlyArray<Mark>): Effect.Effect<void> =>
  Effect.forEach(
    marks,
    (mark) =>
      Effect.async<void>((resume) => {
        if (!mark.isAwaited) return resume(Effect.void)
        return Effect.sync(mark.onHeard(() => resume(Effect.void)))
      }),
    { concurrency: "unbounded", discard: true }
  )

/** A statement of a fiber on an engine: what its flow has to know of it. */
export class Watch {
  readonly mark: Mark
  private before: Seen.Seen
  private readonly isReplica: boolean

  constructor(
    private readonly causal: Causal,
    private readonly fiber: AnyFiber,
    private readonly engine: Engine,
    reading: EngineGroup
  ) {
    this.mark = new Mark(engine.positions)
    this.before = fiber.getFiberRef(RoutingContext.flow).seen
    this.isReplica = reading.engines.includes(engine)
  }

  /** It may write. Whatever becomes of it, reads stay on the primary until it has ended. */
  writes(): this {
    this.causal.note(this.fiber, (seen) => Seen.withMark(seen, this.mark))
    this.before = this.fiber.getFiberRef(RoutingContext.flow).seen
    return this
  }

  /** A statement that may write, with the question for the position behind it, where it takes one. */
  asking(request: Request): Request {
    return this.mark.tracker.isTelling && takesQuestion(request) ? { ...request, sampler: this.mark } : request
  }

  /** A read, with the question for the position behind it, if that is worth it. */
  askingWhenDue(request: Request): Request {
    const { mark } = this
    if (!mark.tracker.isTelling) return request
    // What binds the flow to the primary ends with the answer.
    mark.isModest = this.isReplica || (this.before.marks.length === 0 && this.before.positions.length === 0)
    return mark.isWanted ? { ...request, sampler: mark } : request
  }

  /** It has succeeded, and the flow goes on from there. */
  succeeded(): void {
    const { before } = this
    const mark = this.mark.end()
    if (!this.isReplica && this.engine.positions.isPrimary) {
      RoutingContext.unsafeChange(this.fiber, (seen) => Seen.superseded(seen, before, mark))
    } else {
      RoutingContext.unsafeChange(this.fiber, (seen) => Seen.withMark(seen, mark))
    }
  }
}
