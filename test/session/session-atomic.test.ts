import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Either, Exit, Fiber } from "effect"
import { DbRouter, Session } from "effect-db-router"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const atomic = <A, E, R>(effect: Effect.Effect<A, E, R>, current?: Session.Current) =>
  DbRouter.atomic(effect, { current })

/** Tells how what it is asked for in has ended. */
const note = (name: string, ends: Array<string>) =>
  Effect.zipRight(
    DbRouter.afterCommit(Effect.sync(() => void ends.push(`${name} committed`))),
    DbRouter.afterRollback(Effect.sync(() => void ends.push(`${name} rolled back`)))
  )

const modes: ReadonlyArray<Session.Current> = ["commit", "rollback", "append", "savepoint", "fail"]

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("atomic", (it) => {
  it.effect("without a transaction commits what it does, in every mode", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      for (const [i, mode] of modes.entries()) {
        yield* DbRouter.session(
          Effect.gen(function* () {
            yield* atomic(insert(i), mode)
            assert.include(yield* stored, i)
            yield* Sessions.assertQuiet
          })
        )
        yield* atomic(insert(100 + i), mode)
        assert.include(yield* stored, 100 + i)
        const failed = yield* Effect.exit(
          DbRouter.session(atomic(Effect.zipRight(insert(200), Effect.fail("no")), mode))
        )
        assert.deepStrictEqual(failed, Exit.fail("no"))
        assert.notInclude(yield* stored, 200)
        yield* Sessions.assertQuiet
      }
    })
  )

  const before = Effect.zipRight(insert(1), Effect.zipRight(Effect.yieldNow(), insert(2)))

  /** What is there after a session that has written, and then runs an atomic block; and what `atomic` did to its open work. */
  const around = (mode: Session.Current | undefined, block: Effect.Effect<unknown, unknown, DbRouter.Services>) =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const [exit, after] = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* before
          const exit = yield* Effect.exit(atomic(block, mode))
          const after = yield* stored
          return [exit, after] as const
        })
      )
      yield* Sessions.assertQuiet
      return { succeeded: Exit.isSuccess(exit), after, end: yield* stored }
    })

  const block = insert(3)
  const failing = Effect.zipRight(block, Effect.fail("no"))

  it.effect('"commit", the default, commits what is open first', () =>
    Effect.gen(function* () {
      for (const mode of ["commit", undefined] as const) {
        assert.deepStrictEqual(yield* around(mode, block), { succeeded: true, after: [1, 2, 3], end: [1, 2, 3] })
        assert.deepStrictEqual(yield* around(mode, failing), { succeeded: false, after: [1, 2], end: [1, 2] })
      }
    })
  )

  it.effect('"rollback" rolls it back first', () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* around("rollback", block), { succeeded: true, after: [3], end: [3] })
      assert.deepStrictEqual(yield* around("rollback", failing), { succeeded: false, after: [], end: [] })
    })
  )

  it.effect('"append" goes on in it, and ends both', () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* around("append", block), { succeeded: true, after: [1, 2, 3], end: [1, 2, 3] })
      assert.deepStrictEqual(yield* around("append", failing), { succeeded: false, after: [], end: [] })
    })
  )

  it.effect('"savepoint" leaves the commit to the session', () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* around("savepoint", block), { succeeded: true, after: [], end: [1, 2, 3] })
      assert.deepStrictEqual(yield* around("savepoint", failing), { succeeded: false, after: [], end: [1, 2] })
    })
  )

  it.effect('"fail" fails, and leaves it alone', () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* around("fail", block), { succeeded: false, after: [], end: [1, 2] })
      const reason = DbRouter.session(Effect.zipRight(insert(4), Sessions.reasonOf(atomic(block, "fail"))))
      assert.strictEqual(yield* reason, "TransactionActive")
    })
  )

  it.effect("is rolled back by a defect, an interruption, a COMMIT that is answered with ROLLBACK", () =>
    Effect.gen(function* () {
      const died = yield* around("commit", Effect.zipRight(block, Effect.die("no")))
      assert.deepStrictEqual(died, { succeeded: false, after: [1, 2], end: [1, 2] })
      const late = yield* around("commit", Effect.timeout(Effect.zipRight(block, Effect.never), "30 millis"))
      assert.deepStrictEqual(late, { succeeded: false, after: [1, 2], end: [1, 2] })
      const caught = yield* around("commit", Effect.zipRight(block, Effect.ignore(insert(1))))
      assert.deepStrictEqual(caught, { succeeded: false, after: [1, 2], end: [1, 2] })
    })
  )

  it.effect("inside withTransaction commits nothing: it appends, is a savepoint, or fails", () =>
    Effect.gen(function* () {
      const expected = { append: true, savepoint: true, commit: false, rollback: false, fail: false }
      for (const mode of modes) {
        for (const open of [<A, E, R>(effect: Effect.Effect<A, E, R>) => effect, DbRouter.session]) {
          const sql = yield* Sessions.setUp
          const [exit, after] = yield* open(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* insert(1)
                const exit = yield* Effect.either(atomic(insert(2), mode))
                return [exit, yield* stored] as const
              })
            )
          )
          assert.deepStrictEqual(after, [])
          assert.strictEqual(exit._tag, expected[mode] ? "Right" : "Left", mode)
          assert.deepStrictEqual(yield* stored, expected[mode] ? [1, 2] : [1])
          if (exit._tag === "Left") {
            assert.strictEqual(yield* Sessions.reasonOf(Effect.fail(exit.left)), "TransactionActive")
          }
        }
      }
    })
  )

  it.effect("has withTransaction inside it as a savepoint", () =>
    Effect.gen(function* () {
      for (const mode of modes) {
        const sql = yield* Sessions.setUp
        const work = Effect.gen(function* () {
          yield* sql.withTransaction(insert(1))
          yield* Effect.ignore(sql.withTransaction(Effect.zipRight(insert(2), Effect.fail("no"))))
          yield* insert(3)
          assert.deepStrictEqual(yield* stored, [])
        })
        yield* DbRouter.session(atomic(work, mode))
        assert.deepStrictEqual(yield* stored, [1, 3])
        yield* Sessions.setUp
        yield* atomic(work, mode)
        assert.deepStrictEqual(yield* stored, [1, 3])
      }
    })
  )

  /** What is there of a block, or of a transaction, that has another one inside it. */
  const units = {
    "atomic without a session": <A, E, R>(effect: Effect.Effect<A, E, R>) => atomic(effect),
    atomic: <A, E, R>(effect: Effect.Effect<A, E, R>) => DbRouter.session(atomic(effect)),
    "withTransaction in a session": <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      DbRouter.session(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))),
    withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))
  }

  for (const [name, outer] of Object.entries(units)) {
    it.effect(`inside ${name} ends nothing of what is around it`, () =>
      Effect.gen(function* () {
        for (const mode of [...modes, undefined]) {
          const isRefused = mode !== "append" && mode !== "savepoint"
          yield* Sessions.setUp
          const ends: Array<string> = []
          const inner = Effect.zipRight(note("inner", ends), Effect.zipRight(insert(2), insert(3)))
          const run = (fails: boolean) =>
            outer(
              Effect.gen(function* () {
                yield* note("outer", ends)
                yield* insert(1)
                const exit = yield* Effect.either(atomic(inner, mode))
                if (isRefused) assert.strictEqual(yield* Sessions.reasonOf(exit), "TransactionActive")
                else assert.isTrue(Either.isRight(exit))
                yield* insert(4)
                if (fails) yield* Effect.fail("no")
              })
            )
          assert.deepStrictEqual(yield* Effect.exit(run(true)), Exit.fail("no"))
          assert.deepStrictEqual(yield* stored, [], mode)
          assert.deepStrictEqual(ends, isRefused ? ["outer rolled back"] : ["outer rolled back", "inner rolled back"])
          ends.length = 0
          yield* run(false)
          assert.deepStrictEqual(yield* stored, isRefused ? [1, 4] : [1, 2, 3, 4], mode)
          assert.deepStrictEqual(ends, isRefused ? ["outer committed"] : ["outer committed", "inner committed"])
          yield* Sessions.assertQuiet
        }
      })
    )

    it.effect(`inside ${name} takes it along when it fails and is caught, unless it is a savepoint`, () =>
      Effect.gen(function* () {
        for (const mode of ["append", "savepoint"] as const) {
          yield* Sessions.setUp
          const ends: Array<string> = []
          const inner = Effect.zipRight(note("inner", ends), Effect.zipRight(insert(2), Effect.fail("no")))
          const exit = yield* Effect.either(
            outer(
              Effect.gen(function* () {
                yield* note("outer", ends)
                yield* insert(1)
                yield* Effect.ignore(atomic(inner, mode))
                yield* insert(4)
              })
            )
          )
          yield* Sessions.assertQuiet
          if (mode === "savepoint") {
            assert.isTrue(Either.isRight(exit))
            assert.deepStrictEqual(yield* stored, [1, 4])
            assert.deepStrictEqual(ends, ["inner rolled back", "outer committed"])
          } else {
            assert.strictEqual(yield* Sessions.reasonOf(exit), "CommitRolledBack")
            assert.deepStrictEqual(yield* stored, [])
            assert.deepStrictEqual(ends, ["outer rolled back", "inner rolled back"])
          }
        }
      })
    )
  }

  const waits = Effect.sleep("40 millis")

  /** Two rows with a while between them, which tells how it has ended. */
  const slow = (id: number, ends: Array<string>) =>
    Effect.gen(function* () {
      yield* DbRouter.afterCommit(Effect.sync(() => void ends.push(`${id} committed`)))
      yield* DbRouter.afterRollback(Effect.sync(() => void ends.push(`${id} rolled back`)))
      yield* insert(id)
      yield* waits
      yield* insert(id + 1)
    })

  it.effect("blocks beside each other in a session take turns, in every mode", () =>
    Effect.gen(function* () {
      for (const mode of modes) {
        yield* Sessions.setUp
        const ends: Array<string> = []
        const exits = yield* DbRouter.session(
          Effect.all(
            [
              Effect.exit(atomic(Effect.zipRight(slow(1, ends), Effect.fail("no")), mode)),
              Effect.exit(atomic(slow(11, ends), mode)),
              // One that is interrupted while it waits keeps none waiting.
              Effect.exit(Effect.timeoutFail(atomic(slow(21, ends), mode), { duration: 20, onTimeout: () => "late" })),
              Effect.exit(atomic(slow(31, ends), mode))
            ],
            { concurrency: "unbounded" }
          )
        )
        assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, true, false, true], mode)
        assert.deepStrictEqual(yield* stored, [11, 12, 31, 32], mode)
        assert.deepStrictEqual(ends, ["1 rolled back", "11 committed", "31 committed"], mode)
        yield* Sessions.assertQuiet
      }
    })
  )

  it.effect("those that a block has left behind take turns with the blocks after it, and so do early ends", () =>
    Effect.gen(function* () {
      for (const late of [DbRouter.commit, DbRouter.rollback, DbRouter.close, Effect.asVoid(atomic(insert(5)))]) {
        yield* Sessions.setUp
        const ends: Array<string> = []
        yield* DbRouter.session(
          Effect.gen(function* () {
            const left = yield* atomic(
              Effect.zipRight(insert(4), Effect.forkDaemon(Effect.delay(Effect.exit(late), "20 millis")))
            )
            yield* atomic(slow(1, ends))
            yield* Fiber.join(left)
          })
        )
        assert.deepStrictEqual(
          (yield* stored).filter((id) => id < 5),
          [1, 2, 4]
        )
        assert.deepStrictEqual(ends, ["1 committed"])
        yield* Sessions.assertQuiet
      }
    })
  )

  for (const [name, end] of [
    ["commit", DbRouter.commit],
    ["rollback", DbRouter.rollback],
    ["close", DbRouter.close]
  ] as const) {
    it.effect(`is whole or not there while another fiber of the session calls ${name}`, () =>
      Effect.gen(function* () {
        for (const mode of modes) {
          for (const succeeds of [true, false]) {
            yield* Sessions.setUp
            const ends: Array<string> = []
            const work = succeeds ? slow(1, ends) : Effect.zipRight(slow(1, ends), Effect.fail("no"))
            yield* DbRouter.session(
              Effect.all([Effect.exit(atomic(work, mode)), Effect.zipRight(Effect.sleep("20 millis"), end)], {
                concurrency: 2
              })
            )
            assert.deepStrictEqual(yield* stored, succeeds ? [1, 2] : [], mode)
            assert.deepStrictEqual(ends, [succeeds ? "1 committed" : "1 rolled back"], mode)
            yield* Sessions.assertQuiet
          }
        }
      })
    )
  }

  it.effect("is rolled back when it is interrupted while an effect of beforeCommit goes on", () =>
    Effect.gen(function* () {
      for (const mode of modes) {
        yield* Sessions.setUp
        const ends: Array<string> = []
        const begun = yield* Deferred.make<void>()
        const hook = Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never)
        const work = Effect.zipRight(slow(1, ends), DbRouter.beforeCommit(hook))
        const fiber = yield* Effect.forkDaemon(DbRouter.session(atomic(work, mode)))
        yield* Deferred.await(begun)
        yield* Effect.timeout(Effect.disconnect(Fiber.interrupt(fiber)), "10 seconds")
        assert.deepStrictEqual(yield* stored, [], mode)
        assert.deepStrictEqual(ends, ["1 rolled back"], mode)
        yield* Sessions.assertQuiet
      }
    })
  )

  it.effect("does not wait for itself: in a hook, or by the session's own handle", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* Effect.scoped(
        Effect.gen(function* () {
          const session = yield* Session.scoped()
          yield* atomic(
            Effect.gen(function* () {
              yield* insert(1)
              yield* session.commit
              yield* session.run(atomic(insert(2), "append"))
              yield* DbRouter.beforeCommit(atomic(insert(3), "append"))
              yield* insert(4)
              yield* DbRouter.commit
            })
          )
        })
      )
      yield* DbRouter.session(Effect.zipRight(DbRouter.beforeCommit(atomic(insert(5), "append")), DbRouter.commit))
    }).pipe(
      Effect.timeout("20 seconds"),
      Effect.zipRight(stored),
      Effect.map((rows) => assert.deepStrictEqual(rows, [1, 2, 3, 4, 5]))
    )
  )
})
