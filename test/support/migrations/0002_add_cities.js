import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`INSERT INTO city ${sql.insert([
    { id: 1, name: "Rome" },
    { id: 2, name: "Oslo" }
  ])}`
})
