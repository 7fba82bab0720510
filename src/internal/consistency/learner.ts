import type { Engine } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import * as Position from "../../Position.js"
import type { Mark } from "../wal/lsnTracker.js"
import type { Inquiries } from "./inquiries.js"

/**
 * When replicas are asked after a write, in milliseconds: so long after they could not be asked at once any more, or after the
 * time before.
 */
const pauses = [1, 2, 4, 8, 16, 32]

/**
 * The polls of an idle replica before that, each as soon as the last one is answered: near by, most replicas have replayed the
 * write after a fraction of a millisecond. A busy replica gets none, because they would make all that runs there slower.
 */
const atOnce = 4

/** After so many writes without a read that needs one of them, replicas are not polled until such a read comes. */
const unneeded = 16

/**
 * Polls replicas in the background until they have replayed the last write, so that the first read after a write knows where to
 * go. It uses idle connections only, and only where the answers to reads do not tell it anyway. However many writes there
 * are, each replica is asked for one of them at a time, the last.
 */
export class Learner {
  private wanted: Position.Position | undefined
  private attempt = 0
  private writes = 0
  private timer: NodeJS.Timeout | undefined
  private isClosed = false

  constructor(
    private readonly inquiries: Inquiries,
    private readonly reading: EngineGroup
  ) {}

  /** Something was written, and has ended. */
  follow(mark: Mark): void {
    if (mark.isAwaited) mark.onHeard(() => this.want(mark.known))
    else this.want(mark.known)
  }

  /** A read has to see a write. */
  isNeeded(): void {
    this.writes = 0
  }

  /** Ends the polling. */
  close(): void {
    this.isClosed = true
    clearTimeout(this.timer)
  }

  private want(position: Position.Position | undefined): void {
    if (position === undefined || this.isClosed || this.writes >= unneeded) return
    const { wanted } = this
    if (wanted !== undefined && Position.covers(wanted, position)) return
    this.writes++
    this.wanted = position
    this.attempt = 0
    for (const engine of this.reading.engines) {
      if (this.isFree(engine)) this.askAtOnce(engine, atOnce)
      else this.later()
    }
  }

  private askAtOnce(engine: Engine, times: number): void {
    if (this.isClosed || !this.isWorthAsking(engine)) return
    if (times > 0 && engine.inFlight === 0) this.inquiries.ask(engine, "write", () => this.askAtOnce(engine, times - 1))
    else this.later()
  }

  private later(): void {
    this.timer ??= setTimeout(() => this.look(), pauses[this.attempt]).unref()
  }

  private look(): void {
    this.timer = undefined
    let isKnown = true
    for (const engine of this.reading.engines) {
      if (!this.isWorthAsking(engine)) continue
      isKnown = false
      // Reads may have told it since.
      if (engine.positions.isDue(pauses[0]) && this.isFree(engine)) this.inquiries.ask(engine, "write")
    }
    if (!isKnown && ++this.attempt < pauses.length) this.later()
  }

  /** No question to the replica is in flight, and it has an idle connection for one. */
  private isFree(engine: Engine): boolean {
    return !this.inquiries.has(engine) && engine.poolStatus.idle > 0
  }

  /** A replica is not known to have the wanted position, and may have it soon. */
  private isWorthAsking(engine: Engine): boolean {
    const { isHopeless, isTelling, known } = engine.positions
    const wanted = this.wanted!
    if (!isTelling || isHopeless || !this.reading.isEligible(engine)) return false
    return known === undefined || (Position.isComparable(known, wanted) && !Position.covers(known, wanted))
  }
}
