import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

const text = "select pg_typeof(v)::text as type, v, tableoid::regclass::text from thing where id = $1"
/** Behind another statement: the first one of a transaction would begin it again where its name stands for another. */
const read = (sql: SqlClient.SqlClient) => Effect.zipRight(sql.unsafe("select 1"), sql.unsafe(text, [1]))

type Unit = (
  sql: SqlClient.SqlClient,
  schema: string
) => Effect.Effect<
  ReadonlyArray<unknown>,
  SqlError.SqlError | { readonly rows: ReadonlyArray<unknown> },
  DbRouter.DbRouter
>

/** The ways in which a unit of work moves to a schema. */
const ways: Readonly<Record<string, Unit>> = {
  "the option settings": (sql, schema) => DbRouter.session(read(sql), { settings: { search_path: schema } }),
  "SET LOCAL": (sql, schema) =>
    sql.withTransaction(Effect.zipRight(sql.unsafe(`set local search_path = ${schema}`), read(sql))),
  "set_config with parameters": (sql, schema) =>
    sql.withTransaction(Effect.zipRight(sql`select set_config(${"search_path"}, ${schema}, true)`, read(sql))),
  "set_config with a name that is made": (sql, schema) =>
    sql.withTransaction(
      Effect.zipRight(sql`select set_config('search' || ${"_path"}::text, ${schema}, true)`, read(sql))
    ),
  "SET in a transaction that is rolled back": (sql, schema) =>
    sql
      .withTransaction(
        Effect.zipRight(
          sql.unsafe(`set search_path = ${schema}`),
          Effect.flatMap(read(sql), (rows) => Effect.fail({ rows }))
        )
      )
      .pipe(Effect.catchAll((error) => ("rows" in error ? Effect.succeed(error.rows) : Effect.fail(error)))),
  "SET on a reserved connection": (sql, schema) =>
    Effect.scoped(
      Effect.flatMap(sql.reserve, (connection) =>
        Effect.zipRight(
          connection.executeRaw(`set search_path = ${schema}`, []),
          connection.execute(text, [1], undefined)
        )
      )
    ),
  "SET LOCAL ROLE, with a schema of its name": (sql, schema) =>
    sql.withTransaction(Effect.zipRight(sql.unsafe(`set local role ${schema}`), read(sql))),
  "the setting role": (sql, schema) => DbRouter.session(read(sql), { settings: { role: schema } })
}

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("one text under several search paths", (it) => {
  const schemas = ["tenant_a", "tenant_b", "tenant_c"]

  const prepared = Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    const types = ["int", "text", "jsonb"]
    yield* primary.query(
      schemas
        .map((schema, i) =>
          [
            `drop schema if exists ${schema} cascade; create schema ${schema}`,
            `drop role if exists ${schema}; create role ${schema}; grant usage on schema ${schema} to ${schema}`,
            `create table ${schema}.thing (id int, v ${types[i]})`,
            `insert into ${schema}.thing values (1, '${i + 1}')`,
            `grant all on ${schema}.thing to ${schema}`
          ].join(";")
        )
        .join(";")
    )
    return DbRouter.layer({ groups: { default: [{ url: primary.url, maxConnections: 1 }] } })
  })

  for (const [way, unit] of Object.entries(ways)) {
    it.scoped(`is each unit's own, which moves there by ${way}`, () =>
      Effect.gen(function* () {
        const router = yield* prepared
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const expected = [
            [{ type: "integer", v: 1, tableoid: "thing" }],
            [{ type: "text", v: "2", tableoid: "thing" }],
            [{ type: "jsonb", v: 3, tableoid: "thing" }]
          ]
          for (let round = 0; round < 4; round++) {
            for (const [i, schema] of schemas.entries()) {
              assert.deepStrictEqual(yield* unit(sql, schema), expected[i], `${schema}, round ${round}`)
            }
          }
        }).pipe(Effect.provide(router), Effect.scoped)
      }).pipe(engines.timeless)
    )
  }

  it.scoped("has a name for each of them", () =>
    Effect.gen(function* () {
      const router = yield* prepared
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const read = sql`select v from thing where id = ${1}`
        for (let round = 0; round < 4; round++) {
          for (const schema of schemas) yield* DbRouter.session(read, { settings: { search_path: schema } })
        }
        const [names] = yield* sql`
          select count(distinct name)::int as names, sum(generic_plans + custom_plans)::int as runs
          from pg_prepared_statements where statement = 'select v from thing where id = $1'`
        assert.deepStrictEqual(names, { names: 3, runs: 11 })
      }).pipe(Effect.provide(router), Effect.scoped)
    }).pipe(engines.timeless)
  )

  it.scoped("runs on when a function moves to another schema unseen, after an error at most", () =>
    Effect.gen(function* () {
      const router = yield* prepared
      const { primary } = yield* PgCluster.PgCluster
      yield* primary.query(`
        create or replace function public.move_to(schema text) returns void language plpgsql as
          'begin perform set_config(''search_path'', schema, true); end'`)
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const unit = (schema: string) =>
          sql.withTransaction(
            Effect.zipRight(
              sql`select public.move_to(${schema})`,
              sql<{ v: unknown }>`select v from thing where id = ${1}`
            )
          )
        const failed: Array<string> = []
        for (let round = 0; round < 6; round++) {
          for (const [i, schema] of schemas.entries()) {
            yield* Effect.match(unit(schema), {
              onFailure: (error) => void failed.push(engines.stateOf(error)),
              onSuccess: ([row]) => assert.strictEqual(String(row!.v), String(i + 1))
            })
          }
        }
        assert.isAtMost(failed.length, 2)
        assert.isTrue(failed.every((state) => state === "0A000"))
      }).pipe(Effect.provide(router), Effect.scoped)
    }).pipe(engines.timeless)
  )
})
