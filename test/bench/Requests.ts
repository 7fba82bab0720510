/** Whole HTTP requests: what those who serve a page notice. The clients are in another process. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { type HttpApp, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Context, Effect, Layer, Redacted } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import type { Load, Loaded } from "./clients.js"
import { type Contestant, compare, type Pace, speed, summary } from "./Measure.js"
import { digits, each, type Row } from "./Row.js"
import { type Pair, router } from "./Servers.js"

const spawned = Effect.acquireRelease(
  Effect.sync(() => fork(fileURLToPath(new URL("./clients.ts", import.meta.url)), { execArgv: ["--import", "tsx"] })),
  (child) => Effect.sync(() => child.kill())
)

const ask = (child: ChildProcess, load: Load) =>
  Effect.promise(async () => {
    const answered = once(child, "message")
    child.send(load)
    const [loaded] = (await answered) as [Loaded]
    return loaded
  })

type App = HttpApp.Default<unknown, SqlClient.SqlClient>

const id = Effect.sync(() => 1 + Math.floor(Math.random() * 1_000))

const reads = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.flatMap(id, (id) =>
    Effect.zipRight(
      sql`SELECT id, name FROM item WHERE id = ${id}`,
      Effect.as(sql`SELECT count(*)::int AS n FROM item WHERE id BETWEEN ${id} AND ${id + 10}`, id)
    )
  )
)

const writes = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.flatMap(reads, (id) => sql`INSERT INTO entry ${sql.insert({ account: id, amount: 1 })}`)
)

const ok = HttpServerResponse.text("ok")

const empty: App = Effect.succeed(ok)
const get: App = Effect.as(reads, ok)
const post: App = Effect.as(writes, ok)

const inTransaction = (app: App, before: Effect.Effect<unknown, unknown, SqlClient.SqlClient> = Effect.void): App =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(Effect.zipRight(before, app)))

const tenant = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT set_config('app.tenant', '1', true)`)

interface Case {
  readonly what: string
  readonly against: string
  readonly atLeast: number
  readonly method: "GET" | "POST"
  readonly plain: App
  readonly routed: App
  readonly session?: HttpSession.Options
}

const cases: ReadonlyArray<Case> = [
  {
    what: "an empty handler, HttpSession.middleware",
    against: "without the middleware",
    atLeast: 0.85,
    method: "GET",
    plain: empty,
    routed: empty,
    session: {}
  },
  {
    what: "POST: two reads and an INSERT, HttpSession.middleware",
    against: "withTransaction on PgClient",
    atLeast: 1.2,
    method: "POST",
    plain: inTransaction(post),
    routed: post,
    session: {}
  },
  {
    what: "the same, withTransaction, no middleware",
    against: "the same on PgClient",
    atLeast: 1.2,
    method: "POST",
    plain: inTransaction(post),
    routed: inTransaction(post)
  },
  {
    what: "the same, autocommitted, no middleware",
    against: "withTransaction on PgClient",
    atLeast: 1.3,
    method: "POST",
    plain: inTransaction(post),
    routed: post
  },
  {
    what: "GET: two reads, HttpSession.middleware",
    against: "no transaction on PgClient",
    atLeast: 1.3,
    method: "GET",
    plain: get,
    routed: get,
    session: {}
  },
  {
    what: "the same, no middleware",
    against: "no transaction on PgClient",
    atLeast: 1.3,
    method: "GET",
    plain: get,
    routed: get
  },
  {
    what: "GET: two reads, token in a cookie",
    against: "no transaction on PgClient",
    atLeast: 1.1,
    method: "GET",
    plain: get,
    routed: get,
    session: { token: HttpSession.tokenCookie() }
  },
  {
    what: "GET: two reads, readOnlyGet",
    against: "no transaction on PgClient",
    atLeast: 1.1,
    method: "GET",
    plain: get,
    routed: get,
    session: { readOnlyGet: true }
  },
  {
    what: "GET: two reads, settings",
    against: "set_config in a transaction on PgClient",
    atLeast: 1.1,
    method: "GET",
    plain: inTransaction(get, tenant),
    routed: get,
    session: { session: { settings: { "app.tenant": "1" } } }
  }
]

/** Serves an app on a port of its own, at / for every method, until the scope closes. */
const serve = <R>(app: HttpApp.Default<unknown, R>, through?: (app: HttpApp.Default) => HttpApp.Default) =>
  Effect.gen(function* () {
    const services = yield* Layer.build(NodeHttpServer.layer(() => createServer(), { host: "127.0.0.1", port: 0 }))
    const server = Context.get(services, HttpServer.HttpServer)
    const all = HttpRouter.all("/", app)(HttpRouter.empty)
    yield* server.serve(through === undefined ? all : through(all as unknown as HttpApp.Default))
    const { address } = server
    return address._tag === "TcpAddress" ? address.port : 0
  })

/** How many milliseconds the slowest hundredth took at least. */
const p99 = (took: ReadonlyArray<number>): number =>
  [...took].sort((a, b) => a - b)[Math.floor(took.length * 0.99)] ?? 0

/** Longer and fewer slices: each of the fifty clients has to send many requests in one. */
const slower = (pace: Pace): Pace => ({
  ...pace,
  rounds: Math.ceil(pace.rounds / 8),
  sliceMillis: pace.sliceMillis * 8
})

export const run = (servers: Pair, pace: Pace) =>
  Effect.scoped(
    Effect.gen(function* () {
      const child = yield* spawned
      const routed = yield* router(servers, servers.replicas, {
        tokens: { keys: [Redacted.make("a key of thirty-two bytes, or more")] }
      })
      const services = Context.make(SqlClient.SqlClient, routed.client).pipe(Context.add(DbRouter.DbRouter, routed))
      return yield* Effect.forEach(cases, (one) =>
        Effect.scoped(
          Effect.gen(function* () {
            const middleware = one.session === undefined ? undefined : HttpSession.middleware(one.session)
            const ports = [
              yield* Effect.provideService(serve(one.plain), SqlClient.SqlClient, servers.plainPrimary),
              yield* Effect.provide(
                serve(one.routed, middleware as ((app: HttpApp.Default) => HttpApp.Default) | undefined),
                services
              )
            ]
            const slow: Array<Array<number>> = [[], []]
            const contestants = ports.map(
              (port, i): Contestant =>
                (millis) =>
                  Effect.map(ask(child, { port, method: one.method, millis }), ({ failed, took }) => {
                    if (failed > 0) throw new Error(`${failed} requests have failed: ${one.what}`)
                    slow[i]!.push(p99(took))
                    return (millis * 1_000) / took.length
                  })
            )
            const [without, measured] = yield* compare(contestants, slower(pace))
            const [slowest, own] = slow.map((all) => digits(summary(all).median))
            const row: Row = {
              section: "requests",
              what: one.what,
              against: one.against,
              reach: { atLeast: one.atLeast },
              unit: "x",
              measured: speed(without!, measured!),
              detail: `${each(measured!, without!)}; p99 ${own} ms, the other ${slowest} ms`
            }
            return row
          })
        )
      )
    })
  )
