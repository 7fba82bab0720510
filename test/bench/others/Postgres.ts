import { Effect } from "effect"
import postgres from "postgres"
import type { Found, Other } from "./Other.js"

/** Routes nothing: it is connected to the replica. Prepares every statement, and sends many at once on a connection. */
export const porsager: Other = {
  name: "postgres (porsager), unrouted",
  atLeast: 0.7,
  connect: ({ poolSize, replica }) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => postgres(replica, { max: poolSize })),
        (sql) => Effect.promise(() => sql.end())
      ),
      (sql) => (id) =>
        sql<Array<Found>>`SELECT id, name, price, in_stock FROM item WHERE id = ${id}`.then(([row]) => row)
    )
}
