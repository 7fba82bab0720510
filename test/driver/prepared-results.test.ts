import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { PreparedStatements } from "../../src/internal/driver/prepared.js"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

const make = (options?: engines.Options) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) => engines.on(primary, { maxConnections: 1, ...options }))

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("the result of a prepared statement", (it) => {
  it.scoped("is described once on a connection, with rows and without", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const proxy = yield* proxies.make(primary)
      const { host, port } = proxy
      const on = yield* engines.make({ ...engines.partsOf(primary), host, port, maxConnections: 1 })
      yield* on.query(engines.statement("create table described (id int)"))
      const seen: Array<string> = []
      proxy.onMessage = (type) => {
        // RowDescription and NoData.
        if (type === "T" || type === "n") seen.push(type)
        return undefined
      }
      for (let i = 0; i < 6; i++) yield* on.query(engines.statement("insert into described values ($1)", [i]))
      for (let i = 0; i < 6; i++) {
        const rows = yield* engines.rows(on, "select id, 'a' as text from described where id = $1", [i])
        assert.deepStrictEqual(rows, [{ id: i, text: "a" }])
      }
      // Without a name, with one, and never again.
      assert.deepStrictEqual(seen, ["n", "n", "T", "T"])
    }).pipe(engines.timeless)
  )

  it.scoped("is the same as that of the first run, as objects and as arrays", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const sql = "select $1::int as n, null as nothing, now() is not null as yes, array[1, 2] as list, 1 as n"
      const results = []
      for (const asArrays of [false, false, false, true, true, false]) {
        results.push(yield* on.query({ ...engines.statement(sql, [7]), asArrays }))
      }
      const [first, ...others] = results.map((result) => result as Pg.QueryResult)
      const array = [7, null, true, [1, 2], 1]
      for (const [i, { command, fields, rowCount, rows }] of others.entries()) {
        assert.deepStrictEqual(rows, i === 2 || i === 3 ? [array] : first!.rows)
        assert.deepStrictEqual(
          { command, fields, rowCount },
          {
            command: first!.command,
            fields: first!.fields,
            rowCount: first!.rowCount
          }
        )
      }
    })
  )

  it.scoped("has the names and types of now when columns were renamed, swapped, retyped or dropped", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const sql = "select * from renamed where true or $1::int = 0"
      const change = (text: string) => on.query(engines.statement(text, [], false))
      yield* change("create table renamed (a int, b int); insert into renamed values (1, 2)")
      const cases = [
        ["alter table renamed rename a to c", { c: 1, b: 2 }],
        ["alter table renamed rename b to a; alter table renamed rename c to b", { b: 1, a: 2 }],
        ["alter table renamed alter a type text", { b: 1, a: "2" }],
        ["alter table renamed drop b", { a: "2" }],
        ["alter table renamed rename to gone; create table renamed as select 'x' as a", { a: "x" }]
      ] as const
      for (const [ddl, row] of cases) {
        for (let i = 0; i < 3; i++) yield* on.query(engines.statement(sql, [i]))
        yield* change(ddl)
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, [i]), [row])
      }
    })
  )

  it.scoped("is not read by the columns of another statement that has taken its name", () =>
    Effect.gen(function* () {
      const on = yield* make()
      const sql = "select 1 as mine, 2 as too"
      for (let i = 0; i < 3; i++) yield* on.query(engines.statement(sql))
      const names = new PreparedStatements(1)
      names.textOf(sql, 0)
      const name = names.textOf(sql, 0)?.name
      yield* on.query(engines.statement(`deallocate ${name}`, [], false))
      yield* on.query(engines.statement(`prepare ${name} as select 'theirs' as whose`, [], false))
      const error = yield* Effect.flip(on.query(engines.statement(sql)))
      assert.include(String(error.cause), "1 columns")
      // The next one is prepared again.
      assert.deepStrictEqual(yield* engines.rows(on, sql), [{ mine: 1, too: 2 }])
    }).pipe(engines.timeless)
  )

  it.scoped("that a parser of the user's cannot read fails, and the connection goes on", () =>
    Effect.gen(function* () {
      let broken = false
      const types = {
        getTypeParser: (oid: number, format?: "text" | "binary") =>
          oid === 25
            ? (value: string) => {
                if (broken) throw new Error("unreadable")
                return `read ${value}`
              }
            : Pg.types.getTypeParser(oid, format as "text")
      }
      const on = yield* make({ types: types as Pg.CustomTypesConfig })
      const sql = "select $1::text as value from generate_series(1, 3)"
      const rows = Array.from({ length: 3 }, () => ({ value: "read a" }))
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, ["a"]), rows)
      broken = true
      const error = yield* Effect.flip(on.query(engines.statement(sql, ["a"])))
      assert.include(String(error.cause), "unreadable")
      broken = false
      for (let i = 0; i < 2; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, ["a"]), rows)
      assert.strictEqual(on.poolStatus.total, 1)
    })
  )
})
