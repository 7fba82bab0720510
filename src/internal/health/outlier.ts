/**
 * When a server that answers probes is taken out all the same, because statements fail on it ("outlier ejection", as Envoy
 * calls it), and when it is tried again. Pure: times are milliseconds of the clock that never goes back.
 */
import * as Duration from "effect/Duration"
import type { ResolvedHealth } from "../engine/settings.js"

/** For how long statements are counted together, at least. */
const windowMillis = 30_000

/** So many have to fail before their share counts. */
const fewest = 5

/**
 * On so many occasions, with a probe between that succeeded. A restart, or an administrator who ends connections, breaks all
 * that runs at once: that is one occasion, and the server is well after it.
 */
const fewestOccasions = 3

/** The longest time out, and how many times the time out it takes in use to begin with the shortest again. */
const longestMillis = 300_000
const probations = 10

type Limits = Pick<ResolvedHealth, "ejectShare" | "ejectTime" | "interval">

/** What is known of the statements of one server. */
export class Outlier {
  /** Until when it is out. */
  private until = Number.NEGATIVE_INFINITY
  /** How long the last time out was. `0`: it has not been out lately. */
  private millis = 0
  private isOutNow = false
  private since = Number.NEGATIVE_INFINITY
  private failed = 0
  private occasions = 0
  private answeredBefore = 0
  private why: string | undefined

  /** Without limits it never is taken out. */
  constructor(private readonly limits: Limits | undefined) {}

  get isOut(): boolean {
    return this.isOutNow
  }

  /** Whether it has been out for as long as it has to be. */
  mayReturn(now: number): boolean {
    return this.isOutNow && now >= this.until
  }

  /** Why it is to be taken out, once a probe has succeeded, if so. */
  get verdict(): string | undefined {
    return this.why
  }

  /**
   * A statement has failed there because of it; so many were answered since it is known. `isFirst`: it was well before. The
   * verdict.
   */
  fail(now: number, answered: number, isFirst: boolean): string | undefined {
    const { limits } = this
    if (this.isOutNow || limits === undefined || Duration.toMillis(limits.ejectTime) === 0) return undefined
    if (now - this.since > Math.max(windowMillis, 2 * Duration.toMillis(limits.interval))) {
      this.forget()
      this.since = now
      this.answeredBefore = answered
    }
    this.failed++
    if (isFirst || this.occasions === 0) this.occasions++
    const all = this.failed + Math.max(0, answered - this.answeredBefore)
    // One that has come back has to do better than before.
    const isEnough = this.isOnProbation(now) || (this.failed >= fewest && this.occasions >= fewestOccasions)
    this.why =
      isEnough && this.failed / all >= limits.ejectShare
        ? `${this.failed} of its last ${all} statements have failed because of it`
        : undefined
    return this.why
  }

  /** Its probes fail too: its statements tell nothing more. */
  forget(): void {
    this.since = Number.NEGATIVE_INFINITY
    this.failed = 0
    this.occasions = 0
    this.why = undefined
  }

  /** It was down: what it is when it is back is to be seen at once. */
  wasDown(now: number): void {
    this.until = Math.min(this.until, now)
  }

  /** Takes it out, for twice as long as the last time. */
  eject(now: number): void {
    const shortest = this.limits === undefined ? 0 : Duration.toMillis(this.limits.ejectTime)
    this.millis = this.isOnProbation(now) || this.isOutNow ? Math.min(2 * this.millis, longest(shortest)) : shortest
    this.until = now + this.millis
    this.isOutNow = true
    this.forget()
  }

  /** It is in use again, on probation. */
  admit(): void {
    this.isOutNow = false
    this.forget()
  }

  private isOnProbation(now: number): boolean {
    return this.millis > 0 && now - this.until < probations * this.millis
  }
}

const longest = (shortest: number): number => Math.max(longestMillis, shortest)
