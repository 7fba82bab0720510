import { SqlClient, SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, LogLevel, Ref } from "effect"
import { DbRouter } from "effect-db-router"
import { partsOf } from "../support/engine.js"
import * as Proxy from "../support/proxy.js"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

/** Notes what happens, in its order. */
const journal = Effect.map(Ref.make<ReadonlyArray<unknown>>([]), (all) => {
  const note = (what: unknown) => Ref.update(all, (before) => [...before, what])
  const hooks = (name: string) =>
    Effect.all([
      DbRouter.beforeCommit(note(`${name}: before`)),
      DbRouter.afterCommit(note(`${name}: commit`)),
      DbRouter.afterRollback(note(`${name}: rollback`))
    ])
  return { note, hooks, seen: Ref.getAndSet(all, []) }
})

type Needs = DbRouter.Services | RouterTest.PgCluster.PgCluster

/** What opens a transaction, so that hooks wait for its end. */
const openers: Record<
  string,
  <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError.SqlError, R | Needs>
> = {
  session: DbRouter.session,
  newSession: DbRouter.newSession,
  withTransaction: (body) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(body))
}

layer(Sessions.layerWith(), { excludeTestServices: true, timeout: "2 minutes" })("hooks", (it) => {
  for (const [name, open] of Object.entries(openers)) {
    it.effect(`run around the COMMIT, in their order: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { hooks, note, seen } = yield* journal
        const look = Effect.flatMap(stored, note)
        const place = Effect.flatMap(Effect.all([DbRouter.isInSession, Sessions.poolOf("primary")]), ([inside, pool]) =>
          note({ inside, held: pool.total - pool.idle })
        )
        const result = yield* open(
          Effect.gen(function* () {
            yield* hooks("a")
            yield* DbRouter.beforeCommit(Effect.zipRight(insert(2), look))
            yield* DbRouter.beforeCommit(DbRouter.beforeCommit(insert(3)))
            yield* DbRouter.afterCommit(Effect.zipRight(look, place))
            yield* hooks("b")
            yield* insert(1)
            return "result"
          })
        )
        assert.strictEqual(result, "result")
        assert.deepStrictEqual(yield* seen, [
          "a: before",
          [],
          "b: before",
          "a: commit",
          [1, 2, 3],
          { inside: false, held: 0 },
          "b: commit"
        ])
        yield* Sessions.assertQuiet
      })
    )

    it.effect(`afterCommit never runs for a rollback, and afterRollback does: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { hooks, note, seen } = yield* journal
        const body = Effect.all([
          hooks("a"),
          insert(1),
          DbRouter.afterRollback(Effect.flatMap(DbRouter.isInSession, note))
        ])
        const bodies: ReadonlyArray<Effect.Effect<unknown, unknown, Needs>> = [
          Effect.zipRight(body, Effect.fail("no")),
          Effect.zipRight(body, Effect.die("no")),
          Effect.zipRight(body, Effect.interrupt),
          Effect.zipRight(body, Effect.timeout(Effect.never, "30 millis"))
        ]
        for (const one of bodies) {
          assert.isTrue(Exit.isFailure(yield* Effect.exit(open(one))))
          assert.deepStrictEqual(yield* seen, ["a: rollback", false])
        }
        const caught = open(Effect.zipRight(body, Effect.ignore(insert(1))))
        assert.strictEqual(yield* Sessions.reasonOf(caught), "CommitRolledBack")
        assert.deepStrictEqual(yield* seen, ["a: before", "a: rollback", false])
        assert.deepStrictEqual(yield* stored, [])
      })
    )

    it.effect(`the failure of afterCommit neither undoes the commit nor hides the result: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { hooks, seen } = yield* journal
        const logged: Array<unknown> = []
        const logger = Logger.make(({ message }) => logged.push(message))
        const result = yield* open(
          Effect.gen(function* () {
            yield* DbRouter.afterCommit(Effect.fail("mine"))
            yield* DbRouter.afterCommit(Effect.die("mine"))
            yield* DbRouter.afterCommit(Effect.interrupt)
            yield* DbRouter.afterCommit(insert(1))
            yield* hooks("last")
            yield* insert(1)
            return "result"
          })
        ).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)), Logger.withMinimumLogLevel(LogLevel.All))
        assert.strictEqual(result, "result")
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, ["last: before", "last: commit"])
        assert.lengthOf(
          logged.filter((message) => String(message).includes("afterCommit failed")),
          4
        )
      })
    )

    it.effect(`the failure of beforeCommit rolls back, and is the cause: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { hooks, seen } = yield* journal
        const error = yield* Effect.flip(
          open(Effect.all([insert(1), DbRouter.beforeCommit(Effect.fail("mine")), hooks("late")]))
        )
        assert.instanceOf(error, SqlError.SqlError)
        assert.strictEqual(error.cause, "mine")
        assert.deepStrictEqual(yield* seen, ["late: rollback"])
        const died = yield* Effect.exit(open(Effect.all([insert(1), DbRouter.beforeCommit(Effect.die("mine"))])))
        assert.isTrue(Exit.isFailure(died) && Cause.isDie(died.cause))
        assert.deepStrictEqual(yield* stored, [])
        yield* Sessions.assertQuiet
      })
    )

    it.effect(`keep the services that they were given, and lose those of the place where they run: ${name}`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { note, seen } = yield* journal
        class Name extends Context.Tag("test/Name")<Name, string>() {}
        const say = Effect.flatMap(Name, note)
        const ask = Effect.all([DbRouter.beforeCommit(say), DbRouter.afterCommit(say), DbRouter.afterRollback(say)])
        const body = Effect.provideService(ask, Name, "inner")
        yield* open(body).pipe(Effect.provideService(Name, "outer"))
        yield* Effect.ignore(open(Effect.zipRight(body, Effect.fail("no"))).pipe(Effect.provideService(Name, "outer")))
        assert.deepStrictEqual(yield* seen, ["inner", "inner", "inner"])
      })
    )
  }

  it.effect("outside a transaction what comes before and after runs at once, and afterRollback never", () =>
    Effect.gen(function* () {
      const { hooks, seen } = yield* journal
      yield* hooks("a")
      yield* DbRouter.detached(hooks("b"))
      yield* DbRouter.session(DbRouter.detached(hooks("c")))
      assert.deepStrictEqual(yield* seen, [
        "a: before",
        "a: commit",
        "b: before",
        "b: commit",
        "c: before",
        "c: commit"
      ])
    })
  )

  it.effect("of a savepoint wait for the session's end, and are dropped with the savepoint", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const { hooks, note, seen } = yield* journal
      const body = Effect.gen(function* () {
        yield* hooks("session")
        yield* sql.withTransaction(Effect.zipRight(hooks("kept"), sql.withTransaction(hooks("deep"))))
        const place = Effect.flatMap(DbRouter.isInSession, note)
        yield* Effect.ignore(
          sql.withTransaction(
            Effect.all([
              hooks("dropped"),
              sql.withTransaction(hooks("with it")),
              DbRouter.afterRollback(place),
              Effect.fail("no")
            ])
          )
        )
        yield* note("end")
      })
      const start = ["dropped: rollback", true, "with it: rollback", "end"]
      yield* DbRouter.session(body)
      const seenByCommit = yield* seen
      assert.deepStrictEqual(new Set(seenByCommit.slice(0, 4)), new Set(start))
      assert.deepStrictEqual(seenByCommit.slice(4), [
        "session: before",
        "kept: before",
        "deep: before",
        "session: commit",
        "kept: commit",
        "deep: commit"
      ])
      yield* Effect.ignore(DbRouter.session(Effect.zipRight(body, Effect.fail("no"))))
      assert.deepStrictEqual((yield* seen).slice(4), ["session: rollback", "kept: rollback", "deep: rollback"])
      yield* sql.withTransaction(body)
      assert.deepStrictEqual(
        (yield* seen).filter((what) => String(what).endsWith(": commit")),
        ["session: commit", "kept: commit", "deep: commit"]
      )
    })
  )

  it.scoped("of a savepoint are the session's, too, when it is interrupted while its RELEASE is under way", () =>
    Effect.gen(function* () {
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      yield* Sessions.setUp
      const proxy = yield* Proxy.make(primary)
      const isReleasing = yield* Deferred.make<void>()
      const mayGoOn = yield* Deferred.make<void>()
      proxy.onMessage = (type, body) =>
        type === "C" && body.toString().startsWith("RELEASE")
          ? Effect.zipRight(Deferred.succeed(isReleasing, undefined), Deferred.await(mayGoOn))
          : undefined
      const at = { ...partsOf(primary), host: proxy.host, port: proxy.port, name: "main" }
      const { hooks, seen } = yield* journal
      yield* DbRouter.session(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const fiber = yield* Effect.fork(sql.withTransaction(Effect.zipRight(insert(1), hooks("savepoint"))))
          yield* Deferred.await(isReleasing)
          yield* Fiber.interruptAsFork(fiber, yield* Effect.fiberId)
          yield* Deferred.succeed(mayGoOn, undefined)
          assert.isTrue(Exit.isInterrupted(yield* Fiber.await(fiber)))
        })
      ).pipe(Effect.provide(DbRouter.layer({ groups: { default: [at] } })))
      assert.deepStrictEqual(yield* stored, [1])
      assert.deepStrictEqual(yield* seen, ["savepoint: before", "savepoint: commit"])
    })
  )

  it.effect("run with an early end, outside the session, and once", () =>
    Effect.gen(function* () {
      const sql = yield* Sessions.setUp
      const { hooks, note, seen } = yield* journal
      const place = Effect.flatMap(Effect.zip(DbRouter.isInSession, stored), note)
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* hooks("a")
          yield* DbRouter.afterCommit(Effect.zipRight(place, sql`UPDATE note SET v = 'autocommitted'`))
          yield* insert(1)
          yield* DbRouter.commit
          assert.deepStrictEqual(yield* seen, ["a: before", "a: commit", [false, [1]]])
          assert.lengthOf(yield* Sessions.onPrimary("SELECT FROM note WHERE v = 'autocommitted'"), 1)
          yield* hooks("b")
          yield* insert(2)
          yield* DbRouter.rollback
          assert.deepStrictEqual(yield* seen, ["b: rollback"])
          yield* DbRouter.atomic(Effect.zipRight(hooks("c"), insert(3)))
          assert.deepStrictEqual(yield* seen, ["c: before", "c: commit"])
          yield* DbRouter.beforeCommit(Effect.fail("mine"))
          yield* insert(4)
          assert.strictEqual((yield* Effect.flip(DbRouter.commit)).cause, "mine")
          yield* Sessions.assertQuiet
        })
      )
      assert.deepStrictEqual(yield* seen, [])
      assert.deepStrictEqual(yield* stored, [1, 3])
    })
  )

  for (const [name, end] of Object.entries({ rollback: DbRouter.rollback, close: DbRouter.close })) {
    it.scoped(`of what begins while a sibling's ${name} is under way belong to what it begins`, () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { primary } = yield* RouterTest.PgCluster.PgCluster
        const proxy = yield* Proxy.make(primary)
        // The answer to a ROLLBACK takes its time.
        proxy.onMessage = (type, body) =>
          type === "C" && body.toString().includes("ROLLBACK") ? Effect.sleep("60 millis") : undefined
        const at = { ...partsOf(primary), host: proxy.host, port: proxy.port, name: "main" }
        const services = yield* Layer.build(DbRouter.layer({ groups: { default: [at] }, health: false }))
        const { hooks, seen } = yield* journal
        const own = Effect.gen(function* () {
          yield* hooks("first")
          yield* insert(1)
          const ending = yield* Effect.fork(Effect.delay(end, "1 millis"))
          yield* Effect.sleep("20 millis")
          yield* insert(2)
          yield* hooks("second")
          yield* Fiber.join(ending)
          assert.deepStrictEqual(yield* seen, ["first: rollback"])
        })
        const exit = yield* Effect.exit(Effect.provide(DbRouter.session(own), services))
        const rows = yield* stored
        assert.deepStrictEqual(
          (yield* seen).filter((what) => String(what).startsWith("second") && !String(what).endsWith("before")),
          rows.includes(2) ? ["second: commit"] : []
        )
        assert.notInclude(rows, 1)
        if (name === "rollback") assert.isTrue(Exit.isSuccess(exit), String(exit))
      })
    )
  }

  it.effect("wait for the last group when one is ended by its name", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const { hooks, seen } = yield* journal
      const inArchive = DbRouter.bindGroup("archive")
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* hooks("a")
          yield* insert(1)
          yield* inArchive(insert(2))
          yield* DbRouter.commit("archive")
          assert.deepStrictEqual(yield* seen, [])
          yield* inArchive(insert(3))
          yield* DbRouter.rollback("archive")
          assert.deepStrictEqual(yield* seen, [])
          yield* DbRouter.commit("default")
          assert.deepStrictEqual(yield* seen, ["a: before", "a: commit"])
        })
      )
      assert.deepStrictEqual(yield* seen, [])
    })
  )

  it.effect("of a new session run in the session around it", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const { note, seen } = yield* journal
      const place = Effect.flatMap(Sessions.pid, note)
      yield* DbRouter.session(
        Effect.gen(function* () {
          yield* insert(1)
          const pid = yield* Sessions.pid
          yield* DbRouter.newSession(Effect.zipRight(DbRouter.afterCommit(place), insert(2)))
          yield* DbRouter.newSession(Effect.all([DbRouter.afterCommit(place), insert(3), DbRouter.commit]))
          assert.deepStrictEqual(yield* seen, [pid, pid])
        })
      )
    })
  )

  it.effect("that come after the end run at once, or never", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const { note, seen } = yield* journal
      const late = (name: string) =>
        Effect.gen(function* () {
          yield* DbRouter.afterCommit(note(`${name}: commit`))
          yield* DbRouter.afterRollback(note(`${name}: rollback`))
          return yield* Sessions.reasonOf(DbRouter.beforeCommit(note(`${name}: before`)))
        })
      const ended = yield* Sessions.gate
      const daemon = (name: string) => Effect.forkDaemon(Effect.zipRight(ended.wait, late(name)))
      const committed = yield* DbRouter.session(Effect.zipRight(insert(1), daemon("a")))
      const rolledBack = yield* Effect.flip(
        DbRouter.session(Effect.flatMap(daemon("b"), (fiber) => Effect.fail({ fiber })))
      )
      yield* ended.open
      assert.strictEqual(yield* Fiber.join(committed), "SessionClosed")
      if (!("fiber" in rolledBack)) return assert.fail(rolledBack.message)
      assert.strictEqual(yield* Fiber.join(rolledBack.fiber), "SessionClosed")
      assert.deepStrictEqual(new Set(yield* seen), new Set(["a: commit", "b: rollback"]))
    })
  )

  it.effect("are not interrupted from outside, and can be bounded from inside", () =>
    Effect.gen(function* () {
      yield* Sessions.setUp
      const { note, seen } = yield* journal
      const running = yield* Sessions.gate
      const fiber = yield* Effect.fork(
        DbRouter.session(
          Effect.gen(function* () {
            yield* DbRouter.afterCommit(Effect.zipRight(running.open, Effect.delay(note("slow"), "100 millis")))
            yield* DbRouter.afterCommit(Effect.timeoutOption(Effect.never, "20 millis"))
            yield* DbRouter.afterCommit(note("last"))
            yield* insert(1)
          })
        )
      )
      yield* running.wait
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* seen, ["slow", "last"])
      assert.deepStrictEqual(yield* stored, [1])
    })
  )
})
