import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { writtenTypes } from "../../src/internal/driver/writtenTypes.js"
import * as engines from "../support/engine.js"
import * as Failures from "../support/failures.js"

const texts: ReadonlyArray<readonly [sql: string, written: ReadonlyArray<number>]> = [
  ["select $1::int, ($2)::uuid, cast($3 as text), CAST ( $4 AS json ), $5 :: date", [1, 2, 3, 4, 5]],
  ["insert into t values ($1, (($2)::uuid), $3::numeric(10, 2), $4::int[])", [2, 3, 4]],
  ["select $1::int where $1 > 0", []],
  ["select $1::int where $1::int > 0", [1]],
  ["select $10::int, $1", [10]],
  ["select -$1::int", [1]],
  ["select f($1)::int, coalesce ($2)::text, c = any ($3)::bool, ($4 + 1)::int, ($5, 1)::pair", []],
  ["select f /* ( */ ($1)::int", []],
  ["select f -- (\n($1)::int", []],
  ["select '$1' || $1::text", []],
  ["select '$1::int', $1", []],
  ["select $1::int -- $1", []]
]

describe("the types that a text writes", () => {
  for (const [sql, written] of texts) {
    it(`are those of the casts right behind parameters: ${sql}`, () => {
      assert.deepStrictEqual([...writtenTypes(sql)].map((position) => position + 1).sort(), [...written].sort())
    })
  }
})

/** A type, one that a column gets in its place, and values that another type would read otherwise. */
const changes: ReadonlyArray<readonly [before: string, after: string, values: ReadonlyArray<unknown>]> = [
  ["timestamp", "timestamptz", ["2026-01-01 12:00:00-05", new Date(0)]],
  ["timestamptz", "timestamp", ["2026-01-01 12:00:00-05", new Date(0)]],
  ["timestamptz", "date", [new Date(1e12)]],
  ["timestamptz", "text", [new Date(1e12)]],
  ["time", "timetz", ["17:00:00-05"]],
  ["real", "double precision", [0.1, 16777217]],
  ["numeric", "integer", ["1.5", 2.5]],
  ["numeric(10,2)", "numeric(10,4)", ["1.2345"]],
  ["name", "text", ["x".repeat(70)]],
  ["jsonb", "json", [{ b: 1, a: 2 }]],
  ["jsonb", "text", [{ b: 1, a: 2 }]],
  ["integer[]", "bigint[]", [[1, 2]]],
  ["integer[]", "text", [[1, 2]]],
  ["bytea", "text", [Buffer.from("abc")]]
]

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("a statement that writes its types", (it) => {
  it.scoped(
    "runs under a name with any values, as one that is parsed now, also when columns were changed elsewhere",
    () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const on = yield* engines.on(primary, { maxConnections: 1 })
        const client = yield* Failures.client(primary)
        const direct = (text: string, values: ReadonlyArray<unknown>) =>
          Effect.tryPromise({
            try: () => client.query<object>(text, [...values]).then(({ rows }) => JSON.stringify(rows)),
            catch: (error) => (error as { readonly code: string }).code
          })
        const outcome = <E>(effect: Effect.Effect<string, E>) =>
          Effect.match(effect, {
            onFailure: (error) => (typeof error === "string" ? error : engines.stateOf(error)),
            onSuccess: (rows) => rows
          })
        const routed = (text: string, values: ReadonlyArray<unknown>) =>
          Effect.map(engines.rows(on, text, values), (rows) => JSON.stringify(rows))
        for (const [i, [before, after, values]] of changes.entries()) {
          const both = [`written_${i}`, `control_${i}`]
          const insert = (table: string) => `insert into ${table} values ($1::${before}) returning c::text`
          const equal = (table: string) =>
            `select count(*)::int as n from ${table} where c::text = ($1::${before})::text`
          yield* primary.query(both.map((table) => `create table ${table} (c ${before})`).join(";"))
          for (const text of [insert, equal]) {
            for (let n = 0; n < 3; n++) yield* routed(text(both[0]!), [values[0]])
          }
          const named = yield* engines.rows(
            on,
            "select statement from pg_prepared_statements where statement like $1",
            [`%written_${i}%`]
          )
          assert.strictEqual(named.length, 2, before)
          const change = (table: string) =>
            `truncate ${table}; alter table ${table} alter c type ${after} using null::text::${after}`
          yield* primary.query(both.map(change).join(";"))
          for (const value of values) {
            for (const text of [insert, equal]) {
              const got = yield* outcome(routed(text(both[0]!), [value]))
              assert.strictEqual(
                got,
                yield* outcome(direct(text(both[1]!), [value])),
                `${before} -> ${after}: ${value}`
              )
            }
          }
        }
      }).pipe(engines.timeless)
  )

  it.scoped("runs without one where a parameter has no cast, or the type is a user's", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const on = yield* engines.on(primary, { maxConnections: 1 })
      yield* primary.query("create type mood as enum ('ok'); create table bare (at timestamptz, how mood)")
      const insert = "insert into bare values ($1, $2::mood)"
      const cast = "select $1::mood as how"
      const bare = "insert into bare (at) values ($1)"
      for (let n = 0; n < 4; n++) {
        yield* on.query(engines.statement(insert, [new Date(0), "ok"]))
        yield* on.query(engines.statement(cast, ["ok"]))
        yield* on.query(engines.statement(bare, [new Date(0)]))
      }
      const [counts] = yield* engines.rows(
        on,
        "select max(generic_plans + custom_plans)::int as most from pg_prepared_statements where statement in ($1, $2, $3)",
        [insert, cast, bare]
      )
      assert.deepStrictEqual(counts, { most: 1 })
    }).pipe(engines.timeless)
  )
})
