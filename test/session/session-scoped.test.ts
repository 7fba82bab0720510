import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, FiberRef, Layer, ManagedRuntime, Scope } from "effect"
import { DbRouter, RouterError, RoutingContext, Session } from "effect-db-router"
import type * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

type Needs = DbRouter.Services | RouterTest.PgCluster.PgCluster

/** Runs an effect in the session of a scope, which closes with it. */
const inScope = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Session.Options) =>
  Effect.scoped(Effect.zipRight(Session.scoped(options), effect))

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("the session of a scope", (it) => {
  it.effect("commits when the scope closes with success", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      yield* inScope(
        Effect.gen(function* () {
          assert.isTrue(yield* DbRouter.isInSession)
          yield* insert(1)
          const pids = yield* Effect.all(
            [Sessions.pid, sql.withTransaction(Sessions.pid), DbRouter.session(Sessions.pid)],
            {
              concurrency: "unbounded"
            }
          )
          assert.lengthOf(new Set(pids), 1)
          assert.deepStrictEqual(yield* stored, [])
        })
      )
      assert.deepStrictEqual(yield* stored, [1])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("rolls back when it closes with a failure, a defect, an interruption", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const ends: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Effect.fail("no"),
        Effect.die("no"),
        Effect.interrupt,
        Effect.timeout(Effect.never, "20 millis")
      ]
      for (const end of ends) {
        assert.isTrue(Exit.isFailure(yield* Effect.exit(inScope(Effect.zipRight(insert(1), end)))))
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      }
      const there = yield* Sessions.gate
      const fiber = yield* Effect.fork(inScope(Effect.all([insert(1), there.open, Effect.never])))
      yield* there.wait
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* stored, [])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("leaves nothing in the context, nor in the FiberRefs", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const look = Effect.all([
        Effect.map(Effect.context<never>(), (context) => [...context.unsafeMap.keys()]),
        DbRouter.isInSession,
        Effect.map(FiberRef.get(RoutingContext.flow), (flow) => [flow.isStuck, flow.shared]),
        RoutingContext.shouldUsePrimary
      ])
      const before = yield* look
      yield* inScope(Effect.zipRight(insert(1), RoutingContext.setStickyPrimary))
      assert.deepStrictEqual(yield* look, before)
      yield* Effect.ignore(inScope(Effect.zipRight(insert(1), Effect.fail("no"))))
      assert.deepStrictEqual(yield* look, before)
      const child = yield* Effect.fork(inScope(insert(2)))
      yield* Fiber.join(child)
      assert.deepStrictEqual(yield* look, before)
      yield* insert(3)
      assert.deepStrictEqual(yield* stored, [1, 2, 3])
    })
  )

  it.effect("lasts as long as a scope that outlives the effect, also when another fiber closes it", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const scope = yield* Scope.make()
      const own = yield* Effect.fork(
        Effect.gen(function* () {
          yield* Scope.extend(Session.scoped(), scope)
          yield* insert(1)
          yield* Effect.yieldNow()
          return yield* insert(2)
        })
      )
      yield* Fiber.await(own)
      assert.deepStrictEqual(yield* stored, [])
      yield* inScope(
        Effect.gen(function* () {
          yield* insert(3)
          // Not this fiber's session: it stays in its own.
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(yield* stored, [1, 2])
          assert.isTrue(yield* DbRouter.isInSession)
          yield* insert(4)
          assert.deepStrictEqual(yield* stored, [1, 2])
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("refuses what comes after", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const ended = yield* Sessions.gate
      const daemon = yield* inScope(Effect.forkDaemon(Effect.zipRight(ended.wait, insert(1))))
      const session = yield* Effect.scoped(Session.scoped())
      yield* ended.open
      assert.strictEqual(yield* Sessions.reasonOf(Fiber.join(daemon)), "SessionClosed")
      for (const late of [Effect.asVoid(session.run(insert(2))), session.commit, session.rollback]) {
        assert.strictEqual(yield* Sessions.reasonOf(late), "SessionClosed")
      }
      assert.deepStrictEqual(yield* stored, [])
    })
  )

  it.effect("can be entered and ended early from anywhere", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      yield* Effect.scoped(
        Effect.gen(function* () {
          const session = yield* Session.scoped()
          yield* insert(1)
          const pid = yield* Sessions.pid
          const elsewhere = yield* DbRouter.detached(
            Effect.all([insert(2), session.run(insert(3)), session.run(Sessions.pid)])
          )
          assert.strictEqual(elsewhere[2], pid)
          assert.deepStrictEqual(yield* stored, [2])
          yield* DbRouter.beforeCommit(insert(4))
          yield* DbRouter.detached(session.commit)
          assert.deepStrictEqual(yield* stored, [1, 2, 3, 4])
          yield* insert(5)
          yield* DbRouter.detached(session.rollback)
          yield* insert(6)
          yield* DbRouter.commit
          assert.deepStrictEqual(yield* stored, [1, 2, 3, 4, 6])
        })
      )
      yield* Sessions.assertQuiet
    })
  )

  it.effect("is the session around it, if there is one, and leaves its end to it", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      yield* Effect.ignore(DbRouter.session(Effect.zipRight(inScope(insert(1)), Effect.fail("no"))))
      yield* Effect.ignore(sql.withTransaction(Effect.zipRight(inScope(insert(2)), Effect.fail("no"))))
      yield* Effect.ignore(inScope(Effect.zipRight(inScope(insert(3)), Effect.fail("no"))))
      assert.deepStrictEqual(yield* stored, [])
      yield* DbRouter.session(
        Effect.zipRight(Effect.ignore(inScope(Effect.zipRight(insert(4), Effect.fail("no")))), insert(5))
      )
      assert.deepStrictEqual(yield* stored, [4, 5])
      const nested = sql.withTransaction(Effect.scoped(Effect.flatMap(Session.scoped(), ({ commit }) => commit)))
      assert.strictEqual(yield* Sessions.reasonOf(nested), "TransactionActive")
      const joining = DbRouter.session(inScope(Effect.void, { readOnly: true }))
      assert.strictEqual(yield* Sessions.reasonOf(joining), "TransactionActive")
      yield* DbRouter.newSession(inScope(insert(6)))
      yield* inScope(
        Effect.zipRight(
          DbRouter.detached(inScope(insert(7))),
          Effect.map(stored, (ids) => assert.include(ids, 7))
        )
      )
      yield* Sessions.assertQuiet
    })
  )

  it.effect("takes options, and refuses wrong ones", () =>
    Effect.gen(function* () {
      const options = { isolation: "serializable", settings: { "app.user": "1" } } as const
      const read = Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`SELECT current_setting('transaction_isolation') AS level, current_setting('app.user') AS user`
      )
      assert.deepStrictEqual<unknown>(yield* inScope(read, options), [{ level: "serializable", user: "1" }])
      const error = yield* Effect.flip(inScope(Effect.void, { isolation: "chaos" as never }))
      assert.instanceOf((error as { cause: unknown }).cause, RouterError.RouterConfigError)
    })
  )

  it.effect("whose COMMIT fails dies with the error", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const defectOf = (effect: Effect.Effect<unknown, unknown, Needs>) =>
        Effect.map(Effect.sandbox(inScope(effect)).pipe(Effect.flip), (cause) => Cause.squash(cause))
      const caught = yield* defectOf(Effect.zipRight(insert(1), Effect.ignore(insert(1))))
      assert.strictEqual(
        RouterError.reasonOf(caught).pipe((reason) => "value" in reason && reason.value),
        "CommitRolledBack"
      )
      const before = yield* defectOf(Effect.zipRight(insert(1), DbRouter.beforeCommit(Effect.fail("mine"))))
      assert.strictEqual((before as { cause: unknown }).cause, "mine")
      assert.deepStrictEqual(yield* stored, [])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("hooks run around its COMMIT", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const seen: Array<unknown> = []
      const note = Effect.flatMap(Effect.zip(DbRouter.isInSession, stored), (what) =>
        Effect.sync(() => seen.push(what))
      )
      yield* inScope(
        Effect.all([DbRouter.beforeCommit(Effect.zipRight(insert(2), note)), DbRouter.afterCommit(note), insert(1)])
      )
      assert.deepStrictEqual(seen, [
        [true, []],
        [false, [1, 2]]
      ])
    })
  )

  it.effect("in a layer lasts as long as the layer", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      class Work extends Context.Tag("test/Work")<Work, Session.Session>() {}
      const WorkLive = Layer.scoped(Work, Session.scoped())
      const program = Effect.gen(function* () {
        const work = yield* Work
        yield* work.run(insert(1))
        yield* work.run(insert(2))
        assert.deepStrictEqual(yield* stored, [])
      })
      yield* program.pipe(Effect.provide(WorkLive))
      assert.deepStrictEqual(yield* stored, [1, 2])
      assert.isFalse(yield* DbRouter.isInSession)
      yield* Effect.ignore(
        Effect.provide(
          Effect.flatMap(Work, (work) => Effect.zipRight(work.run(insert(3)), Effect.fail("no"))),
          WorkLive
        )
      )
      assert.deepStrictEqual(yield* stored, [1, 2])
      const context = yield* Effect.context<Needs>()
      const runtime = ManagedRuntime.make(Layer.provideMerge(WorkLive, Layer.succeedContext(context)))
      yield* Effect.promise(() => runtime.runPromise(Effect.flatMap(Work, (work) => work.run(insert(4)))))
      assert.deepStrictEqual(yield* stored, [1, 2])
      yield* Effect.promise(() => runtime.dispose())
      assert.deepStrictEqual(yield* stored, [1, 2, 4])
      yield* Sessions.assertQuiet
    })
  )
})
