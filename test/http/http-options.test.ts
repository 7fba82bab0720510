import { HttpApp, HttpLayerRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Either, FiberRef, Layer, Option, Stream } from "effect"
import { Consistency, DbRouter, HttpSession, RouterError, RoutingContext } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { type Act, existing, insert, listen, nothingIsHeld, placements, TestLayer } from "../support/http.js"

/** Inserts its id, and answers with the status in its name. */
const answer: Act = (name, id) => Effect.as(insert(id), HttpServerResponse.empty({ status: Number(name) }))

const serve = (options: HttpSession.Options, act: Act = answer) =>
  Effect.map(
    placements["an HttpApp"]!(act, options),
    (send) => (path: string, sent?: Parameters<typeof send>[1]) => Effect.promise(() => send(path, sent))
  )

type Route = HttpLayerRouter.HttpRouter | HttpLayerRouter.Request<"Requires", SqlClient.SqlClient> | DbRouter.DbRouter

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("an option of the request scope", (it) => {
  it.scoped("commits: which statuses do", () =>
    Effect.gen(function* () {
      const send = yield* serve({ commits: (status) => status === 404 || HttpSession.commitByStatus(status - 1) })
      for (const status of [200, 399, 400, 401, 404, 500]) {
        assert.strictEqual((yield* send(`/act/${status}/commits-${status}`)).status, status)
      }
      assert.deepStrictEqual(yield* existing(...[200, 399, 400, 401, 404, 500].map((status) => `commits-${status}`)), [
        "commits-200",
        "commits-399",
        "commits-400",
        "commits-404"
      ])
      yield* nothingIsHeld
    })
  )

  it.scoped("commits: throws, which is a 500 and rolls back", () =>
    Effect.gen(function* () {
      const send = yield* serve({
        commits: () => {
          throw new Error("a bug")
        }
      })
      assert.strictEqual((yield* send("/act/200/throws")).status, 500)
      assert.deepStrictEqual(yield* existing("throws"), [])
      yield* nothingIsHeld
    })
  )

  for (const name of ["an HttpApp", "HttpServer.serve", "HttpApp.toWebHandlerRuntime"]) {
    it.scoped(`commits: not even all of them commit a request that its client has left: ${name}`, () =>
      Effect.gen(function* () {
        const running = yield* Deferred.make<void>()
        const ended = yield* Deferred.make<void>()
        const id = `left-${name.length}`
        const send = yield* placements[name]!(
          () =>
            Effect.zipRight(insert(id), Effect.zipRight(Deferred.succeed(running, undefined), Effect.never)).pipe(
              Effect.ensuring(Deferred.succeed(ended, undefined))
            ),
          { commits: () => true }
        )
        const leave = new AbortController()
        const answered = send(`/act/any/${id}`, { signal: leave.signal }).catch(() => undefined)
        yield* Deferred.await(running)
        leave.abort()
        yield* Effect.promise(() => answered)
        yield* Deferred.await(ended)
        yield* nothingIsHeld
        assert.deepStrictEqual(yield* existing(id), [])
      })
    )
  }

  it.scoped("skip: by method, or by anything in the request", () =>
    Effect.gen(function* () {
      const inSession: Act = (_name, id) =>
        Effect.gen(function* () {
          yield* insert(id)
          return HttpServerResponse.text(String(yield* DbRouter.isInSession), { status: 404 })
        })
      const byMethod = yield* serve({ skip: ["PUT", "DELETE"] }, inSession)
      assert.strictEqual((yield* byMethod("/act/any/skip-put", { method: "PUT" })).body, "false")
      assert.strictEqual((yield* byMethod("/act/any/skip-post")).body, "true")
      const byUrl = yield* serve({ skip: ({ url }) => url.startsWith("/act/health") }, inSession)
      assert.strictEqual((yield* byUrl("/act/health/skip-health")).body, "false")
      assert.strictEqual((yield* byUrl("/act/any/skip-any")).body, "true")
      assert.deepStrictEqual(yield* existing("skip-put", "skip-post", "skip-health", "skip-any"), [
        "skip-put",
        "skip-health"
      ])
    })
  )

  for (const name of ["an HttpApp", "HttpServer.serve"]) {
    it.scoped(`skip: such a request has a routing context of its own all the same, and its body too: ${name}`, () =>
      Effect.gen(function* () {
        const state = Effect.map(RoutingContext.shouldUsePrimary, String)
        yield* RoutingContext.setStickyPrimary
        const send = yield* placements[name]!(
          (name) =>
            Effect.gen(function* () {
              const before = yield* state
              if (name === "sticky") yield* RoutingContext.setStickyPrimary
              const body = Stream.make(before).pipe(
                Stream.concat(Stream.make(", ")),
                Stream.concat(Stream.fromEffect(state))
              )
              return HttpServerResponse.stream(Stream.encodeText(body))
            }),
          { skip: () => true }
        )
        const bodies = yield* Effect.forEach(["sticky", "plain"], (what) =>
          Effect.map(
            Effect.promise(() => send(`/act/${what}/any`)),
            ({ body }) => body
          )
        )
        assert.deepStrictEqual(bodies, ["false, true", "false, false"])
      })
    )
  }

  it.scoped("readOnlyGet: GET and HEAD cannot write", () =>
    Effect.gen(function* () {
      const reasons: Array<string> = []
      const send = yield* serve({ readOnlyGet: true }, (_, id) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`SELECT 1`
          yield* Effect.tapError(sql`INSERT INTO entry VALUES (${id})`, (error) =>
            Effect.sync(() => reasons.push(Option.getOrElse(RouterError.reasonOf(error), () => "other")))
          )
          return HttpServerResponse.empty()
        }).pipe(Effect.orDie)
      )
      const statuses = yield* Effect.forEach(["GET", "HEAD", "POST", "PUT"] as const, (method) =>
        Effect.map(send(`/act/any/read-only-${method}`, { method }), ({ status }) => status)
      )
      assert.deepStrictEqual(statuses, [500, 500, 204, 204])
      assert.deepStrictEqual(reasons, ["ReadOnlyViolation", "ReadOnlyViolation"])
    })
  )

  it.scoped("session: the options of the sessions", () =>
    Effect.gen(function* () {
      const show: Act = () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const rows = yield* DbRouter.primary(
            sql`SELECT current_setting('transaction_isolation') AS isolation, current_setting('app.tenant') AS tenant`
          )
          return yield* HttpServerResponse.json(rows)
        }).pipe(Effect.orDie)
      const send = yield* serve({ session: { isolation: "serializable", settings: { "app.tenant": "7" } } }, show)
      assert.deepStrictEqual(JSON.parse((yield* send("/act/any/any")).body), [
        { isolation: "serializable", tenant: "7" }
      ])
    })
  )

  it.effect("session: refused at once when it cannot be used", () =>
    Effect.sync(() => {
      for (const make of [HttpSession.middleware, HttpSession.make]) {
        const made = Either.try({
          try: () => make({ session: { isolation: "chaos" as never } }),
          catch: (error) => error
        })
        assert.instanceOf(Either.getOrThrow(Either.flip(made)), RouterError.RouterConfigError)
      }
    })
  )

  it.scoped("interruptible: without it an app without a router runs to its end, and commits by its status", () =>
    Effect.gen(function* () {
      const running = yield* Deferred.make<void>()
      const left = yield* Deferred.make<void>()
      const send = yield* placements["an HttpApp"]!(
        (_, id) =>
          insert(id).pipe(
            Effect.zipRight(Deferred.succeed(running, undefined)),
            Effect.zipRight(Deferred.await(left)),
            Effect.as(HttpServerResponse.empty())
          ),
        { interruptible: false }
      )
      const leave = new AbortController()
      const answered = send("/act/any/to-its-end", { signal: leave.signal }).catch(() => undefined)
      yield* Deferred.await(running)
      leave.abort()
      yield* Effect.promise(() => answered)
      // The server hears of it a moment later.
      yield* Effect.sleep("50 millis")
      yield* Deferred.succeed(left, undefined)
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("to-its-end"), ["to-its-end"])
    })
  )

  const around = {
    "around it": (route: Layer.Layer<never, never, Route>) =>
      Layer.provide(route, HttpLayerRouter.middleware(HttpSession.make()).layer),
    "without it around the router": (route: Layer.Layer<never, never, Route>) =>
      Layer.merge(route, HttpLayerRouter.middleware(HttpSession.make({ interruptible: false }), { global: true }))
  }

  for (const [i, [how, put]] of Object.entries(around).entries()) {
    it.scoped(`interruptible: ${how} an uninterruptible route runs to its end, and no other`, () =>
      Effect.gen(function* () {
        for (const uninterruptible of [true, false]) {
          const id = `route-${i}-${uninterruptible}`
          const running = yield* Deferred.make<void>()
          const left = yield* Deferred.make<void>()
          const ended = yield* Deferred.make<void>()
          const pay = insert(id).pipe(
            Effect.zipRight(Deferred.succeed(running, undefined)),
            Effect.zipRight(Deferred.await(left)),
            Effect.as(HttpServerResponse.empty()),
            Effect.ensuring(Deferred.succeed(ended, undefined))
          )
          const routes = put(HttpLayerRouter.add("POST", "/pay", pay, { uninterruptible }))
          const send = yield* listen(HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }))
          const leave = new AbortController()
          const answered = send("/pay", { signal: leave.signal }).catch(() => undefined)
          yield* Deferred.await(running)
          leave.abort()
          yield* Effect.promise(() => answered)
          yield* Effect.sleep("50 millis")
          if (uninterruptible) yield* Deferred.succeed(left, undefined)
          yield* Deferred.await(ended)
          yield* nothingIsHeld
          assert.deepStrictEqual(yield* existing(id), uninterruptible ? [id] : [])
        }
      })
    )
  }

  class Auditor extends Context.Tag("test/Auditor")<Auditor, { readonly name: string }>() {}

  const audit = Effect.gen(function* () {
    const { name } = yield* Auditor
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO entry SELECT id || ${` by ${name}`} FROM entry WHERE id LIKE 'audit%'`
  })

  const audited: Act = (name, id) =>
    Effect.gen(function* () {
      yield* insert(`audit-${id}`)
      yield* Effect.orDie(DbRouter.commit)
      yield* Effect.orDie(DbRouter.beforeCommit(insert(`audit-${id}-hook`)))
      return HttpServerResponse.empty({ status: Number(name) })
    })

  it.scoped("beforeCommit: runs with its services before the last COMMIT, after the handler's", () =>
    Effect.gen(function* () {
      const options = { beforeCommit: audit }
      const app = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) => {
        const [, name = "", id = ""] = url.split("/")
        return audited(name, id)
      }).pipe(Effect.orDie)
      const wrapped = Effect.provideService(HttpSession.middleware(options)(app), Auditor, { name: "middleware" })
      const made = HttpLayerRouter.middleware(HttpSession.make(options)).layer.pipe(
        Layer.provide(Layer.succeed(Auditor, { name: "make" }))
      )
      const routes = Layer.provide(HttpLayerRouter.add("POST", "/:name/:id", app), made)
      const servers = {
        middleware: yield* listen(HttpServer.serve(wrapped)),
        make: yield* listen(HttpLayerRouter.serve(routes, { disableLogger: true, disableListenLog: true }))
      }
      for (const [name, send] of Object.entries(servers)) {
        const ids = [`audit-${name}`, `audit-${name} by ${name}`, `audit-${name}-hook by ${name}`]
        assert.strictEqual((yield* Effect.promise(() => send(`/409/${name}`))).status, 409)
        // Committed early, by the handler; the rest was not.
        assert.deepStrictEqual(yield* existing(...ids), [`audit-${name}`])
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query("DELETE FROM entry")
        assert.strictEqual((yield* Effect.promise(() => send(`/200/${name}`))).status, 200)
        assert.deepStrictEqual(yield* existing(...ids), ids)
      }
    })
  )

  it.scoped("beforeCommit: makes the response a 500 when it fails, and rolls back", () =>
    Effect.gen(function* () {
      const send = yield* serve({ beforeCommit: Effect.fail("no") })
      assert.strictEqual((yield* send("/act/200/vetoed")).status, 500)
      assert.strictEqual((yield* send("/act/409/unheard")).status, 409)
      assert.deepStrictEqual(yield* existing("vetoed", "unheard"), [])
      yield* nothingIsHeld
    })
  )

  for (const name of ["an HttpApp", "HttpServer.serve"]) {
    it.scoped(`beforeCommit: is interrupted, and all rolled back, when the client leaves: ${name}`, () =>
      Effect.gen(function* () {
        const asleep = yield* Deferred.make<void>()
        const sleep = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          Effect.zipRight(Deferred.succeed(asleep, undefined), sql`SELECT pg_sleep(600)`)
        )
        const id = `asleep-${name.length}`
        const send = yield* placements[name]!(
          (name, id) => Effect.zipLeft(answer(name, id), Effect.orDie(DbRouter.beforeCommit(sleep))),
          {}
        )
        const leave = new AbortController()
        const answered = send(`/act/200/${id}`, { signal: leave.signal }).catch(() => "no answer")
        yield* Deferred.await(asleep)
        leave.abort()
        assert.strictEqual(yield* Effect.promise(() => answered), "no answer")
        yield* nothingIsHeld
        assert.deepStrictEqual(yield* existing(id), [])
      })
    )
  }

  it.scoped("the handler before the response is called twice: the second call changes nothing", () =>
    Effect.gen(function* () {
      const request = HttpServerRequest.fromWeb(new Request("http://localhost/", { method: "POST" }))
      let commits = 0
      const session = HttpSession.middleware({
        beforeCommit: Effect.zipRight(
          insert("before"),
          Effect.sync(() => commits++)
        )
      })
      const answers = yield* Effect.gen(function* () {
        const response = yield* session(Effect.as(insert("twice"), HttpServerResponse.text("done")))
        const handler = Option.getOrThrow(yield* FiberRef.get(HttpApp.currentPreResponseHandlers))
        return yield* Effect.forEach([response, response, HttpServerResponse.empty({ status: 500 })], (response) =>
          handler(request, response)
        )
      }).pipe(Effect.provideService(HttpServerRequest.HttpServerRequest, request))
      assert.deepStrictEqual(
        answers.map(({ status }) => status),
        [200, 200, 500]
      )
      assert.strictEqual(commits, 1)
      assert.deepStrictEqual(yield* existing("twice", "before"), ["twice", "before"])
      yield* nothingIsHeld
    })
  )

  for (const name of ["an HttpApp", "HttpServer.serve"]) {
    it.scoped(`consistency: hears of the COMMIT outside the session, in the flow of the request: ${name}`, () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const heard: Array<boolean> = []
        const consistency = {
          ...Consistency.eventual(),
          afterCommit: Effect.zipRight(
            RoutingContext.setStickyPrimary,
            Effect.map(DbRouter.isInSession, (isInSession) => void heard.push(isInSession))
          )
        }
        const router = DbRouter.layer({ groups: { default: [{ url: primary.url }] }, consistency })
        const state = Effect.map(RoutingContext.shouldUsePrimary, String)
        const send = yield* Effect.provide(
          placements[name]!((_, id) =>
            Effect.gen(function* () {
              yield* insert(id)
              const before = yield* state
              const body = Stream.concat(Stream.make(`${before}, `), Stream.fromEffect(state))
              return HttpServerResponse.stream(Stream.encodeText(body))
            })
          ),
          yield* Layer.build(router)
        )
        const { body } = yield* Effect.promise(() => send(`/act/any/heard-${name.length}`))
        assert.strictEqual(body, "false, true")
        assert.deepStrictEqual(new Set(heard), new Set([false]))
      })
    )
  }
})
