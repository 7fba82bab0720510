/**
 * What the routes work on: plain `@effect/sql`, which knows nothing of sessions and servers.
 */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

export const create = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE note (id serial, text text NOT NULL)`
)

export const add = (text: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note ${sql.insert({ text })}`)

export const all = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ readonly text: string }>`SELECT text FROM note ORDER BY id`, (notes) =>
    notes.map(({ text }) => text)
  )
)

export const clear = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DELETE FROM note`)
