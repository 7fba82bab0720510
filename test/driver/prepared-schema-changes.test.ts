import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"

type Queries = Pick<Effect.Effect.Success<ReturnType<typeof engines.make>>, "query">

const plain = (on: Queries, sql: string) => on.query(engines.statement(sql, [], false))

const isNamed = (on: Queries, sql: string) =>
  Effect.map(
    on.query(engines.statement("select from pg_prepared_statements where statement = $1", [sql], false)),
    (result) => (result as { rows: Array<object> }).rows.length > 0
  )

/** The name is there, and so its use would run into a change of the result. */
const prepare = (on: Queries, sql: string) =>
  Effect.gen(function* () {
    for (let i = 0; i < 3; i++) yield* on.query(engines.statement(sql, [1]))
    assert.isTrue(yield* isNamed(on, sql))
  })

let tables = 0
const makeTable = Effect.gen(function* () {
  const { primary } = yield* PgCluster.PgCluster
  const table = `changing_${tables++}`
  yield* primary.query(`create table ${table} (id int); insert into ${table} values (1)`)
  return { table, sql: `select * from ${table} where id = $1` }
})

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("prepared statements and DDL", (it) => {
  const engine = (maxConnections = 1) =>
    Effect.flatMap(PgCluster.PgCluster, ({ primary }) => engines.on(primary, { maxConnections }))

  const inTransaction = <A, E, R>(on: Queries, effect: Effect.Effect<A, E, R>) =>
    Effect.zipRight(plain(on, "begin"), effect).pipe(Effect.ensuring(Effect.orDie(plain(on, "rollback"))))

  for (const [what, change] of [
    ["alone", (on, table) => plain(on, `alter table ${table} add more int`)],
    ["in a transaction", (on, table) => plain(on, `begin; alter table ${table} add more int; commit`)],
    ["in a block", (on, table) => plain(on, `do $$ begin alter table ${table} add more int; end $$`)],
    [
      "statement by statement",
      (on, table) =>
        Effect.gen(function* () {
          for (const sql of ["begin", `alter table ${table} add more int`, "commit"]) yield* plain(on, sql)
        })
    ]
  ] satisfies ReadonlyArray<readonly [string, (on: Queries, table: string) => Effect.Effect<unknown, unknown>]>) {
    it.scoped(
      `DDL ${what} on one connection ends the names on all of the process, in the middle of a transaction too`,
      () =>
        Effect.gen(function* () {
          const { sql, table } = yield* makeTable
          const on = yield* engine(2)
          const first = yield* on.reserve
          const second = yield* on.reserve
          const other = yield* Effect.flatMap(engine(), ({ reserve }) => reserve)
          for (const each of [first, second, other]) yield* prepare(each, sql)
          yield* change(first, table)
          for (const each of [first, second, other]) {
            const read = Effect.zipRight(plain(each, "select 1"), engines.rows(each, sql, [1]))
            assert.deepStrictEqual(yield* inTransaction(each, read), [{ id: 1, more: null }])
          }
        }).pipe(engines.timeless)
    )
  }

  it.scoped(
    "DDL that another process makes is found by an error later in a transaction, which shows what the others avoid",
    () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const { sql, table } = yield* makeTable
        const on = yield* Effect.flatMap(engine(), ({ reserve }) => reserve)
        yield* prepare(on, sql)
        yield* primary.query(`alter table ${table} add more int`)
        const read = Effect.zipRight(plain(on, "select 1"), engines.rows(on, sql, [1]))
        assert.strictEqual(yield* engines.failure(inTransaction(on, read)), "0A000")
      }).pipe(engines.timeless)
  )

  it.scoped("no name is used while DDL is not committed, and none is kept from before", () =>
    engines.stepped((advance) =>
      Effect.gen(function* () {
        const { sql } = yield* makeTable
        const { table } = yield* makeTable
        const on = yield* engine(2)
        const first = yield* on.reserve
        const second = yield* on.reserve
        yield* first.query(engines.statement(sql, [1]))
        yield* plain(first, "begin")
        yield* plain(first, `alter table ${table} add more int`)
        for (let i = 0; i < 3; i++) yield* second.query(engines.statement(sql, [1]))
        assert.isFalse(yield* isNamed(second, sql))
        // One that takes long does not keep the whole process from it.
        advance(5_000)
        yield* second.query(engines.statement(sql, [1]))
        assert.isTrue(yield* isNamed(second, sql))
        yield* plain(first, "rollback")
      })
    )
  )

  /** A text that was prepared before its table had another column. */
  const stale = Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    const { sql, table } = yield* makeTable
    const on = yield* engine()
    yield* prepare(on, sql)
    yield* primary.query(`alter table ${table} add more int`)
    return { on, sql, table }
  })

  const begun = (on: Effect.Effect.Success<ReturnType<typeof engine>>) =>
    Effect.acquireRelease(on.transaction("BEGIN", Effect.interruptible), (connection) =>
      Effect.zipRight(Effect.ignore(connection.query(engines.statement("ROLLBACK", [], false))), connection.giveBack)
    )

  for (const before of [
    [],
    ["savepoint a"],
    ["set local statement_timeout = '7s'", "savepoint a", "savepoint b"],
    ["SELECT set_config('statement_timeout', '7s', true)"]
  ]) {
    it.scoped(
      `a transaction whose first statement is out of date begins again, behind ${before.join(", ") || "BEGIN"}`,
      () =>
        Effect.gen(function* () {
          const { on, sql, table } = yield* stale
          yield* Effect.scoped(
            Effect.gen(function* () {
              const transaction = yield* begun(on)
              for (const text of before) yield* transaction.query(engines.statement(text, [], false))
              assert.deepStrictEqual(yield* engines.rows(transaction, sql, [1]), [{ id: 1, more: null }])
              if (before.some((text) => text.includes("statement_timeout"))) {
                assert.strictEqual(yield* engines.value(transaction, "show statement_timeout"), "7s")
              }
              if (before.includes("savepoint a")) {
                yield* transaction.query(engines.statement("rollback to savepoint a", [], false))
              }
              yield* transaction.query(engines.statement(`insert into ${table} values (2)`, [], false))
              yield* transaction.query(engines.statement("COMMIT", [], false))
            })
          )
          assert.strictEqual(yield* engines.value(on, `select count(*)::int from ${table}`), 2)
        }).pipe(engines.timeless)
    )
  }

  it.scoped("a transaction that has written does not begin again: its error is the caller's", () =>
    Effect.gen(function* () {
      const { on, sql } = yield* stale
      const { table: written } = yield* makeTable
      yield* Effect.scoped(
        Effect.gen(function* () {
          const transaction = yield* begun(on)
          yield* transaction.query(engines.statement(`insert into ${written} values (2)`, [], false))
          assert.strictEqual(yield* engines.failure(transaction.query(engines.statement(sql, [1]))), "0A000")
        })
      )
      assert.strictEqual(yield* engines.value(on, `select count(*)::int from ${written}`), 1)
    }).pipe(engines.timeless)
  )

  it.scoped("a text that goes stale twice within a minute has no name for a minute", () =>
    engines.stepped((advance) =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const { sql, table } = yield* makeTable
        const on = yield* engine()
        const goStale = (column: string) =>
          Effect.gen(function* () {
            yield* prepare(on, sql)
            yield* primary.query(`alter table ${table} add ${column} int`)
            const [row] = yield* engines.rows(on, sql, [1])
            assert.property(row, column)
          })
        yield* goStale("once")
        advance(61_000)
        yield* goStale("late")
        advance(59_000)
        yield* goStale("twice")
        const other = yield* engine()
        yield* plain(on, "deallocate all")
        for (let i = 0; i < 3; i++) yield* on.query(engines.statement(sql, [1]))
        assert.isFalse(yield* isNamed(on, sql))
        // What is known of a text is known in each pool.
        yield* prepare(other, sql)
        advance(60_000)
        yield* prepare(on, sql)
      })
    )
  )

  it.scoped("a stranger whose values raise the same error takes no text's name", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      yield* primary.query(`
        create function stale(n int) returns int language plpgsql immutable as $$ begin
          if n > 1 then raise 'cached plan must not change result type' using errcode = '0A000'; end if; return n;
        end $$`)
      const on = yield* engine()
      const sql = "select stale($1) as n"
      yield* prepare(on, sql)
      for (let i = 0; i < 5; i++) {
        assert.strictEqual(yield* engines.failure(on.query(engines.statement(sql, [2]))), "0A000")
      }
      yield* prepare(on, sql)
    }).pipe(engines.timeless)
  )
})
