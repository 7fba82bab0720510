import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Option, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"

// It says that it does not write, and does; nothing in the catalog tells.
const lying = [
  "CREATE TABLE calls (who text)",
  `CREATE FUNCTION write_call(who text) RETURNS int LANGUAGE sql VOLATILE
     AS 'INSERT INTO calls (who) VALUES (who); SELECT 1'`,
  `CREATE FUNCTION read_call(who text) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN write_call(who); END'`,
  "CREATE SEQUENCE runs_of_query",
  "CREATE SEQUENCE runs_of_stream",
  `CREATE FUNCTION die(sequence text) RETURNS int LANGUAGE plpgsql STABLE AS '
     BEGIN
       PERFORM nextval(sequence);
       PERFORM pg_terminate_backend(pg_backend_pid());
       PERFORM pg_sleep(10);
       RETURN 1;
     END'`
]

const set = Effect.gen(function* () {
  const { awaitReplayed, primary } = yield* RouterTest.PgCluster.PgCluster
  yield* Effect.forEach(lying, (text) => primary.query(text))
  yield* awaitReplayed
})

const calls = (who: string) =>
  Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
    Effect.map(primary.query("SELECT FROM calls WHERE who = $1", [who]), (rows) => rows.length)
  )

const codeOf = (error: unknown) => (error as { cause: { code: string } }).cause.code

const collect = <A, E>(stream: Stream.Stream<A, E>) => Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

layer(RouterTest.cluster, { excludeTestServices: true, timeout: "2 minutes" })("what a standby refuses", (it) => {
  it.effect("runs once on the primary, sticks as a write, and goes straight there the next time", () =>
    Effect.gen(function* () {
      yield* set
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        for (const [who, run] of [
          ["effect", (text: string) => sql.unsafe(text)],
          ["raw", (text: string) => Effect.map(sql.unsafe(text).raw, (result) => (result as { rows: unknown }).rows)],
          ["stream", (text: string) => collect(sql.unsafe(text).stream)]
        ] as const) {
          const text = `SELECT read_call('${who}') AS answer`
          assert.strictEqual((yield* router.explain(text)).group, "read")
          const [[rows, next], [first, after]] = yield* RouterTest.traced(Effect.all([run(text), sql`SELECT 1 AS one`]))
          assert.deepStrictEqual([rows, next], [[{ answer: 1 }], [{ one: 1 }]])
          assert.deepInclude(first, { group: "default", engine: "primary", kind: "write" })
          assert.match(String(first?.reason), /^refused by replica[12] \(25006\)$/)
          assert.deepInclude(after, { group: "default", reason: "sticky after a write" })
          assert.strictEqual(yield* calls(who), 1)
          const ranOn = yield* RouterTest.ranOn(text)
          assert.lengthOf(ranOn, 2)
          assert.include(ranOn, "primary")

          yield* DbRouter.reset
          assert.deepInclude(yield* router.explain(text), {
            group: "default",
            kind: "write",
            reason: "a standby refused it (25006)"
          })
          const [, [second]] = yield* RouterTest.traced(run(text))
          assert.deepInclude(second, { group: "default", kind: "write", reason: "a standby refused it (25006)" })
          assert.lengthOf(yield* RouterTest.ranOn(text), 3)
          assert.strictEqual(yield* calls(who), 2)
          yield* DbRouter.reset
        }
      }).pipe(Effect.provide(RouterTest.router()))
    })
  )

  it.effect("is the caller's error once rows of a stream were emitted, and goes to the primary the next time", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const numbers = sql<{ n: number }>`SELECT CASE WHEN n = 900 THEN read_call('late') ELSE n END AS n
        FROM generate_series(1, 1000) AS n`
      let seen = 0
      const run = Stream.runForEach(numbers.stream, () => Effect.sync(() => seen++))
      const [error, [statement]] = yield* RouterTest.traced(Effect.flip(run))
      assert.strictEqual(codeOf(error), "25006")
      assert.strictEqual(statement?.group, "read")
      assert.isAbove(seen, 0)
      assert.isBelow(seen, 900)
      assert.strictEqual(yield* calls("late"), 0)
      seen = 0
      assert.deepStrictEqual(yield* RouterTest.enginesOf(run), ["primary"])
      assert.strictEqual(seen, 1000)
      assert.strictEqual(yield* calls("late"), 1)
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("stays the caller's error in a group that the caller has bound", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (const group of ["analytics", "read"]) {
        for (const effect of [sql`SELECT read_call('bound')`, collect(sql`SELECT read_call('bound')`.stream)]) {
          const [error, [statement]] = yield* RouterTest.traced(Effect.flip(DbRouter.bindGroup(effect, group)))
          assert.strictEqual(codeOf(error), "25006")
          assert.strictEqual(statement?.group, group)
        }
      }
      assert.strictEqual(yield* calls("bound"), 0)
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("fails with the primary's error when the primary does not like it either", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [error, statements] = yield* RouterTest.traced(Effect.flip(sql`SELECT 1 / (read_call('zero') - 1)`))
      assert.strictEqual(codeOf(error), "22012")
      assert.lengthOf(statements, 1)
      assert.strictEqual(statements[0]?.engine, "primary")
      assert.strictEqual(yield* calls("zero"), 0)
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("runs once on the primary, also when its connection breaks there: its outcome is unknown", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      for (const [sequence, run] of [
        ["runs_of_query", (text: string) => sql.unsafe(text)],
        ["runs_of_stream", (text: string) => collect(sql.unsafe(text).stream)]
      ] as const) {
        yield* DbRouter.reset
        const error = yield* Effect.flip(run(`SELECT die('${sequence}')`))
        assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("OutcomeUnknown"))
        // A sequence counts what was rolled back, too.
        assert.deepStrictEqual(yield* primary.query(`SELECT last_value::int AS runs FROM ${sequence}`), [{ runs: 1 }])
      }
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("any other error of a read is the caller's, and its text stays a read", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const router = yield* DbRouter.DbRouter
      const text = "SELECT 1 / (n - 1) FROM generate_series(1, 1) AS n /* once */"
      for (const effect of [sql.unsafe(text), collect(sql.unsafe(text).stream)]) {
        assert.strictEqual(codeOf(yield* Effect.flip(effect)), "22012")
        assert.strictEqual((yield* router.explain(text)).group, "read")
      }
      assert.deepStrictEqual(
        (yield* RouterTest.ranOn("/* once */")).filter((name) => name === "primary"),
        []
      )
      assert.lengthOf(yield* RouterTest.ranOn("/* once */"), 2)
    }).pipe(Effect.provide(RouterTest.router()))
  )
})
