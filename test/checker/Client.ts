/** Clients that write, read, fork, commit, roll back, and go on in another request or another process. */
import { SqlClient } from "@effect/sql"
import { Clock, Effect, Fiber, Option, Utils } from "effect"
import { Consistency, DbRouter, RoutingContext } from "effect-db-router"
import { History, type Key, type Violation } from "./History.js"

/** What a run of clients has found. */
export class Findings {
  reads = 0
  writes = 0
  readonly violations: Array<Violation> = []
  /** Reads that failed, which none may. */
  readonly failedReads: Array<unknown> = []
  /** Writes that failed: servers are killed while they run. */
  failedWrites = 0
  /** How long each read took, and each write that was committed by itself, in milliseconds. */
  readonly latencies = { reads: [] as number[], writes: [] as number[] }
  /** Reads by the port of the server that answered. */
  readonly served = new Map<number, number>()
  /** Requests that went on with the token of the one before. */
  tokens = 0
}

/** How the clients behave. */
export interface Behaviour {
  readonly keys: number
  /** The share of operations that write. */
  readonly writes: number
  /** Operations a request. */
  readonly operations: number
  /** Whether requests follow one another with a token, and fibers are forked. */
  readonly isAdventurous: boolean
}

type Services = DbRouter.DbRouter | SqlClient.SqlClient
/** Runs an effect in one process, of those that share the keys of the tokens. */
export type Process = <A, E>(effect: Effect.Effect<A, E, Services>) => Effect.Effect<A, E>

export const schema = "create table register (key int primary key, version int not null)"
export const fill = (keys: number) => `insert into register select n, 0 from generate_series(0, ${keys - 1}) as n`

const millisSince = (began: bigint) => Effect.map(Clock.currentTimeNanos, (now) => Number(now - began) / 1e6)

export class Client {
  private readonly random: Utils.PCGRandom

  constructor(
    seed: number,
    private readonly behaviour: Behaviour,
    private readonly processes: ReadonlyArray<Process>,
    private readonly findings: Findings
  ) {
    this.random = new Utils.PCGRandom(seed)
  }

  /** Request after request, until it is told to stop. */
  run(isOver: () => boolean): Effect.Effect<void> {
    return this.requests(History.empty, Option.none(), isOver)
  }

  private requests(history: History, token: Option.Option<string>, isOver: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isOver()) return Effect.void
      const on = this.processes[this.random.integer(this.processes.length)]!
      const operations = this.operations(history)
      if (!this.behaviour.isAdventurous) {
        return Effect.zipRight(
          on(RoutingContext.fresh(operations)),
          this.requests(History.empty, Option.none(), isOver)
        )
      }
      const request = Effect.zip(operations, Consistency.currentToken)
      const started = Option.match(token, {
        onNone: () => request,
        onSome: (token) => {
          this.findings.tokens++
          return Consistency.withToken(request, token)
        }
      })
      return on(RoutingContext.fresh(started)).pipe(
        Effect.flatMap(([history, token]) =>
          // Without a token there is no guarantee for the next request.
          this.requests(Option.isSome(token) ? history.next() : History.empty, token, isOver)
        )
      )
    })
  }

  private operations(history: History, left = this.behaviour.operations): Effect.Effect<History, never, Services> {
    return left === 0
      ? Effect.succeed(history)
      : Effect.flatMap(
          Effect.suspend(() => this.operation(history)),
          (history) => this.operations(history, left - 1)
        )
  }

  private operation(history: History): Effect.Effect<History, never, Services> {
    const { isAdventurous, writes } = this.behaviour
    if (this.random.number() < writes) {
      const key = this.key()
      if (!isAdventurous) return this.write(history, key)
      switch (this.random.integer(4)) {
        case 0:
          return this.inSession(history, key, this.key(), true)
        case 1:
          return this.inSession(history, key, this.key(), false)
        default:
          return this.write(history, key)
      }
    }
    return isAdventurous && this.random.number() < 0.1 ? this.forked(history) : this.read(history, this.key())
  }

  private key(): Key {
    return this.random.integer(this.behaviour.keys)
  }

  private read(history: History, key: Key): Effect.Effect<History, never, Services> {
    return Effect.gen(this, function* () {
      const { findings } = this
      const sql = yield* SqlClient.SqlClient
      const began = yield* Clock.currentTimeNanos
      const found = yield* Effect.either(
        sql<{ version: number; port: number }>`
          SELECT version, current_setting('port')::int AS port FROM register WHERE key = ${key}`
      )
      if (found._tag === "Left") {
        findings.failedReads.push(found.left)
        return history
      }
      findings.latencies.reads.push(yield* millisSince(began))
      const { port, version } = found.right[0]!
      findings.reads++
      findings.served.set(port, (findings.served.get(port) ?? 0) + 1)
      findings.violations.push(...history.check(key, version))
      return history.saw(key, version)
    })
  }

  private readonly increment = (key: Key) =>
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<{ version: number }>`UPDATE register SET version = version + 1 WHERE key = ${key} RETURNING version`
    )

  private write(history: History, key: Key): Effect.Effect<History, never, Services> {
    return Effect.gen(this, function* () {
      const { findings } = this
      const began = yield* Clock.currentTimeNanos
      const written = yield* Effect.either(this.increment(key))
      if (written._tag === "Left") {
        findings.failedWrites++
        return history
      }
      findings.latencies.writes.push(yield* millisSince(began))
      findings.writes++
      return history.wrote(key, written.right[0]!.version)
    })
  }

  /** Two writes that are committed together, or not at all. */
  private inSession(history: History, one: Key, other: Key, commits: boolean) {
    // In one order, so that no two wait for each other.
    const keys = [...new Set([one, other])].sort((a, b) => a - b)
    const written = Effect.forEach(keys, (key) =>
      Effect.map(this.increment(key), ([row]) => [key, row!.version] as const)
    )
    return DbRouter.newSession(commits ? written : Effect.zipRight(written, Effect.fail("rolled back" as const))).pipe(
      Effect.match({
        onFailure: (error) => {
          if (error !== "rolled back") this.findings.failedWrites++
          return history
        },
        onSuccess: (written) => {
          this.findings.writes++
          return written.reduce((history, [key, version]) => history.wrote(key, version), history)
        }
      })
    )
  }

  /** Reads and writes in fibers that are joined: each has what was before it, and what it has done is known afterwards. */
  private forked(history: History): Effect.Effect<History, never, Services> {
    return Effect.gen(this, function* () {
      const [one, other] = [this.key(), this.key()]
      const reading = yield* Effect.fork(this.read(history, one))
      const writing = yield* Effect.fork(Effect.flatMap(this.write(history, other), (after) => this.read(after, other)))
      return (yield* Fiber.join(reading)).join(yield* Fiber.join(writing))
    })
  }
}
