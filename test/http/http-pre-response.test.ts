import { HttpApp, HttpServer, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import { type Act, Conflict, insert, listen, nothingIsHeld, placements, type Send, TestLayer } from "../support/http.js"

const tenant = Effect.map(
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ t: string }>`SELECT current_setting('app.tenant', true) AS t`),
  ([row]) => row?.t || "none"
).pipe(Effect.orDie)

const encode = (text: string) => new TextEncoder().encode(text)

/** A handler that notes the tenant in a header, and streams it after what the response has had. */
const noting = (name: string, client: SqlClient.SqlClient): HttpApp.PreResponseHandler => {
  const mine = Effect.provideService(tenant, SqlClient.SqlClient, client)
  return (_request, response) =>
    Effect.map(mine, (t) => {
      const before = response.body._tag === "Stream" ? response.body.stream : Stream.empty
      const body = Stream.concat(before, Stream.fromEffect(Effect.map(mine, (t) => encode(`${name} ${t} `))))
      const headers = Object.entries(response.headers).filter(([name]) => !name.startsWith("content-"))
      return HttpServerResponse.stream(body, { status: response.status, headers: [...headers, [name, t]] })
    })
}

const append = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (client) => HttpApp.appendPreResponseHandler(noting(name, client)))

/** Appends two handlers, one with the context of the app. */
const act: Act = (name, id) =>
  Effect.gen(function* () {
    yield* Effect.orDie(insert(id))
    yield* append("plain")
    const context = yield* Effect.context<SqlClient.SqlClient>()
    yield* HttpApp.appendPreResponseHandler((_request, response) =>
      Effect.map(Effect.provide(tenant, context), (t) => HttpServerResponse.setHeader(response, "captured", t))
    )
    if (name === "fails") return yield* new Conflict()
    return HttpServerResponse.empty({ status: 200 })
  })

const post = (send: Send, path: string) => Effect.promise(() => send(path))

const tenantA: HttpSession.Options = { session: { settings: { "app.tenant": "a" } } }

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("the handlers before the response", (it) => {
  for (const [i, [placement, serve]] of Object.entries(placements).entries()) {
    // The platform starts the body where the middleware cannot be seen: the only placement.
    const body = placement === "HttpApp.toWebHandlerLayer" ? "plain none " : "plain a "
    it.scoped(`that an app appends have what the session has set, and so have their bodies: ${placement}`, () =>
      Effect.gen(function* () {
        const send = yield* serve(act, tenantA)
        for (const [name, status] of [
          ["works", 200],
          ["fails", 409]
        ] as const) {
          const answer = yield* post(send, `/act/${name}/pre-response-${i}-${name}`)
          assert.deepStrictEqual(
            [answer.status, answer.headers.get("plain"), answer.headers.get("captured"), answer.body],
            [status, "a", "a", body]
          )
        }
        yield* nothingIsHeld
      })
    )
  }

  const inner = Effect.zipRight(append("inside"), HttpServerResponse.empty({ status: 200 }))

  it.scoped("that others append are outside of what the session has set", () =>
    Effect.gen(function* () {
      const served = Effect.tap(HttpSession.middleware(tenantA)(inner), append("after"))
      const send = yield* listen(HttpServer.serve(Effect.zipRight(append("before"), served)))
      const { body, headers } = yield* post(send, "/")
      assert.deepStrictEqual(
        ["before", "inside", "after"].map((name) => headers.get(name)),
        ["none", "a", "none"]
      )
      // Each handler has put the body of the one before it into its own. That of the first is the app's.
      assert.strictEqual(body, "before a inside a after none ")
      yield* nothingIsHeld
    })
  )

  it.scoped("have what the session around the middleware has set, and a request without a session has none", () =>
    Effect.gen(function* () {
      const asTenant = DbRouter.session({ settings: { "app.tenant": "a" } })
      const joined = yield* listen(HttpServer.serve(Effect.orDie(asTenant(HttpSession.middleware()(inner)))))
      assert.strictEqual((yield* post(joined, "/")).headers.get("inside"), "a")
      const skipped = yield* listen(HttpServer.serve(HttpSession.middleware({ ...tenantA, skip: ["POST"] })(inner)))
      assert.strictEqual((yield* post(skipped, "/")).headers.get("inside"), "none")
      const nested = HttpSession.middleware(tenantA)(HttpSession.middleware()(inner))
      const { body, headers } = yield* post(yield* listen(HttpServer.serve(nested)), "/")
      assert.deepStrictEqual([headers.get("inside"), body], ["a", "inside a "])
      yield* nothingIsHeld
    })
  )
})
