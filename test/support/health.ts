import { SqlClient, type SqlError } from "@effect/sql"
import { Effect, Fiber, Stream } from "effect"
import { Consistency, DbRouter, type Health, type RouterConfig } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import { eventually } from "./engine.js"

/** Fast enough for a test, and slow enough for a busy machine. What comes back has its share at once. */
export const quick = { interval: "200 millis", timeout: "1 second", slowStart: 0 } as const

/** A router over a primary and replicas. A read may go to any that is well, whatever its flow has seen. */
export const over = (
  primary: PgCluster.Node,
  replicas: ReadonlyArray<PgCluster.Node>,
  options: Partial<RouterConfig.Options> = {}
) =>
  DbRouter.layer({
    groups: {
      default: [{ url: primary.url, name: primary.name }],
      read: replicas.map((node) => ({ url: node.url, name: node.name }))
    },
    consistency: Consistency.eventual(),
    health: quick,
    shutdownTimeout: "1 second",
    ...options
  })

export const statusOf = (name: string) =>
  Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
    Effect.map(status, (all) => all.find((engine) => engine.name === name)!)
  )

/** Waits until an engine is in a state. */
export const becomes = (name: string, state: Health.Shown) =>
  eventually(
    Effect.map(statusOf(name), (status) => [status.state, status.reason] as const),
    ([now]) => now === state
  )

/** The port of the server that a read without any wish goes to. */
export const readPort: Effect.Effect<number, SqlError.SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => Effect.map(sql<{ port: number }>`SELECT current_setting('port')::int AS port`, (rows) => rows[0]!.port)
)

/** The ports that many reads, one after the other, go to. */
export const readPorts = (reads = 20) => Effect.map(Effect.replicateEffect(readPort, reads), (ports) => new Set(ports))

/** What a load has done so far. */
export interface Load {
  done: number
  readonly failures: Array<unknown>
  /** The reads that have not been answered yet. */
  waiting: number
}

/** Reads all the time, in so many fibers, until the scope closes. */
export const load = (fibers = 8) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const load: Load = { done: 0, failures: [], waiting: 0 }
    const one = Effect.suspend(() => {
      load.waiting++
      return sql`SELECT count(*) FROM pg_class`
    }).pipe(
      Effect.matchCause({
        onFailure: (cause) => {
          load.failures.push(cause)
        },
        onSuccess: () => {
          load.done++
        }
      }),
      Effect.ensuring(
        Effect.sync(() => {
          load.waiting--
        })
      ),
      Effect.zipRight(Effect.sleep("2 millis"))
    )
    const running = yield* Effect.forkScoped(
      Effect.all(
        Array.from({ length: fibers }, () => Effect.forever(one)),
        { concurrency: "unbounded" }
      )
    )
    return { ...accessors(load), stop: Fiber.interrupt(running) }
  })

const accessors = (load: Load) => ({
  failures: Effect.sync(() => load.failures),
  done: Effect.sync(() => load.done),
  /** Waits until so many more reads were answered. */
  more: (reads: number) =>
    Effect.suspend(() => {
      const before = load.done
      return eventually(
        Effect.sync(() => load.done),
        (done) => done >= before + reads
      )
    })
})

/** The events from now on, until the scope closes. */
export const events = Effect.gen(function* () {
  const router = yield* DbRouter.DbRouter
  const seen: Array<Health.Event> = []
  yield* Effect.forkScoped(
    Stream.runForEach(router.events, (event) =>
      Effect.sync(() => {
        seen.push(event)
      })
    )
  )
  // It is subscribed when the stream runs.
  yield* Effect.sleep("50 millis")
  return seen
})

/** The states of an engine, in their order, by events; fails where one does not follow from the one before. */
export const statesOf = (events: ReadonlyArray<Health.Event>, engine: string): ReadonlyArray<Health.State> => {
  const changes = events.filter((event) => event._tag === "StateChanged").filter((event) => event.engine === engine)
  for (let i = 0; i < changes.length; i++) {
    const { from, to } = changes[i]!
    if (from === to || (i > 0 && changes[i - 1]!.to !== from)) throw new Error(`The event ${i} says ${from} -> ${to}`)
  }
  return changes.map(({ to }) => to)
}
