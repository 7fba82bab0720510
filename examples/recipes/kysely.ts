/** Kysely: its queries are routed, and belong to sessions and transactions. */
// #region usage
import * as PgKysely from "@effect/sql-kysely/Pg"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import { type Generated, sql } from "kysely"

interface Database {
  readonly invoice: { readonly id: Generated<number>; readonly customer: string; readonly total: number }
}

const server = sql<string>`current_setting('cluster_name')`.as("server") // to see where it ran

const program = Effect.gen(function* () {
  const db = yield* PgKysely.make<Database>() // needs a SqlClient: the router's
  const place = (total: number) => db.insertInto("invoice").values({ customer: "Ada", total })
  const all = db.selectFrom("invoice").select(["total", server])

  yield* place(10) // the primary
  const after = yield* all // a replica that has it, or the primary

  const inside = yield* DbRouter.session(
    Effect.gen(function* () {
      yield* place(20) // begins the session's transaction
      yield* Effect.ignore(db.withTransaction(Effect.zipRight(place(30), Effect.fail("not that one")))) // a savepoint of it
      return yield* all // the same transaction
    })
  )
  return { after, inside }
})

// #endregion usage

import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const { after, inside } = yield* program
    yield* report("After a write", after, after.length === 1)
    const rows = inside.map(({ server, total }) => `${total} on ${server}`).join(", ")
    yield* report("In the session", rows, rows === "10 on primary, 20 on primary")
  })
)
