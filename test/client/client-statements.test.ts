import { SqlClient, Statement } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Stream, String as Strings, type Tracer } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"

type Ways = ReadonlyArray<
  readonly [
    operation: string,
    run: (statement: Statement.Statement<object>) => Effect.Effect<unknown, unknown>,
    result: unknown
  ]
>

const rows = [{ id: 1, name: "one" }]

/** Every way to run a statement, and what it answers. */
const ways: Ways = [
  ["execute", (statement) => statement, rows],
  ["executeRaw", (statement) => Effect.map(statement.raw, (result) => (result as { rows: unknown }).rows), rows],
  ["executeValues", (statement) => statement.values, [[1, "one"]]],
  ["executeWithoutTransform", (statement) => statement.withoutTransform, rows],
  ["executeUnprepared", (statement) => statement.unprepared, rows],
  ["executeStream", (statement) => Effect.map(Stream.runCollect(statement.stream), Chunk.toReadonlyArray), rows]
]

const replicas = ["replica1", "replica2"]

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, name text)`
  yield* sql`TRUNCATE item`
  yield* sql`INSERT INTO item ${sql.insert(rows)}`
  yield* RouterTest.settle
  return sql
})

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("every way to run a statement", (it) => {
  it.effect("reads go to a replica, and its span says so", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const [operation, run, expected] of ways) {
        const marker = `/* read ${operation} */`
        const [result, statements] = yield* RouterTest.traced(
          run(sql`SELECT id, name FROM item ${sql.literal(marker)}`)
        )
        assert.deepStrictEqual(result, expected)
        assert.lengthOf(statements, 1)
        const [{ engine, group, kind, operation: said, reason, span, sql: text }] = statements
        assert.deepStrictEqual([said, group, kind, reason], [operation, "read", "read", "plain SELECT"])
        assert.strictEqual(text, `SELECT id, name FROM item ${marker}`)
        assert.strictEqual(span.attributes.get("db.system.name"), "postgresql")
        assert.strictEqual(span.attributes.get("db.namespace"), "postgres")
        assert.strictEqual(span.attributes.get("server.address"), "127.0.0.1")
        assert.strictEqual(span.status._tag, "Ended")
        assert.oneOf(engine, replicas)
        assert.deepStrictEqual<unknown>(yield* RouterTest.ranOn(marker), [engine])
      }
    })
  )

  it.effect("reads take turns on the replicas", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const [, run] of ways) {
        const engines = yield* RouterTest.enginesOf(Effect.replicateEffect(run(sql`SELECT id, name FROM item`), 4))
        assert.deepStrictEqual([...engines].sort(), ["replica1", "replica1", "replica2", "replica2"])
      }
    })
  )

  it.effect("writes go to the primary, and reads after them too", () =>
    Effect.gen(function* () {
      for (const [operation, run, expected] of ways) {
        const sql = yield* setUp
        const marker = `/* write ${operation} */`
        const [result, [write, read]] = yield* RouterTest.traced(
          Effect.zipLeft(
            run(sql`UPDATE item SET id = ${1} RETURNING id, name ${sql.literal(marker)}`),
            sql`SELECT id, name FROM item`
          )
        )
        assert.deepStrictEqual(result, expected)
        assert.deepStrictEqual(
          [write?.operation, write?.group, write?.engine, write?.kind, write?.reason],
          [operation, "default", "primary", "write", "UPDATE"]
        )
        assert.deepStrictEqual([read?.engine, read?.kind, read?.reason], ["primary", "read", "sticky after a write"])
        assert.deepStrictEqual(yield* RouterTest.ranOn(marker), ["primary"])
      }
    })
  )

  it.effect("a statement about the session goes to the primary and does not stick", () =>
    Effect.gen(function* () {
      for (const [, run] of ways) {
        const sql = yield* setUp
        const [, [session, read]] = yield* RouterTest.traced(
          Effect.zipRight(run(sql`SELECT pg_advisory_xact_lock(1)`), sql`SELECT id, name FROM item`)
        )
        assert.deepStrictEqual([session?.engine, session?.kind], ["primary", "session"])
        assert.strictEqual(read?.group, "read")
      }
    })
  )

  it.effect("sql.unsafe, with and without parameters", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const [, run, expected] of ways) {
        const [result, [read]] = yield* RouterTest.traced(
          run(sql.unsafe("SELECT id, name FROM item WHERE id = $1", [1]))
        )
        assert.deepStrictEqual(result, expected)
        assert.strictEqual(read?.group, "read")
        const [, [write]] = yield* RouterTest.traced(
          run(sql.unsafe("UPDATE item SET id = 1 RETURNING id, name")).pipe(Effect.ensuring(DbRouter.reset))
        )
        assert.strictEqual(write?.engine, "primary")
      }
    })
  )

  it.effect("a text of several statements answers with one result for each", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const [reads, [read]] = yield* RouterTest.traced(sql`SELECT 1 AS a; SELECT 2 AS b`)
      assert.deepStrictEqual<unknown>(reads, [[{ a: 1 }], [{ b: 2 }]])
      assert.strictEqual(read?.group, "read")
      const [, [write]] = yield* RouterTest.traced(sql`SELECT 1 AS a; DELETE FROM item`)
      assert.deepStrictEqual([write?.engine, write?.kind], ["primary", "write"])
    })
  )

  it.effect("a stream of more rows than one batch has them all, in order", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const [numbers, [read]] = yield* RouterTest.traced(
        sql<{ n: number }>`SELECT n FROM generate_series(1, 1000) AS n`.stream.pipe(
          Stream.map((row) => row.n),
          Stream.runCollect
        )
      )
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(numbers),
        Array.from({ length: 1000 }, (_, i) => i + 1)
      )
      assert.strictEqual(read?.group, "read")
    })
  )

  it.effect("spans around a statement are left alone", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const work = Effect.zipRight(sql`SELECT 1`, Stream.runDrain(sql`SELECT 1`.stream))
      const [, spans] = yield* RouterTest.spansOf(Effect.withSpan(work, "mine"))
      assert.deepStrictEqual(
        spans.map((span) => span.name),
        ["mine", "sql.execute", "sql.execute"]
      )
      assert.deepStrictEqual(
        [...spans[0]!.attributes.keys()].filter((key) => key.startsWith("db.")),
        []
      )
      for (const span of spans.slice(1)) {
        assert.strictEqual(span.parent._tag === "Some" && span.parent.value.spanId, spans[0]!.spanId)
      }
    })
  )

  it.effect("an error is a SqlError with the server's own underneath, and its span says where it went", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const [operation, run] of ways) {
        const [error, [read]] = yield* RouterTest.traced(Effect.flip(run(sql`SELECT 1 / (id - 1) FROM item`)))
        assert.deepInclude(error, { _tag: "SqlError" })
        assert.strictEqual((error as { cause: { code: string } }).cause.code, "22012", operation)
        assert.strictEqual(read?.group, "read")
      }
    })
  )

  it.effect("a transformer of statements applies to every way, before the statement is routed", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      for (const [operation, run] of ways) {
        const marker = `/* transformed ${operation} */`
        const [, statements] = yield* RouterTest.traced(
          run(sql`SELECT id, name FROM item`).pipe(
            Statement.withTransformer((statement, sql) =>
              Effect.succeed(
                sql`DELETE FROM item RETURNING id, name ${sql.literal(marker)} /* was ${sql.literal(statement.compile()[0])} */`
              )
            )
          )
        )
        assert.lengthOf(statements, 1)
        assert.deepStrictEqual([statements[0]!.engine, statements[0]!.kind], ["primary", "write"])
        assert.include(statements[0]!.sql, "was SELECT id, name FROM item")
        assert.deepStrictEqual(yield* RouterTest.ranOn(marker), ["primary"])
        yield* DbRouter.reset
      }
    })
  )

  it.effect("without a tracer only a transformer has a span to look at", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const tracer = yield* Effect.tracer
      const made: Array<Tracer.Span> = []
      const { span } = tracer
      const spying = Effect.acquireRelease(
        Effect.sync(() => {
          ;(tracer as { span: typeof span }).span = (...all) => {
            made.push(span(...all))
            return made.at(-1)!
          }
        }),
        () => Effect.sync(() => Object.assign(tracer, { span }))
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* spying
          for (const [, run] of ways) yield* run(sql`SELECT id, name FROM item`)
          assert.deepStrictEqual(made, [])
          const shown: Array<Tracer.Span> = []
          const look = Statement.withTransformer((statement, _sql, _context, span) => {
            shown.push(span)
            return Effect.succeed(statement)
          })
          for (const [, run] of ways) yield* look(run(sql`SELECT id, name FROM item`))
          assert.deepStrictEqual(shown, made)
          for (const [i, [operation]] of ways.entries()) {
            const { attributes, status } = shown[i]!
            assert.strictEqual(attributes.get("db.operation.name"), operation)
            assert.strictEqual(attributes.get("db.router.group"), "read", operation)
            assert.strictEqual(status._tag, "Ended")
          }
        })
      )
    })
  )

  it.effect("a transformer may run statements of its own, which are routed and say so", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const [, statements] = yield* RouterTest.traced(
        sql`SELECT id FROM item`.pipe(
          Statement.withTransformer((statement, sql) =>
            Effect.orDie(Effect.as(Statement.withTransformerDisabled(sql`SELECT 'audit'`), statement))
          )
        )
      )
      assert.deepStrictEqual(
        statements.map(({ group, sql }) => [sql, group]),
        [
          ["SELECT id FROM item", "read"],
          ["SELECT 'audit'", "read"]
        ]
      )
    })
  )

  it.effect("fragments, identifiers and helpers", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      yield* sql`INSERT INTO ${sql("item")} ${sql.insert([
        { id: 2, name: "two" },
        { id: 3, name: "three" }
      ])}`
      yield* sql`UPDATE item SET ${sql.update({ id: 2, name: "zwei" }, ["id"])} WHERE ${sql.and([sql`id = ${2}`, sql`name = ${"two"}`])}`
      yield* sql`UPDATE item SET name = data.name FROM ${sql.updateValues([{ id: 3, name: "drei" }], "data")} WHERE item.id = data.id::int`
      yield* RouterTest.settle
      const [found, [read]] = yield* RouterTest.traced(
        sql`SELECT ${sql.csv(["id", "name"])} FROM item WHERE ${sql.in("id", [2, 3])} ORDER BY id`
      )
      assert.deepStrictEqual(found, [
        { id: 2, name: "zwei" },
        { id: 3, name: "drei" }
      ])
      assert.strictEqual(read?.group, "read")
      assert.strictEqual(sql.onDialectOrElse({ pg: () => "pg", orElse: () => "else" }), "pg")
    })
  )

  it.effect("safe, withoutTransforms and config are there", () =>
    Effect.gen(function* () {
      yield* setUp
      const client = yield* PgClient.PgClient
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      assert.strictEqual<unknown>(client, yield* SqlClient.SqlClient)
      assert.strictEqual<unknown>(client, (yield* DbRouter.DbRouter).client)
      assert.strictEqual(client.safe, client)
      assert.strictEqual(client.withoutTransforms(), client)
      assert.deepInclude(client.config, { host: "127.0.0.1", port: primary.port, database: "postgres" })
      assert.deepStrictEqual(yield* RouterTest.enginesOf(client.safe`UPDATE item SET id = 1`), ["primary"])
    })
  )

  it.effect("json", () =>
    Effect.gen(function* () {
      yield* setUp
      const sql = yield* PgClient.PgClient
      const [found, [read]] = yield* RouterTest.traced(
        sql`SELECT ${sql.json({ someKey: [1, { innerKey: null }] })}::jsonb AS "theValue"`
      )
      assert.deepStrictEqual(found, [{ theValue: { someKey: [1, { innerKey: null }] } }])
      assert.strictEqual(read?.group, "read")
    })
  )
})

const transforms = {
  transformQueryNames: Strings.camelToSnake,
  transformResultNames: Strings.snakeToCamel
}

/** On a router of its own over the cluster in the context. */
const transforming = <A, E, R>(
  engine: NonNullable<RouterTest.Options["engine"]>,
  effect: Effect.Effect<A, E, R | DbRouter.Services>
) => Effect.provide(effect, RouterTest.router({ engine: { ...transforms, ...engine } }))

layer(RouterTest.cluster, { excludeTestServices: true, timeout: "2 minutes" })(
  "transforms and types apply to",
  (it) => {
    it.effect("names of queries and results, in every way that transforms", () =>
      transforming(
        {},
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`CREATE TABLE ${sql("ownThing")} (${sql("thingId")} int, ${sql("thingName")} text)`
          yield* sql`INSERT INTO ${sql("ownThing")} ${sql.insert({ thingId: 1, thingName: "a" })}`
          yield* RouterTest.settle
          const all = sql`SELECT * FROM ${sql("ownThing")}`
          const camel = [{ thingId: 1, thingName: "a" }]
          const snake = [{ thing_id: 1, thing_name: "a" }]
          assert.deepStrictEqual(yield* all, camel)
          assert.deepStrictEqual(yield* all.unprepared, camel)
          assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Stream.runCollect(all.stream)), camel)
          assert.deepStrictEqual(yield* all.values, [[1, "a"]])
          const plain = sql`SELECT * FROM own_thing`
          assert.deepStrictEqual(yield* plain.withoutTransform, snake)
          assert.deepStrictEqual(yield* Effect.map(plain.raw, (result) => (result as { rows: unknown }).rows), snake)
          // The second time it is a prepared statement.
          assert.deepStrictEqual(yield* sql`SELECT * FROM own_thing WHERE thing_id = ${1}`, camel)
          assert.deepStrictEqual(yield* sql`SELECT * FROM own_thing WHERE thing_id = ${1}`, camel)
          assert.deepStrictEqual(yield* sql.withTransaction(all), camel)
          assert.deepStrictEqual(
            yield* sql.withTransaction(Effect.map(Stream.runCollect(all.stream), Chunk.toReadonlyArray)),
            camel
          )
          const without = sql.withoutTransforms()
          assert.deepStrictEqual(yield* without`SELECT * FROM ${without("own_thing")}`, snake)
          assert.deepStrictEqual(
            Chunk.toReadonlyArray(yield* Stream.runCollect(without`SELECT * FROM own_thing`.stream)),
            snake
          )
          assert.strictEqual(without.withoutTransforms(), without)
          assert.deepStrictEqual(yield* RouterTest.enginesOf(without`UPDATE own_thing SET thing_id = 1`), ["primary"])
        })
      )
    )

    it.effect("names inside JSON, unless told otherwise", () =>
      Effect.gen(function* () {
        const read = Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          return yield* sql`SELECT ${sql.json({ someKey: { innerKey: 1 } })}::jsonb AS the_value,
          ${sql.json({ someKey: 1 })}::jsonb ->> 'some_key' AS transformed_in_the_query`
        })
        assert.deepStrictEqual(yield* transforming({}, read), [
          { theValue: { someKey: { innerKey: 1 } }, transformedInTheQuery: "1" }
        ])
        assert.deepStrictEqual(yield* transforming({ transformJson: false }, read), [
          { theValue: { someKey: { innerKey: 1 } }, transformedInTheQuery: null }
        ])
        const nested = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT '{"some_key":1}'::jsonb AS the_value`)
        assert.deepStrictEqual(yield* transforming({}, nested), [{ theValue: { someKey: 1 } }])
        assert.deepStrictEqual(yield* transforming({ transformJson: false }, nested), [{ theValue: { some_key: 1 } }])
      })
    )

    it.effect("custom types are parsed on every server, in every way", () => {
      const types = {
        getTypeParser: (oid: number, format?: "text" | "binary") =>
          oid === 1700 ? (text: string) => ({ numeric: text }) : RouterTest.defaultTypeParser(oid, format)
      }
      return transforming(
        { types },
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const expected = [{ price: { numeric: "1.50" }, n: 2 }]
          for (const [operation, run] of ways) {
            if (operation === "executeValues") continue
            for (const to of [DbRouter.primary, DbRouter.replica]) {
              assert.deepStrictEqual(yield* to(run(sql`SELECT 1.50::numeric AS price, 2 AS n`)), expected, operation)
            }
            assert.deepStrictEqual(
              yield* sql.withTransaction(run(sql`SELECT 1.50::numeric AS price, 2 AS n`)),
              expected,
              operation
            )
          }
          assert.deepStrictEqual(yield* sql`SELECT 1.50::numeric AS price`.values, [[{ numeric: "1.50" }]])
        })
      )
    })

    it.effect("span attributes of the configuration are on every statement", () =>
      transforming(
        { spanAttributes: { "service.owner": "orders" } },
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const [, statements] = yield* RouterTest.traced(
            Effect.all([sql`SELECT 1`, Stream.runDrain(sql`SELECT 1`.stream), sql.withTransaction(sql`SELECT 1`)])
          )
          assert.lengthOf(statements, 3)
          for (const { span } of statements) assert.strictEqual(span.attributes.get("service.owner"), "orders")
        })
      )
    )
  }
)
