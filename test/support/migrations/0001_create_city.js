import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE city (id int PRIMARY KEY, name text)`)
