import { setMaxListeners } from "node:events"
import { HttpMiddleware, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, flow, Layer, Logger, LogLevel, Stream } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import {
  type Act,
  eventually,
  existing,
  insert,
  listen,
  nothingIsHeld,
  placements,
  router,
  type Send,
  TestLayer,
  violate,
  watch
} from "../support/http.js"

/** Inserts its id, and answers with the status in its name. */
const act: Act = (name, id) =>
  Effect.gen(function* () {
    yield* insert(id)
    if (name === "violating") yield* violate
    return HttpServerResponse.text("done", { status: name === "violating" ? 200 : Number(name) })
  })

/** The same without a router of HTTP, and with what is asked of a request in `xForwardedHeaders`. */
const app = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers, url }) => {
  const [, , name = "", id = ""] = url.split("/")
  return Effect.map(act(name, id), HttpServerResponse.setHeader("x-seen-host", headers.host ?? ""))
}).pipe(Effect.orDie)

const post = (send: Send, path: string, sent?: Parameters<Send>[1]) => Effect.promise(() => send(path, sent))

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("requests", (it) => {
  it.scoped("all end: 500 at once on ten connections", () =>
    Effect.gen(function* () {
      const send = yield* placements["HttpApiBuilder.serve"]!(act)
      const requests = Array.from({ length: 500 }, (_, i) => ({
        id: `many-${i}`,
        what: i % 10 === 0 ? "violating" : i % 10 < 3 ? "404" : "200"
      }))
      const answers = yield* Effect.forEach(requests, ({ id, what }) => post(send, `/act/${what}/${id}`), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        answers.map(({ status }) => status),
        requests.map(({ what }) => (what === "violating" ? 500 : Number(what)))
      )
      assert.deepStrictEqual(
        yield* existing(...requests.map(({ id }) => id)),
        requests.filter(({ what }) => what === "200").map(({ id }) => id)
      )
      yield* nothingIsHeld
    })
  )

  it.scoped("whose clients leave while they wait for a connection take nothing from the others", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const send = yield* placements["HttpServer.serve"]!((name, id) =>
        Effect.zipLeft(act(name, id), name === "201" ? Deferred.await(gate) : Effect.void)
      )
      const { exists, openTransactions } = yield* watch
      const first = yield* Effect.fork(post(send, "/act/201/first"))
      yield* eventually(
        Effect.map(Effect.promise(openTransactions), (n) => n === 1),
        "the only connection is taken"
      )
      const leave = new AbortController()
      setMaxListeners(20, leave.signal)
      const leaving = yield* Effect.fork(
        Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          (i) => Effect.promise(() => send(`/act/200/leaving-${i}`, { signal: leave.signal }).catch(() => undefined)),
          { concurrency: "unbounded" }
        )
      )
      const staying = yield* Effect.fork(
        Effect.forEach([0, 1, 2], (i) => post(send, `/act/200/staying-${i}`), { concurrency: "unbounded" })
      )
      const { status } = yield* DbRouter.DbRouter
      yield* eventually(
        Effect.map(status, ([engine]) => engine?.pool.waiting === 23),
        "all wait"
      )
      leave.abort()
      yield* Fiber.join(leaving)
      yield* eventually(
        Effect.map(status, ([engine]) => engine?.pool.waiting === 3),
        "those that left do not"
      )
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual((yield* Fiber.join(first)).status, 201)
      assert.deepStrictEqual(
        (yield* Fiber.join(staying)).map(({ status }) => status),
        [200, 200, 200]
      )
      yield* nothingIsHeld
      assert.isFalse(yield* Effect.promise(() => exists("leaving-0")))
    }).pipe(Effect.provide(router(1)))
  )

  for (const name of ["an HttpApp", "HttpServer.serve", "HttpApp.toWebHandlerLayer"]) {
    it.scoped(`whose clients leave at any moment are there as a whole or not at all: ${name}`, () =>
      Effect.gen(function* () {
        const send = yield* placements[name]!((_, id) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* insert(`${id}-a`)
            yield* Effect.orDie(sql`SELECT count(*) FROM entry`)
            yield* Effect.orDie(sql.withTransaction(insert(`${id}-b`)))
            yield* Effect.orDie(DbRouter.beforeCommit(insert(`${id}-c`)))
            return HttpServerResponse.text("done")
          })
        )
        const requests = Array.from({ length: 150 }, (_, i) => ({
          id: `any-${name.length}-${i}`,
          // The same moments every time, as far as the machine allows.
          after: (i * 48271) % 41
        }))
        const acknowledged = yield* Effect.forEach(
          requests,
          ({ after, id }) =>
            Effect.promise(() =>
              send(`/act/any/${id}`, { signal: AbortSignal.timeout(after) }).then(
                ({ status }) => status === 200,
                () => false
              )
            ),
          { concurrency: 15 }
        )
        yield* nothingIsHeld
        const found = new Set(yield* existing(...requests.flatMap(({ id }) => [`${id}-a`, `${id}-b`, `${id}-c`])))
        const parts = requests.map(({ id }) => ["a", "b", "c"].filter((part) => found.has(`${id}-${part}`)).join(""))
        assert.deepStrictEqual(
          parts.filter((part, i) => (acknowledged[i] ? part !== "abc" : part !== "abc" && part !== "")),
          []
        )
        assert.include(parts, "")
      })
    )
  }

  it.scoped("one after the other on a connection have a transaction each", () =>
    Effect.gen(function* () {
      const send = yield* placements["an HttpApp"]!((_, id) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(id)
          const [row] = yield* Effect.orDie(sql<{ readonly xid: string }>`SELECT pg_current_xact_id()::text AS xid`)
          return HttpServerResponse.text(row?.xid ?? "")
        })
      )
      const transactions = yield* Effect.forEach([1, 2, 3, 4, 5], (i) =>
        Effect.map(post(send, `/act/any/kept-alive-${i}`), ({ body }) => body)
      )
      assert.strictEqual(new Set(transactions).size, 5)
    })
  )

  it.scoped("at the same time do not see what the others have not committed", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const written = yield* Deferred.make<void>()
      const send = yield* placements["HttpServer.serve"]!((name, id) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          if (name === "write") {
            yield* insert(id)
            yield* Deferred.succeed(written, undefined)
            yield* Deferred.await(gate)
          }
          const rows = yield* Effect.orDie(sql`SELECT 1 FROM entry WHERE id = ${id}`)
          return HttpServerResponse.text(String(rows.length))
        })
      )
      const writing = yield* Effect.fork(post(send, "/act/write/isolated"))
      yield* Deferred.await(written)
      assert.strictEqual((yield* post(send, "/act/read/isolated")).body, "0")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual((yield* Fiber.join(writing)).body, "1")
      assert.strictEqual((yield* post(send, "/act/read/isolated")).body, "1")
    })
  )

  it.scoped("are a 500 when their connection is lost before the COMMIT", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const send = yield* placements["HttpApiBuilder.middleware"]!((_, id) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(id)
          const [row] = yield* sql<{ readonly pid: number }>`SELECT pg_backend_pid() AS pid FROM entry LIMIT 1`
          yield* primary.query("SELECT pg_terminate_backend($1, 5000)", [row?.pid])
          return HttpServerResponse.text("done")
        }).pipe(Effect.orDie)
      )
      assert.strictEqual((yield* post(send, "/act/any/lost")).status, 500)
      assert.deepStrictEqual(yield* existing("lost"), [])
      yield* nothingIsHeld
    })
  )
})

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("the request scope among others", (it) => {
  const session = HttpSession.middleware()
  const cors = HttpMiddleware.cors({ allowedOrigins: ["https://shop.example"], credentials: true })
  const { logger, xForwardedHeaders } = HttpMiddleware

  const orders = {
    "inside of all of them": HttpServer.serve(xForwardedHeaders(cors(logger(session(app))))),
    "outside of all of them": HttpServer.serve(session(logger(cors(xForwardedHeaders(app))))),
    "in the middle": HttpServer.serve(xForwardedHeaders(session(cors(app))), logger),
    "inside, around the sending": HttpServer.serve(app, flow(session, cors, xForwardedHeaders, logger)),
    "outside, around the sending": HttpServer.serve(xForwardedHeaders(cors(app)), flow(logger, session))
  }

  for (const [i, [name, server]] of Object.entries(orders).entries()) {
    it.scoped(`works with middlewares of the platform: ${name}`, () =>
      Effect.gen(function* () {
        const send = yield* listen(server)
        const headers = { "x-forwarded-host": "shop.example", origin: "https://shop.example" }
        const sent = (what: string) => post(send, `/act/${what}/order-${i}-${what}`, { headers })
        const allowed = ({ headers }: { readonly headers: Headers }) => [
          headers.get("access-control-allow-origin"),
          headers.get("access-control-allow-credentials")
        ]
        for (const [what, status] of [
          ["200", 200],
          ["404", 404],
          ["violating", 500]
        ] as const) {
          const answer = yield* sent(what)
          assert.strictEqual(answer.status, status)
          // A browser that is not allowed to read a response cannot even tell its status.
          assert.deepStrictEqual([what, ...allowed(answer)], [what, "https://shop.example", "true"])
          if (status < 500) assert.strictEqual(answer.headers.get("x-seen-host"), "shop.example")
        }
        const preflight = yield* post(send, "/act/200/preflight", { method: "OPTIONS", headers })
        assert.strictEqual(preflight.status, 204)
        assert.deepStrictEqual(
          yield* existing(`order-${i}-200`, `order-${i}-404`, `order-${i}-violating`, "preflight"),
          [`order-${i}-200`]
        )
        yield* nothingIsHeld
      })
    )
  }

  it.scoped("is there once when it is put there twice: the outer one decides", () =>
    Effect.gen(function* () {
      const all = HttpSession.middleware({ commits: () => true })
      const none = HttpSession.middleware({ commits: () => false })
      for (const [name, server] of Object.entries({
        wrapped: HttpServer.serve(all(none(app))),
        served: HttpServer.serve(none(app), all),
        "both around the sending": HttpServer.serve(app, flow(none, all))
      })) {
        const send = yield* listen(server)
        assert.strictEqual((yield* post(send, `/act/404/${name.length}`)).status, 404)
        assert.deepStrictEqual(yield* existing(`${name.length}`), [`${name.length}`])
      }
      yield* nothingIsHeld
    })
  )

  type Around = <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError.SqlError, R | SqlClient.SqlClient | DbRouter.DbRouter>

  const arounds: Readonly<Record<string, Around>> = {
    "a session": (effect) => DbRouter.session(effect),
    "a transaction": (effect) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))
  }

  for (const [name, around] of Object.entries(arounds)) {
    it.scoped(`leaves ${name} alone that the server was started in`, () =>
      Effect.gen(function* () {
        const [kept, lost] = [`kept-${name.length}`, `lost-${name.length}`]
        const exit = yield* Effect.gen(function* () {
          const send = yield* listen(HttpServer.serve(session(app)))
          assert.strictEqual((yield* post(send, `/act/200/${kept}`)).status, 200)
          assert.strictEqual((yield* post(send, `/act/404/${lost}`)).status, 404)
          assert.deepStrictEqual(yield* existing(kept, lost), [])
          const sql = yield* SqlClient.SqlClient
          const inside = yield* sql`SELECT 1 FROM entry WHERE id IN (${kept}, ${lost})`
          // Its opener ends it, not the status.
          assert.lengthOf(inside, 2)
          return yield* Effect.fail("rolled back")
        }).pipe(around, Effect.exit)
        assert.isTrue(Exit.isFailure(exit))
        assert.deepStrictEqual(yield* existing(kept, lost), [])
        yield* nothingIsHeld
      })
    )
  }

  it.scoped("of one router is none of another's: both are there, and both end", () =>
    Effect.gen(function* () {
      const other = yield* Layer.build(router(2))
      const both = Effect.gen(function* () {
        const { url } = yield* HttpServerRequest.HttpServerRequest
        yield* insert(`${url.split("/").at(-1)}-other`)
        return yield* Effect.provide(app, here)
      })
      const here = yield* Effect.context<DbRouter.Services>()
      const send = yield* listen(HttpServer.serve(session(Effect.provide(session(both), other))))
      for (const status of [200, 404]) {
        assert.strictEqual((yield* post(send, `/act/${status}/two-${status}`)).status, status)
      }
      assert.deepStrictEqual(yield* existing("two-200", "two-200-other", "two-404", "two-404-other"), [
        "two-200",
        "two-200-other"
      ])
      yield* nothingIsHeld
    })
  )

  it.scoped("ends before a middleware around it that gives up answers", () =>
    Effect.gen(function* () {
      const { openTransactions } = yield* watch
      const gate = yield* Deferred.make<void>()
      const slow = Effect.zipLeft(
        app,
        Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) =>
          url.endsWith("slow") ? Effect.never : Effect.void
        )
      )
      // The request lasts as long as this body.
      const sorry = HttpServerResponse.stream(
        Stream.encodeText(Stream.concat(Stream.make("sorry"), Stream.drain(Stream.fromEffect(Deferred.await(gate))))),
        { status: 503 }
      )
      const limited = Effect.catchTag(Effect.timeout(session(slow), "300 millis"), "TimeoutException", () =>
        Effect.succeed(sorry)
      )
      const send = yield* listen(HttpServer.serve(limited))
      assert.strictEqual((yield* post(send, "/act/200/quick")).status, 200)
      assert.strictEqual((yield* post(send, "/act/404/quick-404")).status, 404)
      let atHead: Promise<number> | undefined
      const late = yield* Effect.fork(post(send, "/act/200/slow", { atHead: () => (atHead = openTransactions()) }))
      yield* eventually(
        Effect.sync(() => atHead !== undefined),
        "it gives up"
      )
      assert.strictEqual(yield* Effect.promise(() => atHead!), 0)
      yield* Deferred.succeed(gate, undefined)
      assert.deepInclude(yield* Fiber.join(late), { status: 503, body: "sorry" })
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("quick", "quick-404", "slow"), ["quick"])
    })
  )

  it.scoped("says so when a middleware around it takes it away from the response, and rolls back", () =>
    Effect.gen(function* () {
      const errors: Array<string> = []
      const collect = Logger.make<unknown, void>(({ logLevel, message }) => {
        if (logLevel === LogLevel.Error) errors.push(String(message))
      })
      const forked = Effect.flatMap(Effect.fork(session(app)), Fiber.await).pipe(Effect.flatten)
      const send = yield* Effect.provide(listen(HttpServer.serve(forked)), Logger.add(collect))
      yield* post(send, "/act/200/unheard")
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("unheard"), [])
      assert.lengthOf(errors, 1)
      assert.match(errors[0] ?? "", /must run in the fiber of the request/)
    })
  )
})
