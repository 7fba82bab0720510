/** Tables, functions and types that another process has made after the catalog was read. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Logger, Option } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually, stateOf } from "../support/engine.js"
import { over } from "../support/health.js"

const made = (schema: string) => `
CREATE SCHEMA ${schema};
CREATE TABLE ${schema}.invoice AS SELECT 1 AS i;
CREATE FUNCTION ${schema}.vat(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION ${schema}.spend() RETURNS int LANGUAGE sql AS 'INSERT INTO ${schema}.invoice VALUES (2) RETURNING i';
CREATE TYPE ${schema}.state AS ENUM ('a')`

const textsOf = (schema: string) => [
  `SELECT i, current_setting('cluster_name') AS server FROM ${schema}.invoice`,
  `SELECT ${schema}.vat(1), current_setting('cluster_name') AS server`,
  `SELECT 'a'::${schema}.state, current_setting('cluster_name') AS server`
]

const fresh = <A>(effect: Effect.Effect<A, unknown, SqlClient.SqlClient | DbRouter.DbRouter>) =>
  Effect.flatMap(Effect.forkDaemon(effect), (fiber) => fiber)

/** Another process makes a schema; the effect runs before the router has heard of it. */
const after = <A, E>(
  schema: string,
  effect: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, SqlClient.SqlClient | DbRouter.DbRouter>
) =>
  Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed, primary, replicas }) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* eventually(
        Effect.map(
          sql<{ server: string }>`SELECT current_setting('cluster_name') AS server`,
          (rows) => rows[0]!.server
        ),
        (server) => server === "replica1"
      )
      yield* primary.query(made(schema))
      yield* awaitReplayed
      return yield* effect(sql)
    }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(Logger.replace(Logger.defaultLogger, Logger.none)))
  )

layer(PgCluster.layer({ replicas: 1 }), { timeout: "60 seconds", excludeTestServices: true })(
  "what another process has made",
  (it) => {
    it.scoped("is read from a replica within two seconds of its first use", () =>
      after("soon", (sql) =>
        Effect.gen(function* () {
          for (const text of textsOf("soon")) yield* fresh(sql.unsafe(text))
          const began = Date.now()
          for (const text of textsOf("soon")) {
            yield* eventually(
              fresh(Effect.map(sql.unsafe<{ server: string }>(text), (rows) => rows[0]!.server)),
              (server) => server === "replica1"
            )
          }
          assert.isBelow(Date.now() - began, 2_500)
        })
      )
    )

    it.scoped("is read at once in a read-only section, on the primary", () =>
      after("section", (sql) =>
        Effect.gen(function* () {
          for (const text of textsOf("section")) {
            for (const read of [DbRouter.readOnly, DbRouter.session({ readOnly: true })]) {
              const rows = yield* read(sql.unsafe<{ server: string }>(text))
              assert.include(["primary", "replica1"], rows[0]!.server)
            }
          }
        })
      )
    )

    it.scoped("does not write in one, whatever it does: the server guards", () =>
      after("guarded", (sql) =>
        Effect.gen(function* () {
          const spend = sql`SELECT guarded.spend()`
          assert.strictEqual(stateOf(yield* Effect.flip(DbRouter.readOnly(spend))), "25006")
          const insert = yield* Effect.flip(DbRouter.readOnly(sql`INSERT INTO guarded.invoice VALUES (3)`))
          assert.isTrue(Option.contains(RouterError.reasonOf(insert), "ReadOnlyViolation"))
          assert.lengthOf(yield* DbRouter.primary(sql`SELECT FROM guarded.invoice`), 1)
        })
      )
    )

    it.scoped("is read in the snapshot of a section that has one on a replica", () =>
      after("snapshot", (sql) =>
        Effect.gen(function* () {
          const servers = yield* DbRouter.readOnly(
            Effect.gen(function* () {
              const [first] = yield* sql<{ server: string }>`SELECT current_setting('cluster_name') AS server`
              const [second] = yield* sql.unsafe<{ server: string }>(textsOf("snapshot")[0]!)
              return [first!.server, second!.server]
            })
          )
          assert.deepStrictEqual(servers, ["replica1", "replica1"])
        })
      )
    )

    it.scoped("has a text that does not parse answered by the server in a section", () =>
      after("broken", (sql) =>
        Effect.gen(function* () {
          assert.strictEqual(stateOf(yield* Effect.flip(DbRouter.readOnly(sql`SELEC 1`))), "42601")
        })
      )
    )
  }
)
