import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Readable } from "node:stream"
import { HttpServer, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, type Exit, Runtime, Schedule, Stream } from "effect"
import { DbRouter, HttpSession, RoutingContext } from "effect-db-router"
import {
  type Act,
  eventually,
  insert,
  listen,
  nothingIsHeld,
  placements,
  reasonOf,
  TestLayer,
  violate,
  watch
} from "../support/http.js"

const stream = <E>(body: Stream.Stream<string, E>) => HttpServerResponse.stream(Stream.encodeText(body))

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a response with a body", (it) => {
  for (const [name, placement] of Object.entries(placements)) {
    for (const captured of [false, true]) {
      const how = captured ? "with the handler's context" : "without a context"
      it.scoped(`commits before it streams ${how}; each statement of the stream by itself: ${name}`, () =>
        Effect.gen(function* () {
          const { exists } = yield* watch
          const gate = yield* Deferred.make<void>()
          const act: Act = (_, id) =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* insert(id)
              yield* RoutingContext.setStickyPrimary
              const context = yield* Effect.context<SqlClient.SqlClient>()
              const write = captured
                ? Effect.provide(insert(`${id}-body`), context)
                : Effect.provideService(insert(`${id}-body`), SqlClient.SqlClient, sql)
              const state = Effect.all([DbRouter.isInSession, RoutingContext.shouldUsePrimary])
              // Before its own write, which sticks too.
              const first = Effect.map(Effect.zipLeft(state, write), (state) => JSON.stringify(state))
              const body = Stream.fromIterable([first, Effect.as(Deferred.await(gate), "!")]).pipe(
                Stream.mapEffect((effect) => effect)
              )
              return stream(captured ? Stream.provideContext(body, context) : body)
            })
          const send = yield* placement(act)
          const id = `${name}-${captured}`.replaceAll(/\W+/g, "-")
          let atHead: Promise<boolean> | undefined
          const answer = send(`/act/any/${id}`, { atHead: () => (atHead = exists(id)) })
          yield* eventually(
            Effect.promise(() => exists(`${id}-body`)),
            "the statement of the body is committed"
          )
          yield* Deferred.succeed(gate, undefined)
          // The flow is the request's: its writes are known.
          assert.deepInclude(yield* Effect.promise(() => answer), { status: 200, body: "[false,true]!" })
          assert.isTrue(yield* Effect.promise(() => atHead!))
          yield* nothingIsHeld
        })
      )
    }
  }

  for (const name of ["an HttpApp", "HttpServer.serve", "HttpApp.toWebHandlerRuntime"]) {
    const placement = placements[name]!

    it.scoped(`is cancelled with its statements when the client leaves; what was committed stays: ${name}`, () =>
      Effect.gen(function* () {
        const { exists } = yield* watch
        const running = yield* Deferred.make<void>()
        const interrupted = yield* Deferred.make<void>()
        const send = yield* placement((_, id) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* insert(id)
            const sleep = Effect.zipRight(Deferred.succeed(running, undefined), sql`SELECT pg_sleep(600)`).pipe(
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined)),
              Effect.as("never")
            )
            return stream(Stream.concat(Stream.make("data"), Stream.fromEffect(sleep)))
          })
        )
        const leave = new AbortController()
        const answer = send(`/act/any/left-${name.length}`, { signal: leave.signal }).then(
          () => "answered",
          () => "left"
        )
        yield* Deferred.await(running)
        leave.abort()
        yield* Deferred.await(interrupted)
        assert.strictEqual(yield* Effect.promise(() => answer), "left")
        yield* nothingIsHeld
        assert.isTrue(yield* Effect.promise(() => exists(`left-${name.length}`)))
      })
    )

    it.scoped(`breaks off when the stream fails, and stays committed: ${name}`, () =>
      Effect.gen(function* () {
        const { exists } = yield* watch
        const send = yield* placement((_, id) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* insert(id)
            return stream(Stream.concat(Stream.make("data"), Stream.fromEffect(Effect.as(sql`SELECT 1/0`, "never"))))
          })
        )
        const answer = yield* Effect.promise(() =>
          send(`/act/any/broken-${name.length}`).then(
            ({ body }) => body,
            () => "broken off"
          )
        )
        assert.include(["data", "broken off"], answer)
        assert.isTrue(yield* Effect.promise(() => exists(`broken-${name.length}`)))
        yield* nothingIsHeld
      })
    )

    it.scoped(`streams the rows of a query: ${name}`, () =>
      Effect.gen(function* () {
        const send = yield* placement((_, id) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* insert(id)
            const rows = sql<{ readonly n: number }>`SELECT n FROM generate_series(1, 3000) AS n`.stream
            return stream(Stream.map(rows, ({ n }) => `${n}\n`))
          })
        )
        const { body } = yield* Effect.promise(() => send(`/act/any/rows-${name.length}`))
        assert.strictEqual(body.split("\n").length, 3001)
        yield* nothingIsHeld
      })
    )
  }

  it.scoped("sends events for as long as the client listens", () =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<void>()
      const { port } = yield* listen(
        HttpServer.serve(
          HttpSession.middleware()(
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* insert("events")
              const events = Stream.repeatEffect(
                Effect.map(
                  sql<{ readonly n: number }>`SELECT count(*)::int AS n FROM entry`,
                  ([row]) => `data: ${row?.n}\n\n`
                )
              ).pipe(Stream.schedule(Schedule.spaced("5 millis")), Stream.ensuring(Deferred.succeed(ended, undefined)))
              return HttpServerResponse.stream(Stream.encodeText(events), { contentType: "text/event-stream" })
            })
          )
        )
      )
      const leave = new AbortController()
      const events = yield* Effect.promise(async () => {
        const response = await fetch(`http://127.0.0.1:${port}/`, { signal: leave.signal })
        const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
        let text = ""
        while (text.split("\n\n").length <= 5) text += (await reader.read()).value
        leave.abort()
        return text
      })
      assert.match(events, /^(data: \d+\n\n){5}/)
      yield* Deferred.await(ended)
      yield* nothingIsHeld
    })
  )

  it.scoped("is none for HEAD: the handler runs and commits, the body does not", () =>
    Effect.gen(function* () {
      const { exists } = yield* watch
      for (const [i, placement] of [placements["an HttpApp"]!, placements["HttpLayerRouter.toWebHandler"]!].entries()) {
        const send = yield* placement((_, id) =>
          Effect.gen(function* () {
            const context = yield* Effect.context<SqlClient.SqlClient>()
            yield* insert(id)
            return stream(Stream.fromEffect(Effect.as(Effect.provide(insert(`${id}-body`), context), "body")))
          })
        )
        const { body, status } = yield* Effect.promise(() => send(`/act/any/head-${i}`, { method: "HEAD" }))
        assert.deepStrictEqual([status, body], [200, ""])
        assert.isTrue(yield* Effect.promise(() => exists(`head-${i}`)))
        assert.isFalse(yield* Effect.promise(() => exists(`head-${i}-body`)))
      }
      yield* nothingIsHeld
    })
  )

  it.scoped("is a file as usual, and is closed when the COMMIT fails", () =>
    Effect.gen(function* () {
      const { exists } = yield* watch
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-db-router-"))),
        (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
      )
      const file = join(folder, "report.txt")
      writeFileSync(file, "report")
      const opened: Array<Readable> = []
      const send = yield* placements["HttpServer.serve"]!((name, id) =>
        Effect.gen(function* () {
          yield* insert(id)
          if (name === "fails") yield* violate
          const response = yield* Effect.orDie(HttpServerResponse.file(file))
          if (response.body._tag === "Raw" && response.body.body instanceof Readable) opened.push(response.body.body)
          return response
        }).pipe(Effect.provide(NodeHttpServer.layerContext))
      )
      let atHead: Promise<boolean> | undefined
      const sent = yield* Effect.promise(() => send("/act/works/file", { atHead: () => (atHead = exists("file")) }))
      assert.deepInclude(sent, { status: 200, body: "report" })
      assert.strictEqual(sent.headers.get("content-type"), "text/plain")
      assert.isTrue(yield* Effect.promise(() => atHead!))
      const failed = yield* Effect.promise(() => send("/act/fails/no-file"))
      assert.deepInclude(failed, { status: 500, body: "" })
      assert.isFalse(yield* Effect.promise(() => exists("no-file")))
      assert.deepStrictEqual(
        opened.map(({ destroyed }) => destroyed),
        [true, true]
      )
    })
  )

  it.scoped("refuses what outlives the session in other ways, and names the reason", () =>
    Effect.gen(function* () {
      const exits = new Map<string, Exit.Exit<unknown, unknown>>()
      const note = (name: string) => (exit: Exit.Exit<unknown, unknown>) => Effect.sync(() => exits.set(name, exit))
      const answered = yield* Deferred.make<void>()
      const send = yield* placements["HttpServer.serve"]!((_, id) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(id)
          const late = Effect.asVoid(sql`SELECT 1`)
          const runtime = yield* Effect.runtime<SqlClient.SqlClient>()
          yield* Effect.addFinalizer(() => Effect.flatMap(Effect.exit(late), note("finalizer")))
          const daemon = Effect.zipRight(Deferred.await(answered), late)
          yield* Effect.forkDaemon(Effect.flatMap(Effect.exit(daemon), note("daemon")))
          const job = Effect.zipRight(Deferred.await(answered), DbRouter.detached(late))
          yield* Effect.forkDaemon(Effect.flatMap(Effect.exit(job), note("detached")))
          const body = Readable.from(
            (async function* () {
              await Runtime.runPromise(runtime)(Effect.flatMap(Effect.exit(late), note("raw body")))
              yield "body"
            })()
          )
          return HttpServerResponse.raw(body)
        })
      )
      assert.deepInclude(yield* Effect.promise(() => send("/act/any/late")), { status: 200, body: "body" })
      yield* Deferred.succeed(answered, undefined)
      yield* eventually(
        Effect.sync(() => exits.size === 4),
        "all have ended"
      )
      assert.deepStrictEqual(Object.fromEntries([...exits].map(([name, exit]) => [name, reasonOf(exit)])), {
        finalizer: "SessionClosed",
        daemon: "SessionClosed",
        detached: "none",
        "raw body": "SessionClosed"
      })
      yield* nothingIsHeld
    })
  )
})
