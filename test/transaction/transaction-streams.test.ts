import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Either, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const setUp = Effect.gen(function* () {
  const { primary } = yield* RouterTest.PgCluster.PgCluster
  yield* primary.query("CREATE TABLE IF NOT EXISTS source (n int); CREATE TABLE IF NOT EXISTS target (n int UNIQUE)")
  yield* primary.query("CREATE SEQUENCE IF NOT EXISTS ids")
  yield* primary.query("TRUNCATE source, target")
  yield* primary.query("INSERT INTO source SELECT generate_series(1, 150)")
  return yield* SqlClient.SqlClient
})

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

const n = (rows: ReadonlyArray<object>) => rows.map((row) => (row as { n: number }).n)

const bounded = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.timeout(effect, "20 seconds")

/** Statements whose rows are the numbers from 1 to 150, in several batches. */
const queries: ReadonlyArray<readonly [name: string, sql: string]> = [
  ["SELECT", "SELECT n FROM source ORDER BY n"],
  ["SELECT with a semicolon and a comment", "SELECT n FROM source ORDER BY n; -- all"],
  ["WITH", "WITH s AS (SELECT n FROM source) SELECT n FROM s ORDER BY n"],
  ["locking SELECT", "SELECT n FROM source ORDER BY n FOR UPDATE"],
  ["SELECT that writes", "SELECT nextval('ids'), n FROM source ORDER BY n"],
  ["UPDATE RETURNING", "UPDATE source SET n = n RETURNING n"],
  ["INSERT RETURNING", "INSERT INTO source SELECT generate_series(1, 150) RETURNING n"],
  ["DELETE RETURNING", "DELETE FROM source RETURNING n"],
  ["data-modifying CTE", "WITH d AS (DELETE FROM source RETURNING n) SELECT n FROM d ORDER BY n"]
]

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("streams in transactions", (it) => {
  it.effect("run on the transaction's connection, with other statements between their rows", () =>
    Effect.gen(function* () {
      for (const [name, text] of queries) {
        const sql = yield* setUp
        const [rows, statements] = yield* RouterTest.traced(
          bounded(
            sql.withTransaction(
              collect(
                Stream.mapEffect(sql.unsafe<{ n: number }>(text).stream, (row) =>
                  Effect.as(sql`INSERT INTO target VALUES (${row.n})`, row)
                )
              )
            )
          )
        )
        assert.deepStrictEqual(n(rows), numbers(1, 150), name)
        assert.lengthOf(yield* DbRouter.primary(sql`SELECT FROM target`), 150)
        assert.deepStrictEqual(
          new Set(statements.map(({ engine, reason }) => `${engine} ${reason}`)),
          new Set(["primary inside a transaction"]),
          name
        )
      }
    })
  )

  it.effect("with nested transactions between their rows, of which some fail", () =>
    Effect.gen(function* () {
      for (const [name, text] of queries) {
        const sql = yield* setUp
        const rows = yield* bounded(
          sql.withTransaction(
            collect(
              Stream.mapEffect(sql.unsafe<{ n: number }>(text).stream, (row) =>
                sql`INSERT INTO target VALUES (${row.n})`.pipe(
                  Effect.zipRight(Number(row.n) % 5 === 0 ? Effect.fail("no") : Effect.void),
                  sql.withTransaction,
                  Effect.ignore,
                  Effect.as(row)
                )
              )
            )
          )
        )
        assert.deepStrictEqual(n(rows), numbers(1, 150), name)
        assert.lengthOf(yield* DbRouter.primary(sql`SELECT FROM target`), 120)
      }
    })
  )

  it.effect("two at a time, on two levels", () =>
    Effect.gen(function* () {
      for (const [name, text] of queries) {
        const sql = yield* setUp
        const all = sql`SELECT n FROM source ORDER BY n`.stream
        const pairs = yield* bounded(
          sql.withTransaction(
            Effect.zipLeft(
              sql.withTransaction(collect(Stream.zip(all, Stream.take(sql.unsafe<{ n: number }>(text).stream, 150)))),
              sql`SELECT 1`
            )
          )
        )
        assert.deepStrictEqual(
          pairs.map(([a, b]) => [a.n, b.n]),
          numbers(1, 150).map((n) => [n, n]),
          name
        )
      }
    })
  )

  it.effect("whose rows are pulled inside nested transactions", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const insert = (n: number) => sql`INSERT INTO target VALUES (${n})`
      const rows = yield* bounded(
        sql.withTransaction(
          Effect.scoped(
            Effect.gen(function* () {
              const pull = yield* Stream.toPull(sql<{ n: number }>`SELECT n FROM generate_series(1, 300) AS n`.stream)
              const first = yield* pull
              const kept = yield* sql.withTransaction(Effect.zipLeft(pull, insert(1)))
              const dropped = yield* Effect.flip(
                sql.withTransaction(
                  Effect.flatMap(sql.withTransaction(Effect.zipLeft(pull, insert(2))), (rows) => Effect.fail(rows))
                )
              )
              assert.isTrue(Chunk.isChunk(dropped))
              return n([...first, ...kept, ...(dropped as typeof kept)])
            })
          )
        )
      )
      assert.deepStrictEqual(rows, numbers(1, 300))
      assert.deepStrictEqual(n(yield* sql`SELECT n FROM target`), [1])
    }).pipe(DbRouter.primary)
  )

  it.effect("that are not read to their end leave the connection free", () =>
    Effect.gen(function* () {
      for (const [name, text] of queries) {
        const sql = yield* setUp
        const rows = yield* bounded(
          sql.withTransaction(
            Effect.gen(function* () {
              const first = yield* collect(Stream.take(sql.unsafe<{ n: number }>(text).stream, 3))
              yield* sql`INSERT INTO target VALUES (1)`
              const cursors = yield* sql`SELECT name FROM pg_cursors WHERE name <> ''`
              assert.deepStrictEqual(cursors, [], name)
              return first
            })
          )
        )
        assert.deepStrictEqual(n(rows), [1, 2, 3], name)
        assert.lengthOf(yield* DbRouter.primary(sql`SELECT FROM target`), 1)
      }
    })
  )

  it.effect("of other statements that have rows", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const text of ["SHOW server_version_num", "EXPLAIN SELECT 1", "VALUES (1), (2)", "TABLE source"]) {
        const expected = yield* DbRouter.primary(sql.unsafe(text))
        const rows = yield* bounded(sql.withTransaction(collect(sql.unsafe<{ n: number }>(text).stream)))
        assert.deepStrictEqual(rows, expected, text)
        assert.isAbove(rows.length, 0)
      }
      for (const text of ["", "CREATE TEMP TABLE scratch (n int)", "DELETE FROM source WHERE n > 1000 RETURNING n"]) {
        assert.deepStrictEqual(yield* bounded(sql.withTransaction(collect(sql.unsafe<{ n: number }>(text).stream))), [])
      }
    })
  )

  it.effect("with parameters of all sorts", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const when = new Date(0)
      const query = sql`SELECT ${1}::int AS i, ${"s"}::text AS s, ${null}::text AS none, ${when}::timestamptz AS at,
        ${Buffer.from("bytes")}::bytea AS b, ${[1, 2] as unknown as string}::int[] AS list FROM source LIMIT 1`
      const expected = [{ i: 1, s: "s", none: null, at: when, b: Buffer.from("bytes"), list: [1, 2] }]
      assert.deepStrictEqual<unknown>(yield* query, expected)
      assert.deepStrictEqual<unknown>(yield* collect(query.stream), expected)
      assert.deepStrictEqual<unknown>(yield* sql.withTransaction(collect(query.stream)), expected)
    })
  )

  it.effect("that fail are the statement's SqlError, early or late, and a savepoint contains them", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const codeOf = (error: SqlError.SqlError) => (error.cause as { code?: string }).code
      for (const [text, code] of [
        ["SELECT n FROM nowhere", "42P01"],
        ["SELECT 1 / (n - 140) AS n FROM source", "22012"],
        ["INSERT INTO target VALUES (1), (1) RETURNING n", "23505"],
        ["SELECT n FRM source", "42601"]
      ] as const) {
        const results = yield* bounded(
          sql.withTransaction(
            Effect.all([
              Effect.either(sql.withTransaction(Stream.runDrain(sql.unsafe<{ n: number }>(text).stream))),
              sql`INSERT INTO target VALUES (1)`,
              Effect.either(sql.withTransaction(Effect.fail("no"))),
              sql`DELETE FROM target`
            ])
          )
        )
        assert.strictEqual(Either.isLeft(results[0]) && codeOf(results[0].left), code)
        const error = yield* Effect.flip(
          bounded(sql.withTransaction(Stream.runDrain(sql.unsafe<{ n: number }>(text).stream)))
        )
        assert.strictEqual(error._tag === "SqlError" && codeOf(error), code)
      }
    })
  )

  it.effect("do not fetch more rows than the consumer pulls", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      yield* sql`ALTER SEQUENCE ids RESTART`
      yield* bounded(
        sql.withTransaction(
          Stream.runDrain(Stream.take(sql`SELECT nextval('ids') FROM generate_series(1, 100000)`.stream, 10))
        )
      )
      const [row] = yield* sql<{ ids: string }>`SELECT nextval('ids') AS ids`
      assert.isBelow(Number(row!.ids), 2000)
    })
  )
})
