import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Scope } from "effect"
import { DbRouter, RouterError, Session } from "effect-db-router"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const modes: ReadonlyArray<Session.Current> = ["commit", "rollback", "append", "savepoint", "fail"]

/** An atomic block of two rows in a daemon, which stands still between them until it may go on, and tells how it has ended. */
const makeBlock = (id: number, mode: Session.Current, name: string, ends: Array<string>) =>
  Effect.gen(function* () {
    const isHalf = yield* Deferred.make<void>()
    const mayGoOn = yield* Deferred.make<void>()
    const half = Effect.gen(function* () {
      yield* DbRouter.afterCommit(Effect.sync(() => void ends.push(`${name} committed`)))
      yield* DbRouter.afterRollback(Effect.sync(() => void ends.push(`${name} rolled back`)))
      yield* insert(id)
      yield* Deferred.succeed(isHalf, undefined)
      yield* Deferred.await(mayGoOn)
      // Late hooks belong to what they were asked for in.
      yield* DbRouter.afterCommit(Effect.sync(() => void ends.push(`${name} late committed`)))
      yield* insert(id + 1)
    })
    return { run: DbRouter.atomic(half, { current: mode }), isHalf: Deferred.await(isHalf), mayGoOn }
  })

/** The reason of the error of an exit. */
const reason = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ? "success" : Option.getOrUndefined(RouterError.reasonOf(Cause.squash(exit.cause)))

/** Whether it was refused, or its statement was cancelled. */
const isRefused = (exit: Exit.Exit<unknown, unknown>) =>
  reason(exit) === "SessionClosed" ||
  (Exit.isFailure(exit) && (Cause.squash(exit.cause) as { cause?: { code?: string } }).cause?.code === "57014")

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })(
  "an atomic block of a daemon",
  (it) => {
    const ends = {
      "ends with success": (self: Effect.Effect<void, unknown, DbRouter.Services>) =>
        Effect.exit(DbRouter.session(self)),
      fails: (self: Effect.Effect<void, unknown, DbRouter.Services>) =>
        Effect.exit(DbRouter.session(Effect.zipRight(self, Effect.fail("no")))),
      "is interrupted": (self: Effect.Effect<void, unknown, DbRouter.Services>) =>
        Effect.exit(DbRouter.session(Effect.zipRight(self, Effect.interrupt))),
      "is a scope that closes": (self: Effect.Effect<void, unknown, DbRouter.Services>) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const session = yield* Scope.extend(Session.scoped(), scope)
          yield* session.run(self)
          return yield* Effect.exit(Scope.close(scope, Exit.void))
        })
    }

    for (const [name, unit] of Object.entries(ends)) {
      it.effect(`is rolled back when what is around it ${name}`, () =>
        Effect.gen(function* () {
          for (const mode of modes) {
            yield* Sessions.setUp
            const told: Array<string> = []
            const { isHalf, mayGoOn, run } = yield* makeBlock(1, mode, "block", told)
            let fiber: Fiber.Fiber<unknown, unknown> | undefined
            const exit = yield* unit(
              Effect.gen(function* () {
                fiber = yield* Effect.forkDaemon(run)
                yield* isHalf
              })
            )
            if (name.includes("success") || name.includes("scope")) assert.strictEqual(reason(exit), "success", mode)
            assert.deepStrictEqual(yield* stored, [], mode)
            assert.deepStrictEqual(told, ["block rolled back"], mode)
            yield* Sessions.assertQuiet
            yield* Deferred.succeed(mayGoOn, undefined)
            const ended = yield* Fiber.await(fiber!)
            assert.strictEqual(reason(ended), "SessionClosed", mode)
            assert.deepStrictEqual(yield* stored, [], mode)
            assert.deepStrictEqual(told, ["block rolled back"], mode)
            yield* Sessions.assertQuiet
          }
        })
      )
    }

    it.effect("does not take along what the session has committed before it, nor what that waits for", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const told: Array<string> = []
        const { isHalf, mayGoOn, run } = yield* makeBlock(1, "commit", "block", told)
        const own = Effect.sync(() => void told.push("session committed"))
        const fiber = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(10)
            yield* DbRouter.afterCommit(own)
            const fiber = yield* Effect.forkDaemon(run)
            yield* isHalf
            return fiber
          })
        )
        assert.deepStrictEqual(yield* stored, [10])
        assert.deepStrictEqual(told, ["session committed", "block rolled back"])
        yield* Deferred.succeed(mayGoOn, undefined)
        yield* Fiber.await(fiber)
        assert.deepStrictEqual(yield* stored, [10])
        assert.deepStrictEqual(told, ["session committed", "block rolled back"])
      })
    )

    for (const [name, beside] of [
      ["a statement", insert(20)],
      ["a hook", DbRouter.afterCommit(Effect.void)],
      ["a savepoint", Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(insert(20)))]
    ] as const) {
      it.effect(`fails the session that shares its transaction by ${name}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          const told: Array<string> = []
          const { isHalf, mayGoOn, run } = yield* makeBlock(1, "commit", "block", told)
          const error = yield* Effect.flip(
            DbRouter.session(
              Effect.gen(function* () {
                yield* Effect.forkDaemon(run)
                yield* isHalf
                yield* beside
              })
            )
          )
          assert.strictEqual(Option.getOrUndefined(RouterError.reasonOf(error)), "CommitRolledBack")
          assert.strictEqual(RouterError.outcomeOf(error), "not done")
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(told, ["block rolled back"])
          yield* Deferred.succeed(mayGoOn, undefined)
          yield* Sessions.assertQuiet
        })
      )
    }

    const arounds = {
      "a block": <A, E, R>(self: Effect.Effect<A, E, R>) => DbRouter.session(DbRouter.atomic(self)),
      withTransaction: <A, E, R>(self: Effect.Effect<A, E, R>) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(self)),
      "withTransaction in a session": <A, E, R>(self: Effect.Effect<A, E, R>) =>
        DbRouter.session(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(self)))
    }
    for (const [name, around] of Object.entries(arounds)) {
      it.effect(`fails ${name} that it is appended to`, () =>
        Effect.gen(function* () {
          for (const fails of [false, true]) {
            yield* Sessions.setUp
            const told: Array<string> = []
            const { isHalf, mayGoOn, run } = yield* makeBlock(1, "append", "block", told)
            let fiber: Fiber.Fiber<unknown, unknown> | undefined
            const exit = yield* Effect.exit(
              around(
                Effect.gen(function* () {
                  yield* insert(10)
                  fiber = yield* Effect.forkDaemon(run)
                  yield* isHalf
                  if (fails) yield* Effect.fail("no")
                })
              )
            )
            if (!fails) assert.strictEqual(reason(exit), "CommitRolledBack")
            assert.deepStrictEqual(yield* stored, [])
            yield* Deferred.succeed(mayGoOn, undefined)
            assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber!)))
            assert.deepStrictEqual(yield* stored, [])
            assert.deepStrictEqual(told, ["block rolled back"])
            yield* Sessions.assertQuiet
          }
        })
      )
    }

    it.effect('that appends takes along what it appends to, which "savepoint" does not', () =>
      Effect.gen(function* () {
        for (const mode of ["append", "savepoint"] as const) {
          yield* Sessions.setUp
          const told: Array<string> = []
          const { isHalf, mayGoOn, run } = yield* makeBlock(1, mode, "block", told)
          const exit = yield* Effect.exit(
            DbRouter.session(
              Effect.gen(function* () {
                yield* insert(10)
                yield* Effect.forkDaemon(run)
                yield* isHalf
              })
            )
          )
          assert.strictEqual(reason(exit), mode === "append" ? "CommitRolledBack" : "success")
          assert.deepStrictEqual(yield* stored, mode === "append" ? [] : [10])
          yield* Deferred.succeed(mayGoOn, undefined)
          yield* Sessions.assertQuiet
        }
      })
    )

    it.effect("is whole or not there, whenever the session ends", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        // The session ends at each of the steps of the block's fiber, its COMMIT and its hooks included.
        for (let steps = 0; steps < 60; steps += 2) {
          yield* Sessions.onPrimary("TRUNCATE note")
          const told: Array<string> = []
          const work = Effect.gen(function* () {
            yield* DbRouter.afterCommit(Effect.sync(() => void told.push("committed")))
            yield* DbRouter.afterRollback(Effect.sync(() => void told.push("rolled back")))
            yield* DbRouter.beforeCommit(insert(3))
            yield* insert(1)
            yield* sql`SELECT pg_sleep(0.002)`
            yield* insert(2)
          })
          const [exit, fiber] = yield* DbRouter.session(
            Effect.gen(function* () {
              const fiber = yield* Effect.forkDaemon(DbRouter.atomic(work))
              yield* Effect.repeatN(
                Effect.promise(() => new Promise(setImmediate)),
                steps
              )
              return fiber
            })
          ).pipe(Effect.map((fiber) => [Exit.void, fiber] as const))
          const ended = yield* Fiber.await(fiber)
          const rows = yield* stored
          assert.strictEqual(reason(exit), "success")
          assert.deepStrictEqual(rows, Exit.isSuccess(ended) ? [1, 2, 3] : [], `${steps} steps`)
          if (Exit.isFailure(ended)) assert.isTrue(isRefused(ended), `${steps} steps`)
          const hooks = Exit.isSuccess(ended) ? ["committed"] : told.length === 0 ? [] : ["rolled back"]
          assert.deepStrictEqual(told, hooks, `${steps} steps`)
        }
        yield* Sessions.assertQuiet
      })
    )

    it.effect("that fails while the session ends has its hooks told of its ROLLBACK", () =>
      Effect.gen(function* () {
        for (let steps = 0; steps < 16; steps++) {
          yield* Sessions.setUp
          const told: Array<string> = []
          const failing = yield* Deferred.make<void>()
          const work = Effect.gen(function* () {
            yield* DbRouter.afterCommit(Effect.sync(() => void told.push("committed")))
            yield* DbRouter.afterRollback(Effect.sync(() => void told.push("rolled back")))
            yield* insert(1)
            yield* Deferred.succeed(failing, undefined)
            return yield* Effect.fail("no")
          })
          const fiber = yield* DbRouter.session(
            Effect.gen(function* () {
              const fiber = yield* Effect.forkDaemon(DbRouter.atomic(work))
              yield* Deferred.await(failing)
              yield* Effect.repeatN(Effect.yieldNow(), steps)
              return fiber
            })
          )
          yield* Fiber.await(fiber)
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(told, ["rolled back"], `${steps} steps`)
        }
        yield* Sessions.assertQuiet
      })
    )

    it.effect("is not told that it is committed by a commit that waited for it", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const told: Array<string> = []
        const isHalf = yield* Deferred.make<void>()
        const work = Effect.gen(function* () {
          yield* insert(1)
          yield* DbRouter.afterCommit(Effect.sync(() => void told.push("committed")))
          yield* DbRouter.afterRollback(Effect.sync(() => void told.push("rolled back")))
          yield* Deferred.succeed(isHalf, undefined)
          // The ROLLBACK ends it, so that the commit has its turn while that is under way.
          yield* sql`SELECT pg_sleep(10)`
        })
        const exit = yield* Effect.exit(
          DbRouter.session(
            Effect.gen(function* () {
              yield* Effect.forkDaemon(DbRouter.atomic(work))
              yield* Deferred.await(isHalf)
              yield* Effect.forkDaemon(DbRouter.commit)
              yield* Effect.sleep("20 millis")
            })
          )
        )
        assert.strictEqual(reason(exit), "success")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(told, ["rolled back"])
        yield* Sessions.assertQuiet
      })
    )
  }
)
