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
 * How often a replica that has nothing else to do is asked before that, each time as soon as it has answered: near by, most have
 * it after a fraction of a millisecond. One that is busy is not, because that would make all that runs there slower.
 */
const atOnce = 4

/** After so many writes that nobody has needed to see since, replicas are not asked until somebody does. */
const unneeded = 16

/**
 * Learns in the background that replicas have what was written, so that the first read after a write knows where to go. Only
 * on connections that nobody uses, and only where the answers to reads do not tell it anyway. However many writes there are,
 * each replica is asked for one of them at a time, the last.
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

  /** Somebody reads who has to see something. */
  isNeeded(): void {
    this.writes = 0
  }

  /** Asks nobody from now on. */
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

  /** Whether nobody asks a replica anyway, and none of its connections is taken from anybody for it. */
  private isFree(engine: Engine): boolean {
    return !this.inquiries.has(engine) && engine.poolStatus.idle > 0
  }

  /** Whether a replica is not known to have what is wanted, and may be soon. */
  private isWorthAsking(engine: Engine): boolean {
    const { isHopeless, isTelling, known } = engine.positions
    const wanted = this.wanted!
    if (!isTelling || isHopeless || !this.reading.isEligible(engine)) return false
    return known === undefined || (Position.isComparable(known, wanted) && !Position.covers(known, wanted))
  }
}
