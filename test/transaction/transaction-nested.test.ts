import { SqlClient, SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Either, Exit, Fiber, Option } from "effect"
import { RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const setUp = Effect.gen(function* () {
  const { primary } = yield* RouterTest.PgCluster.PgCluster
  yield* primary.query("CREATE TABLE IF NOT EXISTS line (text text UNIQUE)")
  yield* primary.query("TRUNCATE line")
  const sql = yield* SqlClient.SqlClient
  const insert = (text: string) => sql`INSERT INTO line VALUES (${text})`
  /** A nested transaction that inserts one line before an effect, and one after. */
  const around = <A, E>(text: string, effect: Effect.Effect<A, E>) =>
    sql.withTransaction(Effect.zipLeft(Effect.zipRight(insert(`${text}1`), effect), insert(`${text}2`)))
  return { sql, insert, around }
})

/** The lines that are there, from outside. */
const lines = Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ primary }) =>
  Effect.map(primary.query<{ text: string }>("SELECT text FROM line ORDER BY text"), (rows) =>
    rows.map((row) => row.text)
  )
)

const reasonOf = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Effect.flip(effect), RouterError.reasonOf)

layer(RouterTest.layer(), { excludeTestServices: true, timeout: "2 minutes" })("nested transactions", (it) => {
  it.effect("a nested one that fails takes back its own work only", () =>
    Effect.gen(function* () {
      const { around, insert, sql } = yield* setUp
      const exit = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert("outer1")
          const exit = yield* Effect.exit(around("inner", Effect.fail("no" as const)))
          yield* around(
            "kept",
            Effect.ignore(
              around(
                "dropped",
                Effect.zipRight(insert("deep"), Effect.die("no")).pipe(Effect.catchAllDefect(() => Effect.fail("no")))
              )
            )
          )
          yield* insert("outer2")
          return exit
        })
      )
      assert.deepStrictEqual(exit, Exit.fail("no" as const))
      assert.deepStrictEqual(yield* lines, ["kept1", "kept2", "outer1", "outer2"])
    })
  )

  it.effect("the outer one takes back all of it", () =>
    Effect.gen(function* () {
      const { around, sql } = yield* setUp
      yield* Effect.ignore(
        sql.withTransaction(Effect.zipRight(around("a", around("b", Effect.void)), Effect.fail("no")))
      )
      assert.deepStrictEqual(yield* lines, [])
    })
  )

  it.effect("a failed statement that was caught inside fails the nested one, and not the outer one", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const reason = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert("outer1")
          const reason = yield* reasonOf(
            sql.withTransaction(Effect.zipRight(insert("inner1"), Effect.either(insert("outer1"))))
          )
          yield* insert("outer2")
          return reason
        })
      )
      assert.deepStrictEqual(reason, Option.some("CommitRolledBack"))
      assert.deepStrictEqual(yield* lines, ["outer1", "outer2"])
    })
  )

  it.effect("a failed statement in a nested one is contained when the nested one fails", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const inner = yield* sql.withTransaction(
        insert("outer").pipe(
          Effect.zipRight(Effect.either(sql.withTransaction(insert("outer")))),
          Effect.zipLeft(insert("after"))
        )
      )
      assert.isTrue(Either.isLeft(inner) && inner.left instanceof SqlError.SqlError)
      assert.deepStrictEqual(yield* lines, ["after", "outer"])
    })
  )

  it.effect("siblings are serialised: none loses its work when another rolls back", () =>
    Effect.gen(function* () {
      const { around, sql } = yield* setUp
      let inside = 0
      const most: Array<number> = []
      const visit = Effect.acquireUseRelease(
        Effect.sync(() => most.push(++inside)),
        () => Effect.sleep("2 millis"),
        () => Effect.sync(() => inside--)
      )
      const names = Array.from({ length: 12 }, (_, i) => String.fromCharCode(97 + i))
      yield* sql.withTransaction(
        Effect.forEach(
          names,
          (name, i) => Effect.ignore(around(name, i % 3 === 0 ? Effect.zipRight(visit, Effect.fail("no")) : visit)),
          { concurrency: "unbounded" }
        )
      )
      assert.deepStrictEqual(new Set(most), new Set([1]))
      assert.lengthOf(most, 12)
      assert.deepStrictEqual(
        yield* lines,
        names.filter((_, i) => i % 3 !== 0).flatMap((name) => [`${name}1`, `${name}2`])
      )
    })
  )

  it.effect("nested ones go into each other while their siblings wait, without a deadlock", () =>
    Effect.gen(function* () {
      const { around, insert, sql } = yield* setUp
      const tree = (name: string, depth: number): Effect.Effect<unknown, SqlError.SqlError> =>
        depth === 0
          ? insert(name)
          : around(
              name,
              Effect.all([tree(`${name}a`, depth - 1), tree(`${name}b`, depth - 1), insert(`${name}-`)], {
                concurrency: "unbounded"
              })
            )
      yield* Effect.timeout(sql.withTransaction(tree("t", 3)), "20 seconds")
      // 8 leaves, and 3 lines for each of the 7 nodes above them.
      assert.lengthOf(yield* lines, 8 + 7 * 3)
    })
  )

  it.effect("bare statements of the level above wait for the end of a savepoint, and survive it", () =>
    Effect.gen(function* () {
      const { around, insert, sql } = yield* setUp
      const order: Array<string> = []
      const note = (what: string) => Effect.sync(() => order.push(what))
      yield* sql.withTransaction(
        Effect.gen(function* () {
          const inside = yield* Deferred.make<void>()
          const leave = yield* Deferred.make<void>()
          const nested = yield* Effect.fork(
            around(
              "nested",
              Deferred.succeed(inside, void 0).pipe(
                Effect.zipRight(Deferred.await(leave)),
                Effect.zipRight(note("nested")),
                Effect.zipRight(Effect.fail("no"))
              )
            )
          )
          yield* Deferred.await(inside)
          const bare = yield* Effect.fork(Effect.zipRight(insert("bare"), note("bare")))
          const waiting = yield* Effect.fork(insert("given up"))
          yield* Effect.sleep("30 millis")
          yield* Fiber.interrupt(waiting)
          yield* Deferred.succeed(leave, void 0)
          yield* Fiber.await(nested)
          yield* Fiber.join(bare)
          yield* around("next", Effect.void)
        })
      )
      assert.deepStrictEqual(order, ["nested", "bare"])
      assert.deepStrictEqual(yield* lines, ["bare", "next1", "next2"])
    })
  )

  it.effect("one that is interrupted while it waits, or while it runs, leaves the others alone", () =>
    Effect.gen(function* () {
      const { around, insert, sql } = yield* setUp
      yield* sql.withTransaction(
        Effect.gen(function* () {
          const running = yield* Effect.fork(around("running", sql`SELECT pg_sleep(20)`))
          const waiting = yield* Effect.fork(around("waiting", Effect.void))
          const last = yield* Effect.fork(around("last", Effect.void))
          yield* Effect.sleep("50 millis")
          yield* Fiber.interrupt(waiting)
          yield* Fiber.interrupt(running)
          yield* Fiber.join(last)
          yield* insert("outer")
        })
      )
      assert.deepStrictEqual(yield* lines, ["last1", "last2", "outer"])
    })
  )

  it.effect("a race keeps the winner's work and drops the loser's", () =>
    Effect.gen(function* () {
      const { around, sql } = yield* setUp
      yield* sql.withTransaction(
        Effect.zipRight(
          Effect.race(around("slow", Effect.sleep("10 seconds")), Effect.delay(Effect.succeed("quick"), "50 millis")),
          around("after", Effect.void)
        )
      )
      assert.deepStrictEqual(yield* lines, ["after1", "after2"])
    })
  )

  it.effect("bare statements of one level run one after the other", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      yield* sql.withTransaction(
        Effect.forEach(
          Array.from({ length: 30 }, (_, i) => `n${i}`),
          insert,
          { concurrency: "unbounded" }
        )
      )
      assert.lengthOf(yield* lines, 30)
    })
  )

  it.effect("a statement that fails among concurrent ones aborts the transaction for all of them", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const reason = yield* reasonOf(
        sql.withTransaction(
          Effect.forEach(["a", "a", "b"], (text) => Effect.either(insert(text)), { concurrency: "unbounded" })
        )
      )
      assert.deepStrictEqual(reason, Option.some("CommitRolledBack"))
      assert.deepStrictEqual(yield* lines, [])
    })
  )

  it.effect("savepoints are the same connection, and say where they are", () =>
    Effect.gen(function* () {
      const { sql } = yield* setUp
      const pid = Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, (rows) => rows[0]!.pid)
      const [pids, spans] = yield* RouterTest.spansOf(
        sql.withTransaction(Effect.all([pid, sql.withTransaction(Effect.all([pid, sql.withTransaction(pid)]))]))
      )
      const [outer, [middle, inner]] = pids
      assert.deepStrictEqual([middle, inner], [outer, outer])
      const transactions = spans.filter((span) => span.name === "sql.transaction")
      assert.lengthOf(transactions, 3)
      for (const span of transactions) {
        assert.strictEqual(span.attributes.get("db.router.engine"), "primary")
        assert.strictEqual(span.attributes.get("db.system.name"), "postgresql")
        assert.strictEqual(span.attributes.get("db.namespace"), "postgres")
      }
      const [, ended] = yield* RouterTest.spansOf(
        sql.withTransaction(
          Effect.zipRight(sql.withTransaction(Effect.void), Effect.ignore(sql.withTransaction(Effect.fail("no"))))
        )
      )
      assert.deepStrictEqual(
        ended.map((span) => span.events),
        [["db.transaction.commit"], ["db.transaction.savepoint"], ["db.transaction.rollback"]]
      )
    })
  )

  it.effect("a fiber that outlives its transaction is told so, and changes nothing", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const go = yield* Deferred.make<void>()
      const daemon = yield* sql.withTransaction(
        Effect.zipRight(insert("inside"), Effect.forkDaemon(Effect.zipRight(Deferred.await(go), insert("late"))))
      )
      yield* Deferred.succeed(go, void 0)
      assert.deepStrictEqual(yield* reasonOf(Fiber.join(daemon)), Option.some("SessionClosed"))
      assert.deepStrictEqual(yield* lines, ["inside"])
    })
  )

  it.effect("a fiber that outlives its savepoint is told so, while the outer transaction goes on", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* setUp
      const go = yield* Deferred.make<void>()
      yield* sql.withTransaction(
        Effect.gen(function* () {
          const daemon = yield* sql.withTransaction(
            Effect.forkDaemon(Effect.zipRight(Deferred.await(go), insert("late")))
          )
          yield* Deferred.succeed(go, void 0)
          assert.deepStrictEqual(yield* reasonOf(Fiber.join(daemon)), Option.some("SessionClosed"))
          yield* insert("outer")
        })
      )
      assert.deepStrictEqual(yield* lines, ["outer"])
    })
  )
})
