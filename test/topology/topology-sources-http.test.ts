/**
 * Servers from a JSON endpoint: real HTTP servers that answer well, badly, slowly and without end.
 */
import { FetchHttpClient, HttpClient, HttpClientRequest } from "@effect/platform"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, Schema, Tracer } from "effect"
import * as RouterError from "effect-db-router/RouterError"
import * as Topology from "effect-db-router/Topology"
import * as Endpoint from "../support/endpoint.js"

const clients = { fetch: FetchHttpClient.layer, node: NodeHttpClient.layer }

const read = (options: Topology.HttpOptions) => Effect.flatMap(Topology.http(options), ({ source }) => source!.members)

const secret = "hunter2"

for (const [name, client] of Object.entries(clients)) {
  describe(`a JSON endpoint, through the HttpClient of ${name}`, () => {
    const live = (
      what: string,
      answer: Endpoint.Answer,
      test: (endpoint: Endpoint.Endpoint) => Effect.Effect<unknown, unknown, HttpClient.HttpClient>
    ) =>
      it.scopedLive(what, () =>
        Effect.flatMap(Endpoint.make(answer), test).pipe(Effect.provide(client), Effect.timeout("20 seconds"))
      )

    const servers = [
      { host: "db1", port: 5432, role: "primary", rack: 7 },
      { host: "db2", name: "second", weight: 2, zone: "eu-1a", reads: false, serverName: "pg.example.org", port: null }
    ]
    const members: ReadonlyArray<Topology.Member> = [
      { host: "db1", port: 5432, role: "primary" },
      { host: "db2", name: "second", weight: 2, zone: "eu-1a", reads: false, serverName: "pg.example.org" }
    ]

    live("answers a list", Endpoint.json(servers), ({ asked, url }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* read({ url: `${url}/servers` }), members)
        assert.strictEqual(asked[0]!.url, "/servers")
        assert.strictEqual(asked[0]!.headers.accept, "application/json")
        assert.isUndefined(asked[0]!.authorization)
      })
    )

    live("answers a list in an object", Endpoint.json({ servers, version: 3 }), ({ url }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* read({ url }), members)
      })
    )

    live("is asked with the credentials of the options, or of the URL", Endpoint.json(servers), ({ asked, url }) =>
      Effect.gen(function* () {
        yield* read({ url, auth: { username: "app", password: Redacted.make(secret) } })
        yield* read({ url: url.replace("://", "://app:hunter%32@") })
        const basic = `Basic ${Buffer.from(`app:${secret}`).toString("base64")}`
        assert.deepStrictEqual(
          asked.map(({ authorization }) => authorization),
          [basic, basic]
        )
      })
    )

    live(
      "is asked with the query as it is, and the headers of the HttpClient",
      Endpoint.json(servers),
      ({ asked, url }) =>
        Effect.gen(function* () {
          const custom = HttpClient.mapRequest(
            yield* HttpClient.HttpClient,
            HttpClientRequest.setHeader("x-tenant", "seven")
          )
          yield* Effect.provideService(read({ url: `${url}/a?token=x%20y+z` }), HttpClient.HttpClient, custom)
          assert.strictEqual(asked[0]!.url, "/a?token=x%20y+z")
          assert.strictEqual(asked[0]!.headers["x-tenant"], "seven")
        })
    )

    const html = "<!DOCTYPE html><title>Sign in</title>"
    const wrong: ReadonlyArray<readonly [string, Endpoint.Answer, string]> = [
      ["HTML", Endpoint.text(html, { type: "text/html; charset=utf-8" }), "its answer is not JSON but text/html"],
      ["503", Endpoint.text("", { status: 503 }), "it answered 503"],
      ["503 with a list", Endpoint.json(servers, 503), "it answered 503"],
      ["401", Endpoint.json({}, 401), "it answered 401; check the user name and the password"],
      ["404", Endpoint.text(html, { status: 404, type: "text/html" }), "it answered 404; check the path"],
      ["half a text", Endpoint.text('[{"host":"db1"},{"ho'), "is not JSON, or was cut short"],
      ["nothing", Endpoint.text(""), "its answer is empty"],
      ["204", (response) => response.writeHead(204).end(), "its answer is empty"],
      ["another object", Endpoint.json({ hosts: [] }), "must be a list of servers"],
      ["null", Endpoint.json(null), "must be a list of servers"],
      ["a text", Endpoint.json("db1"), "must be a list of servers"],
      ["an empty list", Endpoint.json([]), "servers is an empty list. It must list at least one server"],
      ["texts", Endpoint.json(["db1"]), 'servers[0] is "db1". It must be a server'],
      ["no host", Endpoint.json([{ host: "db1" }, { port: 1 }]), "servers[1].host is missing"],
      ["a text for a port", Endpoint.json([{ host: "db1", port: "1" }]), 'servers[0].port is "1". It must be a whole'],
      [
        "an object for a port",
        Endpoint.json([{ host: "db1", port: { password: secret } }]),
        "servers[0].port is an obj"
      ],
      ["an object for a host", Endpoint.json([{ host: { password: secret } }]), "servers[0].host is an object"],
      ["a list for a server", Endpoint.json([["db1", secret]]), "servers[0] is a list of 2. It must be a server"],
      ["port 0", Endpoint.json([{ host: "db1", port: 0 }]), "servers[0].port is 0. It must be a whole number from 1"],
      [
        "a role of its own",
        Endpoint.json([{ host: "db1", role: "leader" }]),
        'servers[0].role is "leader". It must be'
      ],
      ["weight -1", Endpoint.json([{ host: "db1", weight: -1 }]), "servers[0].weight is -1. It must be a positive"],
      ["a host of two", Endpoint.json([{ host: "db1,db2" }]), "It must be one host"],
      ["credentials", Endpoint.json([{ host: `postgresql://app:${secret}@db1` }]), "not a URL"],
      ["one server twice", Endpoint.json([{ host: "db1" }, { host: "db1" }]), "called the same"],
      ["a broken connection", (_, request) => request.socket.destroy(), "it cannot be reached"],
      [
        "a part of what it promised",
        (response, request) => {
          response.writeHead(200, { "content-length": "1000" })
          response.write('[{"host":"db1"}]', () => setTimeout(() => request.socket.destroy(), 20))
        },
        "its answer broke off"
      ]
    ]

    for (const [what, answer, says] of wrong) {
      live(`that answers ${what} is an error that says so, without a secret`, answer, ({ port }) =>
        Effect.gen(function* () {
          const url = `http://app:${secret}@127.0.0.1:${port}/servers?token=${secret}`
          const error = yield* Effect.flip(read({ url }))
          assert.instanceOf(error, RouterError.TopologyError)
          assert.include(error.message, says)
          assert.strictEqual(error.target, `http://127.0.0.1:${port}/servers?<redacted>`)
          assert.notInclude(Endpoint.seen(error), secret)
          assert.notInclude(Endpoint.seen(error), Buffer.from(`app:${secret}`).toString("base64"))
        })
      )
    }

    live("at a closed port is an error with the code, without a secret", Endpoint.silence, () =>
      Effect.gen(function* () {
        const url = yield* Endpoint.closed
        const error = yield* Effect.flip(read({ url: Redacted.make(`${url}/${secret}?key=${secret}`) }))
        assert.include(Endpoint.seen(error), "it cannot be reached (ECONNREFUSED)")
        assert.include(Endpoint.seen(error), `${url}/<redacted>`)
        assert.notInclude(Endpoint.seen(error), secret)
      })
    )

    live("is not read beyond 1 MiB", Endpoint.silence, (endpoint) =>
      Effect.gen(function* () {
        let written = 0
        endpoint.answer = (response) => {
          response.writeHead(200, { "content-type": "application/json" })
          const more = () => {
            while (!response.destroyed) {
              written += 65_536
              if (!response.write(" ".repeat(65_536))) return response.once("drain", more)
            }
            return response
          }
          more()
        }
        const error = yield* Effect.flip(read({ url: endpoint.url }))
        assert.include(Endpoint.seen(error), "its answer is longer than 1 MiB")
        while (endpoint.open() > 0) yield* Effect.sleep("10 millis")
        assert.isBelow(written, 64 * 1024 * 1024)
      })
    )

    live("may take the timeout, and is hung up on after it", Endpoint.silence, (endpoint) =>
      Effect.gen(function* () {
        const silent = yield* Effect.flip(read({ url: endpoint.url, timeout: "100 millis" }))
        assert.include(Endpoint.seen(silent), "took longer than 100ms")
        endpoint.answer = (response) => void response.writeHead(200).write("[")
        const slow = yield* Effect.flip(read({ url: endpoint.url, timeout: "100 millis" }))
        assert.include(Endpoint.seen(slow), "took longer than 100ms")
        while (endpoint.open() > 0) yield* Effect.sleep("10 millis")
      })
    )

    live("is hung up on when its reader is interrupted", Endpoint.silence, (endpoint) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.fork(read({ url: endpoint.url }))
        while (endpoint.asked.length === 0) yield* Effect.sleep("10 millis")
        yield* Fiber.interrupt(fiber)
        while (endpoint.open() > 0) yield* Effect.sleep("10 millis")
      })
    )
  })
}

describe("a JSON endpoint", () => {
  const answering = (body: unknown) => Endpoint.make(Endpoint.json(body))

  it.scopedLive("that redirects is followed as the HttpClient does, or an error", () =>
    Effect.gen(function* () {
      const { url } = yield* Endpoint.make((response, request) =>
        request.url === "/old"
          ? response.writeHead(302, { location: "/new" }).end()
          : response.writeHead(200).end('[{"host":"db1"}]')
      )
      const asked = read({ url: `${url}/old` })
      assert.deepStrictEqual(yield* Effect.provide(asked, FetchHttpClient.layer), [{ host: "db1" }])
      const error = yield* Effect.flip(Effect.provide(asked, NodeHttpClient.layer))
      assert.include(error.message, "it answered 302, a redirect")
    })
  )

  it.scopedLive("whose HttpClient refuses statuses, or dies, is an error", () =>
    Effect.gen(function* () {
      const { url } = yield* Endpoint.make(Endpoint.json([], 503))
      const client = yield* HttpClient.HttpClient
      const through = (one: HttpClient.HttpClient) =>
        Effect.flip(Effect.provideService(read({ url }), HttpClient.HttpClient, one))
      assert.include((yield* through(HttpClient.filterStatusOk(client))).message, "it answered 503")
      const dying = HttpClient.make((request) => Effect.die(new Error(`${request.url} ${secret}`)))
      const error = yield* through(dying)
      assert.include(error.message, "a defect of the HttpClient")
      assert.notInclude(Endpoint.seen(error), secret)
    }).pipe(Effect.provide(FetchHttpClient.layer))
  )

  it.scopedLive("has spans that show no secret", () =>
    Effect.gen(function* () {
      const { url } = yield* answering([{ host: "db1" }])
      const spans: Array<Tracer.Span> = []
      const plain = yield* Effect.tracer
      const tracer = Tracer.make({
        context: plain.context,
        span: (...args) => {
          const span = plain.span(...args)
          spans.push(span)
          return span
        }
      })
      const traced = (options: Topology.HttpOptions) => Effect.withTracer(read(options), tracer)
      yield* traced({ url: `${url}/plain`, auth: { username: "app", password: Redacted.make(secret) } })
      assert.strictEqual(spans.length, 1)
      yield* traced({ url: `${url}/a?token=${secret}` })
      yield* traced({ url: Redacted.make(`${url}/${secret}`) })
      const attributes = JSON.stringify(spans.map(({ attributes, name }) => [name, [...attributes]]))
      assert.include(attributes, "/plain")
      assert.notInclude(attributes, secret)
    }).pipe(Effect.provide(FetchHttpClient.layer))
  )

  it.scopedLive("is a layer", () =>
    Effect.gen(function* () {
      const { url } = yield* answering([{ host: "db1" }])
      const topology = yield* Effect.provide(
        Topology.Topology,
        Layer.provide(Topology.layerHttp({ url, name: "registry" }), FetchHttpClient.layer)
      )
      assert.strictEqual(topology.name, "registry")
      assert.deepStrictEqual(yield* topology.source!.members, [{ host: "db1" }])
    })
  )

  it.effect("whose answers are written with the schema can be read", () =>
    Effect.gen(function* () {
      const server = { host: "db1", port: 5432, role: "primary", reads: true } as const
      const encoded = yield* Schema.encode(Topology.Server)(server)
      assert.deepStrictEqual(yield* Schema.decode(Topology.Server)(encoded), server)
    })
  )

  for (const [what, options, field] of [
    ["no URL", {}, "url"],
    ["no URL of HTTP", { url: `postgresql://app:${secret}@db1` }, "url"],
    ["a text that is no URL", { url: `app:${secret}@db1` }, "url"],
    [
      "credentials twice",
      { url: `http://a:${secret}@b`, auth: { username: "a", password: Redacted.make("b") } },
      "url"
    ],
    ["a password in the open", { url: "http://b", auth: { username: "a", password: secret } }, "auth.password"],
    ["no password", { url: "http://b", auth: { username: "a" } }, "auth.password"],
    ["no user", { url: "http://b", auth: { password: Redacted.make(secret) } }, "auth.username"],
    ["a password cut in two by a slash", { url: `http://app:12/${secret}@b` }, "url"],
    ["a password cut in two by a question mark", { url: `http://app:12?${secret}@b` }, "url"],
    ["a password cut in two by a hash", { url: `http://app:12#${secret}@b` }, "url"],
    ["credentials that are not encoded", { url: `http://a:${secret}%@b` }, "url"],
    ["another option", { url: "http://b", headers: { authorization: secret } }, "headers"]
  ] as const) {
    it.effect(`refuses ${what}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Topology.http(options as unknown as Topology.HttpOptions))
        assert.instanceOf(error, RouterError.RouterConfigError)
        assert.strictEqual(error.field, field)
        assert.notInclude(Endpoint.seen(error), secret)
      }).pipe(Effect.provide(FetchHttpClient.layer))
    )
  }
})
