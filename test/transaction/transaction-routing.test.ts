import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Chunk, Context, Effect, Layer, Option, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const rowsOf = (text: string) =>
  Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) => primary.query<{ v: string }>(text))

/** The values that are there, from outside. */
const values = Effect.map(rowsOf("SELECT v FROM note ORDER BY v"), (rows) => rows.map((row) => row.v))

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS note (v text)`
  yield* sql`TRUNCATE note`
  yield* RouterTest.settle
  return { sql, insert: (v: string) => sql`INSERT INTO note VALUES (${v})` }
})

const pidOf = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, (rows) => rows[0]!.pid)

const isStandby = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ yes: boolean }>`SELECT pg_is_in_recovery() AS yes`, (rows) => rows[0]!.yes)

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("routing and transactions", (it) => {
  it.effect("nothing leaves a transaction, whatever the combinators say", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const read = sql`SELECT v FROM note`
      const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        read,
        insert("b"),
        read.raw,
        read.values,
        read.unprepared,
        read.withoutTransform,
        Stream.runDrain(read.stream)
      ]
      const settings: ReadonlyArray<<A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>> = [
        (effect) => effect,
        DbRouter.replica,
        DbRouter.primary,
        DbRouter.bindGroup("default"),
        (effect) => Effect.zipRight(DbRouter.reset, effect),
        (effect) => DbRouter.replica(sql.withTransaction(effect).pipe(Effect.orDie))
      ]
      const [, statements] = yield* RouterTest.traced(
        DbRouter.replica(
          sql.withTransaction(Effect.forEach(settings, (set) => Effect.forEach(ways, (way) => Effect.orDie(set(way)))))
        )
      )
      assert.lengthOf(statements, ways.length * settings.length)
      for (const { engine, reason } of statements) {
        assert.deepStrictEqual([engine, reason], ["primary", "inside a transaction"])
      }
      assert.lengthOf(yield* values, settings.length)
    })
  )

  it.effect("a bound group has a transaction of its own, which nothing leaves either", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const where = Effect.map(RouterTest.enginesOf(sql`SELECT 1`), ([engine]) => engine)
      const seen = yield* DbRouter.bindGroup(
        sql.withTransaction(
          Effect.all({
            plain: where,
            primary: DbRouter.primary(where),
            replica: DbRouter.replica(where),
            reset: Effect.zipRight(DbRouter.reset, where),
            nested: DbRouter.primary(sql.withTransaction(where)),
            other: DbRouter.bindGroup(where, "read"),
            standby: isStandby(sql)
          })
        ),
        "analytics"
      )
      const { other, standby, ...here } = seen
      assert.deepStrictEqual(new Set(Object.values(here)), new Set(["analytics1"]))
      assert.oneOf(other, ["replica1", "replica2"])
      assert.isTrue(standby)
      yield* DbRouter.bindGroup(sql.withTransaction(insert("archived")), "archive")
      assert.deepStrictEqual(yield* values, ["archived"])
    })
  )

  it.effect("transactions of two groups inside each other are found by their group", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const archive = DbRouter.bindGroup("archive")
      const main = DbRouter.bindGroup("default")
      const pids = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert("outer")
          const outer = yield* pidOf(sql)
          const inner = yield* archive(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* insert("inner")
                // Each sees its own work only.
                assert.deepStrictEqual(yield* sql`SELECT v FROM note`.values, [["inner"]])
                assert.deepStrictEqual(yield* main(sql`SELECT v FROM note`.values), [["outer"]])
                const back = yield* main(sql.withTransaction(Effect.zipRight(insert("savepoint"), pidOf(sql))))
                return { here: yield* pidOf(sql), back, there: yield* archive(pidOf(sql)) }
              })
            )
          )
          // The inner one has committed, whatever becomes of the outer one.
          assert.deepStrictEqual(yield* values, ["inner"])
          return { outer, ...inner }
        })
      )
      assert.strictEqual(pids.back, pids.outer)
      assert.strictEqual(pids.there, pids.here)
      assert.notStrictEqual(pids.here, pids.outer)
      assert.deepStrictEqual(yield* values, ["inner", "outer", "savepoint"])
    })
  )

  it.effect("a bound group that has no transaction here is autocommitted", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      yield* Effect.ignore(
        sql.withTransaction(
          Effect.all([insert("outer"), DbRouter.bindGroup(insert("bound"), "archive"), Effect.fail("no")])
        )
      )
      assert.deepStrictEqual(yield* values, ["bound"])
    })
  )

  it.effect("reserve is a connection of one's own, also in a transaction", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* sql.reserve
          const run = (text: string, params: ReadonlyArray<unknown> = []) => connection.execute(text, params, undefined)
          yield* run("CREATE TEMP TABLE mine (v text)")
          yield* run("SET application_name = 'reserved'")
          yield* run("INSERT INTO mine VALUES ($1)", ["temporary"])
          assert.deepStrictEqual(yield* run("SELECT v FROM mine"), [{ v: "temporary" }])
          assert.deepStrictEqual(yield* connection.executeValues("SELECT v FROM mine", []), [["temporary"]])
          assert.deepStrictEqual(yield* connection.executeUnprepared("SELECT v FROM mine", [], undefined), [
            { v: "temporary" }
          ])
          assert.deepInclude(yield* connection.executeRaw("SELECT v FROM mine", []), { rowCount: 1, command: "SELECT" })
          const streamed = yield* Stream.runCollect(connection.executeStream("SELECT v FROM mine", [], undefined))
          assert.deepStrictEqual(Chunk.toReadonlyArray(streamed), [{ v: "temporary" }])
          assert.deepStrictEqual(yield* run("SHOW application_name"), [{ application_name: "reserved" }])
          yield* run("DROP TABLE mine")
        })
      )
      yield* DbRouter.reset
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert("uncommitted")
          const seen = yield* Effect.scoped(
            Effect.flatMap(sql.reserve, (connection) => connection.executeValues("SELECT v FROM note", []))
          )
          assert.deepStrictEqual(seen, [])
        })
      )
    })
  )

  it.effect("writes on a reserved connection stick, reads there do not", () =>
    Effect.gen(function* () {
      const { sql } = yield* setUp
      const router = yield* DbRouter.DbRouter
      const group = Effect.map(router.explain("SELECT 1"), (where) => where.group)
      const reserved = (text: string) =>
        Effect.scoped(Effect.flatMap(sql.reserve, (connection) => connection.execute(text, [], undefined)))
      yield* reserved("SELECT v FROM note")
      assert.strictEqual(yield* group, "read")
      yield* reserved("INSERT INTO note VALUES ('reserved')")
      assert.strictEqual(yield* group, "default")
      yield* DbRouter.reset
      yield* Effect.scoped(
        Effect.flatMap(sql.reserve, (connection) =>
          Stream.runDrain(connection.executeStream("INSERT INTO note VALUES ('stream') RETURNING v", [], undefined))
        )
      )
      assert.strictEqual(yield* group, "default")
      assert.deepStrictEqual(yield* values, ["reserved", "stream"])
      yield* DbRouter.reset
      assert.isTrue(
        yield* DbRouter.bindGroup(
          Effect.scoped(
            Effect.flatMap(sql.reserve, (connection) =>
              Effect.map(
                connection.executeValues("SELECT pg_is_in_recovery()", []),
                (rows) => (rows as ReadonlyArray<ReadonlyArray<unknown>>)[0]![0]
              )
            )
          ),
          "analytics"
        )
      )
    })
  )

  it.effect("statements run between the last rows of a stream on a reserved connection", () =>
    Effect.gen(function* () {
      const { sql } = yield* setUp
      const seen = yield* Effect.scoped(
        Effect.flatMap(sql.reserve, (connection) =>
          connection.executeStream("SELECT v FROM (VALUES ('a'), ('b')) AS x (v)", [], undefined).pipe(
            Stream.mapEffect((row: { readonly v: string }) =>
              Effect.as(connection.execute("INSERT INTO note VALUES ($1)", [row.v], undefined), row.v)
            ),
            Stream.runCollect
          )
        )
      ).pipe(Effect.timeout("10 seconds"))
      assert.deepStrictEqual(Chunk.toReadonlyArray(seen), ["a", "b"])
      assert.deepStrictEqual(yield* values, ["a", "b"])
    })
  )

  it.effect("a reserved connection runs one statement at a time and is whole after its end", () =>
    Effect.gen(function* () {
      const { sql } = yield* setUp
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* sql.reserve
          const run = (text: string) => connection.execute(text, [], undefined)
          yield* Effect.all(
            Array.from({ length: 10 }, (_, i) => run(`SELECT ${i}`)),
            { concurrency: "unbounded" }
          )
          yield* run("BEGIN")
          yield* run("INSERT INTO note VALUES ('open')")
        })
      )
      // It was released in the middle of a transaction: the next checkout does not get it like that.
      assert.deepStrictEqual(yield* values, [])
      assert.deepStrictEqual(
        yield* rowsOf(
          "SELECT pid FROM pg_stat_activity WHERE state LIKE 'idle in%' AND application_name LIKE 'effect%'"
        ),
        []
      )
    })
  )
})

/** A client that is not ours. */
const plain = Layer.unwrapEffect(
  Effect.map(RouterTest.PgCluster.PgCluster, ({ primary }) => PgClient.layer({ url: primary.url }))
)

const clientOf = <R, E>(layer: Layer.Layer<R | SqlClient.SqlClient, E, RouterTest.PgCluster.PgCluster>) =>
  Effect.map(Layer.build(layer), (context) =>
    Context.get(context as Context.Context<SqlClient.SqlClient>, SqlClient.SqlClient)
  )

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })(
  "transactions of several clients",
  (it) => {
    // `@effect/sql` has one tag for the transactions of all clients: a client runs on the connection that it finds there. So
    // does a plain client inside ours. Ours does not run on a foreign one, which it could not route.
    it.scoped("a plain client's statements inside our transaction are part of it", () =>
      Effect.gen(function* () {
        const { insert, sql } = yield* setUp
        const other = yield* clientOf(plain)
        const otherPid = yield* pidOf(other)
        yield* Effect.ignore(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* insert("ours")
              assert.notStrictEqual(yield* pidOf(other), otherPid)
              assert.strictEqual(yield* pidOf(other), yield* pidOf(sql))
              yield* other`INSERT INTO note VALUES ('theirs')`
              yield* other.withTransaction(other`INSERT INTO note VALUES ('nested')`)
              yield* Effect.ignore(other.withTransaction(Effect.zipRight(insert("dropped"), Effect.fail("no"))))
              yield* sql.withTransaction(other`INSERT INTO note VALUES ('ours again')`)
              assert.deepStrictEqual(
                yield* Effect.map(Stream.runCollect(other`SELECT v FROM note ORDER BY v`.stream), (rows) =>
                  Chunk.toReadonlyArray(rows)
                ),
                [{ v: "nested" }, { v: "ours" }, { v: "ours again" }, { v: "theirs" }]
              )
              return yield* Effect.fail("no")
            })
          )
        )
        assert.deepStrictEqual(yield* values, [])
      })
    )

    it.scoped("our statements inside a plain client's transaction stay ours", () =>
      Effect.gen(function* () {
        const { insert, sql } = yield* setUp
        const other = yield* clientOf(plain)
        yield* Effect.ignore(
          other.withTransaction(
            Effect.gen(function* () {
              yield* other`INSERT INTO note VALUES ('theirs')`
              const theirs = yield* pidOf(other)
              assert.match(String(yield* RouterTest.enginesOf(sql`SELECT v FROM note`)), /^replica[12]$/)
              yield* insert("ours")
              yield* sql.withTransaction(
                Effect.gen(function* () {
                  assert.notStrictEqual(yield* pidOf(sql), theirs)
                  yield* insert("ours too")
                })
              )
              assert.strictEqual(yield* pidOf(other), theirs)
              return yield* Effect.fail("no")
            })
          )
        )
        assert.deepStrictEqual(yield* values, ["ours", "ours too"])
      })
    )

    it.scoped("two routers inside each other find their own transactions", () =>
      Effect.gen(function* () {
        const { insert, sql } = yield* setUp
        const other = yield* clientOf(RouterTest.router())
        const insertOther = (v: string) => other`INSERT INTO note VALUES (${v})`
        const [pids, spans] = yield* RouterTest.spansOf(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* insert("a")
              const a = yield* pidOf(sql)
              const rest = yield* other.withTransaction(
                Effect.gen(function* () {
                  yield* insertOther("b")
                  const b = yield* pidOf(other)
                  const [inner, innerOther] = yield* sql.withTransaction(
                    Effect.zipRight(insert("a again"), Effect.all([pidOf(sql), pidOf(other)]))
                  )
                  yield* Effect.ignore(
                    sql.withTransaction(
                      Effect.all([
                        insert("a dropped"),
                        insertOther("b kept"),
                        other.withTransaction(insertOther("b nested")),
                        Effect.fail("no")
                      ])
                    )
                  )
                  return { b, inner, innerOther, between: yield* pidOf(sql) }
                })
              )
              assert.deepStrictEqual(yield* values, ["b", "b kept", "b nested"])
              return { a, ...rest }
            })
          )
        )
        assert.deepStrictEqual([pids.inner, pids.between], [pids.a, pids.a])
        assert.strictEqual(pids.innerOther, pids.b)
        assert.notStrictEqual(pids.a, pids.b)
        assert.deepStrictEqual(yield* values, ["a", "a again", "b", "b kept", "b nested"])
        const inside = spans.filter((span) => span.attributes.get("db.router.reason") === "inside a transaction")
        assert.isTrue(inside.every((span) => Option.isSome(span.parent)))
      })
    )
  }
)
