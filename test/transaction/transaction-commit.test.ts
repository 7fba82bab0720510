import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const schema = [
  "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL DEFAULT 0)",
  "CREATE TABLE entry (account int REFERENCES account DEFERRABLE INITIALLY DEFERRED)",
  "CREATE TABLE slow (id int)",
  "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'",
  `CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION sleep()`
]

/** A primary pool of one connection, so that a test sees what the one before has left on it. */
const onOneConnection = <A, E, R>(
  test: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, R | DbRouter.Services | RouterTest.PgCluster.PgCluster>
) =>
  Effect.gen(function* () {
    const { primary } = yield* RouterTest.PgCluster.PgCluster
    yield* primary.query("TRUNCATE account, entry, slow")
    const sql = yield* SqlClient.SqlClient
    const before = yield* sql`INSERT INTO account (id) VALUES (0) RETURNING pg_backend_pid() AS pid`
    yield* test(sql)
    return before
  }).pipe(Effect.provide(RouterTest.router({ engine: { maxConnections: 1, applicationName: "one" } })))

/** The accounts that are there, from outside. */
const accounts = Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ id: number }>("SELECT id FROM account WHERE id > 0 ORDER BY id"), (rows) =>
    rows.map((row) => row.id)
  )
)

const pid = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(DbRouter.primary(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`), (rows) => rows[0]!.pid)
)

/** Asserts that the one connection is still the same, outside a transaction, and given back. */
const assertWhole = (before: number) =>
  Effect.gen(function* () {
    assert.strictEqual(yield* pid, before)
    const { primary } = yield* RouterTest.PgCluster.PgCluster
    const states = yield* primary.query<{ state: string; pid: number }>(
      "SELECT pid, state FROM pg_stat_activity WHERE application_name = 'one' AND pid = $1",
      [before]
    )
    assert.deepStrictEqual(states, [{ pid: before, state: "idle" }])
    const [engine] = (yield* (yield* DbRouter.DbRouter).status).filter(({ name }) => name === "primary")
    assert.deepInclude(engine, { inFlight: 0, pool: { total: 1, idle: 1, waiting: 0, max: 1 } })
  })

/** Ends a connection from the other side, and waits until it is gone and this process can know. */
const terminate = (pid: number) =>
  Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
    primary.query("SELECT pg_terminate_backend($1)", [pid]).pipe(
      Effect.zipRight(
        Effect.repeat(primary.query("SELECT FROM pg_stat_activity WHERE pid = $1", [pid]), {
          until: (rows) => rows.length === 0
        })
      ),
      Effect.zipRight(Effect.sleep("100 millis"))
    )
  )

const codeOf = (error: SqlError.SqlError) => (error.cause as { readonly code?: string }).code

layer(RouterTest.cluster, { excludeTestServices: true, timeout: "2 minutes" })("the end of a transaction", (it) => {
  it.effect("success commits, on one connection of the primary", () =>
    Effect.gen(function* () {
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      yield* Effect.forEach(schema, (text) => primary.query(text))
      yield* onOneConnection((sql) =>
        Effect.gen(function* () {
          const before = yield* pid
          const [[inside, after], spans] = yield* RouterTest.spansOf(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* sql`INSERT INTO account (id) VALUES (1)`
                assert.deepStrictEqual(yield* accounts, [])
                return [yield* pid, yield* sql`SELECT id FROM account WHERE id > 0`]
              })
            )
          )
          assert.strictEqual(inside, before)
          assert.deepStrictEqual<unknown>(after, [{ id: 1 }])
          assert.deepStrictEqual(yield* accounts, [1])
          const [transaction, ...statements] = spans
          assert.strictEqual(transaction?.name, "sql.transaction")
          assert.strictEqual(transaction?.attributes.get("db.router.group"), "default")
          assert.strictEqual(transaction?.attributes.get("db.router.engine"), "primary")
          assert.lengthOf(statements, 3)
          for (const span of statements) {
            assert.strictEqual(Option.getOrThrow(span.parent).spanId, transaction?.spanId)
            assert.strictEqual(span.attributes.get("db.router.reason"), "inside a transaction")
          }
          yield* assertWhole(before)
        })
      )
      yield* RouterTest.settle
      assert.deepStrictEqual(new Set(yield* RouterTest.ranOn("statement: COMMIT")), new Set(["primary"]))
    })
  )

  it.effect("failure, defect and interruption roll back", () =>
    onOneConnection((sql) =>
      Effect.gen(function* () {
        const before = yield* pid
        const insert = sql`INSERT INTO account (id) VALUES (1)`
        const failed = yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert, Effect.fail("mine" as const))))
        assert.deepStrictEqual(failed, Exit.fail("mine" as const))
        yield* assertWhole(before)
        const died = yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert, Effect.die("mine"))))
        assert.deepStrictEqual(died, Exit.die("mine"))
        yield* assertWhole(before)
        const inside = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          sql.withTransaction(
            insert.pipe(Effect.zipRight(Deferred.succeed(inside, void 0)), Effect.zipRight(Effect.never))
          )
        )
        yield* Deferred.await(inside)
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        yield* assertWhole(before)
        const sleeping = yield* Effect.fork(
          sql.withTransaction(Effect.zipRight(insert, sql`SELECT pg_sleep(20), 'interrupt me'`))
        )
        yield* Effect.repeat(Effect.delay(RouterTest.ranOn("'interrupt me'"), "10 millis"), {
          until: (names) => names.length > 0
        })
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(sleeping)))
        yield* assertWhole(before)
        assert.deepStrictEqual(yield* accounts, [])
      })
    )
  )

  it.effect("a COMMIT that the server refuses is a typed SqlError: a deferred constraint", () =>
    onOneConnection((sql) =>
      Effect.gen(function* () {
        const before = yield* pid
        const error = yield* Effect.flip(
          sql.withTransaction(
            Effect.zipRight(sql`INSERT INTO account (id) VALUES (1)`, sql`INSERT INTO entry VALUES (99)`)
          )
        )
        assert.strictEqual(error._tag, "SqlError")
        assert.strictEqual(codeOf(error), "23503")
        assert.deepStrictEqual(yield* accounts, [])
        yield* assertWhole(before)
      })
    )
  )

  it.effect("a COMMIT that the server refuses is a typed SqlError: a serialization failure", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) => primary.query("TRUNCATE account, entry"))
      const bothWrote = yield* Deferred.make<void>()
      const firstEnded = yield* Deferred.make<void>()
      const body = (id: number, wait: Effect.Effect<unknown>) =>
        sql.withTransaction(
          sql`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`.pipe(
            Effect.zipRight(sql`SELECT count(*) FROM account`),
            Effect.zipRight(sql`INSERT INTO account (id) VALUES (${id})`),
            Effect.zipRight(wait)
          )
        )
      const first = yield* Effect.fork(body(1, Deferred.await(bothWrote)))
      const second = yield* Effect.fork(
        body(2, Effect.zipRight(Deferred.succeed(bothWrote, void 0), Deferred.await(firstEnded)))
      )
      yield* Effect.ensuring(Fiber.join(first), Deferred.succeed(firstEnded, void 0))
      const error = yield* Effect.flip(Fiber.join(second))
      assert.strictEqual(error._tag, "SqlError")
      assert.strictEqual(codeOf(error), "40001")
      assert.deepStrictEqual(yield* accounts, [1])
      yield* sql.withTransaction(sql`INSERT INTO account (id) VALUES (3)`)
      assert.deepStrictEqual(yield* accounts, [1, 3])
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("a COMMIT that is answered with ROLLBACK is a SqlError that says so", () =>
    onOneConnection((sql) =>
      Effect.gen(function* () {
        const before = yield* pid
        const error = yield* Effect.flip(
          sql.withTransaction(
            Effect.zipRight(
              sql`INSERT INTO account (id) VALUES (1)`,
              Effect.either(sql`INSERT INTO account (id) VALUES (1)`)
            )
          )
        )
        assert.strictEqual(error._tag, "SqlError")
        const cause = Option.getOrThrow(RouterError.fromSqlError(error))
        assert.deepInclude({ ...cause }, { reason: "CommitRolledBack", group: "default", engine: "primary" })
        assert.strictEqual(error.message, cause.message)
        assert.deepStrictEqual(yield* accounts, [])
        yield* assertWhole(before)
      })
    )
  )

  it.effect("a connection that breaks inside fails the transaction, and nothing of it is there", () =>
    onOneConnection((sql) =>
      Effect.gen(function* () {
        const before = yield* pid
        const broken = sql`INSERT INTO account (id) VALUES (1)`.pipe(Effect.zipRight(terminate(before)))
        const statement = yield* Effect.flip(sql.withTransaction(Effect.zipRight(broken, sql`SELECT 1`)))
        assert.strictEqual(statement._tag === "SqlError" && codeOf(statement), "57P01")
        const next = yield* pid
        assert.notStrictEqual(next, before)
        const commit = yield* Effect.flip(
          sql.withTransaction(sql`INSERT INTO account (id) VALUES (1)`.pipe(Effect.zipRight(terminate(next))))
        )
        assert.deepStrictEqual(RouterError.reasonOf(commit), Option.some("ConnectionLost"))
        assert.deepStrictEqual(yield* accounts, [])
        yield* assertWhole(yield* pid)
      })
    )
  )

  it.effect("an interruption during COMMIT waits for its answer", () =>
    onOneConnection((sql) =>
      Effect.gen(function* () {
        const before = yield* pid
        const fiber = yield* Effect.fork(
          sql.withTransaction(
            Effect.zipRight(sql`INSERT INTO account (id) VALUES (1)`, sql`INSERT INTO slow VALUES (1)`)
          )
        )
        const commits = (yield* RouterTest.ranOn("statement: COMMIT")).length
        yield* Effect.repeat(Effect.delay(RouterTest.ranOn("statement: COMMIT"), "10 millis"), {
          until: (names) => names.length > commits
        })
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* accounts, [1])
        yield* assertWhole(before)
      })
    )
  )

  it.effect("a transaction that cannot begin is a SqlError", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const router = yield* DbRouter.DbRouter
      yield* router.drain("archive1")
      let ran = false
      const exit = yield* Effect.exit(
        DbRouter.bindGroup(sql.withTransaction(Effect.sync(() => (ran = true))), "archive")
      )
      assert.isFalse(ran)
      assert.deepStrictEqual(
        RouterError.reasonOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined),
        Option.some("NoEngineAvailable")
      )
    }).pipe(Effect.provide(RouterTest.router()))
  )
})
