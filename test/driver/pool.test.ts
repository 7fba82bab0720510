import * as Net from "node:net"
import { SqlError } from "@effect/sql"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Redacted, Scope } from "effect"
import { RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as proxies from "../support/proxy.js"

const primary = Effect.map(PgCluster.PgCluster, (cluster) => cluster.primary)

const engine = (options?: engines.Options) => Effect.flatMap(primary, (node) => engines.on(node, options))

const throughProxy = (maxConnections: number) =>
  Effect.gen(function* () {
    const node = yield* primary
    const proxy = yield* proxies.make(node)
    const on = yield* engines.make({ ...engines.partsOf(node), ...address(proxy), maxConnections })
    return { on, proxy }
  })

const terminate = (pids: string) =>
  Effect.flatMap(primary, (node) => node.query(`select pg_terminate_backend(pid) from pg_stat_activity where ${pids}`))

const ours = "application_name = 'effect-db-router'"

/** A server that takes connections and never says a word. */
const mute = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly server: Net.Server; readonly sockets: Set<Net.Socket> }>((resume) => {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer((socket) => {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      socket.resume()
    })
    server.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed({ port: (server.address() as Net.AddressInfo).port, server, sockets }))
    )
  }),
  ({ server, sockets }) =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
)

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })("a pool of connections", (it) => {
  describe("gives back what it gives out", () => {
    const ways = {
      "a statement that succeeds": (on) => on.query(engines.statement("select 1")),
      "a statement that fails": (on) => on.query(engines.statement("select 1/0")),
      "a statement that is not SQL": (on) => on.query(engines.statement("this is not SQL")),
      "a statement that is interrupted": (on) =>
        Effect.timeout(on.query(engines.statement("select pg_sleep(10)")), "20 millis"),
      "a parameter that cannot be sent": (on) => on.query(engines.statement("select $1::json", [{ a: 1n }])),
      "a stream that ends": (on) => engines.collect(on, "select generate_series(1, 1000)"),
      "a stream that fails": (on) => engines.collect(on, "select 1 / (500 - g) from generate_series(1, 1000) g"),
      "a reserved connection": (on) =>
        Effect.scoped(Effect.flatMap(on.reserve, (reserved) => reserved.query(engines.statement("select 1")))),
      "a reserved connection whose user dies": (on) =>
        Effect.scoped(Effect.zipRight(on.reserve, Effect.die("a defect"))),
      "a reserved connection whose statement still runs": (on) =>
        Effect.scoped(
          Effect.gen(function* () {
            const reserved = yield* on.reserve
            yield* Effect.forkDaemon(Effect.exit(reserved.query(engines.statement("select pg_sleep(10)"))))
            yield* Effect.sleep("20 millis")
          })
        ),
      "a reserved connection that is interrupted while it is awaited": (on) =>
        Effect.timeout(Effect.scoped(Effect.zipRight(on.reserve, on.reserve)), "20 millis")
    } satisfies Record<
      string,
      (on: Effect.Effect.Success<ReturnType<typeof engine>>) => Effect.Effect<unknown, unknown>
    >

    for (const [name, way] of Object.entries(ways)) {
      it.scoped(name, () =>
        Effect.gen(function* () {
          const on = yield* engine({ maxConnections: 1 })
          for (let i = 0; i < 5; i++) yield* Effect.exit(way(on))
          assert.isAtMost(yield* engines.settled(on), 1)
          assert.strictEqual(yield* engines.value(on, "select 'still there'"), "still there")
        })
      )
    }
  })

  describe("a waiting request", () => {
    it.scoped("is served in the order of coming", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const order: Array<number> = []
        const statement = (i: number) => Effect.tap(on.query(engines.statement("select 1")), () => void order.push(i))
        const numbers = Array.from({ length: 50 }, (_, i) => i)
        yield* Effect.forEach(numbers, statement, { concurrency: "unbounded" })
        assert.deepStrictEqual(order, numbers)
      })
    )

    it.scoped("leaves the queue when it is interrupted, and its statement never runs", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        yield* on.query(engines.statement("create table never (id int)"))
        const holder = yield* Scope.make()
        yield* Scope.extend(on.reserve, holder)
        const insert = on.query(engines.statement("insert into never values (1)"))
        const fibers = yield* Effect.all(Array.from({ length: 100 }, () => Effect.fork(insert)))
        const first = yield* Effect.fork(on.query(engines.statement("select 'patient'")))
        yield* Effect.yieldNow()
        assert.strictEqual(on.waiting, 101)
        yield* Fiber.interruptAll(fibers)
        assert.strictEqual(on.waiting, 1)
        yield* Scope.close(holder, Exit.void)
        yield* Fiber.join(first)
        assert.deepStrictEqual(yield* engines.rows(on, "select * from never"), [])
      })
    )

    it.scoped("gets a connection that comes back before its own is open", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy(2)
        const released = yield* Deferred.make<void>()
        yield* on.query(engines.statement("select 1"))
        proxy.onConnect = Deferred.await(released)
        const first = yield* Effect.fork(on.query(engines.statement("select pg_sleep(0.05)")))
        yield* Effect.yieldNow()
        assert.strictEqual(yield* engines.value(on, "select 'served'"), "served")
        yield* Deferred.succeed(released, undefined)
        yield* Fiber.join(first)
        assert.strictEqual(yield* engines.settled(on), 2)
      })
    )

    it.scoped("fails, every one, when the server refuses", () =>
      Effect.gen(function* () {
        const { port, server } = yield* mute
        yield* Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
        const on = yield* engines.make({ host: "127.0.0.1", port, maxConnections: 3 })
        const tries = Effect.all(
          Array.from({ length: 20 }, () => engines.failure(on.query(engines.statement("select 1")))),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(new Set(yield* tries), new Set(["ECONNREFUSED"]))
        assert.strictEqual(yield* engines.settled(on), 0)
      })
    )
  })

  describe("the time limits of a pool", () => {
    it.scoped("connectTimeout bounds the connecting, and the socket is closed", () =>
      Effect.gen(function* () {
        const { port, sockets } = yield* mute
        const on = yield* engines.make({ host: "127.0.0.1", port, connectTimeout: "100 millis" })
        const error = yield* Effect.flip(on.query(engines.statement("select 1")))
        assert.instanceOf(error, SqlError.SqlError)
        yield* engines.settled(on)
        yield* engines.eventually(
          Effect.sync(() => sockets.size),
          (open) => open === 0
        )
      })
    )

    it.scoped("connectTimeout bounds the wait for a busy pool too, as it does for PgClient", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1, connectTimeout: "100 millis" })
        // Connecting may take longer on a busy machine.
        const reserved = yield* Effect.retry(on.reserve, { times: 100 })
        const error = yield* Effect.flip(on.query(engines.statement("select 1")))
        assert.include(String(error.cause), "connectTimeout")
        assert.strictEqual(on.waiting, 0)
        yield* reserved.query(engines.statement("select 1"))
      })
    )

    it.scoped("without one both have five seconds", () =>
      Effect.gen(function* () {
        const { Engine } = yield* Effect.promise(() => import("effect-db-router"))
        const on = yield* engine({ maxConnections: 1 })
        assert.strictEqual(Engine.poolConfig(on.client).connectionTimeoutMillis, 5_000)
        const holder = yield* Effect.fork(on.query(engines.statement("select pg_sleep(0.3)")))
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
        yield* Fiber.join(holder)
        yield* on.reserve
        const waiting = yield* Effect.fork(Effect.flip(on.query(engines.statement("select 1"))))
        yield* Effect.sleep("4 seconds")
        assert.isNull(waiting.unsafePoll())
        assert.include(String((yield* Fiber.join(waiting)).cause), "were in use for 5000 ms")
      })
    )

    it.scoped("a wait that is interrupted before its limit leaves nothing behind", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1, connectTimeout: "1 second" })
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            yield* on.reserve
            const waiting = yield* Effect.fork(on.query(engines.statement("select 1")))
            yield* Effect.sleep("10 millis")
            yield* Fiber.interrupt(waiting)
            yield* Effect.sleep("1200 millis")
          })
        )
        assert.deepStrictEqual(seen, [])
      })
    )

    it.scoped("idleTimeout closes idle connections, down to minConnections", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 5, minConnections: 2, idleTimeout: "100 millis" })
        const five = Array.from({ length: 5 }, () => on.query(engines.statement("select pg_sleep(0.05)")))
        yield* Effect.all(five, { concurrency: "unbounded" })
        assert.strictEqual(on.poolStatus.total, 5)
        yield* engines.eventually(
          Effect.sync(() => on.poolStatus.total),
          (total) => total === 2
        )
        yield* Effect.sleep("150 millis")
        assert.strictEqual(on.poolStatus.total, 2)
        yield* Effect.all(five, { concurrency: "unbounded" })
        yield* engines.eventually(
          Effect.sync(() => on.poolStatus.total),
          (total) => total === 2
        )
      })
    )

    it.scoped("idleTimeout goes on after connections broke under their users", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 2, idleTimeout: "50 millis" })
        const total = Effect.sync(() => on.poolStatus.total)
        for (let i = 0; i < 5; i++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const reserved = yield* on.reserve
              yield* reserved.destroy
              yield* engines.eventually(total, (total) => total === 0)
            })
          )
        }
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
        assert.strictEqual(yield* total, 1)
        yield* engines.eventually(total, (total) => total === 0)
      })
    )

    it.scoped("connectionTTL replaces connections, never under a statement", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1, connectionTTL: "100 millis" })
        const pid = engines.value(on, "select pg_backend_pid()")
        const first = yield* pid
        assert.deepStrictEqual(
          yield* engines.rows(on, "select pg_sleep(0.2), pg_backend_pid() = $1 as same", [first]),
          [{ pg_sleep: "", same: true }]
        )
        const second = yield* pid
        assert.notStrictEqual(second, first)
        yield* engines.eventually(
          Effect.sync(() => on.poolStatus.total),
          (total) => total === 0
        )
      })
    )
  })

  describe("a connection that breaks", () => {
    it.scoped("while it is idle is replaced without a word", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 3 })
        const three = Array.from({ length: 3 }, () => on.query(engines.statement("select pg_sleep(0.05)")))
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            yield* Effect.all(three, { concurrency: "unbounded" })
            yield* terminate(ours)
            yield* engines.eventually(
              Effect.sync(() => on.poolStatus.total),
              (total) => total === 0
            )
            yield* Effect.all(three, { concurrency: "unbounded" })
          })
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.settled(on), 3)
      })
    )

    it.scoped("under a statement says why, and the next statement works", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const running = yield* Effect.fork(engines.failure(on.query(engines.statement("select pg_sleep(10)"))))
        yield* Effect.sleep("50 millis")
        yield* terminate(`${ours} and state = 'active'`)
        assert.strictEqual(yield* Fiber.join(running), "57P01")
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("between two statements of its user says why to the second, and to all that follow", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const seen = yield* engines.troubles(
          Effect.scoped(
            Effect.gen(function* () {
              const reserved = yield* on.reserve
              yield* reserved.query(engines.statement("begin"))
              yield* terminate(ours)
              yield* Effect.sleep("50 millis")
              assert.isFalse(reserved.isUsable)
              for (let i = 0; i < 3; i++) {
                assert.strictEqual(yield* engines.failure(reserved.query(engines.statement("select 1"))), "57P01")
              }
            })
          )
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("right after a statement of a transaction failed still says why", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const reserved = yield* on.reserve
        const killing = "select pg_terminate_backend(pg_backend_pid())"
        assert.strictEqual(yield* engines.failure(reserved.query(engines.statement(killing))), "57P01")
        assert.strictEqual(yield* engines.failure(reserved.query(engines.statement("select 1"))), "57P01")
      })
    )

    it.scoped("without a reason from the server is an error too", () =>
      Effect.gen(function* () {
        const { on, proxy } = yield* throughProxy(1)
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            yield* on.query(engines.statement("select 1"))
            proxy.reset()
            yield* engines.settled(on)
            const running = yield* Effect.fork(Effect.flip(on.query(engines.statement("select pg_sleep(10)"))))
            yield* Effect.sleep("50 millis")
            proxy.reset()
            assert.instanceOf(yield* Fiber.join(running), SqlError.SqlError)
          })
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.value(on, "select 1"), 1)
      })
    )

    it.scoped("by a hand that closed it is never given out again", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        for (let i = 0; i < 20; i++) {
          yield* Effect.scoped(Effect.flatMap(on.reserve, (reserved) => reserved.destroy))
          assert.strictEqual(yield* engines.value(on, "select 1"), 1)
        }
      })
    )
  })

  describe("a transaction in plain text", () => {
    for (const text of ["begin", "begin; select 1", "start transaction read only", "begin; select 1/0"]) {
      it.scoped(`is never handed to the next user: ${text}`, () =>
        Effect.gen(function* () {
          const node = yield* primary
          const on = yield* engine({ maxConnections: 1 })
          yield* Effect.exit(on.query(engines.statement(text)))
          // An error here, and a transaction's clock, would give an open transaction away.
          const moment = "select now() = statement_timestamp() as fresh"
          yield* engines.value(on, "select pg_sleep(0.01)")
          assert.deepStrictEqual(yield* engines.rows(on, moment), [{ fresh: true }])
          const open = (yield* engines.activity(node)).filter(({ state }) => state.startsWith("idle in transaction"))
          assert.deepStrictEqual(open, [])
        })
      )
    }
  })

  describe("what would end the process", () => {
    it.scoped("parameters that cannot be sent fail, in a transaction too, and leave the connection alone", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const circle: { self?: unknown } = {}
        circle.self = circle
        const bad = [
          { a: 1n },
          circle,
          {
            toPostgres: () => {
              throw new Error("no")
            }
          }
        ]
        const seen = yield* engines.troubles(
          Effect.scoped(
            Effect.gen(function* () {
              const reserved = yield* on.reserve
              yield* reserved.query(engines.statement("begin"))
              for (const value of [...bad, ...bad]) {
                const sql = engines.statement("select $1::text", [value])
                assert.instanceOf(yield* Effect.flip(reserved.query(sql)), SqlError.SqlError)
              }
              assert.strictEqual(yield* engines.value(reserved, "select $1::text", ["good"]), "good")
              yield* reserved.query(engines.statement("commit"))
              const stream = reserved.stream("select $1::text", [bad[0]])
              assert.instanceOf(yield* Effect.flip(engines.collect({ stream: () => stream }, "")), SqlError.SqlError)
            })
          )
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(on.inFlight, 0)
      })
    )

    it.scoped("a type parser that throws fails its statement", () =>
      Effect.gen(function* () {
        const getTypeParser = (() => () => {
          throw new Error("cannot parse")
        }) as never
        const on = yield* engine({ maxConnections: 1, types: { getTypeParser } })
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            const failures = [
              yield* engines.failure(on.query(engines.statement("select 1"))),
              yield* engines.failure(engines.collect(on, "select 1")),
              yield* engines.failure(engines.collect(on, "select generate_series(1, 1000)"))
            ]
            assert.deepStrictEqual(failures, ["cannot parse", "cannot parse", "cannot parse"])
          })
        )
        assert.deepStrictEqual(seen, [])
        assert.strictEqual(yield* engines.settled(on), 1)
      })
    )

    it.scoped("a password that is refused, or missing, fails and closes the socket", () =>
      Effect.gen(function* () {
        const node = yield* primary
        const proxy = yield* proxies.make(node)
        const { database, username } = engines.partsOf(node)
        const given = { database, username, ...address(proxy) }
        const wrong = yield* engines.make({ ...given, password: Redacted.make("wrong") })
        const missing = yield* engines.make(given)
        const seen = yield* engines.troubles(
          Effect.gen(function* () {
            assert.strictEqual(yield* engines.failure(wrong.query(engines.statement("select 1"))), "28P01")
            const error = yield* Effect.flip(missing.query(engines.statement("select 1")))
            assert.include(String(error.cause), "password")
          })
        )
        // The driver reads ~/.pgpass for a missing password, and says that it should not.
        assert.deepStrictEqual(
          seen.filter((trouble) => !String(trouble).includes("pgpass")),
          []
        )
        yield* engines.eventually(Effect.sync(proxy.open), (open) => open === 0)
        assert.strictEqual(missing.poolStatus.total, 0)
      })
    )

    it.scoped("many statements on one connection pile up no listeners and raise no warning", () =>
      Effect.gen(function* () {
        const on = yield* engine({ maxConnections: 1 })
        const seen = yield* engines.troubles(
          Effect.scoped(
            Effect.gen(function* () {
              const reserved = yield* on.reserve
              for (let i = 0; i < 30; i++) {
                yield* Effect.exit(reserved.query(engines.statement("select 1/0")))
                yield* Effect.exit(Effect.timeout(reserved.query(engines.statement("select pg_sleep(10)")), "2 millis"))
                yield* engines.collect({ stream: reserved.stream.bind(reserved) }, "select 1")
              }
            })
          )
        )
        assert.deepStrictEqual(seen, [])
      })
    )
  })

  it.scoped("a reserved connection is refused after its scope has closed", () =>
    Effect.gen(function* () {
      const on = yield* engine({ maxConnections: 1 })
      const scope = yield* Scope.make()
      const reserved = yield* Scope.extend(on.reserve, scope)
      yield* Scope.close(scope, Exit.void)
      const error = yield* Effect.flip(reserved.query(engines.statement("select 1")))
      assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("SessionClosed"))
      assert.isFalse(reserved.isUsable)
      // A scope that is closed already gives the connection back at once.
      const late = yield* Scope.extend(on.reserve, scope)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(late.query(engines.statement("select 1")))))
      assert.strictEqual(yield* engines.settled(on), 1)
    })
  )

  it.scoped("a defect in the callback of a statement stays in its fiber", () =>
    Effect.gen(function* () {
      const on = yield* engine({ maxConnections: 1 })
      const exit = yield* Effect.exit(
        Effect.map(on.query(engines.statement("select 1")), () => {
          throw new Error("a defect")
        })
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
      assert.strictEqual(yield* engines.settled(on), 1)
    })
  )
})

const address = ({ host, port }: proxies.Proxy) => ({ host, port })
