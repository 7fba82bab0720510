import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const savepoint = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

const failing = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.ignore(Effect.zipRight(effect, Effect.fail("no")))

const range = (n: number) => Array.from({ length: n }, (_, i) => i)

/** How often a server has been told to commit. */
const commits = Effect.map(RouterTest.ranOn("COMMIT"), (names) => names.length)

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("savepoints of a session", (it) => {
  it.effect("withTransaction inside a session is one, on its connection, and leaves the commit to it", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const before = yield* commits
      const [outer, inner] = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          const inner = yield* savepoint(Effect.zipRight(insert(2), Sessions.pid))
          yield* failing(savepoint(failing(savepoint(insert(3)))))
          yield* Effect.ignore(savepoint(Effect.zipRight(insert(4), Effect.fail("no"))))
          assert.deepStrictEqual(yield* stored, [])
          return [yield* Sessions.pid, inner]
        })
      )
      assert.strictEqual(inner, outer)
      assert.deepStrictEqual(yield* stored, [1, 2, 3])
      assert.strictEqual(yield* commits, before + 1)
      yield* Sessions.assertQuiet
    })
  )

  it.effect("as the first thing that a session does, begins its transaction", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* DbRouter.session(Effect.zipRight(savepoint(insert(1)), insert(2)))
      yield* Effect.ignore(DbRouter.session(Effect.zipRight(savepoint(insert(3)), Effect.fail("no"))))
      assert.deepStrictEqual(yield* stored, [1, 2])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("a failed statement inside one harms nothing outside of it", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          assert.strictEqual(yield* Sessions.codeOf(savepoint(insert(1))), "23505")
          const caught = savepoint(Effect.zipRight(insert(2), Effect.ignore(insert(1))))
          assert.strictEqual(yield* Sessions.reasonOf(caught), "CommitRolledBack")
          yield* insert(3)
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 3])
    })
  )

  it.effect("siblings take turns, and none loses work when another rolls back", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* DbRouter.session(
        Effect.forEach(
          range(40),
          (i) => {
            const work = insert(i).pipe(Effect.zipRight(Effect.yieldNow()), Effect.zipRight(insert(100 + i)))
            if (i % 4 === 0) return work
            if (i % 4 === 1) return savepoint(work)
            if (i % 4 === 2) return failing(savepoint(Effect.zipRight(work, Effect.fail("no"))))
            return savepoint(Effect.zipRight(savepoint(work), failing(savepoint(insert(200 + i)))))
          },
          { concurrency: "unbounded" }
        )
      )
      const kept = range(40).filter((i) => i % 4 !== 2)
      const nested = range(40).filter((i) => i % 4 === 3)
      assert.deepStrictEqual(yield* stored, [...kept, ...kept.map((i) => 100 + i), ...nested.map((i) => 200 + i)])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("nested ones go into each other while their siblings wait, without a deadlock", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const deep = (id: number, depth: number): Effect.Effect<unknown, unknown, DbRouter.Services> =>
        depth === 0 ? insert(id) : savepoint(Effect.zipRight(insert(id * 10 + depth), deep(id, depth - 1)))
      yield* DbRouter.session(
        Effect.all(
          [
            Effect.all([deep(1, 5), deep(2, 5)], { concurrency: "unbounded" }),
            savepoint(Effect.all([deep(3, 5), insert(400), deep(5, 5)], { concurrency: "unbounded" })),
            insert(600)
          ],
          { concurrency: "unbounded" }
        )
      )
      assert.lengthOf(yield* stored, 4 * 6 + 2)
      yield* Sessions.assertQuiet
    })
  )

  it.effect("one that is interrupted takes only its own work along, whenever that happens", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          for (const delay of range(30)) {
            yield* savepoint(Effect.zipRight(insert(2), sql`SELECT pg_sleep(60)`)).pipe(
              Effect.timeout(`${delay * 200} micros`),
              Effect.ignore
            )
          }
          const ready = savepoint(Effect.sleep("5 millis")).pipe(Effect.as("ready"))
          yield* Effect.raceAll([ready, savepoint(Effect.zipRight(insert(3), Effect.never))]).pipe(
            Effect.timeout("5 seconds")
          )
          yield* insert(4)
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 4])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("rows are streamed around and inside them", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const seen = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* sql`INSERT INTO note SELECT generate_series(1, 300)`
          return yield* sql<{ id: number }>`SELECT id FROM note WHERE id <= 300 ORDER BY id`.stream.pipe(
            Stream.mapEffect(({ id }) =>
              id % 100 === 0
                ? Effect.as(failing(savepoint(Effect.zipRight(insert(1000 + id), Effect.fail(id)))), id)
                : Effect.succeed(id)
            ),
            Stream.runCount
          )
        })
      )
      assert.strictEqual(seen, 300)
      assert.lengthOf(yield* stored, 300)
      yield* Sessions.assertQuiet
    })
  )
})
