import * as Position from "../../Position.js"
import type { Answer, ProbedPosition, Sampler } from "./positionSample.js"

/** These say that a server does not tell positions, to this role or at all, and never will. */
const refusals = ["42501", "42883", "0A000"]

/**
 * What is known of the positions of one server. All of it is a lower bound: a server that has replayed a position has it
 * from then on, until it starts anew.
 */
export class Tracker {
  /** The furthest position that it has told. */
  known: Position.Position | undefined
  /** Why it does not tell positions. */
  refused: string | undefined
  /** Whether it was a primary when it last said something. */
  isPrimary = false
  /** Whether several servers answer at its address: what one of them says holds for no other. */
  isBalanced = false
  /** When the server has started that new connections lead to, and those that they led to before. */
  private server: number | undefined
  private readonly former = new Set<number>()
  /** Whether it tells if a transaction was assigned an id, as far as is known. */
  tellsIds = true
  /** Goes up when nothing that it has told counts any more. */
  epoch = 0
  /** When the last probe was sent that it has answered, in milliseconds of the clock that never goes back. */
  probedAt = Number.NEGATIVE_INFINITY

  /** The answer to a question that was sent at that time, or later. */
  told: (Answer & { readonly at: number }) | undefined
  /** The question that the next such answer is to come after, and when it was sent. `0`: the next one that is sent. */
  private awaited = 0
  private awaitedSince = 0

  // Questions are numbered in the order in which they are sent.
  private asked = 0
  private answered = 0
  private hopelessUntil = Number.NEGATIVE_INFINITY
  private wanted: ReadonlyArray<Position.Position> = []
  private askedAt = Number.NEGATIVE_INFINITY
  /** Whether it is another server now, that has said nothing yet. */
  private isNew = false
  private identity: Pick<ProbedPosition, "system" | "timeline" | "startedAt"> | undefined

  constructor(private readonly now: () => number) {}

  /** Whether its positions can be known. */
  get isTelling(): boolean {
    return (this.identity !== undefined || this.isNew) && this.refused === undefined
  }

  /** The system that it is of, as far as it has said. */
  get system(): string | undefined {
    return this.identity?.system
  }

  /** The number of questions sent. The answer to a later one covers everything that the server has shown so far. */
  get questions(): number {
    return this.asked
  }

  /** The last question to it is at least so old. */
  isDue(millis: number): boolean {
    const age = this.now() - this.askedAt
    return age >= millis || age < 0
  }

  /** A read has waited in vain for it to replay these positions. */
  giveUp(millis: number, wanted: ReadonlyArray<Position.Position>): void {
    this.hopelessUntil = this.now() + millis
    this.wanted = wanted
  }

  /** Whether that was lately, and it still has not. */
  get isHopeless(): boolean {
    if (this.now() >= this.hopelessUntil) return false
    const { known, wanted } = this
    return wanted.length === 0 || known === undefined || !Position.coversAll(known, wanted)
  }

  /** A question is sent. */
  ask(): number {
    this.askedAt = this.now()
    const question = ++this.asked
    if (this.awaited === 0) {
      this.awaited = question
      this.awaitedSince = this.askedAt
    }
    return question
  }

  /** The answer to a question that was sent in an epoch. Returns the position. */
  hear(question: number, epoch: number, answer: Answer): Position.Position | undefined {
    const { identity } = this
    if (epoch !== this.epoch || identity === undefined) return undefined
    if (this.awaited !== 0 && question >= this.awaited) {
      this.told = { ...answer, at: this.awaitedSince }
      this.awaited = 0
    }
    const isNews = question > this.answered
    // Before the first promotion there is one that it can be on.
    const timeline = answer.timeline ?? identity.timeline ?? 1
    const position: Position.Position = { system: identity.system, timeline, lsn: answer.lsn }
    const { known } = this
    if (known === undefined || (Position.isComparable(known, position) ? known.lsn < position.lsn : isNews)) {
      this.known = position
    }
    if (isNews) {
      this.answered = question
      this.isPrimary = !answer.isStandby
    }
    return position
  }

  /** Why a question was not answered. */
  fail(error: Error): void {
    const { code } = error as { readonly code?: string }
    if (code !== undefined && refusals.includes(code)) this.refused ??= error.message
  }

  /** Why it has not told whether a transaction was assigned an id. */
  failId(error: unknown): void {
    if (refusals.includes((error as { readonly code?: string }).code ?? "")) this.tellsIds = false
  }

  /**
   * A new connection has led to the server that has started then. Tells whether that is another one than before: it has started
   * anew, or its address leads elsewhere. One that comes again after another is one of several behind a balancer.
   */
  meet(startedAt: number): boolean {
    const { server } = this
    if (this.isBalanced || server === startedAt) return false
    this.server = startedAt
    if (server === undefined) return false
    this.forget()
    this.former.add(server)
    if (!this.former.has(startedAt)) return true
    this.isBalanced = true
    this.refused ??= "several servers answer at its address"
    return false
  }

  /**
   * What a probe has found; it was sent as that question, at that time. Tells whether it comes from the server that new
   * connections lead to.
   */
  report(question: number, at: number, report: ProbedPosition, isNew = false): boolean {
    if (isNew) this.meet(report.startedAt)
    const isOwn = this.isBalanced || this.server === undefined || this.server === report.startedAt
    if (!isOwn) {
      this.forget()
      this.identity = undefined
      // Not one that does not tell, which would be taken to have everything after a while.
      this.isNew = true
      return false
    }
    const { identity } = this
    const isOther =
      identity !== undefined && (identity.system !== report.system || identity.startedAt !== report.startedAt)
    if (isOther) this.forget()
    this.identity = report
    this.isNew = false
    this.probedAt = at
    const { position: lsn, role, timeline } = report
    this.hear(question, this.epoch, { isStandby: role === "replica", lsn, timeline })
    return true
  }

  /** What a probe would have found is known from an answer to a question that was sent at that time, or later. */
  proven(at: number): void {
    this.probedAt = at
  }

  /** What it says after having been asked later than that, in the same epoch. */
  after(questions: number, epoch: number): Position.Position | undefined {
    return epoch === this.epoch && this.answered > questions ? this.known : undefined
  }

  /** It may have started anew: what it has told counts no more. */
  forget(): void {
    this.epoch++
    this.known = undefined
    this.answered = this.asked
    this.told = undefined
    this.awaited = 0
  }

  /** It is another server from now on, of which nothing is known. */
  rebind(): void {
    this.forget()
    this.isNew = this.isTelling
    this.identity = undefined
    this.refused = undefined
    this.isBalanced = false
    this.server = undefined
    this.former.clear()
    this.tellsIds = true
    this.probedAt = Number.NEGATIVE_INFINITY
  }
}

/** What is known of the positions of a server, for those who need no more than that. */
export type Positions = Pick<Tracker, keyof Tracker>

/**
 * That a flow has written on a server, or read there. Once a position is known that the server had at that time or later,
 * other servers that have it will do as well.
 */
export class Mark implements Sampler {
  private position: Position.Position | undefined
  // Nothing that the server says before the end of the statement counts, but for the question that was sent with it.
  private since = Number.POSITIVE_INFINITY
  private question = 0
  private readonly epoch: number
  /** Whether its own question is worth it, where it is not in any case. */
  isWorthIt: (() => boolean) | undefined
  private listeners: Array<() => void> | undefined

  /** `epoch`: that of the tracker when the statement began, if not now. */
  constructor(
    readonly tracker: Positions,
    epoch = tracker.epoch
  ) {
    this.epoch = epoch
  }

  /** Whether a statement on a server that has just ended needs no mark beside this one: it would say the same. */
  covers({ epoch, questions }: Positions): boolean {
    return this.since === questions && this.epoch === epoch && this.question === 0 && this.position === undefined
  }

  /**
   * Whether what its server will say of it holds for another one there too. That of a later statement does, unless it was sent
   * before the other one had ended: then its own question may have been answered before that.
   */
  supersedes(other: Mark): boolean {
    if (other.tracker !== this.tracker || !other.hasEnded || other.isLost) return false
    return this.since >= other.since && (this.question === 0 || this.question > other.since)
  }

  // While statements wait for a connection others may ask: else all of a crowd would.
  get isWanted(): boolean {
    return this.isWorthIt?.() ?? true
  }

  send(): number {
    // A statement may be sent again. Then only the last question comes after it.
    this.position = undefined
    this.question = this.tracker.ask()
    return this.question
  }

  heard(question: number, answer: Answer | Error): void {
    if (answer instanceof Error) this.tracker.fail(answer)
    const position = answer instanceof Error ? undefined : this.tracker.hear(question, this.epoch, answer)
    if (question !== this.question) return
    this.question = 0
    this.position ??= position
    this.wake()
  }

  /** The statement has ended, however. */
  end(): this {
    if (!this.hasEnded) this.since = this.tracker.questions
    this.wake()
    return this
  }

  /** Whether the statement has ended. */
  get hasEnded(): boolean {
    return this.since !== Number.POSITIVE_INFINITY
  }

  /** Whether the answer to its own question is on its way, of a statement that has ended. */
  get isAwaited(): boolean {
    return this.question !== 0 && this.hasEnded && this.known === undefined
  }

  /** The position, if it is known. */
  get known(): Position.Position | undefined {
    if (!this.hasEnded) return undefined
    this.position ??= this.tracker.after(this.since, this.epoch)
    return this.position
  }

  /** Whether its server has started anew before it told the position. */
  get isLost(): boolean {
    return this.epoch !== this.tracker.epoch && this.known === undefined
  }

  /** Calls back when the answer to its own question is there, or is none. Returns what ends that. */
  onHeard(listener: () => void): () => void {
    this.listeners ??= []
    this.listeners.push(listener)
    return () => {
      this.listeners = this.listeners?.filter((other) => other !== listener)
    }
  }

  private wake(): void {
    const { listeners } = this
    if (listeners === undefined || this.isAwaited) return
    this.listeners = undefined
    for (const listener of listeners) listener()
  }
}
