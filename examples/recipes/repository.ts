/** Repositories and resolvers of @effect/sql: a batch is one statement, and is routed as one. */
// #region usage
import { Model, SqlClient, SqlResolver } from "@effect/sql"
import { Effect, Option, Schema } from "effect"
import { DbRouter } from "effect-db-router"

class Customer extends Model.Class<Customer>("Customer")({
  id: Model.Generated(Schema.Number),
  name: Schema.String
}) {}

// Built once, outside sessions: a resolver that is built inside one keeps it.
class Customers extends Effect.Service<Customers>()("Customers", {
  effect: Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const repository = yield* Model.makeRepository(Customer, {
      tableName: "customer",
      spanPrefix: "Customers",
      idColumn: "id"
    })
    const byId = yield* SqlResolver.findById("CustomerById", {
      Id: Schema.Number,
      Result: Customer,
      ResultId: ({ id }) => id,
      execute: (ids) => sql`SELECT * FROM customer WHERE ${sql.in("id", ids)}`
    })
    return { ...repository, find: (id: number) => byId.execute(id) }
  })
}) {}

const program = Effect.gen(function* () {
  const customers = yield* Customers
  const add = (name: string) => customers.insert(Customer.insert.make({ name }))

  const [ada, grace] = yield* Effect.all([add("Ada"), add("Grace")]).pipe(DbRouter.session()) // both or none
  const all = Effect.forEach([ada.id, grace.id], customers.find, { batching: true }) // one SELECT

  const found = yield* all // a replica that has them, or the primary
  const exact = yield* DbRouter.primary(all) // around what batches, not around one request of it
  return [...found, ...exact].map(Option.map(({ name }) => name)).map(Option.getOrNull)
})

// #endregion usage

import { run } from "../support/cluster.js"
import { report } from "../support/report.js"
import { ranOn } from "../support/where.js"

await run(
  Effect.gen(function* () {
    const [names, engines] = yield* ranOn(program)
    yield* report("Found", names, names.join() === "Ada,Grace,Ada,Grace")
    // Two INSERTs, two SELECTs.
    yield* report("On", engines, engines.length === 4 && engines[0] === "default-1" && engines[3] === "default-1")
  }).pipe(Effect.provide(Customers.Default))
)
