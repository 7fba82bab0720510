import { type IncomingMessage, request as nodeRequest } from "node:http"
import type { Duplex } from "node:stream"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse, Socket } from "@effect/platform"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import * as Http from "../support/http.js"

const TestLayer = Layer.merge(Http.TestLayer, NodeSocket.layerWebSocketConstructor)

const decoder = new TextDecoder()

/** A socket that inserts each message: by itself, or in a session that fails when the message says so. */
const app = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { url } = yield* HttpServerRequest.HttpServerRequest
  const id = url.split("/").at(-1)!
  yield* sql`INSERT INTO entry VALUES (${id})`
  if (id.startsWith("violating")) yield* sql`INSERT INTO child VALUES ('orphan')`
  if (id.startsWith("refused")) return HttpServerResponse.empty({ status: 404 })
  const socket = yield* HttpServerRequest.upgrade
  const write = yield* socket.writer
  yield* socket.run((data) =>
    Effect.gen(function* () {
      const message = decoder.decode(data)
      if (message === "sleep") yield* sql`SELECT pg_sleep(600)`
      const insert = sql`INSERT INTO entry VALUES (${`${id}-${message}`})`
      yield* message === "failing"
        ? Effect.ignore(DbRouter.session(Effect.zipRight(insert, Effect.fail("after all not"))))
        : insert
      yield* write(`${message}: ${yield* DbRouter.isInSession}`)
    })
  )
  return HttpServerResponse.empty()
}).pipe(
  Effect.scoped,
  Effect.catchTag("SocketError", () => Effect.succeed(HttpServerResponse.empty()))
)

const middleware = HttpSession.middleware()

const mounted = HttpRouter.empty.pipe(HttpRouter.mountApp("/mounted", app))

const servers = {
  "an HttpApp": () => Http.listen(HttpServer.serve(Effect.orDie(middleware(app)))),
  "HttpServer.serve": () => Http.listen(HttpServer.serve(Effect.orDie(app), middleware)),
  // Here the app sees a request that was made from the original one.
  "a router that takes a prefix away": () => Http.listen(HttpServer.serve(middleware(Effect.orDie(mounted))))
}

/** Connects, and returns what sends a message and waits for the answer to it. */
const connect = (url: string) =>
  Effect.gen(function* () {
    const socket = yield* Socket.makeWebSocket(url)
    const answers = yield* Queue.unbounded<string>()
    const running = yield* Effect.fork(socket.run((data) => Queue.offer(answers, decoder.decode(data))))
    const write = yield* socket.writer
    return {
      ask: (message: string) => Effect.zipRight(write(message), Queue.take(answers)),
      close: Effect.zipRight(write(new Socket.CloseEvent(1000)), Fiber.await(running))
    }
  })

/** Asks for an upgrade, and returns the status of the answer. */
const upgrade = (port: number, path: string, protocol: string) =>
  Effect.acquireRelease(
    Effect.async<readonly [status: number | undefined, socket: Duplex]>((resume) => {
      const headers = {
        connection: "Upgrade",
        upgrade: protocol,
        "sec-websocket-version": "13",
        "sec-websocket-key": Buffer.alloc(16).toString("base64")
      }
      const request = nodeRequest({ host: "127.0.0.1", port, path, headers, agent: false })
      const answered = (response: IncomingMessage) => {
        response.resume()
        resume(Effect.succeed([response.statusCode, response.socket]))
      }
      request.on("response", answered)
      request.on("upgrade", answered)
      request.on("error", (error) => resume(Effect.die(error)))
      request.end()
    }),
    ([, socket]) => Effect.sync(() => socket.destroy())
  )

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a socket", (it) => {
  for (const [i, [name, serve]] of Object.entries(servers).entries()) {
    it.scoped(`has committed what came before it when it opens, and holds nothing: ${name}`, () =>
      Effect.gen(function* () {
        const { exists } = yield* Http.watch
        const { port } = yield* serve()
        const id = `open-${i}`
        const { ask, close } = yield* connect(`ws://127.0.0.1:${port}/mounted/${id}`)
        assert.strictEqual(yield* ask("first"), "first: false")
        assert.isTrue(yield* Effect.promise(() => exists(id)))
        assert.isTrue(yield* Effect.promise(() => exists(`${id}-first`)))
        yield* Http.nothingIsHeld
        assert.strictEqual(yield* ask("failing"), "failing: false")
        assert.isFalse(yield* Effect.promise(() => exists(`${id}-failing`)))
        yield* Http.nothingIsHeld
        yield* close
      })
    )

    for (const [what, status] of [
      ["refused", 404],
      ["violating", 500]
    ] as const) {
      it.scoped(`is not opened by a request that ends with ${status}, which is rolled back: ${name}`, () =>
        Effect.gen(function* () {
          const { exists } = yield* Http.watch
          const { port } = yield* serve()
          // A protocol that the server does not speak makes no difference.
          for (const protocol of status === 404 ? ["websocket", "h2c"] : ["websocket"]) {
            const id = `${what}-${i}-${protocol}`
            const [answered] = yield* upgrade(port, `/mounted/${id}`, protocol)
            assert.strictEqual(answered, status)
            assert.isFalse(yield* Effect.promise(() => exists(id)))
          }
          yield* Http.nothingIsHeld
        })
      )
    }

    it.scoped(`cancels what runs when it breaks: ${name}`, () =>
      Effect.gen(function* () {
        const { exists, openTransactions } = yield* Http.watch
        const { port } = yield* serve()
        const [status, socket] = yield* upgrade(port, `/mounted/broken-${i}`, "websocket")
        assert.strictEqual(status, 101)
        // A text frame of five bytes, masked with zeros.
        socket.write(Buffer.from([0x81, 0x85, 0, 0, 0, 0, ...Buffer.from("sleep")]))
        yield* Http.eventually(
          Effect.map(Effect.promise(openTransactions), (n) => n === 1),
          "it sleeps"
        )
        socket.destroy()
        yield* Http.nothingIsHeld
        assert.isTrue(yield* Effect.promise(() => exists(`broken-${i}`)))
      })
    )
  }
})
