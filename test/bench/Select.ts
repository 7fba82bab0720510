/** One row by its primary key: what routing costs, or saves, where statements are shortest. */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { compare, effects, type Pace, speed } from "./Measure.js"
import { each, type Row } from "./Row.js"
import { type Pair, primaryKeys } from "./Servers.js"

export const select = (sql: SqlClient.SqlClient) => {
  const id = primaryKeys()
  return () => sql`SELECT id, name, price, in_stock FROM item WHERE id = ${id()}`
}

const targets = [
  { fibers: 1, atLeast: 1.25 },
  { fibers: 10, atLeast: 1.4 },
  { fibers: 50, atLeast: 1.5 }
]

export const run = ({ plainReplica, router }: Pair, pace: Pace) =>
  Effect.forEach(targets, ({ atLeast, fibers }) =>
    Effect.map(
      compare([effects(fibers, select(plainReplica)), effects(fibers, select(router.client))], pace),
      ([without, routed]): Row => ({
        section: "select",
        what: `a primary-key SELECT, ${fibers} ${fibers === 1 ? "fiber" : "fibers"}`,
        against: "PgClient",
        reach: { atLeast },
        unit: "x",
        measured: speed(without!, routed!),
        detail: each(routed!, without!)
      })
    )
  )
