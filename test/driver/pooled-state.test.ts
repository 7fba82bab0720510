import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { DbRouter } from "effect-db-router"
import * as Sessions from "../support/session.js"

const schema = [
  "CREATE ROLE low",
  "GRANT SELECT ON note TO low",
  `CREATE FUNCTION be_tenant(t text) RETURNS text LANGUAGE plpgsql VOLATILE AS
   $$ BEGIN RETURN set_config('app.tenant', t, false); END $$`,
  "CREATE FUNCTION be_random() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM setseed(0.5); END $$",
  `CREATE PROCEDURE be_low() LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', 'a', false); END $$`
]

/** One connection for everybody. */
const router = Sessions.router({ engine: { maxConnections: 1 } })

/** What the next user of the connection to the primary finds that is not as it was. */
const found = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<Record<string, unknown>>`SELECT current_user = session_user AS "user", session_user = 'postgres' AS login,
      coalesce(current_setting('app.tenant', true), '') = '' AS tenant, current_setting('TimeZone') <> 'Asia/Tokyo' AS zone,
      current_setting('statement_timeout') = '0' AS timeout, current_setting('default_transaction_read_only') = 'off' AS writes,
      (SELECT count(*) FROM pg_class WHERE relname = 'note') = 1 AS tables,
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') = 0 AS locks,
      (SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine') = 0 AS prepared,
      (SELECT count(*) FROM pg_cursors WHERE is_holdable) = 0 AS cursors,
      (SELECT count(*) FROM pg_listening_channels()) = 0 AS channels`
).pipe(
  DbRouter.primary,
  Effect.map(([row]) => Object.entries(row!).flatMap(([name, isAsBefore]) => (isAsBefore === true ? [] : [name])))
)

const texts = [
  "SET TIME ZONE 'Asia/Tokyo'",
  "SET ROLE low",
  "SET SESSION AUTHORIZATION low",
  "SET statement_timeout = '1min'",
  "SET default_transaction_read_only = on",
  "SET app.tenant = 'a'",
  "UPDATE pg_settings SET setting = '1min' WHERE name = 'statement_timeout'",
  "UPDATE pg_catalog.pg_settings SET setting = '1min' WHERE name = 'statement_timeout'",
  "SELECT set_config('app.tenant', 'a', false)",
  "SELECT be_tenant('a')",
  "CALL be_low()",
  "DO $$ BEGIN PERFORM set_config('app.tenant', 'a', false); END $$",
  "DO $$ BEGIN EXECUTE 'SET TIME ZONE ''Asia/Tokyo'''; END $$",
  "INSERT INTO note SELECT 1, set_config('app.tenant', 'a', false)",
  "SELECT 1; SET app.tenant = 'a'",
  "CREATE TEMP TABLE note (i int)",
  "SELECT 1 AS i INTO TEMP note",
  "SELECT pg_advisory_lock(99)",
  "SELECT pg_try_advisory_lock_shared(99)",
  "LISTEN somewhere",
  "PREPARE mine AS SELECT 1"
]

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "what a statement leaves on a connection",
  (it) => {
    for (const [way, run] of Object.entries(Sessions.ways)) {
      it.effect(`is not there for its next user: ${way}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          for (const text of texts) {
            if (way === "a stream" && text.includes(";") && text.startsWith("SELECT")) continue
            yield* Sessions.onPrimary("TRUNCATE note")
            yield* run(text)
            assert.deepStrictEqual(yield* found, [], text)
          }
          yield* Sessions.assertQuiet
        }).pipe(Effect.provide(router))
      )
    }

    for (const [way, run] of Object.entries(Sessions.ways)) {
      it.effect(`chooses nothing random of its next user: ${way}`, () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const random = Effect.map(sql<{ r: number }>`SELECT random() AS r`.pipe(DbRouter.primary), ([row]) => row!.r)
          const seen = new Set<number>()
          const texts = [
            "SELECT setseed(0.5)",
            "SELECT be_random()",
            "SET seed = 0.5",
            "SELECT set_config('seed', '0.5', false)"
          ]
          for (const text of [...texts, ...texts]) {
            yield* run(text)
            seen.add(yield* random)
          }
          assert.strictEqual(seen.size, 2 * texts.length)
        }).pipe(Effect.provide(router))
      )
    }

    it.effect("stays with the connection for the scope of reserve", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const rows = yield* Effect.scoped(
          Effect.flatMap(sql.reserve, (connection) =>
            Effect.zipRight(
              connection.executeRaw("SET app.tenant = 'a'", []),
              connection.execute("SELECT current_setting('app.tenant') AS t", [], undefined)
            )
          )
        )
        assert.deepStrictEqual(rows, [{ t: "a" }])
      }).pipe(Effect.provide(router))
    )

    it.effect("fails no later statement: those that were prepared are prepared again", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const one = DbRouter.primary(sql`SELECT v FROM note WHERE id = ${1}`)
        for (const text of ["SET app.tenant = 'a'", "SELECT be_tenant('a')", "DEALLOCATE ALL", "DISCARD ALL"]) {
          yield* Effect.repeatN(one, 3)
          yield* sql.unsafe(text)
          yield* Effect.repeatN(one, 3)
        }
        yield* Sessions.assertQuiet
      }).pipe(Effect.provide(router))
    )

    it.effect("is never seen by others while many use the pool", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const tenant = Effect.map(
          sql<{ t: string | null }>`SELECT current_setting('app.tenant', true) AS t, ${1}::int AS i`,
          ([row]) => row!.t ?? ""
        )
        const seen = yield* Effect.forEach(
          Array.from({ length: 300 }, (_, i) => i),
          (i) =>
            i % 10 === 0
              ? Effect.as(sql`SELECT set_config('app.tenant', 'a', false)`, "")
              : i % 2 === 0
                ? tenant
                : DbRouter.primary(tenant),
          { concurrency: 50 }
        )
        assert.deepStrictEqual(new Set(seen), new Set([""]))
        yield* Sessions.assertQuiet
      }).pipe(Effect.provide(Layer.fresh(Sessions.router({ engine: { maxConnections: 3 } }))))
    )
  }
)
