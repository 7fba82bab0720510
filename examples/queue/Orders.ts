/**
 * What producer and worker have in common: plain `@effect/sql`, and what goes through the queue.
 */
import { SqlClient } from "@effect/sql"
import { Effect, Schema } from "effect"

/** A message of the queue. */
export class Job extends Schema.Class<Job>("Job")({
  order: Schema.Number,
  /** The position of the producer's writes, for the reads of the worker. */
  token: Schema.OptionFromUndefinedOr(Schema.String)
}) {}

/** The worker's read, with the engine that has answered it. */
export class Done extends Schema.Class<Done>("Done")({
  total: Schema.NullOr(Schema.Number),
  server: Schema.String
}) {}

export const create = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL)`
)

export const place = (order: number, total: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO orders VALUES (${order}, ${total})`)

export const find = (order: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<typeof Done.Encoded>`
      SELECT (SELECT total FROM orders WHERE id = ${order}), current_setting('cluster_name') AS server`
    return new Done(row!)
  })
