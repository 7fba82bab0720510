/** Units of work: commit, rollback, savepoints, hooks, settings, one snapshot. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"

const addCustomer = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO customer (name) VALUES (${name})`)

const addInvoice = (customer: string, total: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO invoice ${sql.insert({ customer, total })}`)

const order = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`SELECT count(*) FROM customer` // a replica; nothing has begun yet
  yield* addCustomer("Ada") // begins a transaction on the primary

  // Fibers share the session; sql.withTransaction is a savepoint of it.
  yield* Effect.all([addInvoice("Ada", 10), addInvoice("Ada", 20)], { concurrency: "unbounded" })
  yield* Effect.ignore(sql.withTransaction(Effect.zipRight(addInvoice("Ada", 30), Effect.fail("not that one"))))

  // Work that must be there whatever happens to this session, on a connection of its own.
  yield* DbRouter.newSession(addCustomer("Grace"))

  yield* DbRouter.afterCommit(Effect.log("order placed"))
}).pipe(DbRouter.session()) // commits on success; rolls back on failure, defect and interruption

// Settings for row-level security, on every connection that the session uses; one snapshot on one replica.
const tenantReport = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT sum(total) FROM invoice`).pipe(
  DbRouter.session({ settings: { "app.tenant": "42" }, readOnly: true, reads: "snapshot" })
)

// #endregion usage

import { run } from "./support/cluster.js"

const { customers, total } = await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* order
    yield* tenantReport
    const [{ total }] = yield* DbRouter.primary(sql<{ total: number }>`SELECT sum(total)::int AS total FROM invoice`)
    const customers = yield* DbRouter.primary(sql<{ name: string }>`SELECT name FROM customer ORDER BY name`)
    return { total, customers: customers.map(({ name }) => name).join(" ") }
  })
)
console.log({ customers, total })
if (total !== 30 || customers !== "Ada Grace") process.exitCode = 1
