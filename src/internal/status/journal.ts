import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type * as Health from "../../Health.js"
import type { StatementKind } from "../../SqlClassifier.js"
import type { DbRouter } from "../client/service.js"
import type { Decision } from "../routing/decide.js"
import { clockOf } from "../util/clock.js"
import { maskLiterals } from "./maskLiterals.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** How much is kept. */
const kept = { ring: 256, decisions: 60, engines: 8, events: 100, text: 2_000 } as const

/** Statements by what they are. */
export interface Traffic {
  readonly reads: number
  readonly writes: number
  /** Statements that are neither: `SET`, `BEGIN`, `LISTEN`, ... */
  readonly others: number
}

/** The last decision for one statement and one reason. */
export interface Decided {
  /** Stays the same as long as the decision is kept. */
  readonly id: number
  readonly kind: StatementKind
  readonly reason: string
  /** The text, as the option `texts` says; never its parameters. Not there with `texts: false`. */
  readonly sql?: string | undefined
  /** When it was first and last made, in milliseconds of the clock. */
  readonly first: number
  readonly last: number
  /** The engines that it has sent the statement to, the last one first. */
  readonly engines: ReadonlyArray<{ readonly engine: string; readonly group: string; readonly at: number }>
  /** With `reads: "observe"`: where it would have gone otherwise. */
  readonly observed?: { readonly group: string; readonly engine: string } | undefined
}

/** A decision with its text, and with the text without its constants, by which decisions are told apart. */
export interface Kept extends Decided {
  readonly sql: string
  readonly masked: string
}

/** A decision, without what it holds of transactions and connections. */
interface Made extends Pick<Decision, "group" | "kind" | "observed" | "reason"> {
  readonly at: number
  readonly engine: string
  readonly sql: string
}

const fields = { read: "reads", write: "writes", session: "others" } as const

const none: Traffic = { reads: 0, writes: 0, others: 0 }

/** The recent events and decisions of a router, from the first request for them on. Takes bounded room. */
export class Journal {
  /** Events, the oldest first. */
  readonly events: Array<Health.Event> = []
  private readonly counts = new Map<string, { -readonly [kind in keyof Traffic]: number }>()
  private readonly ring: Array<Made> = []
  private next = 0
  private readonly decided = new Map<string, Kept>()
  private nextId = 0

  private constructor(readonly since: number) {}

  /** The record of a router. Begins with the first one who asks, and ends with the router. */
  static of(router: DbRouter): Effect.Effect<Journal> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      const known = journals.get(router)
      if (known !== undefined) return known
      const journal = new Journal(now)
      journals.set(router, journal)
      router.runner.router.observer = (decision, sql, fiber) => journal.note(decision, sql, fiber)
      // It lives as long as the router; nothing of the request that was the first is to be kept for so long.
      Effect.runFork(Stream.runForEach(router.events, (event) => Effect.sync(() => journal.happened(event))))
      return journal
    })
  }

  private note({ engine, group, kind, observed, reason }: Decision, sql: string, fiber: AnyFiber): void {
    const { name } = engine
    let counts = this.counts.get(name)
    if (counts === undefined) {
      counts = { ...none }
      this.counts.set(name, counts)
    }
    counts[fields[kind]]++
    const at = clockOf(fiber).unsafeCurrentTimeMillis()
    this.ring[this.next++ % kept.ring] = { at, engine: name, group, kind, observed, reason, sql }
  }

  private happened(event: Health.Event): void {
    this.events.push(event)
    if (this.events.length > kept.events) this.events.shift()
  }

  /** The statements that were sent to each of these engines. What is not among them is forgotten. */
  traffic(engines: ReadonlySet<string>): (engine: string) => Traffic {
    for (const name of this.counts.keys()) if (!engines.has(name)) this.counts.delete(name)
    return (engine) => this.counts.get(engine) ?? none
  }

  /** The last decision for each statement and reason, the newest kind first. Statements that differ in constants are one. */
  decisions(): ReadonlyArray<Kept> {
    const { ring } = this
    const from = this.next % kept.ring
    for (const made of [...ring.slice(from), ...ring.slice(0, from)]) this.gather(made)
    ring.length = 0
    this.next = 0
    while (this.decided.size > kept.decisions) {
      const [oldest] = [...this.decided].reduce((a, b) => (b[1].last < a[1].last ? b : a))
      this.decided.delete(oldest)
    }
    return [...this.decided.values()].reverse()
  }

  private gather({ at, engine, group, kind, observed, reason, sql }: Made): void {
    const start = sql.slice(0, kept.text)
    const more = sql.length > kept.text ? "…" : ""
    const masked = `${maskLiterals(start)}${more}`
    const key = `${kind} ${reason}\n${masked}`
    const before = this.decided.get(key)
    const others = before?.engines.filter((one) => one.engine !== engine || one.group !== group) ?? []
    const engines = [{ engine, group, at }, ...others].slice(0, kept.engines)
    const id = before?.id ?? this.nextId++
    const first = before?.first ?? at
    this.decided.set(key, { id, kind, reason, sql: `${start}${more}`, masked, first, last: at, engines, observed })
  }
}

const journals = new WeakMap<DbRouter, Journal>()
