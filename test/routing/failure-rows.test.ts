/**
 * What a server says when it, or a connection to it, goes away: each error provoked on a real standby, and what becomes of a
 * read on it. Reads elsewhere means on the primary here, the only other server.
 *
 * Not provoked: 53100 (a full disk needs a file system of its own), 58030 (an input/output error needs a device that has
 * one), and the codes of class 08 but 08P01, which a server never sends to the clients of this driver.
 */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Failures from "../support/failures.js"
import { becomes } from "../support/health.js"
import * as Proxy from "../support/proxy.js"

const { failuresOf, refusalOf, routed, signal, whileReading } = Failures

/** A router whose replica is reached through a proxy. */
const throughProxy = <A, E, R>(
  effect: (proxy: Proxy.Proxy, replica: PgCluster.Node) => Effect.Effect<A, E, R>,
  options: Parameters<typeof routed>[1] = {}
) =>
  Effect.flatMap(PgCluster.PgCluster, ({ replicas }) =>
    Effect.flatMap(Proxy.make(replicas[0]!), (proxy) =>
      routed((replica) => effect(proxy, replica), { on: { host: proxy.host, port: proxy.port }, ...options })
    )
  )

engines.refuseWarnings()

layer(PgCluster.layer({ replicas: 1 }), {
  timeout: "60 seconds",
  excludeTestServices: true
})("a server that goes away", (it) => {
  it.scoped("57P02, the crash of another backend: elsewhere, and the server is suspect", () =>
    routed((replica) =>
      Effect.gen(function* () {
        const sibling = yield* Failures.client(replica)
        const [row] = (yield* Effect.promise(() => sibling.query("SELECT pg_backend_pid() AS pid"))).rows
        const failures = yield* whileReading("crash", () => signal(row.pid, "SIGABRT"))
        assert.deepStrictEqual(failures, ["replica1: 57P02 -> primary"])
        const sql = yield* SqlClient.SqlClient
        yield* becomes("replica1", "up")
        assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), [])
      })
    )
  )

  it.scoped("57P03, shutting down: elsewhere", () =>
    routed(
      (replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          // A shutdown waits for a backend that cannot end.
          const sibling = yield* Failures.client(replica)
          const [row] = (yield* Effect.promise(() => sibling.query("SELECT pg_backend_pid() AS pid"))).rows
          const server = yield* Failures.postmaster(replica)
          yield* signal(row.pid, "SIGSTOP")
          yield* signal(server, "SIGINT")
          yield* engines.eventually(failuresOf(sql`SELECT 1`), ([failure]) => failure === "replica1: 57P03 -> primary")
          yield* signal(row.pid, "SIGCONT")
          yield* engines.eventually(replica.isRunning, (isRunning) => !isRunning)
          yield* replica.start
        }),
      { health: false }
    )
  )

  it.scoped("57P03, starting up: elsewhere", () =>
    routed(
      (replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const seen = new Set<string>()
          // A standby that looks for archived WAL first is starting up for as long as the look takes.
          yield* replica.query("ALTER SYSTEM SET restore_command = 'sleep 1; false'")
          yield* replica.kill
          for (const failure of yield* failuresOf(sql`SELECT 1`)) seen.add(failure)
          const starting = yield* Effect.fork(replica.start)
          while (starting.unsafePoll() === null) {
            for (const failure of yield* failuresOf(sql`SELECT 1`)) seen.add(failure)
          }
          yield* Fiber.join(starting)
          yield* replica.query("ALTER SYSTEM RESET restore_command")
          assert.include([...seen], "replica1: 57P03 -> primary")
          assert.include([...seen], "replica1: ECONNREFUSED -> primary")
        }),
      { health: false }
    )
  )

  it.scoped("57P04, the database is dropped: elsewhere", () =>
    Effect.gen(function* () {
      const { awaitReplayed, primary } = yield* PgCluster.PgCluster
      yield* primary.query("CREATE DATABASE doomed")
      yield* awaitReplayed
      yield* routed(
        () =>
          Effect.gen(function* () {
            const failures = yield* whileReading("dropped", () => primary.query("DROP DATABASE doomed WITH (FORCE)"))
            assert.deepStrictEqual(failures, ["replica1: 57P04 -> primary"])
            const sql = yield* SqlClient.SqlClient
            // For a moment it is still there, and marked as invalid (55000).
            const seen = new Set(failures)
            yield* engines.eventually(failuresOf(sql`SELECT 1`), ([failure]) => {
              seen.add(String(failure))
              return failure === "replica1: 3D000 -> primary"
            })
            assert.isEmpty([...seen].filter((failure) => !/^replica1: (57P04|55000|3D000) -> primary$/.test(failure)))
          }),
        { on: { database: "doomed" }, health: false }
      )
    })
  )

  it.scoped("57P05, a session that was idle too long and whose end is not known yet: again, there, once", () =>
    throughProxy((proxy) =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const url = new URL(`postgres://u@${proxy.host}:${proxy.port}/d?options=-c%20idle_session_timeout%3D200`)
        const { database, password, username } = engines.partsOf(primary)
        url.username = username
        url.password = Redacted.value(password)
        url.pathname = database
        const toPrimary = yield* Proxy.make(primary)
        const ofPrimary = new URL(url)
        ofPrimary.port = String(toPrimary.port)
        const router = DbRouter.layer({
          groups: {
            default: [{ url: Redacted.make(ofPrimary.href), name: "primary" }],
            read: [{ url: Redacted.make(url.href), name: "replica1" }]
          },
          health: { interval: "30 seconds" }
        })
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`CREATE TABLE idle (n int)`
          yield* DbRouter.reset
          for (const [through, statement] of [
            [proxy, sql`SELECT 1`],
            [toPrimary, sql`INSERT INTO idle VALUES (1)`]
          ] as const) {
            yield* statement
            let held = false
            let isAsked = false
            through.onMessage = (type, body) => {
              if (type !== "E" || !body.toString().includes("57P05")) return undefined
              held = true
              return Effect.asVoid(
                engines.eventually(
                  Effect.sync(() => isAsked),
                  (isAsked) => isAsked
                )
              ).pipe(Effect.orDie)
            }
            yield* engines.eventually(
              Effect.sync(() => held),
              (held) => held
            )
            through.onRequest = Effect.sync(() => {
              isAsked = true
            })
            yield* DbRouter.reset
            assert.deepStrictEqual(yield* failuresOf(statement), [])
            assert.isTrue(isAsked)
            through.onMessage = () => undefined
            yield* Failures.stays
          }
          assert.deepStrictEqual(yield* DbRouter.primary(sql`SELECT count(*)::int AS n FROM idle`), [{ n: 2 }])
        }).pipe(Effect.provide(router))
      })
    )
  )

  it.scoped("53300, no connection is left: elsewhere", () =>
    routed(
      (replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* Effect.ignore(Effect.forever(Failures.client(replica)))
          assert.deepStrictEqual(yield* failuresOf(sql`SELECT 1`), ["replica1: 53300 -> primary"])
        }),
      { health: false }
    )
  )

  it.scoped("ECONNRESET, and a close without a code: elsewhere", () =>
    throughProxy(
      (proxy, replica) =>
        Effect.gen(function* () {
          const reset = yield* whileReading("reset", () => Effect.sync(proxy.reset))
          assert.deepStrictEqual(reset, ["replica1: ECONNRESET -> primary"])
          // A process that was killed by SIGKILL sends no last message.
          const closed = yield* whileReading("closed", (pid) => signal(pid, "SIGKILL"))
          assert.deepStrictEqual(closed, ["replica1: Connection terminated unexpectedly -> primary"])
          yield* engines.eventually(Effect.exit(replica.query("SELECT 1")), ({ _tag }) => _tag === "Success")
        }),
      { health: false }
    )
  )

  it.scoped("08P01, a wrong number of parameters: the caller's, and the server stays in", () =>
    routed(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const few = sql.unsafe("SELECT $1::int + $2::int AS sum", [1])
        for (const read of [few, Stream.runDrain(few.stream)]) {
          assert.deepStrictEqual(yield* refusalOf(read), ["08P01", []])
        }
        yield* Failures.stays
      })
    )
  )
})
