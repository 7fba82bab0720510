/**
 * A steady, mixed load: fibers that read, write, stream and open sessions, each one operation after the other with a short
 * rest, until they are stopped.
 */
import { SqlClient } from "@effect/sql"
import { Cause, Effect, Exit, Fiber, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import * as Failure from "./Failure.js"
import { Ledger, Told } from "./Ledger.js"
import { type Kind, Tally } from "./Tally.js"

export const items = 500

export const schema = [
  "CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, name text NOT NULL)",
  `INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, ${items}) n ON CONFLICT DO NOTHING`,
  "CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, kind text NOT NULL, done boolean NOT NULL DEFAULT false)",
  "CREATE TABLE IF NOT EXISTS heartbeat (id int PRIMARY KEY, at float8 NOT NULL)",
  "INSERT INTO heartbeat VALUES (1, 0) ON CONFLICT DO NOTHING"
]

/** How many fibers do what: 32 in all. */
const fibers: Readonly<Record<Kind, number>> = { read: 14, write: 5, session: 6, "session of reads": 4, stream: 3 }

type Sql = SqlClient.SqlClient

type Operation = Effect.Effect<unknown, unknown, SqlClient.SqlClient | DbRouter.DbRouter>

/** Where an operation has been. */
interface Place {
  onPrimary: boolean
}

/** A read that tells which server has answered. */
export interface Answer {
  readonly port: number
}

/** What a row may do in another way. */
export interface Reads {
  /** One read; `n` is different each time. Default: a row of a table by its key. */
  readonly read?: (sql: Sql, n: number) => Effect.Effect<ReadonlyArray<Answer>, unknown>
}

const byKey = (sql: Sql, n: number) =>
  sql<Answer>`SELECT current_setting('port')::int AS port, name FROM item WHERE id = ${1 + (n % items)}`

/** The load while it runs. */
export class Load {
  readonly ledger = new Ledger()
  readonly tally = new Tally("warm-up")
  /** Streams that failed when rows of theirs had gone out: they cannot run again. */
  cutStreams = 0
  private readonly gate = Effect.unsafeMakeLatch(true)
  private isRunning = true
  private n = 0

  constructor(
    private readonly sql: Sql,
    private readonly rest: number,
    private readonly reads: Reads
  ) {}

  /** Lets nothing begin, and waits until what runs has ended: at most so many milliseconds. Tells how much still runs. */
  pause(limit: number): Effect.Effect<number> {
    return Effect.gen(this, function* () {
      yield* this.gate.close
      const end = performance.now() + limit
      while (this.tally.running > 0 && performance.now() < end) yield* Effect.sleep("5 millis")
      return this.tally.running
    })
  }

  get resume(): Effect.Effect<unknown> {
    return this.gate.open
  }

  /** Waits until a server has answered a read; tells when. */
  answerFrom(port: number): Effect.Effect<number> {
    return Effect.async<number>((resume) => {
      this.tally.onAnswer(port, (at) => resume(Effect.succeed(at)))
    })
  }

  /** Waits until so many more operations have ended well. */
  more(operations: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const end = this.tally.operations + operations
      return Effect.repeat(Effect.sleep("5 millis"), { until: () => this.tally.operations >= end })
    })
  }

  readonly start = Effect.gen(this, function* () {
    const all = Object.entries(fibers).flatMap(([kind, count]) =>
      Array.from({ length: count }, () => this.loop(kind as Kind))
    )
    const running = yield* Effect.forEach(all, (loop) => Effect.forkScoped(loop))
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        this.isRunning = false
        return Effect.zipRight(this.gate.open, Fiber.interruptAll(running))
      })
    )
  })

  private loop(kind: Kind) {
    const { gate, rest } = this
    const once = Effect.suspend(() => this.once(kind))
    const pause = Effect.suspend(() => Effect.sleep(rest * (0.75 + 0.5 * Math.random())))
    return Effect.repeat(Effect.zipRight(pause, Effect.zipRight(gate.await, once)), { while: () => this.isRunning })
  }

  private once(kind: Kind) {
    const { tally } = this
    const { phase } = tally
    const began = performance.now()
    tally.running++
    const place: Place = { onPrimary: false }
    // Each operation is a flow of its own, like a request: it need not see what others of the fiber have seen.
    return Effect.onExit(Effect.exit(Effect.zipRight(DbRouter.reset, this.operation(kind, place))), (outer) =>
      Effect.sync(() => {
        const exit = Exit.flatten(outer)
        const ended = performance.now()
        tally.running--
        if (kind === "read") phase.waits.record(Math.max(1, Math.round((ended - began) * 1_000)))
        if (Exit.isSuccess(exit)) phase.done[kind]++
        else if (!Cause.isInterruptedOnly(exit.cause)) {
          tally.fail(Failure.of(place.onPrimary ? `${kind} on the primary` : kind, exit.cause, began, ended))
        }
      })
    )
  }

  private operation(kind: Kind, place: Place): Operation {
    const n = this.n++
    switch (kind) {
      case "read":
        return this.read(n)
      case "write":
        return this.write((id) => this.sql`INSERT INTO ledger (id, kind) VALUES (${id}, 'write')`)
      case "session":
        return this.write((id) => this.session(id))
      case "session of reads":
        return DbRouter.session(
          Effect.forEach([n, n + 1, n + 2], (each) => this.readInSession(each, place), { discard: true })
        )
      case "stream":
        return this.stream
    }
  }

  private read(n: number) {
    return Effect.suspend(() => {
      const began = performance.now()
      return Effect.map((this.reads.read ?? byKey)(this.sql, n), ([answer]) => {
        if (answer !== undefined) this.tally.answered(answer.port, began)
      })
    })
  }

  /**
   * A read in a session. What no replica may answer, because the flow has seen more than they have, is read in the session's
   * transaction on the primary: it ends with its connection, like any other.
   */
  private readInSession(n: number, place: Place) {
    const look = Effect.flatMap(DbRouter.DbRouter, (router) =>
      Effect.map(router.explain("SELECT name FROM item"), ({ group }) => {
        place.onPrimary ||= group !== "read"
      })
    ).pipe(Effect.ignore)
    return Effect.zipRight(
      look,
      Effect.tapErrorCause(this.read(n), () => look)
    )
  }

  private write(run: (id: number) => Operation): Operation {
    return Effect.suspend(() => {
      const id = this.ledger.begin()
      return Effect.onExit(run(id), (exit) =>
        Effect.sync(() => {
          const told = Exit.isSuccess(exit) ? Told.committed : Failure.of("write", exit.cause, 0, 0).told
          this.ledger.end(id, told)
        })
      )
    })
  }

  private session(id: number) {
    const { sql } = this
    return DbRouter.session(
      Effect.gen(function* () {
        yield* sql`INSERT INTO ledger (id, kind) VALUES (${id}, 'session')`
        const rows = yield* sql`SELECT done FROM ledger WHERE id = ${id}`
        if (rows.length !== 1) return yield* Effect.dieMessage("A session does not see its own write")
        yield* sql`UPDATE ledger SET done = true WHERE id = ${id}`
      })
    )
  }

  private get stream() {
    return Effect.suspend(() => {
      let rows = 0
      return Stream.runForEachChunk(this.sql`SELECT id, name FROM item`.stream, (chunk) =>
        Effect.sync(() => {
          rows += chunk.length
        })
      ).pipe(
        Effect.tapErrorCause(() =>
          Effect.sync(() => {
            if (rows > 0) this.cutStreams++
          })
        ),
        Effect.tap(() => (rows === items ? Effect.void : Effect.dieMessage(`A stream of ${rows} rows ended early`)))
      )
    })
  }
}

/** A load on the router in the context, until the scope closes. */
export const start = (rest: number, reads: Reads = {}) =>
  Effect.gen(function* () {
    const load = new Load(yield* SqlClient.SqlClient, rest, reads)
    yield* load.start
    return load
  })
