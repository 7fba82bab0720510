/** One text under settings that decide how the server reads its literals. */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

interface Case {
  readonly values: readonly [string, string]
  readonly texts: ReadonlyArray<string>
}

const instant = "extract(epoch from"

/** Settings, two values of each, and texts that mean something else with each. */
const cases: Readonly<Record<string, Case>> = {
  TimeZone: {
    values: ["UTC", "Asia/Tokyo"],
    texts: [
      `select ${instant} '2021-01-01 00:00'::timestamptz)::int as v where $1 = 1`,
      "insert into moment values ($1, '2021-01-01 00:00') returning extract(epoch from at)::int as v",
      `select ${instant} '2021-01-01 00:00'::timestamptz)::int as v`
    ]
  },
  timezone_abbreviations: {
    values: ["Default", "Australia"],
    texts: [`select ${instant} '2021-01-01 00:00 EST'::timestamptz)::int as v where $1 = 1`]
  },
  DateStyle: {
    values: ["ISO, MDY", "ISO, DMY"],
    texts: ["select extract(month from '01/02/2020'::date)::int as v where $1 = 1"]
  },
  IntervalStyle: {
    values: ["postgres", "sql_standard"],
    texts: ["select extract(hour from '-1 2:00:00'::interval)::int as v where $1 = 1"]
  },
  transform_null_equals: { values: ["off", "on"], texts: ["select (null = null) as v where $1 = 1"] },
  array_nulls: { values: ["on", "off"], texts: ["select ('{null}'::text[])[1] is null as v where $1 = 1"] },
  standard_conforming_strings: { values: ["on", "off"], texts: ["select length('\\\\a') as v where $1 = 1"] },
  extra_float_digits: { values: ["1", "-15"], texts: ["select 0.123456::float8::text as v where $1 = 1"] }
}

type Unit = (
  sql: SqlClient.SqlClient,
  setting: string,
  value: string,
  text: string,
  params: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<unknown>, SqlError.SqlError, DbRouter.DbRouter>

/** The ways in which a unit of work sets it. */
const ways: Readonly<Record<string, Unit>> = {
  "the option settings": (sql, setting, value, text, params) =>
    DbRouter.session(sql.unsafe(text, params), { settings: { [setting]: value } }),
  "SET LOCAL": (sql, setting, value, text, params) =>
    sql.withTransaction(Effect.zipRight(sql.unsafe(`set local ${setting} = '${value}'`), sql.unsafe(text, params))),
  "set_config with parameters": (sql, setting, value, text, params) =>
    sql.withTransaction(Effect.zipRight(sql`select set_config(${setting}, ${value}, true)`, sql.unsafe(text, params))),
  "set_config with a literal": (sql, setting, value, text, params) =>
    sql.withTransaction(
      Effect.zipRight(sql.unsafe(`select set_config('${setting}', $1, true)`, [value]), sql.unsafe(text, params))
    ),
  "a block": (sql, setting, value, text, params) =>
    sql.withTransaction(
      Effect.zipRight(
        sql.unsafe(`do $$ begin perform set_config('${setting}', '${value}', true); end $$`),
        sql.unsafe(text, params)
      )
    ),
  "SET on a reserved connection": (sql, setting, value, text, params) =>
    Effect.scoped(
      Effect.flatMap(sql.reserve, (connection) =>
        Effect.zipRight(
          connection.executeRaw(`set ${setting} = '${value}'`, []),
          connection.execute(text, params, undefined)
        )
      )
    )
}

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("one text under several settings", (it) => {
  const prepared = Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    yield* primary.query("drop table if exists moment; create table moment (id int, at timestamptz)")
    return DbRouter.layer({ groups: { default: [{ url: primary.url, maxConnections: 1 }] } })
  })

  for (const [way, unit] of Object.entries(ways)) {
    it.scoped(`means what each unit has set by ${way}`, () =>
      Effect.gen(function* () {
        const router = yield* prepared
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          for (const [setting, { texts, values }] of Object.entries(cases)) {
            for (const [i, text] of texts.entries()) {
              const params = text.includes("$1") ? [1] : []
              const answers: Array<Array<unknown>> = [[], []]
              for (let round = 0; round < 4; round++) {
                for (const [which, value] of values.entries()) {
                  const rows = yield* unit(sql, setting, value, text, params)
                  answers[which]!.push((rows[0] as { readonly v: unknown }).v)
                }
              }
              const [first, second] = answers.map((all) => new Set(all))
              assert.deepStrictEqual(
                [first?.size, second?.size],
                [1, 1],
                `${setting}, text ${i}: ${answers.join(" | ")}`
              )
              assert.notDeepEqual(first, second, `${setting}, text ${i}`)
            }
          }
        }).pipe(Effect.provide(router), Effect.scoped)
      }).pipe(engines.timeless)
    )
  }

  it.scoped("reads a time of now when it runs", () =>
    Effect.gen(function* () {
      const router = yield* prepared
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const times = [
          "'now'",
          "' Now '",
          "$$now$$",
          "'now()'",
          "lower('[now,)'::tstzrange)",
          "('{now}'::timestamptz[])[1]"
        ]
        for (let round = 0; round < 5; round++) {
          for (const time of times) {
            const text = `select now() = ${time}::timestamptz as v where $1 = 1`
            assert.deepStrictEqual(yield* sql.unsafe(text, [1]), [{ v: true }], time)
          }
          yield* sql`select pg_sleep(0.15)`
        }
      }).pipe(Effect.provide(router), Effect.scoped)
    }).pipe(engines.timeless)
  )
})
