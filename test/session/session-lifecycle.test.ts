import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const cluster = RouterTest.PgCluster.PgCluster

/** How often a server has been told to begin a transaction. */
const begins = Effect.map(RouterTest.ranOn("BEGIN"), (names) => names.length)

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("a session", (it) => {
  it.effect("without a statement opens nothing", () =>
    Effect.gen(function* () {
      const { status } = yield* DbRouter.DbRouter
      const before = [yield* status, yield* begins]
      const inside = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* DbRouter.beforeCommit(Effect.void)
          yield* DbRouter.commit
          yield* DbRouter.session(Effect.void)
          return [yield* status, yield* begins]
        })
      )
      yield* Effect.ignore(DbRouter.session(Effect.fail("no")))
      assert.deepStrictEqual(inside, before)
      assert.deepStrictEqual([yield* status, yield* begins], before)
    }).pipe(Effect.provide(Sessions.router()))
  )

  it.effect("that only reads holds no connection between its reads, and begins no transaction", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const { nodes } = yield* cluster
      const before = yield* begins
      const engines = yield* DbRouter.session(
        RouterTest.enginesOf(
          Effect.repeatN(
            Effect.gen(function* () {
              yield* sql`SELECT id FROM note`
              yield* Sessions.assertQuiet
              for (const node of nodes) assert.notInclude(yield* Sessions.statesOn(node), "idle in transaction")
            }),
            3
          )
        )
      )
      assert.deepStrictEqual(engines.toSorted(), ["replica1", "replica1", "replica2", "replica2"])
      assert.strictEqual(yield* begins, before)
    }).pipe(Effect.provide(Sessions.router()))
  )

  it.effect("the first statement for the primary begins a transaction there, which all that follow use", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const { primary } = yield* cluster
      const before = yield* begins
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* sql`SELECT id FROM note`
          assert.notInclude(yield* Sessions.statesOn(primary), "idle in transaction")
          yield* insert(1)
          assert.include(yield* Sessions.statesOn(primary), "idle in transaction")
          const { idle, total } = yield* Sessions.poolOf("primary")
          assert.strictEqual(idle, total - 1)
          const [, [read]] = yield* RouterTest.traced(sql`SELECT id FROM note`)
          assert.deepStrictEqual([read?.engine, read?.reason], ["primary", "the session has written"])
          yield* insert(2)
          assert.deepStrictEqual(yield* stored, [])
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 2])
      assert.strictEqual(yield* begins, before + 1)
      yield* Sessions.assertQuiet
    }).pipe(Effect.provide(Sessions.router()))
  )

  it.effect("statements of many fibers share one transaction, also when all of them are the first", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const before = yield* begins
      const pids = yield* DbRouter.session(
        Effect.forEach(
          Array.from({ length: 50 }, (_, i) => i),
          (i) => sql<{ pid: number }>`INSERT INTO note VALUES (${i}) RETURNING pg_backend_pid() AS pid`,
          { concurrency: "unbounded" }
        )
      )
      assert.lengthOf(new Set(pids.map(([row]) => row!.pid)), 1)
      assert.strictEqual(yield* begins, before + 1)
      assert.lengthOf(yield* stored, 50)
      yield* Sessions.assertQuiet
    })
  )

  it.effect("a nested session joins; a new one does not; detached statements are outside", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const seen = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          const own = yield* Sessions.pid
          yield* DbRouter.session(insert(2))
          const joined = yield* DbRouter.session(Sessions.pid)
          const apart = yield* DbRouter.newSession(
            Effect.gen(function* () {
              yield* insert(3)
              assert.isTrue(yield* DbRouter.isInSession)
              return yield* Sessions.pid
            })
          )
          const alone = yield* DbRouter.detached(
            Effect.gen(function* () {
              yield* insert(4)
              assert.isFalse(yield* DbRouter.isInSession)
              return yield* Sessions.pid
            })
          )
          assert.deepStrictEqual(yield* stored, [3, 4])
          return { own, joined, others: [apart, alone] }
        })
      )
      assert.strictEqual(seen.joined, seen.own)
      assert.notInclude(seen.others, seen.own)
      assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("what a new session and a detached statement have done stays when the session around fails", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* Effect.ignore(
        DbRouter.session(
          Effect.all([insert(1), DbRouter.newSession(insert(2)), DbRouter.detached(insert(3)), Effect.fail("no")])
        )
      )
      yield* Effect.ignore(
        DbRouter.session(
          Effect.all([insert(4), Effect.ignore(DbRouter.newSession(Effect.zipRight(insert(5), Effect.fail("no"))))])
        )
      )
      assert.deepStrictEqual(yield* stored, [2, 3, 4])
    })
  )

  it.effect("joining with options is an error: they would come too late", () =>
    Effect.gen(function* () {
      const joining = DbRouter.session(Effect.void, { readOnly: true })
      assert.strictEqual(yield* DbRouter.session(Sessions.reasonOf(joining)), "TransactionActive")
      yield* joining
    })
  )

  it.effect("isInSession", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      assert.isFalse(yield* DbRouter.isInSession)
      assert.isTrue(yield* DbRouter.session(DbRouter.isInSession))
      assert.isTrue(yield* DbRouter.session(sql.withTransaction(DbRouter.isInSession)))
      assert.isFalse(yield* DbRouter.session(DbRouter.detached(DbRouter.isInSession)))
      assert.isFalse(yield* sql.withTransaction(DbRouter.isInSession))
      assert.isFalse(yield* DbRouter.isInSession)
    })
  )

  it.effect("refuses a fiber that outlives it, and tells it of detached", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const ended = yield* Sessions.gate
      const run = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.forkDaemon(Effect.zipRight(ended.wait, Effect.either(Effect.asVoid(effect))))
      const [bare, read, nested, joined, early] = yield* DbRouter.session(
        Effect.zipRight(
          insert(1),
          Effect.all([
            run(insert(2)),
            run(sql`SELECT id FROM note`),
            run(sql.withTransaction(insert(3))),
            run(DbRouter.session(insert(4))),
            run(DbRouter.commit)
          ])
        )
      )
      const apart = yield* DbRouter.session(run(DbRouter.detached(insert(5))))
      yield* ended.open
      for (const fiber of [bare, read, nested, joined, early]) {
        const error = yield* Sessions.routerErrorOf(Effect.flatten(Fiber.join(fiber)))
        assert.strictEqual(error.reason, "SessionClosed")
        assert.include(error.message, "DbRouter.detached(effect)")
      }
      assert.isTrue((yield* Fiber.join(apart))._tag === "Right")
      assert.deepStrictEqual(yield* stored, [1, 5])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("refuses a fiber that still waits for a connection at its end", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const done = yield* Sessions.gate
      const holding = yield* Sessions.gate
      const holder = yield* Effect.fork(
        DbRouter.session(Effect.zipRight(Effect.zipRight(insert(1), holding.open), done.wait))
      )
      yield* holding.wait
      const daemon = yield* DbRouter.session(
        Effect.zipLeft(
          Effect.forkDaemon(insert(2)),
          Effect.repeat(Sessions.poolOf("primary"), { until: ({ waiting }) => waiting === 1 })
        )
      )
      yield* done.open
      yield* Fiber.join(holder)
      assert.strictEqual(yield* Sessions.reasonOf(Fiber.join(daemon)), "SessionClosed")
      assert.deepStrictEqual(yield* stored, [1])
      yield* Sessions.assertQuiet
    }).pipe(Effect.provide(Sessions.router({ engine: { maxConnections: 1 } })))
  )

  it.effect("waits at its end for what another fiber runs, or cancels it when it fails", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const slow = (id: number) => sql`INSERT INTO note SELECT ${id} FROM pg_sleep(0.3)`
      const running = (id: number) =>
        Effect.zipLeft(Effect.forkDaemon(slow(id)), Sessions.awaitRunning("FROM pg_sleep(0.3)"))
      yield* Fiber.join(yield* DbRouter.session(running(1)))
      assert.deepStrictEqual(yield* stored, [1])
      const cancelled = yield* Effect.flip(
        DbRouter.session(Effect.flatMap(running(2), (fiber) => Effect.fail({ fiber })))
      )
      if (!("fiber" in cancelled)) return assert.fail(cancelled.message)
      assert.strictEqual(yield* Sessions.codeOf(Fiber.join(cancelled.fiber)), "57014")
      assert.deepStrictEqual(yield* stored, [1])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("does not commit the savepoint that another fiber has open, and loses nothing else", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const inside = yield* Sessions.gate
      const ended = yield* Sessions.gate
      const daemon = yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          const daemon = yield* Effect.forkDaemon(
            sql.withTransaction(
              insert(2).pipe(
                Effect.zipRight(sql.withTransaction(insert(3))),
                Effect.zipRight(inside.open),
                Effect.zipRight(ended.wait)
              )
            )
          )
          yield* inside.wait
          return daemon
        })
      )
      assert.deepStrictEqual(yield* stored, [1])
      yield* ended.open
      assert.strictEqual(yield* Sessions.reasonOf(Fiber.join(daemon)), "SessionClosed")
      assert.deepStrictEqual(yield* stored, [1])
      yield* Sessions.assertQuiet
    })
  )

  it.effect(
    "keeps nothing waiting: an end cancels the open savepoint of another fiber, in which a statement runs",
    () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const daemon = yield* DbRouter.session(
          Effect.gen(function* () {
            yield* insert(1)
            const daemon = yield* Effect.forkDaemon(
              sql.withTransaction(Effect.zipRight(insert(2), sql`SELECT 'of a savepoint', pg_sleep(60)`))
            )
            yield* Sessions.awaitRunning("of a savepoint")
            return daemon
          })
        )
        const exit = yield* Fiber.await(daemon)
        assert.isTrue(Exit.isFailure(exit) && !Cause.isInterrupted(exit.cause))
        assert.deepStrictEqual(yield* stored, [1])
        yield* Sessions.assertQuiet
      })
  )
})
