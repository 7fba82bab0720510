/** Fibers of one session that wait for a server. */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Schedule } from "effect"
import { DbRouter, type RouterConfig, Session } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { partsOf } from "../support/engine.js"
import * as Proxy from "../support/proxy.js"

/**
 * A router whose primary is behind a proxy: each attempt to connect has its limit. It is not probed, and not waited for, unless
 * these options say so.
 */
const behindProxy = <A, E>(
  run: (proxy: Proxy.Proxy) => Effect.Effect<A, E, DbRouter.Services>,
  options?: Pick<RouterConfig.Options, "health" | "waitForPrimary">
) =>
  Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    const proxy = yield* Proxy.make({ host: "127.0.0.1", port: primary.port })
    const config = { host: proxy.host, port: proxy.port, ...partsOf(primary), name: "primary" }
    const router = DbRouter.layer({
      groups: { default: [{ ...config, connectTimeout: "300 millis", maxConnections: 2 }] },
      health: false,
      waitForPrimary: { statements: 0 },
      ...options
    })
    return yield* Effect.provide(run(proxy), router)
  })

const select = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT pg_current_xact_id()`)

type Statement = Effect.Effect<unknown, SqlError.SqlError, DbRouter.Services>

const statements: Record<string, Statement> = {
  statements: select,
  "transactions of the client": Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(select)),
  "statements that are bound to a group": DbRouter.bindGroup(select, "default"),
  "atomic blocks": DbRouter.atomic(select)
}

const sessions: Record<string, (body: Statement) => Statement> = {
  session: (body) => DbRouter.session(body),
  "session with settings": (body) => DbRouter.session(body, { settings: { "app.tenant": "1" } }),
  "Session.scoped": (body) => Effect.scoped(Effect.zipRight(Session.scoped(), body))
}

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true, timeout: "2 minutes" })("a session", (it) => {
  for (const [what, statement] of Object.entries(statements)) {
    it.scoped(`fails all its ${what} within one limit when the server is silent`, () =>
      behindProxy((proxy) =>
        Effect.gen(function* () {
          yield* Effect.retry(select, { times: 5 })
          proxy.silent = true
          proxy.reset()
          const tookOf = (effect: Statement) =>
            Effect.suspend(() => {
              const began = performance.now()
              return Effect.map(Effect.exit(effect), (exit) => {
                assert.strictEqual(exit._tag, "Failure")
                return performance.now() - began
              })
            })
          const alone = yield* tookOf(DbRouter.session(statement))
          for (const [name, session] of Object.entries(sessions)) {
            const all = Effect.all(
              Arr.makeBy(12, () => Effect.exit(statement)),
              { concurrency: "unbounded" }
            )
            const failed = Effect.filterOrFail(all, Arr.every(Exit.isFailure), () => new Error("One has succeeded"))
            const took = yield* tookOf(session(Effect.zipRight(Effect.orDie(failed), statement)))
            // For those twelve and for the one after them. One after the other they would take thirteen times as long.
            assert.isBelow(took, 5 * alone, name)
          }
        })
      )
    )
  }

  for (const [which, first] of [
    ["has begun", DbRouter.atomic(select)],
    ["is interrupted while it waits", Effect.timeoutOption(DbRouter.atomic(select), "400 millis")]
  ] as const) {
    it.scoped(`begins its blocks when the primary is back, after the first of them ${which}`, () =>
      behindProxy(
        (proxy) =>
          Effect.gen(function* () {
            yield* Effect.retry(select, { times: 5 })
            proxy.onConnect = Effect.sync(proxy.reset)
            proxy.reset()
            const blocks = Effect.all([first, ...Arr.makeBy(4, () => DbRouter.atomic(select))], {
              concurrency: "unbounded"
            })
            // More than there are connections.
            const sessions = yield* Effect.fork(
              Effect.all(
                Arr.makeBy(4, () => DbRouter.newSession(blocks)),
                { concurrency: "unbounded" }
              )
            )
            // The first attempt of the first block has failed by then, which the others have waited for.
            yield* Effect.sleep("500 millis")
            proxy.onConnect = Effect.void
            assert.lengthOf((yield* Fiber.join(sessions)).flat(), 20)
          }),
        { health: { interval: "100 millis", timeout: "300 millis" }, waitForPrimary: { statements: "5 seconds" } }
      )
    )
  }

  it.scoped("begins one transaction for all, also when the fiber that has asked for it first is interrupted", () =>
    behindProxy((proxy) =>
      Effect.gen(function* () {
        let connections = 0
        proxy.onConnect = Effect.suspend(() => {
          connections++
          return Effect.sleep("100 millis")
        })
        proxy.reset()
        yield* Effect.repeat(
          Effect.sync(() => proxy.open()),
          { schedule: Schedule.spaced("10 millis"), until: (open) => open === 0 }
        )
        const ids = yield* DbRouter.session(
          Effect.gen(function* () {
            const first = yield* Effect.fork(select)
            yield* Effect.sleep("20 millis")
            const others = yield* Effect.all(Arr.makeBy(4, () => Effect.fork(select)))
            yield* Effect.sleep("20 millis")
            yield* Fiber.interrupt(first)
            return yield* Effect.all(Arr.map(others, (other) => Fiber.join(other)))
          })
        )
        assert.strictEqual(new Set(ids.map((rows) => JSON.stringify(rows))).size, 1)
        assert.isAtMost(connections, 1)
      })
    )
  )
})
