import { assert, describe, layer } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { PreparedStatements } from "../../src/internal/driver/prepared.js"
import type { TextCache } from "../../src/internal/util/textCache.js"
import * as engines from "../support/engine.js"

type Engine = Effect.Effect.Success<ReturnType<typeof engines.make>>

/** An engine with one connection, so that every statement is on the same. */
const one = (options?: engines.Options) =>
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) => engines.on(primary, { maxConnections: 1, ...options }))

/** The texts that are prepared on the connection, in the order of their preparation. */
const prepared = (on: Pick<Engine, "query">) =>
  Effect.map(
    on.query(engines.statement("select statement from pg_prepared_statements order by prepare_time", [], false)),
    (result) => (result as { rows: Array<{ statement: string }> }).rows.map((row) => row.statement)
  )

const twice = (on: Pick<Engine, "query">, sql: string, params: ReadonlyArray<unknown> = []) =>
  Effect.zipRight(on.query(engines.statement(sql, params)), on.query(engines.statement(sql, params)))

const plain = (on: Pick<Engine, "query">, sql: string) => on.query(engines.statement(sql, [], false))

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("prepared statements", (it) => {
  /** The texts of slow statements are prepared less readily, and what is slow is a matter of the machine: so time stands still. */
  const check = <E>(title: string, self: () => Effect.Effect<void, E, PgCluster.PgCluster | Scope.Scope>) =>
    it.scoped(title, () => engines.timeless(self()))

  check("a statement is prepared at its second use, once, on every connection that uses it", () =>
    Effect.gen(function* () {
      const on = yield* one({ maxConnections: 2 })
      const sql = "select $1::int + 1 as next"
      yield* on.query(engines.statement(sql, [1]))
      assert.deepStrictEqual(yield* prepared(on), [])
      for (let i = 2; i < 6; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, [i]), [{ next: i + 1 }])
      assert.deepStrictEqual(yield* prepared(on), [sql])
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* on.reserve
          const second = yield* on.reserve
          for (const reserved of [first, second]) {
            yield* reserved.query(engines.statement(sql, [1]))
            assert.deepStrictEqual(yield* prepared(reserved), [sql])
          }
        })
      )
    })
  )

  check("the same text with rows as arrays, and other parameters, is the same statement", () =>
    Effect.gen(function* () {
      const on = yield* one()
      const sql = "select $1::text as value"
      yield* twice(on, sql, ["a"])
      for (const value of [null, "text", 12, true, new Date(0), { json: 1 }]) {
        yield* on.query({ ...engines.statement(sql, [value]), asArrays: true })
      }
      const result = yield* on.query({ ...engines.statement(sql, ["b"]), asArrays: true })
      assert.deepStrictEqual((result as { rows: unknown }).rows, [["b"]])
      assert.deepStrictEqual(yield* prepared(on), [sql])
    })
  )

  check("a connection keeps no more than the limit: what was used least recently goes", () =>
    Effect.gen(function* () {
      const on = yield* one({ maxPrepared: 3 })
      for (let i = 1; i <= 5; i++) yield* twice(on, `select ${i}`)
      assert.deepStrictEqual(yield* prepared(on), ["select 3", "select 4", "select 5"])
      yield* on.query(engines.statement("select 3"))
      yield* twice(on, "select 6")
      assert.deepStrictEqual(yield* prepared(on), ["select 3", "select 5", "select 6"])
      assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      assert.deepStrictEqual(yield* prepared(on), ["select 3", "select 6", "select 1"])
    })
  )

  check("making room never aborts a transaction, whatever became of the statement that goes", () =>
    Effect.gen(function* () {
      const on = yield* one({ maxPrepared: 2 })
      // One that was never prepared because its text is wrong, and one that DEALLOCATE ALL has removed.
      for (let i = 0; i < 3; i++) yield* Effect.exit(on.query(engines.statement("select no_such_column")))
      yield* twice(on, "select 1")
      yield* plain(on, "deallocate all")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const reserved = yield* on.reserve
          yield* plain(reserved, "begin")
          for (let i = 2; i < 6; i++) yield* twice(reserved, `select ${i}`)
          assert.strictEqual(yield* engines.value(reserved, "select 'alive'"), "alive")
          yield* plain(reserved, "commit")
        })
      )
    })
  )

  check("none is prepared where that is off, for the pool or for a statement", () =>
    Effect.gen(function* () {
      const off = yield* one({ maxPrepared: 0 })
      for (let i = 0; i < 3; i++) yield* twice(off, "select $1::int", [1])
      assert.deepStrictEqual(yield* prepared(off), [])
      const on = yield* one()
      for (let i = 0; i < 4; i++) yield* on.query(engines.statement("select $1::int", [1], false))
      assert.deepStrictEqual(yield* prepared(on), [])
    })
  )

  check("what gains nothing by it is not prepared", () =>
    Effect.gen(function* () {
      const on = yield* one()
      const long = `select '${"x".repeat(20_000)}'`
      const texts = [
        "select 1; select 2",
        "begin; commit",
        "show work_mem",
        "create temp table if not exists t ()",
        long
      ]
      for (const text of texts) yield* Effect.zipRight(twice(on, text), twice(on, text))
      assert.deepStrictEqual(yield* prepared(on), [])
      const results = yield* on.query(engines.statement("select 1 as a; select 2 as b"))
      assert.deepStrictEqual(
        (results as ReadonlyArray<{ rows: unknown }>).map((result) => result.rows),
        [[{ a: 1 }], [{ b: 2 }]]
      )
      assert.strictEqual(((yield* engines.value(on, long)) as string).length, 20_000)
    })
  )

  describe("the caller does not notice, outside a transaction, that", () => {
    const sql = "select * from changing where id = $1"

    const changing = Effect.gen(function* () {
      const on = yield* one()
      yield* plain(on, "drop table if exists changing; create table changing (id int); insert into changing values (1)")
      yield* twice(on, sql, [1])
      assert.deepStrictEqual(yield* prepared(on), [sql])
      return on
    })

    for (const away of ["deallocate all", "discard all"]) {
      check(`${away} has removed it`, () =>
        Effect.gen(function* () {
          const on = yield* changing
          yield* plain(on, away)
          for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, [1]), [{ id: 1 }])
          assert.deepStrictEqual(yield* prepared(on), [sql])
        })
      )
    }

    check("the server has a statement of the same name", () =>
      Effect.gen(function* () {
        const on = yield* one()
        const text = "select 'mine' as whose"
        yield* on.query(engines.statement(text))
        const names = new PreparedStatements(1)
        names.textOf(text, 0)
        yield* plain(on, `prepare ${names.textOf(text, 0)?.name} as select 'theirs' as whose`)
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* engines.value(on, text), "mine")
      })
    )

    check("the columns of the result have changed", () =>
      Effect.gen(function* () {
        const on = yield* changing
        yield* plain(on, "alter table changing add more text default 'new'")
        for (let i = 0; i < 3; i++) {
          assert.deepStrictEqual(yield* engines.rows(on, sql, [1]), [{ id: 1, more: "new" }])
        }
        assert.deepStrictEqual(yield* prepared(on), [sql])
      })
    )

    check("the type of a parameter has changed", () =>
      Effect.gen(function* () {
        const on = yield* changing
        yield* plain(on, "alter table changing alter id type text")
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* engines.rows(on, sql, ["1"]), [{ id: "1" }])
        assert.deepStrictEqual(yield* prepared(on), [sql])
      })
    )

    check("a statement failed to be parsed before its table was there", () =>
      Effect.gen(function* () {
        const on = yield* one()
        yield* plain(on, "drop table if exists later")
        const text = "select count(*)::int as n from later"
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(yield* engines.failure(on.query(engines.statement(text))), "42P01")
        }
        yield* plain(on, "create table later ()")
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* engines.value(on, text), 0)
        assert.deepStrictEqual(yield* prepared(on), [text])
      })
    )

    check("an integer has become a bigint", () =>
      Effect.gen(function* () {
        const on = yield* changing
        const insert = "insert into changing values ($1)"
        yield* twice(on, insert, [2])
        yield* plain(on, "alter table changing alter id type bigint")
        yield* twice(on, insert, ["3000000000"])
        assert.strictEqual(yield* engines.value(on, "select count(*)::int from changing where id > 2147483647"), 2)
      })
    )

    check("inside one the error is the caller's, and the transaction works when it is run again", () =>
      Effect.gen(function* () {
        const on = yield* changing
        yield* Effect.scoped(
          Effect.gen(function* () {
            const reserved = yield* on.reserve
            const transaction = Effect.gen(function* () {
              yield* plain(reserved, "begin")
              return yield* Effect.exit(engines.rows(reserved, sql, [1]))
            })
            for (const [change, state] of [
              ["deallocate all", "26000"],
              ["alter table changing add more int", "0A000"]
            ] as const) {
              const { primary } = yield* PgCluster.PgCluster
              yield* change.startsWith("alter") ? primary.query(change) : plain(reserved, change)
              assert.strictEqual(yield* engines.failure(Effect.flatten(transaction)), state)
              yield* plain(reserved, "rollback")
              assert.strictEqual((yield* transaction)._tag, "Success")
              yield* plain(reserved, "commit")
            }
          })
        )
      })
    )
  })

  check("an error that looks like a lost statement is not run more than twice", () =>
    Effect.gen(function* () {
      const on = yield* one()
      yield* plain(
        on,
        `create sequence calls;
         create function lose() returns int language plpgsql as $$
         begin perform nextval('calls'); raise exception 'lost' using errcode = '26000'; end $$`
      )
      yield* Effect.exit(twice(on, "select lose()"))
      assert.strictEqual(yield* engines.failure(on.query(engines.statement("select lose()"))), "26000")
      assert.strictEqual(yield* engines.value(on, "select last_value::int from calls"), 3)
    })
  )

  check("100,000 different texts take no more memory than 10,000 do", () =>
    Effect.sync(() => {
      const statements = new PreparedStatements(256)
      const { texts } = statements as unknown as { readonly texts: TextCache<unknown> }
      const text = (i: number) => `select ${i} /* ${"x".repeat(i % 400)} */`
      const hot = "select 'in use all the time'"
      statements.textOf(hot, 0)
      for (let i = 0; i < 100_000; i++) {
        const names = [statements.textOf(text(i), 0)?.name, statements.textOf(hot, 0)?.name]
        if (i % 1_000 > 0) continue
        assert.isUndefined(names[0])
        assert.isDefined(names[1])
        assert.isAtMost(texts.held.entries, 4_096)
      }
      for (let i = 0; i < 1_000; i++) {
        statements.textOf(`select ${i} ${"y".repeat(16_000)}`, 0)
        statements.textOf(hot, 0)
      }
      assert.isAtMost(texts.held.units, 2_097_152)
      assert.match(statements.textOf(hot, 0)?.name ?? "none", /^edr_[0-9a-f]{40}$/)
    })
  )
})
