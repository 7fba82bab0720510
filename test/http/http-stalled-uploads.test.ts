import type { IncomingMessage } from "node:http"
import { connect, type Socket } from "node:net"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Stream } from "effect"
import { DbRouter, HttpSession, RouterError } from "effect-db-router"
import { eventually, existing, insert, listen, nothingIsHeld, router, TestLayer } from "../support/http.js"

const request = HttpServerRequest.HttpServerRequest

const created = HttpServerResponse.empty({ status: 201 })

/** The ways to read a body. */
const reads = {
  text: Effect.flatMap(request, ({ text }) => text),
  arrayBuffer: Effect.flatMap(request, ({ arrayBuffer }) => arrayBuffer),
  stream: Effect.flatMap(request, ({ stream }) => Stream.runDrain(stream)),
  multipart: Effect.scoped(Effect.flatMap(request, ({ multipart }) => multipart)).pipe(
    Effect.provide(NodeContext.layer)
  )
} as const

type Read = keyof typeof reads

/** `/ORDER/READ/ID`: writes its id before it reads the body, or after it, or does not read it. */
const app = (ended: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void> = () => Effect.void) =>
  Effect.gen(function* () {
    const [, order, read, id = ""] = (yield* request).url.split("/")
    const body: Effect.Effect<void, unknown, HttpServerRequest.HttpServerRequest> = reads[read as Read]
    if (order === "write-first") yield* Effect.zipRight(insert(id), body)
    else if (order === "read-first") yield* Effect.zipRight(body, insert(id))
    else yield* Effect.zipRight(insert(id), Effect.sleep("1500 millis"))
    return created
  }).pipe(Effect.onExit((exit) => ended(exit)))

const boundary = "x"
const beginning = `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n`
const end = `\r\n--${boundary}--\r\n`

interface Upload {
  readonly socket: Socket
  /** What the server has sent. */
  readonly received: () => string
}

const upload = (port: number, path: string, length: number, begin: string) =>
  Effect.acquireRelease(
    Effect.async<Upload>((resume) => {
      let received = ""
      const socket = connect(port, "127.0.0.1", () => {
        socket.write(
          `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=${boundary}\r\nContent-Length: ${length}\r\n\r\n${begin}`
        )
        resume(Effect.succeed({ socket, received: () => received }))
      })
      socket.on("data", (data) => (received += data.toString()))
      socket.on("error", () => {})
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const stalledUpload = (port: number, path: string) => upload(port, path, 100_000, beginning)

const answered = ({ received }: Upload, status: number) =>
  eventually(
    Effect.sync(() => received().startsWith(`HTTP/1.1 ${status} `)),
    `a response ${status}`
  )

const serving = (options: HttpSession.Options, made: ReturnType<typeof app> = app()) =>
  Effect.map(listen(HttpServer.serve(Effect.orDie(made), HttpSession.middleware(options))), ({ port }) => port)

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a request whose upload stalls", (it) => {
  for (const read of ["text", "arrayBuffer", "stream", "multipart"] as const) {
    it.scoped(`is ended by a 408 and rolled back, so that others get its connection: ${read}`, () =>
      Effect.gen(function* () {
        const port = yield* serving({ bodyTimeout: "500 millis" })
        const ids = [0, 1].map((i) => `stalled-${read}-${i}`)
        const uploads = yield* Effect.forEach(ids, (id) => stalledUpload(port, `/write-first/${read}/${id}`))
        // They hold all the connections that there are.
        const { status } = yield* DbRouter.DbRouter
        yield* eventually(
          Effect.map(status, ([primary]) => primary?.pool.idle === 0),
          "both have written"
        )
        const other = yield* upload(port, `/write-first/text/other-${read}`, 1, "x")
        yield* answered(other, 201)
        for (const one of uploads) {
          yield* answered(one, 408)
          assert.include(one.received().toLowerCase(), "connection: close")
          yield* eventually(
            Effect.sync(() => one.socket.readableEnded),
            "the socket is closed"
          )
        }
        yield* nothingIsHeld
        assert.deepStrictEqual(yield* existing(...ids, `other-${read}`), [`other-${read}`])
      }).pipe(Effect.provide(router(2)))
    )
  }

  it.scoped("is ended so by default", () =>
    Effect.gen(function* () {
      const port = yield* serving({})
      yield* answered(yield* stalledUpload(port, "/write-first/text/default"), 408)
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("default"), [])
    }).pipe(Effect.provide(router()))
  )

  it.scoped("is rolled back, whatever statuses commit", () =>
    Effect.gen(function* () {
      const port = yield* serving({ bodyTimeout: "300 millis", commits: () => true })
      yield* answered(yield* stalledUpload(port, "/write-first/text/commits"), 408)
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("commits"), [])
    }).pipe(Effect.provide(router()))
  )

  it.scoped("ends its handler, once the response is sent", () =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<boolean>()
      const made = app((exit) => Effect.asVoid(Deferred.succeed(ended, Exit.isInterrupted(exit))))
      const port = yield* serving({ bodyTimeout: "300 millis" }, made)
      yield* answered(yield* stalledUpload(port, "/write-first/text/handler"), 408)
      assert.isTrue(yield* Deferred.await(ended))
    }).pipe(Effect.provide(router()))
  )

  for (const [name, options, route] of [
    ["with a middleware that interrupts no handler", { interruptible: false }, false],
    ["on a route that nothing interrupts", {}, true]
  ] as const) {
    it.scoped(`is ended ${name}`, () =>
      Effect.gen(function* () {
        const ended = yield* Deferred.make<void>()
        const made = Effect.orDie(app(() => Effect.asVoid(Deferred.succeed(ended, undefined))))
        const routes = HttpRouter.empty.pipe(HttpRouter.all("*", made, { uninterruptible: route }))
        const { port } = yield* listen(
          HttpServer.serve(HttpRouter.use(routes, HttpSession.middleware({ bodyTimeout: "300 millis", ...options })))
        )
        const id = `uninterruptible-${route}`
        yield* answered(yield* stalledUpload(port, `/write-first/text/${id}`), 408)
        yield* nothingIsHeld
        yield* Deferred.await(ended)
        assert.deepStrictEqual(yield* existing(id), [])
      }).pipe(Effect.provide(router()))
    )
  }

  it.scoped("is interrupted when its client hangs up", () =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<void>()
      const port = yield* serving(
        { bodyTimeout: "1 minute" },
        app(() => Effect.asVoid(Deferred.succeed(ended, undefined)))
      )
      const { socket } = yield* stalledUpload(port, "/write-first/text/hangs-up")
      const { status } = yield* DbRouter.DbRouter
      yield* eventually(
        Effect.map(status, ([primary]) => primary?.inFlight === 0 && primary.pool.total - primary.pool.idle === 1),
        "it has written"
      )
      socket.resetAndDestroy()
      yield* Deferred.await(ended)
      yield* nothingIsHeld
      assert.deepStrictEqual(yield* existing("hangs-up"), [])
    }).pipe(Effect.provide(router()))
  )
})

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a request that is not cut", (it) => {
  it.scoped("comes slowly, but goes on", () =>
    Effect.gen(function* () {
      const port = yield* serving({ bodyTimeout: "2 seconds" })
      const steps = 25
      const one = yield* upload(port, "/write-first/multipart/slow", beginning.length + steps + end.length, beginning)
      for (let i = 0; i < steps; i++) {
        yield* Effect.sleep("150 millis")
        one.socket.write("x")
      }
      one.socket.write(end)
      yield* answered(one, 201)
      assert.deepStrictEqual(yield* existing("slow"), ["slow"])
    }).pipe(Effect.provide(router()))
  )

  for (const order of ["read-first", "not-at-all"]) {
    it.scoped(`has a body that nothing waits for with a connection: ${order}`, () =>
      Effect.gen(function* () {
        const port = yield* serving({ bodyTimeout: "200 millis" })
        const one = yield* upload(port, `/${order}/text/${order}`, 2, "x")
        yield* Effect.sleep("1 second")
        assert.strictEqual(one.received(), "")
        one.socket.write("x")
        yield* answered(one, 201)
        assert.deepStrictEqual(yield* existing(order), [order])
      }).pipe(Effect.provide(router()))
    )
  }
})

describe("the option bodyTimeout", () => {
  it("must be longer than zero", () => {
    for (const bodyTimeout of [0, -1, "soon" as never]) {
      assert.throws(() => HttpSession.middleware({ bodyTimeout }), RouterError.RouterConfigError, /bodyTimeout/)
    }
  })
})

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a body whose client has gone", (it) => {
  for (const read of ["text", "arrayBuffer", "stream", "multipart"] as const) {
    for (const [what, length] of [
      ["in part", 100_000],
      ["whole", beginning.length]
    ] as const) {
      it.scoped(`holds no connection where it is read without interruption, after it came ${what}: ${read}`, () =>
        Effect.gen(function* () {
          const gone = yield* Deferred.make<void>()
          const ended = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
          const id = `gone-${read}-${length}`
          const made = Effect.gen(function* () {
            const { source } = yield* request
            const { socket } = source as IncomingMessage
            // The client may leave before the answer to the INSERT is here.
            socket.once("close", () => Deferred.unsafeDone(gone, Exit.void))
            yield* insert(id)
            yield* Effect.zipRight(Deferred.await(gone), Effect.sleep("50 millis"))
            yield* reads[read]
            return created
          }).pipe(
            Effect.uninterruptible,
            Effect.onExit((exit) => Deferred.succeed(ended, exit))
          )
          const port = yield* serving({ bodyTimeout: "500 millis" }, made)
          const { socket } = yield* upload(port, `/${id}`, length, beginning)
          const { status } = yield* DbRouter.DbRouter
          yield* eventually(
            Effect.map(status, ([primary]) => (primary?.pool.total ?? 0) > (primary?.pool.idle ?? 0)),
            "it has written"
          )
          socket.destroy()
          // What a multipart reader waits for is never told of it.
          if (read !== "multipart") assert.isTrue(Exit.isFailure(yield* Deferred.await(ended)))
          yield* nothingIsHeld
          assert.deepStrictEqual(yield* existing(id), [])
        }).pipe(Effect.provide(router()))
      )
    }
  }
})
