import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { eventually, refuseWarnings } from "../support/engine.js"
import { becomes, over, quick, statusOf } from "../support/health.js"
import { quiet } from "../support/http.js"

refuseWarnings()

const database = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql<{ name: string }>`SELECT current_database() AS name FROM note`, ([row]) => row!.name)
)

const insert = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note VALUES ('new')`)

layer(PgCluster.layer({ replicas: 2 }), { timeout: "2 minutes", excludeTestServices: true })(
  "a replica that is connected to another database of the cluster",
  (it) => {
    it.scoped("gets no reads, from the first one on, and no writes when it is promoted", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const [reader, other] = replicas as [PgCluster.Node, PgCluster.Node]
        const note = "CREATE TABLE note AS SELECT 'old' AS text"
        yield* primary.query(note)
        yield* primary.query("CREATE DATABASE other TEMPLATE postgres")
        yield* awaitReplayed
        const url = new URL(Redacted.value(other.url))
        url.pathname = "/other"
        const router = over(primary, [], {
          groups: {
            default: [{ url: primary.url, name: "primary" }],
            read: [
              { url: reader.url, name: "reader" },
              { url: Redacted.make(url.href), name: "other" }
            ]
          },
          health: quick,
          waitForPrimary: { statements: "1 second" }
        })
        yield* Effect.gen(function* () {
          const reads = yield* Effect.all(
            Array.from({ length: 60 }, () => database),
            { concurrency: 20 }
          )
          assert.deepStrictEqual([...new Set(reads)], ["postgres"])
          const { eligible, reason, state } = yield* statusOf("other")
          assert.deepStrictEqual([state, eligible], ["foreign", false])
          assert.include(reason, "connected to the database other, the primary to postgres")
          assert.strictEqual((yield* statusOf("reader")).state, "up")

          yield* primary.kill
          yield* other.promote
          yield* becomes("primary", "down")
          yield* eventually(
            Effect.map(statusOf("other"), ({ reason }) => reason),
            (reason) => reason !== undefined
          )
          const error = yield* Effect.flip(insert)
          assert.strictEqual(RouterError.outcomeOf(error), "not done")
        }).pipe(Effect.provide(router))
        const client = new Pg.Client(url.href)
        const { rows } = yield* Effect.acquireUseRelease(
          Effect.promise(() => client.connect()),
          () => Effect.promise(() => client.query("SELECT text FROM note")),
          () => Effect.promise(() => client.end())
        )
        assert.deepStrictEqual(rows, [{ text: "old" }])
      }).pipe(Effect.provide(quiet))
    )
  }
)
