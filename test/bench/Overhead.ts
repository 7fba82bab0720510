/** What routing itself costs in processor time: the servers answer at once, without a network. */
import * as Reactivity from "@effect/experimental/Reactivity"
import { SqlClient, type SqlConnection } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect, Stream } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
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
const quiet: Partial<RouterConfig.Options> = { health: false, classifier: { refreshInterval: "1 day" } }

/** A router that is complete down to its engines, whose pools are never asked. */
const routed = (servers: Pair) =>
  Effect.map(router(servers, servers.replicas, quiet), ({ client, runner }) => {
    for (const { engines } of runner.router.groups.values()) {
      for (const engine of engines) Object.assign(engine, { query: () => Effect.succeed(result) })
    }
    return client
  })

const statements = [
  { what: "a read", operation: (sql: SqlClient.SqlClient) => sql`SELECT id, name FROM item WHERE id = ${1}` },
  { what: "a write", operation: (sql: SqlClient.SqlClient) => sql`UPDATE item SET name = ${"x"} WHERE id = ${1}` }
]

export const run = (servers: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const clients = [yield* unrouted, yield* routed(servers)]
    return yield* Effect.forEach(statements, ({ operation, what }) =>
      compare(
        clients.map((sql) => effects(1, () => operation(sql), "processor")),
        pace
      ).pipe(
        Effect.map(
          ([against, measured]): Row => ({
            section: "overhead",
            what: `cost of routing ${what}, null engine`,
            against: "SqlClient, same null connection",
            reach: { atMost: 1 },
            unit: "µs",
            measured: perRound(against!, measured!, (a, b) => b - a),
            detail: each(measured!, against!)
          })
        ),
        Effect.ensuring(DbRouter.reset)
      )
    )
  })
