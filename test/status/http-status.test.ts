import { createHash } from "node:crypto"
import { HttpLayerRouter, HttpRouter, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schedule } from "effect"
import { DbRouter, HttpStatus } from "effect-db-router"
import { script } from "../../src/internal/status/script.js"
import * as RouterTest from "../support/router.js"
import { type Ask, handler, sameOrigin, scriptErrors, served } from "../support/status.js"

const { PgCluster } = RouterTest

const cluster = PgCluster.layer({ replicas: 1 })

/** A name, a title and a text that break out of what is put together carelessly. */
const hostile = `</script><img src=x onerror="alert(1)">'&`

const statusOf = async (ask: Ask, path = "/status.json"): Promise<HttpStatus.Status> => {
  const response = await ask(path)
  assert.strictEqual(response.status, 200)
  return (await response.json()) as HttpStatus.Status
}

const post = (ask: Ask, path: string, headers: Record<string, string> = sameOrigin) =>
  ask(path, { method: "POST", headers })

const errorOf = async (response: Response) => ((await response.json()) as { readonly error: string }).error

layer(Layer.provideMerge(RouterTest.router({ engine: { maxConnections: 4 } }), cluster), { timeout: "1 minute" })(
  "status.json",
  (it) => {
    it.effect("tells how every server does, what was sent to it and why, and what has happened", () =>
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        const sql = yield* SqlClient.SqlClient
        const ask = yield* handler(yield* HttpStatus.make())
        const before = yield* Effect.promise(() => statusOf(ask))
        assert.deepStrictEqual(
          before.engines.map(({ group, name, role, state }) => [group, name, role, state]),
          [
            ["default", "primary", "primary", "up"],
            ["read", "replica1", "replica", "up"],
            ["analytics", "analytics1", "replica", "up"],
            ["archive", "archive1", "primary", "up"]
          ]
        )
        assert.strictEqual(before.writer, "primary")
        assert.deepStrictEqual(before.decisions, [])
        assert.deepStrictEqual(before.engines[1]!.pool.max, 4)
        assert.isNumber(before.engines[1]!.lag?.millis)
        assert.isNumber(before.engines[1]!.lag?.bytes)

        yield* sql`CREATE TABLE status_notes (text text)`
        yield* sql`INSERT INTO status_notes VALUES (${"a secret parameter"})`
        for (let i = 0; i < 3; i++) yield* DbRouter.replica(sql`SELECT ${i}::int AS one`)
        yield* DbRouter.bindGroup(sql`SELECT 1`, "analytics")
        yield* router.drain("replica1")
        yield* DbRouter.replica(sql`SELECT ${"another secret parameter"} AS two`)
        yield* router.undrain("replica1")
        yield* Effect.yieldNow()

        const response = yield* Effect.promise(() => ask("/status.json"))
        const text = yield* Effect.promise(() => response.text())
        const status = JSON.parse(text) as HttpStatus.Status
        assert.deepStrictEqual(
          status.engines.map(({ traffic }) => traffic),
          [
            { reads: 1, writes: 2, others: 0 },
            { reads: 3, writes: 0, others: 0 },
            { reads: 1, writes: 0, others: 0 },
            { reads: 0, writes: 0, others: 0 }
          ]
        )
        assert.deepStrictEqual(
          status.decisions.map(({ engines, kind, reason, sql }) => [
            kind,
            engines.map(({ engine }) => engine).join(),
            reason,
            sql
          ]),
          [
            ["read", "primary", "no replica is available", "SELECT $1 AS two"],
            ["read", "analytics1", "bound to the group analytics", "SELECT ?"],
            ["read", "replica1", "plain SELECT", "SELECT $1::int AS one"],
            ["write", "primary", "INSERT", "INSERT INTO status_notes VALUES ($1)"],
            ["write", "primary", status.decisions.at(-1)!.reason, "CREATE TABLE status_notes (text text)"]
          ]
        )
        assert.deepStrictEqual(
          status.events.map((event) => event._tag),
          ["Undrained", "Drained"]
        )
        const { password } = yield* PgCluster.PgCluster
        for (const secret of [Redacted.value(password), "password", "://", "secret parameter"]) {
          assert.notInclude(text, secret)
        }
        assert.strictEqual(response.headers.get("content-type"), "application/json")
        assert.strictEqual(response.headers.get("cache-control"), "no-store")
        assert.strictEqual(response.headers.get("x-content-type-options"), "nosniff")
      })
    )

    it.effect("hides the texts of statements if asked to", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const ask = yield* handler(yield* HttpStatus.make({ texts: false }))
        yield* sql`SELECT 'literal' AS one`
        yield* sql`SELECT 'literal' AS two`
        const { decisions } = yield* Effect.promise(() => statusOf(ask))
        assert.isNotEmpty(decisions)
        assert.notInclude(JSON.stringify(decisions), "literal")
        const kinds = decisions.map(({ kind, reason }) => `${kind} ${reason}`)
        assert.deepStrictEqual(kinds, [...new Set(kinds)])
      })
    )

    it.effect("shows no constant, unless it is asked to", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const masked = yield* handler(yield* HttpStatus.make())
        const full = yield* handler(yield* HttpStatus.make({ texts: true }))
        for (let i = 0; i < 3; i++) yield* sql.unsafe(`SELECT 'S3cret${i}' AS password -- S3cret`)
        yield* Effect.ignore(sql.unsafe("SELECT 1 FROM dblink('host=x password=S3cret', $1) AS t (a int)", ["S3cret"]))
        const { decisions } = yield* Effect.promise(() => statusOf(masked))
        assert.notInclude(JSON.stringify(decisions), "S3cret")
        const kinds = decisions.filter((decision) => decision.sql?.includes("AS password") === true)
        assert.deepStrictEqual(
          kinds.map((decision) => decision.sql),
          ["SELECT ? AS password "],
          "statements that differ in constants are one"
        )
        const texts = (yield* Effect.promise(() => statusOf(full))).decisions.map((decision) => decision.sql)
        assert.include(texts, "SELECT 'S3cret2' AS password -- S3cret")
      })
    )

    it.effect("takes bounded room", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const ask = yield* handler(yield* HttpStatus.make({ texts: true }))
        const padding = "x".repeat(5000)
        for (let i = 0; i < 300; i++) yield* sql.unsafe(`SELECT ${i} AS n${i} /* ${padding} */`)
        const { decisions } = yield* Effect.promise(() => statusOf(ask))
        assert.strictEqual(decisions.length, 60)
        assert.match(decisions[0]!.sql!, /^SELECT 299 AS n299/)
        assert.strictEqual(decisions[0]!.sql!.length, 2001)
        const router = yield* DbRouter.DbRouter
        for (let i = 0; i < 120; i++) yield* Effect.zipRight(router.drain("replica1"), router.undrain("replica1"))
        yield* Effect.yieldNow()
        assert.strictEqual((yield* Effect.promise(() => statusOf(ask))).events.length, 100)
      })
    )
  }
)

layer(Layer.provideMerge(RouterTest.router(), cluster), { timeout: "1 minute" })("the status page", (it) => {
  it.effect("loads nothing, and runs nothing but its own script", () =>
    Effect.gen(function* () {
      const ask = yield* handler(HttpStatus.app({ title: hostile, description: hostile }))
      const response = yield* Effect.promise(() => ask("/"))
      const html = yield* Effect.promise(() => response.text())
      assert.strictEqual(response.headers.get("content-type"), "text/html; charset=utf-8")
      const policy = response.headers.get("content-security-policy")!
      for (const tag of ["script", "style"]) {
        const [, content] = new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(html)!
        const hash = createHash("sha256").update(content!).digest("base64")
        assert.include(policy, `${tag}-src 'sha256-${hash}'`)
      }
      assert.match(policy, /^default-src 'none'; /)
      assert.notInclude(policy, "unsafe")
      for (const directive of ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
        assert.include(policy, directive)
      }
      assert.notMatch(html, /\b(src|srcset|action)=|href="(?!data:|status\.json)|@import|url\(|\son\w+=|\sstyle=/)
      assert.notInclude(html, hostile, "what others have named is not part of the page")
      const head = yield* Effect.promise(() => ask("/", { method: "HEAD" }))
      assert.strictEqual(head.status, 200)
      assert.strictEqual(yield* Effect.promise(() => head.text()), "")
    })
  )

  it.effect("has a script without type errors", () =>
    Effect.sync(() => assert.deepStrictEqual(scriptErrors(script), []))
  )

  it.scoped("is where it is mounted, and nowhere else", () =>
    Effect.gen(function* () {
      const app = HttpStatus.app()
      const other = HttpServerResponse.text("other")
      const context = Context.make(DbRouter.DbRouter, yield* DbRouter.DbRouter)
      const layered = (routes: Layer.Layer<never, never, HttpLayerRouter.HttpRouter | DbRouter.DbRouter>) =>
        Effect.map(
          Effect.acquireRelease(
            Effect.sync(() =>
              HttpLayerRouter.toWebHandler(Layer.provide(routes, Layer.succeedContext(context)), {
                disableLogger: true
              })
            ),
            ({ dispose }) => Effect.promise(dispose)
          ),
          ({ handler }) =>
            (path: string) =>
              handler(new Request(`http://localhost${path}`))
        )
      const routed = (router: HttpRouter.HttpRouter<never, DbRouter.DbRouter>) =>
        handler(
          HttpRouter.get(router, "/", other).pipe(
            Effect.catchTag("RouteNotFound", () => HttpServerResponse.empty({ status: 404 }))
          )
        )
      const mounts: Record<string, readonly [string, (path: string) => Promise<Response>]> = {
        plain: ["", yield* handler(app)],
        mountApp: ["/a/b/db", yield* routed(HttpRouter.mountApp(HttpRouter.empty, "/a/b/db", app))],
        "mountApp, with its prefix": [
          "/a/b/db",
          yield* routed(HttpRouter.mountApp(HttpRouter.empty, "/a/b/db", app, { includePrefix: true }))
        ],
        "HttpLayerRouter, with a parameter": ["/a/b/db", yield* layered(HttpStatus.layer("/a/:b/db"))],
        "HttpLayerRouter, at its root": ["", yield* layered(HttpStatus.layer("/"))],
        "HttpLayerRouter, prefixed": [
          "/a/b/db",
          yield* layered(
            HttpLayerRouter.use((router) =>
              Effect.flatMap(HttpStatus.make(), (app) =>
                Effect.forEach(["/db/", "/db/*"] as const, (path) => router.prefixed("/a/b").add("*", path, app))
              )
            )
          )
        ]
      }
      for (const [name, [mount, ask]] of Object.entries(mounts)) {
        const statuses = yield* Effect.promise(() =>
          Promise.all(
            [
              "/",
              "/?a=b",
              "/status.json",
              "/status.json?a=b",
              "/drain",
              "/nothing",
              "/nothing/",
              "/nothing/status.json"
            ].map(async (path) => (await ask(`${mount}${path}`)).status)
          )
        )
        assert.deepStrictEqual(statuses, [200, 200, 200, 200, 405, 404, 404, 404], name)
        assert.include(yield* Effect.promise(async () => (await ask(`${mount}/`)).text()), "<!doctype html>", name)
      }
      const one = yield* routed(
        HttpRouter.empty.pipe(HttpRouter.get("/db", app), HttpRouter.get("/db/status.json", app))
      )
      assert.include(yield* Effect.promise(async () => (await one("/db")).text()), "<!doctype html>")
      assert.strictEqual((yield* Effect.promise(() => statusOf(one, "/db/status.json"))).writer, "primary")
    })
  )
})

layer(Layer.provideMerge(RouterTest.router(), cluster), { timeout: "1 minute" })(
  "operations of the status page",
  (it) => {
    const stateOf = (name: string) =>
      Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
        Effect.map(status, (engines) => engines.find((engine) => engine.name === name)!.state)
      )

    it.effect("are off", () =>
      Effect.gen(function* () {
        const ask = yield* handler(HttpStatus.app())
        const response = yield* Effect.promise(() => post(ask, "/drain?engine=replica1"))
        assert.strictEqual(response.status, 403)
        assert.include(yield* Effect.promise(() => errorOf(response)), "operations: true")
        assert.strictEqual(yield* stateOf("replica1"), "up")
      })
    )

    it.effect("drain and undrain", () =>
      Effect.gen(function* () {
        const ask = yield* handler(HttpStatus.app({ operations: true }))
        const drained = yield* Effect.promise(() => post(ask, "/drain?engine=replica1"))
        assert.strictEqual(drained.status, 200)
        const { engines } = (yield* Effect.promise(() => drained.json())) as HttpStatus.Status
        assert.strictEqual(engines.find(({ name }) => name === "replica1")!.state, "draining")
        assert.strictEqual(yield* stateOf("replica1"), "draining")
        assert.strictEqual((yield* Effect.promise(() => post(ask, "/undrain?engine=replica1"))).status, 200)
        assert.strictEqual(yield* stateOf("replica1"), "up")
        const unknown = yield* Effect.promise(() => post(ask, "/drain?engine=unknown"))
        assert.strictEqual(unknown.status, 404)
      })
    )

    it.effect("answer for no host that a page of the web can make its own", () =>
      Effect.gen(function* () {
        const evil = { "sec-fetch-site": "same-origin", origin: "http://evil.test", host: "evil.test" }
        const statusFor = (options: HttpStatus.Options, host: string, path = "/drain?engine=nothing") =>
          Effect.flatMap(handler(HttpStatus.app(options)), (ask) =>
            Effect.promise(async () => (await post(ask, path, { ...evil, host })).status)
          )
        const operations: ReadonlyArray<HttpStatus.Options> = [{ operations: true }, { actions: () => [] }]
        for (const options of operations) {
          const ask = yield* handler(HttpStatus.app(options))
          for (const path of ["/", "/status.json"]) {
            const response = yield* Effect.promise(() => ask(path, { headers: { host: "evil.test:3000" } }))
            assert.strictEqual(response.status, 403, path)
          }
          for (const path of ["/drain?engine=replica1", "/act?engine=replica1&action=x", "/"]) {
            assert.strictEqual(yield* statusFor(options, "evil.test", path), 403, path)
          }
        }
        const own = { operations: true, hosts: ["db.example"] }
        const others = [
          "evil.test",
          "db.example.evil.test",
          "xdb.example",
          "localhost.evil.test",
          "1.2.3.4.evil.test",
          ""
        ]
        for (const host of others) assert.strictEqual(yield* statusFor(own, host), 403, host)
        const good = [
          "db.example",
          "DB.example:8080",
          "db.example.",
          "localhost:1",
          "a.localhost",
          "127.0.0.1:80",
          "[::1]:80"
        ]
        for (const host of good) assert.strictEqual(yield* statusFor(own, host), 404, host)
        assert.strictEqual(yield* statusFor({ operations: true, hosts: true }, "evil.test"), 404)
        const ask = yield* handler(HttpStatus.app())
        const read = yield* Effect.promise(() => ask("/status.json", { headers: { host: "db.example" } }))
        assert.strictEqual(read.status, 200, "without operations any host is answered")
        const refused = yield* handler(HttpStatus.app({ hosts: [] }))
        const strict = yield* Effect.promise(() => refused("/status.json", { headers: { host: "db.example" } }))
        assert.strictEqual(strict.status, 403)
        assert.include(yield* Effect.promise(() => errorOf(strict)), 'hosts: ["db.example"]')
      })
    )

    it.effect("take a POST of the same origin", () =>
      Effect.gen(function* () {
        const ask = yield* handler(HttpStatus.app({ operations: true, hosts: ["db.example"] }))
        const foreign: ReadonlyArray<Record<string, string>> = [
          {},
          { "sec-fetch-site": "cross-site" },
          { "sec-fetch-site": "same-site" },
          { "sec-fetch-site": "none" },
          { "sec-fetch-site": "cross-site", origin: "http://db.example", host: "db.example" },
          { origin: "null", host: "db.example" },
          { origin: "http://evil.example", host: "db.example" },
          { origin: "http://db.example:8080", host: "db.example" },
          { origin: "http://db.example" }
        ]
        for (const headers of foreign) {
          const response = yield* Effect.promise(() => post(ask, "/drain?engine=replica1", headers))
          assert.strictEqual(response.status, 403, JSON.stringify(headers))
        }
        for (const method of ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
          const response = yield* Effect.promise(() => ask("/drain?engine=replica1", { method, headers: sameOrigin }))
          assert.deepStrictEqual([response.status, response.headers.get("allow")], [405, "POST"], method)
        }
        assert.strictEqual(yield* stateOf("replica1"), "up")
        for (const path of ["/", "/status.json"]) {
          const response = yield* Effect.promise(() => post(ask, path))
          assert.deepStrictEqual([response.status, response.headers.get("allow")], [405, "GET, HEAD"])
        }
        const own = { origin: "https://db.example", host: "db.example" }
        assert.strictEqual((yield* Effect.promise(() => post(ask, "/drain?engine=replica1", own))).status, 200)
        yield* Effect.promise(() => post(ask, "/undrain?engine=replica1"))
      })
    )

    it.effect("of one's own are there for whom they are made for, and say why they fail", () =>
      Effect.gen(function* () {
        const done: Array<string> = []
        const actions: HttpStatus.Options["actions"] = ({ name, role }) =>
          role === "replica"
            ? [
                { label: hostile, run: Effect.sync(() => done.push(name)) },
                { label: "Fail", run: Effect.fail(new Error("it is Monday")) },
                { label: "Die", run: Effect.die(new Error("a secret")) }
              ]
            : []
        const ask = yield* handler(HttpStatus.app({ actions }))
        const { engines } = yield* Effect.promise(() => statusOf(ask))
        assert.deepStrictEqual(engines[0]!.actions, [])
        assert.deepStrictEqual(engines[1]!.actions, [hostile, "Fail", "Die"])
        const act = (engine: string, action: string, headers?: Record<string, string>) =>
          Effect.promise(() => post(ask, `/act?${new URLSearchParams({ engine, action })}`, headers))
        assert.strictEqual((yield* act("replica1", hostile, {})).status, 403)
        assert.strictEqual((yield* act("replica1", hostile)).status, 200)
        assert.strictEqual((yield* act("primary", hostile)).status, 404)
        assert.strictEqual((yield* act("replica1", "No such")).status, 404)
        assert.deepStrictEqual(done, ["replica1"])
        const failed = yield* act("replica1", "Fail")
        assert.deepStrictEqual([failed.status, yield* Effect.promise(() => errorOf(failed))], [500, "it is Monday"])
        const died = yield* act("replica1", "Die")
        assert.strictEqual(died.status, 500)
        assert.notInclude(yield* Effect.promise(() => died.text()), "secret")
      })
    )
  }
)

layer(cluster, { timeout: "1 minute", excludeTestServices: true })("the cost of the status page", (it) => {
  const observerOf = Effect.map(DbRouter.DbRouter, ({ runner }) => runner.router.observer)

  it.effect("is nothing until the first request", () =>
    Effect.gen(function* () {
      const ask = yield* handler(HttpStatus.app())
      assert.isUndefined(yield* observerOf)
      yield* Effect.promise(() => ask("/nothing"))
      assert.isUndefined(yield* observerOf)
      yield* Effect.promise(() => statusOf(ask))
      assert.isDefined(yield* observerOf)
    }).pipe(Effect.provide(RouterTest.router()))
  )

  it.effect("leaves no fiber behind of clients that hang up", () =>
    Effect.gen(function* () {
      const roots = Effect.map(Fiber.roots, (fibers) => fibers.length)
      // A closed connection is noticed in a moment.
      const settled = (most: number) =>
        Effect.repeat(roots, {
          until: (count) => count <= most,
          schedule: Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurs(1000))
        })
      const visits = (ask: Ask) =>
        Effect.promise(() =>
          Promise.allSettled(
            Array.from({ length: 100 }, (_, i) => {
              const controller = new AbortController()
              if (i % 2 === 0) setTimeout(() => controller.abort(), i % 7)
              return ask(i % 3 === 0 ? "/" : "/status.json", { signal: controller.signal }).then((r) => r.text())
            })
          )
        )
      const before = yield* roots
      yield* Effect.scoped(
        Effect.gen(function* () {
          const url = yield* served(HttpStatus.app())
          const ask: Ask = (path, init) => fetch(`${url}${path}`, init)
          yield* visits(ask)
          yield* Effect.sleep("100 millis")
          const after = yield* roots
          yield* visits(ask)
          yield* settled(after)
          assert.isAtMost(yield* roots, after)
          yield* Effect.promise(() => statusOf(ask))
        })
      ).pipe(Effect.provide(RouterTest.router()))
      yield* settled(before)
      assert.isAtMost(yield* roots, before)
    })
  )
})
