import { eq, sql } from "drizzle-orm"
import { drizzle } from "drizzle-orm/node-postgres"
import { boolean, integer, numeric, pgTable, text, withReplicas } from "drizzle-orm/pg-core"
import { Effect } from "effect"
import type { Other, Servers } from "./Other.js"
import { pools } from "./Pools.js"

const item = pgTable("item", {
  id: integer("id").primaryKey(),
  name: text("name").notNull(),
  price: numeric("price").notNull(),
  inStock: boolean("in_stock").notNull()
})

const database = (servers: Servers) =>
  Effect.map(pools(servers), ({ primary, replica }) =>
    withReplicas(drizzle({ client: primary }), [drizzle({ client: replica })])
  )

export const built: Other = {
  name: "Drizzle withReplicas on pg",
  atLeast: 1.3,
  connect: (servers) =>
    Effect.map(
      database(servers),
      (db) => (id) =>
        db
          .select()
          .from(item)
          .where(eq(item.id, id))
          .then(([row]) => row)
    )
}

/** Prepared once, on the replica that it chose then: with several of them all reads would go to one. */
export const prepared: Other = {
  name: "Drizzle withReplicas, prepared",
  atLeast: 1.3,
  connect: (servers) =>
    Effect.map(database(servers), (db) => {
      const byId = db
        .select()
        .from(item)
        .where(eq(item.id, sql.placeholder("id")))
        .prepare("item_by_id")
      return (id) => byId.execute({ id }).then(([row]) => row)
    })
}
