import { SqlClient } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import {
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Fiber,
  Layer,
  Option,
  Stream,
  TestClock,
  TestContext
} from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

const primary = Effect.map(PgCluster.PgCluster, (cluster) => cluster.primary)

/** A router whose one connection goes through a proxy. */
const routed = Effect.gen(function* () {
  const node = yield* primary
  const proxy = yield* proxies.make(node)
  const { host, port } = proxy
  const services = yield* Layer.build(
    DbRouter.layer({
      groups: { default: [{ ...engines.partsOf(node), host, port, maxConnections: 1 }] },
      health: false
    })
  )
  const { status } = Context.get(services, DbRouter.DbRouter)
  const sql = Context.get(services, SqlClient.SqlClient)
  const settled = engines.eventually(
    Effect.map(status, ([engine]) => ({ inFlight: engine!.inFlight, ...engine!.pool })),
    ({ idle, inFlight, total, waiting }) => total === idle && waiting === 0 && inFlight === 0
  )
  const pid = Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid)
  return { proxy, sql, settled, pid }
})

/** Holds the next message of the server that is meant, and says when it is there. */
const hold = (proxy: proxies.Proxy, isMeant: (type: string, text: string) => boolean) =>
  Effect.gen(function* () {
    const arrived = yield* Deferred.make<void>()
    const released = yield* Deferred.make<void>()
    proxy.onMessage = (type, body) => {
      if (!isMeant(type, body.toString())) return undefined
      proxy.onMessage = () => undefined
      return Effect.zipRight(Deferred.succeed(arrived, undefined), Deferred.await(released))
    }
    return { arrived: Deferred.await(arrived), release: Deferred.succeed(released, undefined) }
  })

/** The answer to a command: `COMMIT`, `SAVEPOINT`, ... */
const answerTo = (tag: string) => (type: string, text: string) => type === "C" && text.startsWith(tag)

const isOpen = Effect.flatMap(primary, (node) =>
  Effect.map(engines.activity(node), (all) => all.filter(({ state }) => state !== "idle"))
)

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("an interruption", (it) => {
  it.scoped("while a connection is being opened ends at once; the connection is there for the next one", () =>
    Effect.gen(function* () {
      const node = yield* primary
      const proxy = yield* proxies.make(node)
      const opened = yield* Deferred.make<void>()
      proxy.onConnect = Deferred.await(opened)
      const { host, port } = proxy
      const on = yield* engines.make({ ...engines.partsOf(node), host, port, maxConnections: 1 })
      const fiber = yield* Effect.fork(on.query(engines.statement("select 1")))
      yield* engines.eventually(Effect.sync(proxy.open), (open) => open === 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(on.waiting, 0)
      yield* Deferred.succeed(opened, undefined)
      assert.strictEqual(yield* engines.settled(on), 1)
      assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      assert.strictEqual(proxy.open(), 1)
    })
  )

  it.scoped("whose cancel is late does not hit the next statement of the connection", () =>
    Effect.gen(function* () {
      const { pid, proxy, sql } = yield* routed
      const before = yield* pid
      for (const late of [0, 60, 200]) {
        proxy.onConnect = Effect.sleep(late)
        const doomed = yield* Effect.fork(sql`SELECT pg_sleep(0.1)`)
        const next = yield* Effect.fork(sql`SELECT pg_sleep(0.3), 'next' AS who`)
        yield* Effect.sleep("30 millis")
        const interruption = yield* Effect.fork(Fiber.interrupt(doomed))
        assert.deepStrictEqual(yield* Fiber.join(next), [{ pg_sleep: "", who: "next" }])
        yield* Fiber.join(interruption)
      }
      assert.strictEqual(yield* pid, before)
      assert.isAtLeast(proxy.cancels(), 3)
    })
  )

  it.scoped("whose cancel is there before its statement has begun cancels again", () =>
    Effect.gen(function* () {
      const { pid, proxy, sql } = yield* routed
      const before = yield* pid
      // The server has the statement when two have come: a router that cancels once waits for ever.
      proxy.onRequest = Effect.repeat(Effect.sleep("5 millis"), { until: () => proxy.cancels() >= 2 })
      yield* Effect.timeoutOption(sql`SELECT pg_sleep(600)`, "1 millis")
      proxy.onRequest = Effect.void
      assert.deepStrictEqual(yield* isOpen, [])
      assert.strictEqual(yield* pid, before)
      assert.isAtLeast(proxy.cancels(), 2)
    })
  )

  it.scoped("between an error and the end of its statement waits for that, and sends no cancel", () =>
    Effect.gen(function* () {
      const { pid, proxy, settled, sql } = yield* routed
      const before = yield* pid
      const held = yield* hold(proxy, (type) => type === "Z")
      const failed = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        Effect.scoped(
          Effect.gen(function* () {
            const reserved = yield* sql.reserve
            yield* Effect.flip(reserved.executeRaw("SELECT 1/0", []))
            yield* Deferred.succeed(failed, undefined)
            yield* Effect.never
          })
        )
      )
      yield* Deferred.await(failed)
      const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
      const next = yield* Effect.fork(pid)
      yield* Effect.sleep("30 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(next)))
      yield* held.release
      yield* Fiber.join(interruption)
      assert.strictEqual(yield* Fiber.join(next), before)
      assert.strictEqual(proxy.cancels(), 0)
      assert.strictEqual((yield* settled).total, 1)
    })
  )

  describe("of a transaction leaves nothing open", () => {
    const stages = ["BEGIN", "INSERT", "SAVEPOINT", "RELEASE", "ROLLBACK"]
    for (const tag of stages) {
      it.scoped(`during ${tag}`, () =>
        Effect.gen(function* () {
          const { proxy, settled, sql } = yield* routed
          yield* sql`CREATE TABLE IF NOT EXISTS staged (id int)`
          const held = yield* hold(proxy, answerTo(tag))
          const work = sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`INSERT INTO staged VALUES (1)`
              yield* sql.withTransaction(sql`SELECT 1`)
              yield* Effect.ignore(sql.withTransaction(Effect.fail("inner")))
              yield* Effect.fail("outer")
            })
          )
          const fiber = yield* Effect.fork(work)
          yield* held.arrived
          const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
          yield* Effect.sleep("30 millis")
          yield* held.release
          yield* Fiber.join(interruption)
          yield* settled
          assert.deepStrictEqual(yield* isOpen, [])
          assert.deepStrictEqual(yield* sql`SELECT * FROM staged`, [])
        })
      )
    }

    it.scoped("while its statement runs, or a batch of its stream", () =>
      Effect.gen(function* () {
        const { pid, proxy, settled, sql } = yield* routed
        const before = yield* pid
        const slow = sql`SELECT pg_sleep(CASE WHEN g = 200 THEN 600 ELSE 0 END) FROM generate_series(1, 1000) g`
        for (const run of [slow, Stream.runDrain(slow.stream)]) {
          const fiber = yield* Effect.fork(sql.withTransaction(run))
          yield* engines.eventually(isOpen, ([one]) => one?.state === "active")
          yield* Effect.sleep("30 millis")
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* isOpen, [])
          assert.strictEqual((yield* settled).total, 1)
        }
        assert.strictEqual(yield* pid, before)
        assert.isAtLeast(proxy.cancels(), 2)
      })
    )
  })

  describe("during COMMIT", () => {
    const committing = Effect.gen(function* () {
      const made = yield* routed
      yield* made.sql`DROP TABLE IF EXISTS kept`
      yield* made.sql`CREATE TABLE kept (id int)`
      const held = yield* hold(made.proxy, answerTo("COMMIT"))
      const fiber = yield* Effect.fork(made.sql.withTransaction(made.sql`INSERT INTO kept VALUES (1)`))
      yield* held.arrived
      return { ...made, fiber, held }
    })

    it.scoped("waits for its answer and never cancels it", () =>
      Effect.gen(function* () {
        const { fiber, held, proxy, settled, sql } = yield* committing
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* Effect.sleep("50 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(interruption)))
        yield* held.release
        yield* Fiber.join(interruption)
        assert.strictEqual((yield* settled).total, 1)
        assert.deepStrictEqual(yield* sql`SELECT * FROM kept`, [{ id: 1 }])
        assert.strictEqual(proxy.cancels(), 0)
      })
    )

    it.scoped("holds back every other cancel of the connection, too", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const proxy = yield* proxies.make(node)
        const { host, port } = proxy
        const on = yield* engines.make({ ...engines.partsOf(node), host, port, maxConnections: 1 })
        const reserved = yield* on.reserve
        yield* reserved.query(engines.statement("begin"))
        const held = yield* hold(proxy, answerTo("COMMIT"))
        const commit = yield* Effect.fork(reserved.finish(engines.statement("commit"), Duration.seconds(5)))
        yield* held.arrived
        const cancel = yield* Effect.fork(reserved.cancel)
        yield* Effect.sleep("30 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(cancel)))
        yield* held.release
        yield* Fiber.join(cancel)
        assert.strictEqual(((yield* Fiber.join(commit)) as { command: string }).command, "COMMIT")
        assert.strictEqual(proxy.cancels(), 0)
      })
    )

    it.scoped("waits only so long; then the outcome is unknown, and the connection is replaced", () =>
      Effect.gen(function* () {
        const { proxy, settled, sql } = yield* Effect.provide(
          Effect.gen(function* () {
            const made = yield* committing
            const interruption = yield* Effect.fork(Fiber.interrupt(made.fiber))
            yield* TestClock.adjust("4 seconds")
            assert.isTrue(Option.isNone(yield* Fiber.poll(interruption)))
            yield* TestClock.adjust("1 seconds")
            const exit = yield* Fiber.join(interruption)
            const errors = exit._tag === "Failure" ? RouterError.reasonOf(exit.cause) : Option.none()
            assert.strictEqual(exit._tag, "Failure")
            assert.isTrue(Option.isNone(errors) || errors.value === "OutcomeUnknown")
            return made
          }),
          TestContext.TestContext
        )
        yield* settled
        assert.deepStrictEqual(yield* sql`SELECT * FROM kept`, [{ id: 1 }])
        assert.strictEqual(proxy.cancels(), 0)
      })
    )
  })

  for (const silent of [true, false]) {
    const name = silent ? "the server is silent" : "no cancel reaches it"
    it.scoped(`waits only so long when ${name}; the connection is replaced`, () =>
      Effect.gen(function* () {
        const made = yield* routed
        const before = yield* made.pid
        const { proxy, sql } = made
        const isBusy = Effect.map(isOpen, (all) => all.some(({ pid }) => pid === before))
        yield* Effect.provide(
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(sql`SELECT pg_sleep(20), ${name}::text`)
            yield* engines.eventually(isBusy, (busy) => busy).pipe(Effect.withClock(Clock.make()))
            if (silent) proxy.silent = true
            else proxy.onConnect = Effect.never
            const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
            yield* TestClock.adjust("4 seconds")
            assert.isTrue(Option.isNone(yield* Fiber.poll(interruption)))
            yield* TestClock.adjust("1 seconds")
            yield* Fiber.join(interruption)
          }),
          TestContext.TestContext
        )
        proxy.silent = false
        proxy.onConnect = Effect.void
        assert.notStrictEqual(yield* made.pid, before)
        assert.strictEqual((yield* made.settled).total, 1)
      })
    )
  }
})
