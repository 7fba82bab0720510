/** What routing itself costs in processor time: the servers answer at once, without a network. */
import * as Reactivity from "@effect/experimental/Reactivity"
import { SqlClient, type SqlConnection, type SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect, Stream } from "effect"
import { Consistency, DbRouter, type Engine, type RouterConfig } from "effect-db-router"
import { compare, effects, type Pace, perRound } from "./Measure.js"
import { each, type Row } from "./Row.js"
import { type Pair, router } from "./Servers.js"

const rows = [{ id: 1, name: "item 1" }]
const result = { rows, command: "SELECT", rowCount: 1, oid: 0, fields: [] }

const connection: SqlConnection.Connection = {
  execute: () => Effect.succeed(rows),
  executeRaw: () => Effect.succeed(result),
  executeValues: () => Effect.succeed([]),
  executeUnprepared: () => Effect.succeed(rows),
  executeStream: () => Stream.fromIterable(rows)
}

/** A client as `PgClient` makes it, with as many attributes on its spans. */
const unrouted = SqlClient.make({
  acquirer: Effect.succeed(connection),
  compiler: PgClient.makeCompiler(),
  spanAttributes: [
    ["db.system.name", "postgresql"],
    ["db.namespace", "postgres"],
    ["server.address", "127.0.0.1"],
    ["server.port", 5432]
  ]
}).pipe(Effect.provide(Reactivity.layer))

// Nothing but statements asks the engines, which have one answer to everything.
const quiet: Partial<RouterConfig.Options> = {
  health: false,
  classifier: { refreshInterval: "1 day" },
  metrics: false
}

const lsn = 1n << 32n

/** An engine that has told where it is, and tells it again behind every statement that asks for it. */
const nullEngine = (engine: Engine.Engine, role: "primary" | "replica") => {
  const { positions } = engine
  positions.report(positions.ask(), 0, { role, system: "1", timeline: 1, position: lsn, startedAt: 0 })
  const answer = { isStandby: role === "replica", lsn, timeline: 1 }
  const query: Engine.Engine["query"] = ({ sampler }) => {
    sampler?.heard(sampler.send(), answer)
    return Effect.succeed(result)
  }
  Object.assign(engine, { query })
}

/** A router that is complete down to its engines, whose pools are never asked. */
const routed = (servers: Pair, options: Partial<RouterConfig.Options>) =>
  Effect.map(router(servers, servers.replicas, { ...quiet, ...options }), ({ client, runner }) => {
    for (const [name, { engines }] of runner.router.groups) {
      for (const engine of engines) nullEngine(engine, name === "read" ? "replica" : "primary")
    }
    return client
  })

type Operation = (sql: SqlClient.SqlClient) => Effect.Effect<unknown, SqlError.SqlError>

const read: Operation = (sql) => sql`SELECT id, name FROM item WHERE id = ${1}`

const write: Operation = (sql) => sql`UPDATE item SET name = ${"x"} WHERE id = ${1}`

interface Case {
  readonly what: string
  readonly consistency: Consistency.Consistency
  readonly operation: Operation
  /** Whether the flow has written before. */
  readonly hasWritten: boolean
  /** Whether statements are measured. */
  readonly metrics?: boolean
}

const eventual = Consistency.eventual()
const causal = Consistency.causal()

const cases: ReadonlyArray<Case> = [
  { what: "a read, eventual", consistency: eventual, operation: read, hasWritten: false },
  { what: "a write, eventual", consistency: eventual, operation: write, hasWritten: false },
  { what: "a read, causal", consistency: causal, operation: read, hasWritten: false },
  { what: "a read, causal, after a write", consistency: causal, operation: read, hasWritten: true },
  { what: "a write, causal", consistency: causal, operation: write, hasWritten: false },
  { what: "a read with metrics on", consistency: eventual, operation: read, hasWritten: false, metrics: true }
]

const against = "SqlClient, same null connection"

/** What the metrics alone cost. */
const measuring = (servers: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const routers = yield* Effect.forEach([false, true], (metrics) =>
      routed(servers, { consistency: eventual, metrics })
    )
    const [without, measured] = yield* compare(
      routers.map((sql) => effects(1, () => read(sql), "processor")),
      pace
    )
    const row: Row = {
      section: "overhead",
      what: "cost of the metrics of a read, null engine",
      against: "the router with metrics: false",
      reach: { atMost: 2 },
      unit: "µs",
      measured: perRound(without!, measured!, (a, b) => b - a),
      detail: each(measured!, without!)
    }
    return row
  }).pipe(Effect.ensuring(DbRouter.reset), Effect.scoped)

export const run = (servers: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const plain = yield* unrouted
    const lines = yield* Effect.forEach(cases, ({ consistency, hasWritten, metrics = false, operation, what }) =>
      Effect.gen(function* () {
        const sql = yield* routed(servers, { consistency, metrics })
        if (hasWritten) yield* write(sql)
        const [without, measured] = yield* compare(
          [plain, sql].map((sql) => effects(1, () => operation(sql), "processor")),
          pace
        )
        const row: Row = {
          section: "overhead",
          what: `cost of routing ${what}, null engine`,
          against,
          reach: { atMost: metrics ? 3 : 1 },
          unit: "µs",
          measured: perRound(without!, measured!, (a, b) => b - a),
          detail: each(measured!, without!)
        }
        return row
      }).pipe(Effect.ensuring(DbRouter.reset), Effect.scoped)
    )
    return [...lines, yield* measuring(servers, pace)]
  })
