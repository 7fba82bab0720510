import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster, TestSession } from "effect-db-router/testing"

// A real primary with a replica, started for this file; your own migrations instead of the one table.
const Database = Layer.effectDiscard(
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE customer (name text PRIMARY KEY)`)
).pipe(
  Layer.provideMerge(
    Layer.unwrapEffect(
      Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
        DbRouter.layer({ groups: { default: [{ url: primary.url }], read: replicas.map(({ url }) => ({ url })) } })
      )
    )
  ),
  Layer.provide(PgCluster.layer({ replicas: 1 }))
)

const add = (name: string) =>
  DbRouter.session(Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO customer VALUES (${name})`))

const count = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ n: number }>`SELECT count(*)::int AS n FROM customer`, (rows) => rows[0]!.n)
)

layer(Database)("customers", (it) => {
  it.effect("are added", () =>
    TestSession.rollback(
      Effect.gen(function* () {
        yield* add("Ada") // its commit releases a savepoint
        assert.strictEqual(yield* DbRouter.replica(count), 1) // replicas are this connection, too
      })
    )
  )

  it.effect("of the other test are not here", () =>
    TestSession.rollback(Effect.map(count, (n) => assert.strictEqual(n, 0)))
  )
})
