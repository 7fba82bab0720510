import type { IncomingMessage } from "node:http"
import { connect } from "node:net"
import { HttpApp, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import { eventually, existing, insert, listen, nothingIsHeld, router, TestLayer } from "../support/http.js"

/** A body larger than the buffers between the server and a client that reads nothing. */
const unread = Effect.map(SqlClient.SqlClient, (sql) =>
  HttpServerResponse.stream(
    sql<{ readonly text: string }>`SELECT repeat('x', 2000) AS text FROM generate_series(1, 20000)`.stream.pipe(
      Stream.map(({ text }) => new TextEncoder().encode(text))
    )
  )
)

/** Writes the id in its path, and does not end. */
const endless = (id: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* insert(id)
    yield* sql`SELECT pg_sleep(600)`
    return HttpServerResponse.text("never")
  })

const app = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) => {
  const [, name = "", id = ""] = url.split("/")
  return name === "stream" ? unread : endless(id)
}).pipe(Effect.orDie)

/** A client that sends all its requests at once, and reads no answer. */
const pipelining = (port: number, paths: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.async<ReturnType<typeof connect>>((resume) => {
      const socket = connect(port, "127.0.0.1", () => {
        socket.pause()
        socket.write(paths.map((path) => `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`).join(""))
        resume(Effect.succeed(socket))
      })
      socket.on("error", () => {})
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const inUse = Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
  Effect.map(status, (engines) => engines.reduce((sum, { pool }) => sum + pool.total - pool.idle, 0))
)

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("requests that a client pipelines", (it) => {
  for (const [name, interruptible] of [
    ["with the middleware", true],
    ["with a middleware that interrupts no handler", false]
  ] as const) {
    it.scoped(`leave no connection with streaming bodies when it hangs up: ${name}`, () =>
      Effect.gen(function* () {
        const { port } = yield* listen(HttpServer.serve(app, HttpSession.middleware({ interruptible })))
        const socket = yield* pipelining(
          port,
          Array.from({ length: 4 }, () => "/stream")
        )
        yield* eventually(
          Effect.map(inUse, (n) => n === 4),
          "all bodies are read"
        )
        socket.resetAndDestroy()
        yield* nothingIsHeld
      }).pipe(Effect.provide(router()))
    )
  }

  it.scoped("are all interrupted when it hangs up, and leave nothing", () =>
    Effect.gen(function* () {
      const { port } = yield* listen(HttpServer.serve(app, HttpSession.middleware()))
      const ids = Array.from({ length: 4 }, (_, i) => `pipelined-${i}`)
      const socket = yield* pipelining(
        port,
        ids.map((id) => `/endless/${id}`)
      )
      yield* eventually(
        Effect.map(inUse, (n) => n === 4),
        "all write"
      )
      socket.resetAndDestroy()
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing(...ids), [])
    }).pipe(Effect.provide(router()))
  )

  it.scoped("add one listener to its socket", () =>
    Effect.gen(function* () {
      const listeners: Array<number> = []
      const counting = Effect.map(HttpServerRequest.HttpServerRequest, ({ source }) => {
        listeners.push((source as IncomingMessage).socket.listenerCount("close"))
        return HttpServerResponse.empty({ status: 204 })
      })
      const { port } = yield* listen(HttpServer.serve(counting, HttpSession.middleware()))
      yield* pipelining(
        port,
        Array.from({ length: 30 }, () => "/")
      )
      yield* eventually(
        Effect.sync(() => listeners.length === 30),
        "all are served"
      )
      assert.deepStrictEqual(new Set(listeners).size, 1, listeners.join(" "))
    }).pipe(Effect.provide(router()))
  )
})

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a request that asks for an upgrade", (it) => {
  for (const [what, early] of [
    ["", ""],
    [", after it has sent more", "more"]
  ] as const) {
    it.scoped(`is interrupted and rolled back when its client leaves before the answer${what}`, () =>
      Effect.gen(function* () {
        const { port } = yield* listen(HttpServer.serve(app, HttpSession.middleware()))
        const id = `upgrade-${early.length}`
        const socket = yield* Effect.acquireRelease(
          Effect.async<ReturnType<typeof connect>>((resume) => {
            const socket = connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
            socket.on("error", () => {})
          }),
          (socket) => Effect.sync(() => socket.destroy())
        )
        socket.write(`GET /endless/${id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n${early}`)
        yield* eventually(
          Effect.map(inUse, (n) => n === 1),
          "it writes"
        )
        socket.write(early)
        socket.end()
        yield* nothingIsHeld
        assert.deepStrictEqual(yield* existing(id), [])
      }).pipe(Effect.provide(router()))
    )
  }
})

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a web handler's response", (it) => {
  it.scoped("leaves no connection when its request is aborted and its body neither read nor cancelled", () =>
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<DbRouter.Services>()
      const handler = HttpApp.toWebHandlerRuntime(runtime)(HttpSession.middleware()(app))
      const leave = new AbortController()
      const request = new Request("http://localhost/stream", { signal: leave.signal })
      const { status } = yield* Effect.promise(() => handler(request))
      assert.strictEqual(status, 200)
      yield* eventually(
        Effect.map(inUse, (n) => n === 1),
        "its body is read"
      )
      leave.abort()
      yield* nothingIsHeld
    }).pipe(Effect.provide(router()))
  )
})
