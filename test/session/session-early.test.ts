import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const range = (n: number) => Array.from({ length: n }, (_, i) => i)

const inArchive = DbRouter.bindGroup("archive")

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })(
  "the early end of a session's work",
  (it) => {
    it.effect("commit: others see it at once, no connection is held, and the session goes on", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* Effect.ignore(
          DbRouter.session(
            Effect.gen(function* () {
              yield* insert(1)
              yield* DbRouter.commit
              assert.deepStrictEqual(yield* stored, [1])
              yield* Sessions.assertQuiet
              yield* insert(2)
              yield* DbRouter.commit
              yield* DbRouter.commit
              yield* insert(3)
              return yield* Effect.fail("no")
            })
          )
        )
        assert.deepStrictEqual(yield* stored, [1, 2])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("rollback, and close: nothing is left, no connection is held, and the session goes on", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            for (const end of [DbRouter.rollback, DbRouter.close]) {
              yield* insert(1)
              yield* end
              yield* Sessions.assertQuiet
              yield* end
            }
            assert.deepStrictEqual(yield* stored, [])
            yield* insert(2)
          })
        )
        assert.deepStrictEqual(yield* stored, [2])
      })
    )

    it.effect("of one group, by its name", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            yield* inArchive(insert(2))
            yield* DbRouter.commit("default")
            assert.deepStrictEqual(yield* stored, [1])
            yield* insert(3)
            yield* DbRouter.rollback("archive")
            yield* insert(4)
            yield* inArchive(insert(5))
            yield* DbRouter.close("default")
            yield* insert(6)
            yield* DbRouter.commit("archive")
            assert.deepStrictEqual(yield* stored, [1, 5])
          })
        )
        assert.deepStrictEqual(yield* stored, [1, 5, 6])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("of all groups, without a name", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            yield* inArchive(insert(2))
            yield* DbRouter.commit
            yield* Sessions.assertQuiet
            yield* insert(3)
            yield* inArchive(insert(4))
            yield* DbRouter.rollback
            yield* Sessions.assertQuiet
          })
        )
        assert.deepStrictEqual(yield* stored, [1, 2])
      })
    )

    it.effect("has no place outside a session, nor inside a transaction", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const ends = [DbRouter.commit, DbRouter.rollback, DbRouter.close, DbRouter.commit("default")]
        for (const end of ends) {
          assert.strictEqual(yield* Sessions.reasonOf(end), "SessionClosed")
          assert.strictEqual(yield* Sessions.reasonOf(sql.withTransaction(end)), "TransactionActive")
          const kept = Effect.zipRight(insert(1), sql.withTransaction(Effect.flip(end)))
          yield* DbRouter.session(Effect.zipRight(kept, DbRouter.rollback))
          assert.strictEqual(yield* Sessions.reasonOf(DbRouter.session(DbRouter.detached(end))), "SessionClosed")
        }
      })
    )

    it.effect("that fails rolls back, and the session can go on", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            yield* Effect.ignore(insert(1))
            assert.strictEqual(yield* Sessions.reasonOf(DbRouter.commit), "CommitRolledBack")
            yield* Sessions.assertQuiet
            yield* insert(2)
          })
        )
        assert.deepStrictEqual(yield* stored, [2])
      })
    )

    it.effect(
      "while other fibers work: no statement is lost or refused, and each sees what was written before it",
      () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const written = (id: number) =>
            Effect.gen(function* () {
              yield* insert(id)
              yield* Effect.sleep(`${id % 7} millis`)
              const rows = yield* DbRouter.primary(sql`SELECT FROM note WHERE id = ${id}`)
              assert.lengthOf(rows, 1, String(id))
            })
          const worker = (id: number) => {
            if (id % 3 === 0) return written(id)
            if (id % 3 === 1) return sql.withTransaction(written(id))
            return Effect.flatMap(insert(id), () =>
              Stream.runDrain(sql`SELECT id FROM note`.stream.pipe(Stream.take(1)))
            )
          }
          yield* DbRouter.session(
            Effect.all(
              [
                Effect.forEach(range(60), (id) => Effect.delay(worker(id), `${id} millis`), { concurrency: 12 }),
                Effect.repeatN(Effect.delay(DbRouter.commit, "7 millis"), 20),
                Effect.repeatN(Effect.delay(DbRouter.commit("default"), "11 millis"), 10)
              ],
              { concurrency: "unbounded" }
            )
          )
          assert.deepStrictEqual(yield* stored, range(60))
          yield* Sessions.assertQuiet
        })
    )

    it.effect("while other fibers begin: none of them is refused", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const write = (id: number) => (id % 2 === 0 ? insert(id) : sql.withTransaction(insert(id)))
        const later = <A, E, R>(effect: Effect.Effect<A, E, R>, turns: number) =>
          Effect.zipRight(Effect.repeatN(Effect.yieldNow(), turns), effect)
        for (const round of range(20)) {
          const all = range(20).flatMap((i) => [later(write(round * 20 + i), i * round), later(DbRouter.commit, i * 7)])
          yield* DbRouter.session(Effect.all(all, { concurrency: "unbounded", discard: true }))
        }
        assert.deepStrictEqual(yield* stored, range(400))
        yield* Sessions.assertQuiet
      })
    )

    it.effect("waits for the savepoints of other fibers, while their siblings wait for it", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const go = yield* Sessions.gate
        const inside = yield* Sessions.gate
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            const nested = yield* Effect.fork(
              sql.withTransaction(Effect.all([insert(2), inside.open, go.wait, insert(3)]))
            )
            yield* inside.wait
            const commit = yield* Effect.fork(DbRouter.commit)
            const read = yield* Effect.fork(
              Effect.delay(DbRouter.primary(sql`SELECT id FROM note ORDER BY id`), "50 millis")
            )
            yield* Effect.sleep("100 millis")
            assert.deepStrictEqual(yield* stored, [])
            yield* go.open
            yield* Fiber.join(nested)
            yield* Fiber.join(commit)
            assert.deepStrictEqual(yield* stored, [1, 2, 3])
            assert.deepStrictEqual<unknown>(yield* Fiber.join(read), [{ id: 1 }, { id: 2 }, { id: 3 }])
          })
        )
        yield* Sessions.assertQuiet
      })
    )

    it.effect("that is interrupted while it waits rolls back", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const inside = yield* Sessions.gate
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            const nested = yield* Effect.fork(
              sql.withTransaction(Effect.all([insert(2), inside.open, Effect.sleep("300 millis")]))
            )
            yield* inside.wait
            const commit = yield* Effect.fork(DbRouter.commit)
            yield* Effect.sleep("20 millis")
            assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(commit)))
            assert.strictEqual(yield* Sessions.reasonOf(Fiber.join(nested)), "SessionClosed")
            yield* insert(3)
          })
        )
        assert.deepStrictEqual(yield* stored, [3])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("by several fibers at once is one", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* sql`INSERT INTO note SELECT generate_series(1, 10)`
            yield* Effect.all(
              Array.from({ length: 10 }, () => DbRouter.commit),
              { concurrency: "unbounded" }
            )
            assert.lengthOf(yield* stored, 10)
            yield* Sessions.assertQuiet
          })
        )
      })
    )

    it.effect("rollback cancels what other fibers run, and they go on in a new transaction", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            const running = yield* Effect.fork(sql`INSERT INTO note SELECT 2 FROM pg_sleep(60)`)
            yield* Sessions.awaitRunning("SELECT 2 FROM pg_sleep")
            const waiting = yield* Effect.fork(insert(3))
            yield* Effect.sleep("20 millis")
            yield* DbRouter.rollback
            assert.strictEqual(yield* Sessions.codeOf(Fiber.join(running)), "57014")
            yield* Fiber.join(waiting)
          })
        )
        assert.deepStrictEqual(yield* stored, [3])
        yield* Sessions.assertQuiet
      })
    )
  }
)
