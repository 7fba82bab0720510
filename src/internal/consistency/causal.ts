import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Consistency from "../../Consistency.js"
import type { Engine } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import * as Position from "../../Position.js"
import * as RoutingContext from "../../RoutingContext.js"
import * as Seen from "../context/causalState.js"
import type { Request } from "../driver/pool.js"
import * as Log from "../validation/log.js"
import { Mark, type Positions } from "../wal/lsnTracker.js"
import { Approach, type Step } from "./approach.js"
import { Inquiries } from "./inquiries.js"
import { Learner } from "./learner.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** After a read has waited in vain for a replica, no read waits for it: for so many milliseconds, or so many times that wait. */
const hopelessMillis = 1_000
const hopelessWaits = 10

/** The interval of its polls meanwhile, in milliseconds. */
const hopelessEvery = 10

/** How often a replica is asked that others are preferred to, in milliseconds. */
const refreshEvery = 5

/**
 * How long what a server has said is good enough for those who only want to know it lately, in milliseconds. With 1 every
 * other read of a busy router asks, which makes reads and writes slower by a third; with more the reads after a write ask more
 * often for themselves, and those of one flow hardly change replicas.
 */
const recentMillis = 5

/** The same for a replica that has all that anybody has told. While nothing is written there is little to learn. */
const settledMillis = 20

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
  readonly inquiries = new Inquiries()
  private readonly learner: Learner | undefined
  private readonly told = new Set<string>()
  private readonly window: number
  private turn = 0
  /** The system of its servers, and those that they were of before. */
  private system: string | undefined
  private readonly systems = new Set<string>()

  constructor(
    private readonly policy: Consistency.Positions,
    private readonly writing: EngineGroup,
    private readonly reading: EngineGroup
  ) {
    this.window = Duration.toMillis(policy.window)
    if (Duration.toMillis(policy.wait) > 0) this.learner = new Learner(this.inquiries, reading)
  }

  /** Ends what goes on by itself. */
  close(): void {
    this.learner?.close()
  }

  /** What a read of a fiber has to see. */
  needs(fiber: AnyFiber): Seen.Seen {
    const flow = fiber.getFiberRef(RoutingContext.flow)
    const { seen } = flow
    const resolved = Seen.resolved(seen)
    if (resolved !== seen) flow.unsafeSet(resolved)
    if (this.policy.scope === "process") {
      this.process = Seen.latest(Seen.resolved(this.asOfWriter(this.process)))
      return this.noted(Seen.resolved(Seen.merge(resolved, this.process)))
    }
    return this.noted(resolved)
  }

  /**
   * Flows that need a position that was never told read on the primary, and go on from what it has then. The process does not
   * read: what the primary tells next stands for it.
   */
  private asOfWriter(process: Seen.Seen): Seen.Seen {
    const isLost = (mark: Mark) => mark.hasEnded && mark.isLost
    if (!process.marks.some(isLost)) return process
    const kept = { ...process, marks: process.marks.filter((mark) => !isLost(mark)) }
    return Seen.withMark(kept, new Mark(this.writing.engines[0]!.positions).end())
  }

  /** Whether a system is none that its servers are of, or were: another router's. Then nothing of it compares here. */
  readonly isForeign = (system: string | undefined): boolean => {
    const { system: now } = this.writing.engines[0]!.positions
    if (now !== this.system && now !== undefined) {
      this.system = now
      this.systems.add(now)
    }
    return system !== undefined && system !== now && this.systems.size > 0 && !this.systems.has(system)
  }

  /** Whether a fiber has seen a later timeline than that of a primary: a standby was promoted, and the router has not noticed. */
  isPast(fiber: AnyFiber, { positions: { known } }: Engine): boolean {
    const { seen } = fiber.getFiberRef(RoutingContext.flow)
    return Seen.hasPast(seen, known) || (this.policy.scope === "process" && Seen.hasPast(this.process, known))
  }

  /** Forgets the later timelines that were seen, as no server turned out to be the primary of one: no server can show them. */
  forgetPast(fiber: AnyFiber, { positions: { known } }: Engine): void {
    this.note(fiber, (seen) => Seen.withoutPast(seen, known))
  }

  private noted(seen: Seen.Seen): Seen.Seen {
    const needs = Seen.without(seen, this.isForeign)
    if (needs.positions.length > 0) this.learner?.isNeeded()
    return needs
  }

  /** Whether an engine has what a read has to see. */
  has(engine: Engine, { marks, positions, writtenAt }: Seen.Seen, now: () => number): boolean {
    const { positions: server } = engine
    let isBlind = !server.isTelling
    for (const mark of marks) {
      if (!mark.tracker.isTelling) isBlind = true
      else if (mark.tracker !== server || !mark.hasEnded || mark.isLost) return false
    }
    if (isBlind && now() - writtenAt < this.window) return false
    if (!server.isTelling || positions.length === 0) return true
    return server.known !== undefined && Position.coversAll(server.known, positions)
  }

  /** Observes the work of a fiber on an engine from now on, until its `end`. */
  begin(fiber: AnyFiber, engine: Engine): Watch {
    return new Watch(this, fiber, engine, this.reading)
  }

  /** The same for a read: cheaper where no server has to be asked, and free where the position is known already. */
  read(fiber: AnyFiber, engine: Engine): Watch | Glance {
    const { positions } = engine
    return positions.isTelling && this.reading.engines.includes(engine) && !this.isDue(positions)
      ? new Glance(fiber, positions)
      : this.begin(fiber, engine)
  }

  /** Whether a replica is to be asked, for those who only want to know it lately. */
  isDue(positions: Positions): boolean {
    return positions.isDue(recentMillis) && (positions.isDue(settledMillis) || !this.isLatest(positions))
  }

  /** Whether a server is known to have all that anybody has told. */
  private isLatest({ known }: Positions): boolean {
    if (known === undefined) return false
    const covers = ({ positions }: Engine) => positions.known === undefined || Position.covers(known, positions.known)
    return this.writing.engines.every(covers) && this.reading.engines.every(covers)
  }

  /** A statement has succeeded on an engine now: its flow was shown what is there. */
  ran(fiber: AnyFiber, engine: Engine): void {
    this.show(fiber, engine, engine.positions.isPrimary && !this.reading.engines.includes(engine))
  }

  /** A statement has failed on an engine now, or a transaction was rolled back. What is there was shown all the same. */
  failed(fiber: AnyFiber, engine: Engine): void {
    this.show(fiber, engine, false)
  }

  /** `hasAll`: the engine has all that the flow has seen before. */
  private show(fiber: AnyFiber, { positions }: Engine, hasAll: boolean): void {
    RoutingContext.unsafeNoteRead(fiber, (seen) => {
      if (seen.marks.some((mark) => mark.tracker === positions && mark.covers(positions))) return seen
      const mark = new Mark(positions).end()
      return hasAll ? Seen.superseded(seen, seen, mark, this.isForeign) : Seen.withMark(seen, mark)
    })
  }

  /** Something was written, and has ended with success. */
  wrote(mark: Mark): void {
    this.learner?.follow(mark)
  }

  /** A transaction was committed, or may have been. What was only read is nothing that other flows have to see. */
  committed(fiber: AnyFiber, mark: Mark, wrote: boolean): void {
    mark.end()
    const change = (seen: Seen.Seen) => Seen.withMark(seen, mark)
    if (wrote) {
      this.note(fiber, change)
      this.wrote(mark)
    } else {
      RoutingContext.unsafeChange(fiber, change)
    }
  }

  /** Notes a write, or forgets what none can show, for every flow that has to see it. */
  note(fiber: AnyFiber, change: (seen: Seen.Seen) => Seen.Seen): void {
    RoutingContext.unsafeChange(fiber, change)
    if (this.policy.scope === "process") this.process = change(this.process)
  }

  /** Waits, for as long as the policy says, until a replica is known to have what a fiber has to see, if one soon will. */
  await(fiber: AnyFiber, now: () => number): Effect.Effect<void> {
    const millis = Duration.toMillis(this.policy.wait)
    if (millis === 0) return Effect.void
    return this.approach(
      () => this.stepTowards(this.needs(fiber), now),
      (isLate) => {
        if (!isLate) return this.warnOfBlindness(this.needs(fiber))
        // The next ones do not wait for the same.
        const wanted = this.needs(fiber).positions
        for (const { positions } of this.reading.engines) {
          positions.giveUp(Math.max(hopelessMillis, hopelessWaits * millis), wanted)
        }
        return Effect.void
      },
      millis
    )
  }

  /** What a fiber has seen, as far as that can be known. */
  settled(fiber: AnyFiber): Effect.Effect<Seen.Seen> {
    let hasAsked = false
    const next = (): Step | undefined => {
      const marks = this.needs(fiber).marks.filter((mark) => mark.hasEnded)
      const awaited = marks.filter((mark) => mark.isAwaited)
      if (awaited.length > 0) return { marks: awaited, engines: [] }
      if (hasAsked) return undefined
      hasAsked = true
      const servers = [...this.writing.engines, ...this.reading.engines]
      return { marks: [], engines: servers.filter(({ positions }) => marks.some((mark) => mark.tracker === positions)) }
    }
    const millis = Math.max(1, Duration.toMillis(this.policy.wait))
    return Effect.map(
      this.approach(next, () => Effect.void, millis),
      () => this.needs(fiber)
    )
  }

  /**
   * Asks replicas that were passed over for what is known of them, without waiting: those that get reads tell their position
   * with every one, and would get all of them for ever.
   */
  refresh(passedOver: Iterable<Engine>): void {
    for (const engine of passedOver) {
      const millis = this.isNear(engine) ? refreshEvery : hopelessEvery * hopelessWaits
      if (engine.positions.isTelling && engine.positions.isDue(millis) && this.reading.isEligible(engine)) {
        this.inquiries.ask(engine, "read")
      }
    }
  }

  private approach(
    next: () => Step | undefined,
    ended: (isLate: boolean) => Effect.Effect<void>,
    millis: number
  ): Effect.Effect<void> {
    return Effect.async<void>((resume) => {
      const approach = new Approach(this.inquiries, next, (isLate) => resume(ended(isLate)), millis)
      approach.go()
      return Effect.sync(() => approach.stop())
    })
  }

  /** What to hear next, so that a read knows its replica. Whom it asks: one after the other, and not always the same one first. */
  private stepTowards(needs: Seen.Seen, now: () => number): Step | undefined {
    const missing = this.missing(needs, now)
    if (missing === undefined) return undefined
    const { awaited, candidates, sources } = missing
    if (awaited.length > 0 || sources.length > 0) return { marks: awaited, engines: sources }
    const worthIt = candidates.filter((engine) => this.isNear(engine) || engine.positions.isDue(hopelessEvery))
    return { marks: [], engines: worthIt.length === 0 ? [] : [worthIt[this.turn++ % worthIt.length]!] }
  }

  /** Whether a replica may have what is missing within the time that reads wait. */
  private isNear({ positions }: Engine): boolean {
    return !positions.isHopeless
  }

  /** What is missing for a read to go to a replica; `undefined` where nothing is, or nothing helps. */
  private missing(needs: Seen.Seen, now: () => number): Missing | undefined {
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
        Log.warning(
          `${name} does not tell its position in the write-ahead log (${positions.refused ?? "it is not probed"}): ` +
            `reads go to the primary for ${Duration.format(this.policy.window)} after a write`
        ).pipe(Effect.annotateLogs({ engine: name })),
      { discard: true }
    )
  }
}

/** A statement of a fiber on an engine: what its flow has to know of it. */
export class Watch {
  readonly mark: Mark
  private before: Seen.Seen
  private readonly isReplica: boolean
  private isWrite = false

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

  /** It may write, from that time on. Whatever becomes of it, reads stay on the primary until it has ended. */
  writes(at = Number.NEGATIVE_INFINITY): this {
    this.isWrite = true
    this.causal.note(this.fiber, (seen) => Seen.withWrite(Seen.withMark(seen, this.mark), at))
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
    if (this.isReplica) mark.isWorthIt = () => this.causal.isDue(mark.tracker)
    // What binds the flow to the primary ends with the answer.
    else if (this.before.marks.length === 0 && this.before.positions.length === 0)
      mark.isWorthIt = () => mark.tracker.isDue(recentMillis)
    return mark.isWanted ? { ...request, sampler: mark } : request
  }

  /** It has succeeded, and the flow goes on from there. */
  succeeded(at = Number.NEGATIVE_INFINITY): void {
    const { before, isWrite } = this
    const mark = this.mark.end()
    const isSuperseding = !this.isReplica && this.engine.positions.isPrimary
    RoutingContext.unsafeChange(this.fiber, (seen) => {
      const next = isSuperseding
        ? Seen.superseded(seen, before, mark, this.causal.isForeign)
        : Seen.withMark(seen, mark)
      return isWrite ? Seen.withWrite(next, at) : next
    })
    if (isWrite) this.causal.wrote(mark)
  }

  /** It has failed, or was interrupted. */
  failed(at: number): void {
    this.mark.end()
    RoutingContext.unsafeChange(this.fiber, (seen) => Seen.withFailure(seen, at))
  }
}

/** A read of a fiber on a replica that was asked for its position just now. */
export class Glance {
  private readonly epoch: number

  constructor(
    private readonly fiber: AnyFiber,
    private readonly tracker: Positions
  ) {
    this.epoch = tracker.epoch
  }

  askingWhenDue(request: Request): Request {
    return request
  }

  /** It has succeeded, and the flow goes on from there. */
  succeeded(): void {
    const { epoch, fiber, tracker } = this
    RoutingContext.unsafeNoteRead(fiber, (seen) => {
      const isKnown =
        epoch === tracker.epoch && seen.marks.some((mark) => mark.tracker === tracker && mark.covers(tracker))
      return isKnown ? seen : Seen.withMark(seen, new Mark(tracker, epoch).end())
    })
  }
}
