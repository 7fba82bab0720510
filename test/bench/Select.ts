/** One row by its primary key: what routing costs, or saves, where statements are shortest. */
import type { SqlClient } from "@effect/sql"
import { eq } from "drizzle-orm"
import { drizzle } from "drizzle-orm/node-postgres"
import { boolean, integer, numeric, pgTable, text, withReplicas } from "drizzle-orm/pg-core"
import { Effect, Redacted } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { type Contestant, compare, effects, type Pace, promises, speed } from "./Measure.js"
import { each, type Row } from "./Row.js"
import { items, type Pair, poolSize } from "./Servers.js"

const ids = () => {
  let last = 0
  return () => (last++ % items) + 1
}

const select = (sql: SqlClient.SqlClient) => {
  const id = ids()
  return () => sql`SELECT id, name, price, in_stock FROM item WHERE id = ${id()}`
}

const item = pgTable("item", {
  id: integer("id").primaryKey(),
  name: text("name").notNull(),
  price: numeric("price").notNull(),
  inStock: boolean("in_stock").notNull()
})

const pool = ({ url }: PgCluster.Node) =>
  Effect.acquireRelease(
    Effect.sync(() => new Pg.Pool({ connectionString: Redacted.value(url), max: poolSize })),
    (pool) => Effect.promise(() => pool.end())
  )

const withDrizzle = (fibers: number, { primary, replicas }: Pair) =>
  Effect.map(Effect.forEach([primary, ...replicas], pool), ([first, ...rest]) => {
    const [replica, ...others] = rest.map((client) => drizzle({ client }))
    const db = withReplicas(drizzle({ client: first! }), [replica!, ...others])
    const id = ids()
    return promises(fibers, () => db.select().from(item).where(eq(item.id, id())))
  })

const row = (
  fibers: number,
  against: string,
  atLeast: number,
  other: Contestant<unknown>,
  { router }: Pair,
  pace: Pace
) =>
  Effect.map(
    compare([other, effects(fibers, select(router.client))], pace),
    ([without, routed]): Row => ({
      section: "select",
      what: `a primary-key SELECT, ${fibers} ${fibers === 1 ? "fiber" : "fibers"}`,
      against,
      reach: { atLeast },
      unit: "x",
      measured: speed(without!, routed!),
      detail: each(routed!, without!)
    })
  )

const targets = [
  { fibers: 1, atLeast: 1.25 },
  { fibers: 10, atLeast: 1.4 },
  { fibers: 50, atLeast: 1.5 }
]

export const run = (servers: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const rows: Array<Row> = []
    for (const { atLeast, fibers } of targets) {
      const plain = effects(fibers, select(servers.plainReplica))
      rows.push(yield* row(fibers, "PgClient", atLeast, plain, servers, pace))
    }
    const drizzle = yield* withDrizzle(50, servers)
    rows.push(yield* row(50, "Drizzle withReplicas on pg", 1.3, drizzle, servers, pace))
    return rows
  })
