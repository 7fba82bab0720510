/** Functions that are labelled IMMUTABLE and read a setting: the planner puts their values into plans. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { DbRouter, Doctor } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

const body = "current_setting('app.tenant', true)"

/** By their names, and how each is made: all have no arguments. */
const functions: Readonly<Record<string, string>> = {
  by_sql: `LANGUAGE sql IMMUTABLE AS $$ SELECT ${body} $$`,
  by_plpgsql: `LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN ${body}; END $$`,
  by_tree: `LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT ${body}; END`,
  by_view:
    "LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT setting FROM pg_settings WHERE name = 'application_name'); END $$",
  by_text: `LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE t text; BEGIN EXECUTE 'SELECT ' || 'current_' || 'setting(''app.tenant'')' INTO t; RETURN t; END $$`,
  by_another: "LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN honest(); END $$",
  by_row: "LANGUAGE sql IMMUTABLE AS $$ SELECT min(tenant) FROM guarded $$"
}

const names = Object.keys(functions)

const schema = [
  "CREATE ROLE low",
  "CREATE TABLE plain (tenant text)",
  `CREATE FUNCTION honest() RETURNS text LANGUAGE sql STABLE AS $$ SELECT ${body} $$`,
  "CREATE TABLE guarded (tenant text); INSERT INTO guarded VALUES ('a'), ('b')",
  "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
  "CREATE POLICY honest ON guarded USING (tenant = honest())",
  ...names.flatMap((name) => [
    `CREATE FUNCTION ${name}() RETURNS text ${functions[name]}`,
    `CREATE FUNCTION "${name} of"(i int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT ${name}() $$`,
    `CREATE TABLE of_${name} (tenant text); INSERT INTO of_${name} VALUES ('a'), ('b')`,
    `ALTER TABLE of_${name} ENABLE ROW LEVEL SECURITY`,
    `CREATE POLICY own ON of_${name} USING (tenant = ${name}())`,
    `CREATE VIEW seen_${name} AS SELECT ${name}() AS tenant`,
    `CREATE TABLE filled_${name} (i int, tenant text DEFAULT ${name}())`,
    `CREATE TABLE checked_${name} (tenant text)`,
    `ALTER TABLE checked_${name} ENABLE ROW LEVEL SECURITY`,
    `CREATE POLICY own ON checked_${name} USING (true) WITH CHECK (tenant = ${name}())`
  ]),
  "GRANT ALL ON ALL TABLES IN SCHEMA public TO low"
]

/** Texts, each with one row `tenant`: that of the unit. */
const textsOf = (name: string): ReadonlyArray<readonly [text: string, params: ReadonlyArray<unknown>]> => [
  [`SELECT ${name}() AS tenant`, []],
  [`SELECT tenant FROM of_${name}`, []],
  [`SELECT tenant FROM public."of_${name}" WHERE $1 = 1`, [1]],
  [`SELECT tenant FROM OF_${name.toUpperCase()} WHERE $1 = 2`, [2]],
  [`SELECT tenant FROM U&"\\006ff_${name}" WHERE $1 = 3`, [3]],
  [`SELECT tenant FROM seen_${name} WHERE $1 = 1`, [1]],
  [`SELECT "${name} of"($1) AS tenant`, [1]],
  [`INSERT INTO filled_${name} (i) VALUES ($1) RETURNING tenant`, [1]],
  [`INSERT INTO checked_${name} SELECT honest() WHERE $1 = 1 RETURNING tenant`, [1]],
  [`UPDATE of_${name} SET tenant = tenant WHERE $1 = 1 RETURNING tenant`, [1]]
]

const setsAll =
  "SELECT set_config('app.tenant', $1, false), set_config('application_name', $1, false), set_config('role', 'low', false)"

engines.refuseWarnings()

const cluster = PgCluster.layer({ replicas: 0 })

layer(cluster, { excludeTestServices: true, timeout: "2 minutes" })(
  "a function labelled IMMUTABLE reads a setting",
  (it) => {
    const options = Effect.map(PgCluster.PgCluster, ({ primary }) => ({
      groups: { default: [{ url: primary.url, name: "primary", maxConnections: 1 }] }
    }))
    const made = Effect.runSync(
      Effect.cached(
        Effect.asVoid(
          Effect.flatMap(PgCluster.PgCluster, ({ primary }) => Effect.forEach(schema, (text) => primary.query(text)))
        )
      )
    )

    for (const name of names) {
      it.effect(`is what each unit has set: ${name}`, () =>
        Effect.gen(function* () {
          yield* made
          yield* Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            for (const [text, params] of textsOf(name)) {
              const got: Array<string> = []
              for (const tenant of ["a", "a", "a", "b", "a", "b"]) {
                const settings = { role: "low", "app.tenant": tenant, application_name: tenant }
                const rows = yield* DbRouter.session(sql.unsafe<{ tenant: string }>(text, params), { settings })
                got.push(`${tenant}:${rows.map((row) => row.tenant).join()}`)
              }
              assert.deepStrictEqual(got, ["a:a", "a:a", "a:a", "b:b", "a:a", "b:b"], text)
            }
            const reserved = yield* sql.reserve
            for (const tenant of ["a", "b", "a", "b"]) {
              yield* reserved.executeRaw(setsAll, [tenant])
              const rows = yield* reserved.execute(`SELECT ${name}() AS tenant WHERE $1 = 9`, [9], undefined)
              assert.deepStrictEqual(rows, [{ tenant }])
            }
          }).pipe(Effect.scoped, Effect.provide(DbRouter.layer(yield* options)))
        }).pipe(engines.timeless)
      )
    }

    it.effect("costs no other statement its name", () =>
      Effect.gen(function* () {
        yield* made
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const others = [
            "SELECT tenant FROM guarded WHERE $1 = 1",
            "SELECT honest() WHERE $1 = 1",
            "SELECT tenant FROM plain WHERE $1 = 1"
          ]
          for (let round = 0; round < 3; round++) {
            for (const text of [...others, "SELECT by_sql() WHERE $1 = 1"]) {
              yield* DbRouter.session(sql.unsafe(text, [1]), { settings: { "app.tenant": "a" } })
            }
          }
          const prepared = yield* sql<{ statement: string }>`SELECT statement FROM pg_prepared_statements`
          const found = prepared.map(({ statement }) => statement).filter((text) => text.includes("$1 = 1"))
          assert.deepStrictEqual(found.sort(), [...others].sort())
        }).pipe(Effect.provide(DbRouter.layer(yield* options)))
      }).pipe(engines.timeless)
    )

    it.effect("is a finding of the doctor, with its policies and what to do", () =>
      Effect.gen(function* () {
        yield* made
        const { findings } = yield* Doctor.check(yield* options)
        const found = findings.filter(({ code }) => code === "volatility")
        assert.deepStrictEqual(
          found.map(({ level, remedy }) => [level, remedy]),
          [...names].sort().map((name) => ["warning", `ALTER FUNCTION public.${name}() STABLE`])
        )
        for (const { message } of found) {
          assert.match(
            message,
            /^public\.(\w+)\(\) is labelled IMMUTABLE .* policies of row-level security.*: own on checked_\1, own on of_\1/
          )
        }
      }).pipe(engines.timeless)
    )
  }
)
