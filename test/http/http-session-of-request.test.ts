import { type HttpApp, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import {
  type Act,
  eventually,
  existing,
  insert,
  listen,
  nothingIsHeld,
  placements,
  type Send,
  TestLayer
} from "../support/http.js"

const tenantOf = ({ headers }: HttpServerRequest.HttpServerRequest) => headers["x-tenant"] ?? "none"

const seen = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ t: string | null }>`SELECT current_setting('app.tenant', true) AS t`
)

/** Which tenant each part of a request is: in the session, in one of its own, in a daemon, and in the streaming body. */
const act: Act = (name, id) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* insert(id)
    const daemon = yield* Effect.forkDaemon(DbRouter.detached(Effect.zipRight(Effect.sleep(5), seen)))
    const parts = [
      yield* seen,
      yield* sql.withTransaction(seen),
      yield* DbRouter.newSession(seen),
      yield* Fiber.join(daemon)
    ].map(([row]) => row?.t)
    const streamed = Stream.mapEffect(Stream.range(1, 3), () => Effect.map(seen, ([row]) => row?.t), { concurrency: 2 })
    const context = yield* Effect.context<SqlClient.SqlClient>()
    const body = Stream.provideContext(Stream.concat(Stream.fromIterable(parts), streamed), context)
    return HttpServerResponse.stream(
      Stream.map(body, (t) => new TextEncoder().encode(`${t} `)),
      {
        status: Number(name)
      }
    )
  }).pipe(Effect.orDie)

const post = (send: Send, path: string, sent?: Parameters<Send>[1]) => Effect.promise(() => send(path, sent))

const settings = (request: HttpServerRequest.HttpServerRequest) => ({
  settings: { "app.tenant": tenantOf(request) }
})

const ways: Readonly<Record<string, HttpSession.Options>> = {
  "a function": { session: settings },
  "an Effect": { session: (request) => Effect.as(Effect.sleep(1), settings(request)) }
}

type App = HttpApp.Default<never, DbRouter.Services | Scope.Scope>

let id = 0
const nextId = () => `of-request-${id++}`

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("the session of a request", (it) => {
  for (const [placement, serve] of Object.entries(placements)) {
    for (const [way, options] of Object.entries(ways)) {
      it.scoped(`has the options that ${way} makes of the request: ${placement}`, () =>
        Effect.gen(function* () {
          const send = yield* serve(act, options)
          const answers = yield* Effect.forEach(
            Array.from({ length: 4 }, (_, i) => `tenant-${i}`),
            (tenant) => post(send, `/act/200/${nextId()}`, { headers: { "x-tenant": tenant } }),
            { concurrency: "unbounded" }
          )
          for (const [i, { body, status }] of answers.entries()) {
            assert.deepStrictEqual(
              [status, body.trim().split(" ")],
              [200, Array.from({ length: 7 }, () => `tenant-${i}`)]
            )
          }
          yield* nothingIsHeld
        })
      )
    }
  }

  /** What a plain app answers, with a service and the database in the Effect of the options. */
  class Tenants extends Context.Tag("test/Tenants")<
    Tenants,
    { readonly of: (key: string) => Effect.Effect<string> }
  >() {}

  const serveWith = (
    session: (
      request: HttpServerRequest.HttpServerRequest
    ) => HttpSession.OptionsOfRequest<Tenants | SqlClient.SqlClient>
  ) =>
    listen(
      HttpServer.serve(
        Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) => act("200", url.slice(1))).pipe(Effect.orDie),
        HttpSession.middleware({ session })
      ).pipe(Layer.provide(Layer.succeed(Tenants, { of: (key) => Effect.succeed(`tenant of ${key}`) })))
    )

  it.scoped("may be looked up in the database and in services, outside of any session", () =>
    Effect.gen(function* () {
      const send = yield* serveWith((request) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const tenants = yield* Tenants
          assert.isFalse(yield* DbRouter.isInSession)
          const [row] = yield* sql<{ key: string }>`SELECT upper(${tenantOf(request)}) AS key`
          return { settings: { "app.tenant": (yield* tenants.of(row!.key)).replaceAll(" ", "-") } }
        })
      )
      const { body } = yield* post(send, `/${nextId()}`, { headers: { "x-tenant": "a" } })
      assert.deepStrictEqual(new Set(body.trim().split(" ")), new Set(["tenant-of-A"]))
    })
  )

  for (const [what, status, session] of [
    ["fails with a response", 401, () => Effect.fail(HttpServerResponse.empty({ status: 401 }))],
    ["dies with a response", 403, () => Effect.die(HttpServerResponse.empty({ status: 403 }))],
    ["fails", 500, () => Effect.fail("no tenant")],
    [
      "throws",
      500,
      () => {
        throw new Error("no tenant")
      }
    ],
    ["makes options that cannot be used", 500, () => ({ settings: { "app.tenant": 7 as unknown as string } })],
    ["makes nothing", 500, () => undefined as unknown as object]
  ] satisfies ReadonlyArray<readonly [string, number, () => HttpSession.OptionsOfRequest]>) {
    it.scoped(`is not opened, and its handler does not run, where what makes its options ${what}`, () =>
      Effect.gen(function* () {
        const send = yield* serveWith(session)
        const name = nextId()
        const answer = yield* post(send, `/${name}`)
        assert.strictEqual(answer.status, status)
        assert.deepStrictEqual(yield* existing(name), [])
        yield* nothingIsHeld
      })
    )
  }

  it.scoped("is not opened for a client that hangs up while its options are made", () =>
    Effect.gen(function* () {
      let interrupted = 0
      const send = yield* serveWith(() =>
        Effect.as(
          Effect.onInterrupt(Effect.sleep("1 minute"), () => Effect.sync(() => interrupted++)),
          {}
        )
      )
      const hangUp = new AbortController()
      const name = nextId()
      const answer = send(`/${name}`, { signal: hangUp.signal }).catch(() => undefined)
      yield* Effect.sleep(100)
      hangUp.abort()
      yield* Effect.promise(() => answer)
      yield* eventually(
        Effect.sync(() => interrupted === 1),
        "what makes the options ends"
      )
      assert.deepStrictEqual(yield* existing(name), [])
      yield* nothingIsHeld
    })
  )

  it.scoped("refuses writes of GET and HEAD with readOnlyGet, whatever options the request has", () =>
    Effect.gen(function* () {
      const send = yield* placements["HttpServer.serve"]!(act, { readOnlyGet: true, session: settings })
      const name = nextId()
      const { status } = yield* post(send, `/act/200/${name}`, { method: "GET", headers: { "x-tenant": "a" } })
      assert.strictEqual(status, 500)
      assert.deepStrictEqual(yield* existing(name), [])
    })
  )

  const tenantA = { session: { settings: { "app.tenant": "a" } } }

  /** What the handler and its streaming body see, or the status where no handler runs. */
  const twice = (inner: HttpSession.Options, outer: HttpSession.Options, around = (app: App) => app) =>
    Effect.gen(function* () {
      let ran = false
      const app: App = Effect.gen(function* () {
        ran = true
        const context = yield* Effect.context<SqlClient.SqlClient>()
        const [row] = yield* seen
        const later = Stream.provideContext(Stream.fromEffect(seen), context)
        return HttpServerResponse.stream(
          Stream.map(later, ([then]) => new TextEncoder().encode(`${row?.t || "none"} ${then?.t || "none"}`))
        )
      }).pipe(Effect.orDie)
      const served = around(HttpSession.middleware(inner)(app))
      const send = yield* listen(HttpServer.serve(HttpSession.middleware(outer)(served)))
      const { body, status } = yield* post(send, "/", { method: "GET" })
      yield* nothingIsHeld
      return ran ? body : status
    })

  it.scoped("is that of the middleware around, with what that has set, also in the body", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* twice({}, tenantA), "a a")
      assert.strictEqual(yield* twice(tenantA, tenantA), "a a")
      assert.strictEqual(yield* twice({ readOnlyGet: true }, { readOnlyGet: true }), "none none")
    })
  )

  it.scoped("is not joined, and no handler runs, where it has not what is asked for", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* twice(tenantA, {}), 500)
      assert.strictEqual(yield* twice({ session: { settings: { "app.tenant": "b" } } }, tenantA), 500)
      assert.strictEqual(yield* twice({ session: () => tenantA.session }, {}), 500)
      assert.strictEqual(yield* twice({ readOnlyGet: true }, {}), 500)
      assert.strictEqual(yield* twice({ session: { isolation: "serializable" } }, {}), 500)
    })
  )

  it.scoped("is the one of the program around the middleware, with what that has set, also in the body", () =>
    Effect.gen(function* () {
      const asTenant = (app: App): App => Effect.orDie(DbRouter.newSession(app, tenantA.session))
      assert.strictEqual(yield* twice({}, { skip: () => true }, asTenant), "a a")
    })
  )
})
