import type { Engine } from "../../Engine.js"
import type { Mark } from "../wal/lsnTracker.js"
import type { Inquiries } from "./inquiries.js"

/** So many questions follow each other without a pause: a replica that is well has a write before its answer is back. */
const hastyAttempts = 4

/** The longest pause between two questions after that, in milliseconds. The first is of one, the next of two. */
const longestPause = 8

/** A timer that is set for longer passes at once. */
const longestTimer = 2 ** 31 - 1

/** What has to be heard next: answers that are on their way, or those of servers that are to be asked. */
export interface Step {
  readonly marks: ReadonlyArray<Mark>
  readonly engines: ReadonlyArray<Engine>
}

const nothing: Step = { marks: [], engines: [] }

/**
 * Asks until there is nothing more to ask, or the time is over. In callbacks: forking fibers for it takes longer than the
 * question does. In real time: a test's clock that stands still must not keep a read waiting for ever.
 */
export class Approach {
  private attempt = 0
  private isOver = false
  private stopListening: ReadonlyArray<() => void> = []
  private timer: NodeJS.Timeout | undefined
  private readonly limit: NodeJS.Timeout

  /** `next` says what has to be heard; `undefined` when it is done. Calls `ended` once, unless it is stopped. */
  constructor(
    private readonly inquiries: Inquiries,
    private readonly next: () => Step | undefined,
    private readonly ended: (isLate: boolean) => void,
    millis: number
  ) {
    this.limit = setTimeout(() => this.end(true), Math.min(millis, longestTimer))
  }

  readonly go = (): void => {
    this.timer = undefined
    if (this.isOver) return
    const { engines, marks } = this.next() ?? nothing
    let left = engines.length + marks.length
    if (left === 0) {
      this.end(false)
      return
    }
    const heard = () => {
      if (--left === 0) this.again(engines.length > 0)
    }
    this.stopListening = marks.map((mark) => mark.onHeard(heard))
    for (const engine of engines) this.inquiries.ask(engine, "read", heard)
  }

  /** Ends it, with no call. */
  stop(): void {
    this.isOver = true
    clearTimeout(this.timer)
    clearTimeout(this.limit)
    for (const stop of this.stopListening) stop()
  }

  private again(hasAsked: boolean): void {
    if (this.isOver) return
    const millis = hasAsked ? pauseAfter(this.attempt++) : 0
    if (millis === 0) this.go()
    else this.timer = setTimeout(this.go, millis)
  }

  private end(isLate: boolean): void {
    this.stop()
    this.ended(isLate)
  }
}

const pauseAfter = (attempt: number): number =>
  attempt < hastyAttempts ? 0 : Math.min(2 ** (attempt - hastyAttempts), longestPause)
