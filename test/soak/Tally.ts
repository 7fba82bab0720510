/** What a load has done, phase by phase. An operation counts for the phase in which it began. */
import { createHistogram, type RecordableHistogram } from "node:perf_hooks"
import type { Failure } from "./Failure.js"

/** The operations of the load. */
export const kinds = ["read", "write", "session", "session of reads", "stream"] as const

export type Kind = (typeof kinds)[number]

/** Those that run outside of transactions and may be answered by any server. */
export const isRead = (kind: string): boolean => kind === "read" || kind === "session of reads"

/** What happened in one phase. */
export class Phase {
  readonly done: Record<Kind, number> = { read: 0, write: 0, session: 0, "session of reads": 0, stream: 0 }
  /** How long reads waited for their answer, in microseconds; failed ones count too. */
  readonly waits: RecordableHistogram = createHistogram({ lowest: 1, highest: 600_000_000, figures: 3 })

  constructor(readonly name: string) {}

  get operations(): number {
    return kinds.reduce((sum, kind) => sum + this.done[kind], 0)
  }

  /** The time that so many percent of the reads took at most, in milliseconds. */
  percentile(percent: number): number {
    return this.waits.percentile(percent) / 1_000
  }
}

/** More failures than that tell nothing new, and would look like a leak. */
const maxFailures = 5_000

interface Waiting {
  readonly port: number
  readonly since: number
  readonly resume: (at: number) => void
}

export class Tally {
  readonly failures: Array<Failure> = []
  /** How many failures there were, those included that are not kept. */
  failed = 0
  phase: Phase
  readonly phases: Array<Phase> = []
  /** Operations that have begun and not ended. */
  running = 0
  /** How many reads a server has answered, by its port. */
  private readonly answers = new Map<number, number>()
  private waiting: ReadonlyArray<Waiting> = []

  constructor(phase: string) {
    this.phase = this.begin(phase)
  }

  /** Operations that begin from now on belong to another phase. */
  begin(name: string): Phase {
    this.phase = new Phase(name)
    this.phases.push(this.phase)
    return this.phase
  }

  get operations(): number {
    return this.phases.reduce((sum, phase) => sum + phase.operations, 0)
  }

  /** How often operations of some kinds ended well, in all phases. */
  done(...of: ReadonlyArray<Kind>): number {
    return this.phases.reduce((sum, { done }) => sum + of.reduce((each, kind) => each + done[kind], 0), 0)
  }

  fail(failure: Failure): void {
    this.failed++
    if (this.failures.length < maxFailures) this.failures.push(failure)
  }

  /** A server has answered a read that began then. */
  answered(port: number, began: number): void {
    this.answers.set(port, this.answersOf(port) + 1)
    const isIt = (one: Waiting) => one.port === port && one.since <= began
    if (!this.waiting.some(isIt)) return
    const now = performance.now()
    const found = this.waiting.filter(isIt)
    this.waiting = this.waiting.filter((one) => !isIt(one))
    for (const { resume } of found) resume(now)
  }

  /** Calls back when a server has answered a read that began from now on. */
  onAnswer(port: number, resume: (at: number) => void): void {
    this.waiting = [...this.waiting, { port, since: performance.now(), resume }]
  }

  /** How many reads a server has answered. */
  answersOf(port: number): number {
    return this.answers.get(port) ?? 0
  }

  /** How many reads any server has answered. */
  get reads(): number {
    return [...this.answers.values()].reduce((sum, n) => sum + n, 0)
  }

  /** Failures of some kinds. */
  failuresOf(of: (kind: string) => boolean): ReadonlyArray<Failure> {
    return this.failures.filter(({ kind }) => of(kind))
  }

  /** The longest that a read waited, in milliseconds. */
  get longestWait(): number {
    return Math.max(0, ...this.phases.map(({ waits }) => (waits.count === 0 ? 0 : waits.max / 1_000)))
  }
}
