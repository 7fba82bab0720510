/**
 * Records on a real server what the simulated ones answer to texts that are more than the simulator understands: the router's
 * question for the catalog. `npm run simulate -- --record` writes them to `recordings.json`.
 */
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { createTables } from "./Schema.js"
import type { Recording } from "./Statement.js"
import { typeNamed } from "./Value.js"

/** Asks a new cluster's primary, which has the tables of a run. */
export const record = (texts: ReadonlyArray<string>): Promise<ReadonlyArray<Recording>> =>
  Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    for (const sql of createTables) yield* primary.query(sql)
    return yield* Effect.forEach(texts, (sql) =>
      Effect.gen(function* () {
        const rows = yield* primary.query(sql)
        const names = Object.keys(rows[0] ?? {})
        return {
          sql,
          fields: names.map((name) => ({ name, type: typeNamed("text")! })),
          rows: rows.map((row) => names.map((name) => (row[name] === null ? null : String(row[name]))))
        }
      })
    )
  }).pipe(Effect.provide(PgCluster.layer({ replicas: 0 })), Effect.runPromise)
