/** Plain @effect/sql code: a read on a replica, a write, its own write read back. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter, DbRouterLive } from "effect-db-router"

// Plain @effect/sql code. Nothing in it knows of servers.
const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`SELECT name FROM customer` // a replica
  yield* sql`INSERT INTO customer (name) VALUES (${"Ada"})` // the primary
  const mine = yield* sql`SELECT name FROM customer` // a replica that has the write, or the primary

  // Where would a statement go, and why? Nothing runs.
  const router = yield* DbRouter.DbRouter
  const why = yield* router.explain("SELECT nextval('customer_id_seq')")
  return { mine, why } // why: { group: "default", kind: "write", reason: "calls nextval", ... }
})

// DATABASE_URL=postgres://... DATABASE_REPLICA_URLS=postgres://...,postgres://...
export const main = Effect.provide(program, DbRouterLive)

// #endregion usage

import { ClusterEnvironment, Tables } from "./support/cluster.js"

const { mine, why } = await program.pipe(
  Effect.provide(Tables),
  Effect.provide(DbRouterLive),
  Effect.provide(ClusterEnvironment),
  Effect.scoped,
  Effect.runPromise
)
console.log(mine, why)
if (mine.length !== 1 || why.kind !== "write" || why.group !== "default") process.exitCode = 1
