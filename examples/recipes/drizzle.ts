/** Drizzle: its queries are routed, and belong to sessions and transactions. */
// #region usage
import * as PgDrizzle from "@effect/sql-drizzle/Pg"
import { Effect, Layer } from "effect"
import { DbRouter, DbRouterLive } from "effect-db-router"
// From "drizzle-orm" and "drizzle-orm/pg-core".
import { eq, integer, pgTable, sql, text } from "../support/drizzle.js"

const invoice = pgTable("invoice", {
  id: integer("id").primaryKey().generatedAlwaysAsIdentity(),
  customer: text("customer").notNull(),
  total: integer("total").notNull()
})

export const AppLive = PgDrizzle.layer.pipe(Layer.provideMerge(DbRouterLive))

const server = sql<string>`current_setting('cluster_name')` // to see where it ran

const invoicesOf = (customer: string) =>
  Effect.flatMap(PgDrizzle.PgDrizzle, (db) =>
    db.select({ total: invoice.total, server }).from(invoice).where(eq(invoice.customer, customer))
  )

// Drizzle runs its queries in fibers of its own. In a session what they write is known to the reads after it; without one it is not.
const place = (customer: string, total: number) =>
  Effect.gen(function* () {
    const db = yield* PgDrizzle.PgDrizzle
    yield* db.insert(invoice).values({ customer, total }) // the primary
    return yield* invoicesOf(customer) // the same transaction
  }).pipe(DbRouter.session())

const program = Effect.gen(function* () {
  const inside = yield* place("Ada", 10)
  const after = yield* invoicesOf("Ada") // a replica that has it, or the primary
  const analytics = yield* DbRouter.replica(invoicesOf("Ada")) // combinators work as everywhere
  return { inside, after, analytics }
})

// #endregion usage

import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const { after, analytics, inside } = yield* program
    yield* report("In the session it is read on", inside[0]?.server, inside[0]?.server === "primary")
    yield* report("After its commit", after, after.length === 1 && after[0]?.total === 10)
    const servers = analytics.map(({ server }) => server)
    yield* report("Asked of a replica", servers, servers[0] !== "primary")
  }).pipe(Effect.provide(PgDrizzle.layer))
)
