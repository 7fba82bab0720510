/**
 * Where statements went, as their spans say: the router puts its decision on every `sql.execute` span.
 */
import { Effect, Exit, Option, Tracer } from "effect"

/** The work of an engine. */
export interface Use {
  readonly reads: number
  /** Reads of requests that had written before. */
  readonly readsAfterWrites: number
  /** Statements of any other kind. */
  readonly writes: number
  /** Transactions that its server must have committed: those of the shop, and the statements outside of them. */
  readonly committed: number
  /** The latency of a statement for its caller, in milliseconds, over the last ones. */
  readonly p50: number
  readonly p95: number
}

export interface Decision {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly kind: string
  readonly engine: string
  readonly reason: string
  readonly sql: string
}

export interface Observed {
  /** Statements that were begun. */
  readonly statements: number
  /** Statements of which no span tells where they went. */
  readonly unrouted: number
  readonly engines: ReadonlyMap<string, Use>
  /** The last decision for each statement and reason, in the order in which these were first seen. */
  readonly decisions: ReadonlyArray<Decision>
}

export const unused: Use = { reads: 0, readsAfterWrites: 0, writes: 0, committed: 0, p50: 0, p95: 0 }

const remembered = { latencies: 1000, decisions: 24, requests: 1000 } as const

class Engine {
  reads = 0
  readsAfterWrites = 0
  writes = 0
  committed = 0
  private readonly latencies: Array<number> = []

  took(millis: number): void {
    this.latencies.push(millis)
    if (this.latencies.length > remembered.latencies) this.latencies.shift()
  }

  get use(): Use {
    const sorted = [...this.latencies].sort((a, b) => a - b)
    const quantile = (q: number) => sorted[Math.floor(q * (sorted.length - 1))] ?? 0
    return {
      reads: this.reads,
      readsAfterWrites: this.readsAfterWrites,
      writes: this.writes,
      committed: this.committed,
      p50: quantile(0.5),
      p95: quantile(0.95)
    }
  }
}

const text = (span: Tracer.Span, attribute: string) => {
  const value = span.attributes.get(attribute)
  return typeof value === "string" ? value : undefined
}

const isInTransaction = (span: Tracer.Span): boolean =>
  Option.exists(
    span.parent,
    (parent) => parent._tag === "Span" && (parent.name === "sql.transaction" || isInTransaction(parent))
  )

class Recorder {
  statements = 0
  unrouted = 0
  readonly engines = new Map<string, Engine>()
  readonly decisions = new Map<string, Decision>()
  /** The last requests that have written. The spans of one have one trace. */
  private readonly writers = new Set<string>()

  begins(span: Tracer.Span): void {
    if (span.name === "sql.execute") this.statements++
  }

  ends(span: Tracer.Span, endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    const name = text(span, "db.router.engine")
    if (name === undefined) {
      this.unrouted++
      return
    }
    const engine = this.engine(name)
    const isTransaction = span.name === "sql.transaction"
    if (Exit.isSuccess(exit) && !isInTransaction(span)) engine.committed++
    if (isTransaction) return
    const kind = text(span, "db.router.kind") ?? "unknown"
    if (kind === "read") {
      engine.reads++
      if (this.writers.has(span.traceId)) engine.readsAfterWrites++
    } else {
      engine.writes++
      this.wrote(span.traceId)
    }
    engine.took(Number(endTime - span.status.startTime) / 1e6)
    this.decided({
      at: Number(endTime / 1_000_000n),
      kind,
      engine: name,
      reason: text(span, "db.router.reason") ?? "",
      sql: (text(span, "db.query.text") ?? "").trim().replace(/\s+/g, " ")
    })
  }

  private wrote(request: string): void {
    const { writers } = this
    writers.add(request)
    const [oldest] = writers
    if (writers.size > remembered.requests) writers.delete(oldest!)
  }

  private engine(name: string): Engine {
    const known = this.engines.get(name) ?? new Engine()
    this.engines.set(name, known)
    return known
  }

  private decided(decision: Decision): void {
    const { decisions } = this
    // Texts that differ in the number of their values are one statement to the reader.
    decisions.set(`${decision.reason}\n${decision.sql.slice(0, 48)}`, decision)
    if (decisions.size > remembered.decisions) {
      const [oldest] = [...decisions].reduce((a, b) => (b[1].at < a[1].at ? b : a))
      decisions.delete(oldest)
    }
  }
}

export class Observations extends Effect.Service<Observations>()("demo/Observations", {
  effect: Effect.map(Effect.tracer, (tracer) => {
    const recorder = new Recorder()
    return {
      /** The tracer there was, with an eye on the spans of statements and transactions. */
      tracer: Tracer.make({
        context: tracer.context,
        span: (name, ...rest) => {
          const span = tracer.span(name, ...rest)
          if (name !== "sql.execute" && name !== "sql.transaction") return span
          recorder.begins(span)
          const end = span.end.bind(span)
          return Object.assign(span, {
            end: (endTime: bigint, exit: Exit.Exit<unknown, unknown>) => {
              end(endTime, exit)
              recorder.ends(span, endTime, exit)
            }
          })
        }
      }),
      observed: Effect.sync(
        (): Observed => ({
          statements: recorder.statements,
          unrouted: recorder.unrouted,
          engines: new Map(Array.from(recorder.engines, ([name, engine]) => [name, engine.use])),
          decisions: [...recorder.decisions.values()]
        })
      ),
      /** Forgets the decisions until now, but counts on. */
      forgetDecisions: Effect.sync(() => recorder.decisions.clear())
    }
  })
}) {}
