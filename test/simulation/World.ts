/**
 * The time and the order of a run: one queue of events, each at a moment of virtual time, and nothing that runs outside of it.
 *
 * An event runs in a turn of its own, so that Node has done all promises and `nextTick`s that follow from it before the next
 * one. Which one of several events of one moment is first is chance, as is how late a timer fires; timers of the same length, and
 * `setImmediate`s, keep their order, as in Node.
 */
import { Chance } from "./Chance.js"

interface Event {
  readonly at: number
  readonly tie: number
  readonly id: number
  run: (() => void) | undefined
}

/** What ends an event before it has run. */
export type Cancel = () => void

const isBefore = (a: Event, b: Event) =>
  a.at < b.at || (a.at === b.at && (a.tie < b.tie || (a.tie === b.tie && a.id < b.id)))

/** 2030-01-01, so that a time of the real clock stands out. */
const epoch = Date.UTC(2030, 0, 1)

/** A run in which nothing can happen any more, or that does not end. */
export class Stuck extends Error {
  override readonly name = "Stuck"
}

export class World {
  /** Milliseconds since the start. */
  now = 0
  /** Events that have run. */
  turns = 0
  readonly chance: Chance
  private readonly order: Chance
  private readonly heap: Array<Event> = []
  private ids = 0
  private readonly lines: Array<string> = []
  /** Whether the history is kept; else only its fingerprint. */
  isTold = false
  private print = 0x811c9dc5
  private halted: Error | undefined
  /** Until when the process does nothing: what comes due meanwhile is there all at once. */
  private stalledUntil = 0

  constructor(readonly seed: string) {
    this.chance = new Chance(seed)
    this.order = this.chance.fork("order")
  }

  get date(): number {
    return epoch + this.now
  }

  /** Notes what has happened. */
  tell(line: string): void {
    const text = `${this.now.toFixed(3)} ${line}`
    for (let i = 0; i < text.length; i++) this.print = Math.imul(this.print ^ text.charCodeAt(i), 16777619)
    if (this.isTold) this.lines.push(text)
  }

  get history(): ReadonlyArray<string> {
    return this.lines
  }

  /** Of the whole history: two runs with the same one have told the same. */
  get fingerprint(): string {
    return (this.print >>> 0).toString(16).padStart(8, "0")
  }

  after(millis: number, run: () => void): Cancel {
    return this.at(this.now + millis, run)
  }

  at(moment: number, run: () => void): Cancel {
    const event: Event = { at: Math.max(moment, this.now), tie: this.order.next(), id: this.ids++, run }
    this.push(event)
    return () => {
      event.run = undefined
    }
  }

  /** The program does nothing for a while: its timers and what comes over the network wait. */
  stall(millis: number): void {
    this.stalledUntil = Math.max(this.stalledUntil, this.now + millis)
  }

  /** When the program can act on what happens at a moment. */
  noticed(moment: number): number {
    return Math.max(moment, this.stalledUntil)
  }

  /** Ends the run with an error. */
  halt(error: Error): void {
    this.halted ??= error
  }

  /** Runs events, each in a turn that `defer` gives it, until `isDone` says so. */
  run(defer: (turn: () => void) => void, isDone: () => boolean, limit: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        if (this.halted !== undefined) return reject(this.halted)
        if (isDone()) return resolve()
        let event = this.pop()
        while (event !== undefined && event.run === undefined) event = this.pop()
        if (event === undefined) return reject(new Stuck("Nothing can happen any more, and the run has not ended"))
        if (event.at > limit) return reject(new Stuck(`The run has not ended after ${limit} ms`))
        this.now = event.at
        this.turns++
        try {
          event.run!()
        } catch (error) {
          return reject(error)
        }
        defer(turn)
      }
      defer(turn)
    })
  }

  private push(event: Event): void {
    const { heap } = this
    heap.push(event)
    let at = heap.length - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = event
  }

  private pop(): Event | undefined {
    const { heap } = this
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) return first
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return first
  }
}
