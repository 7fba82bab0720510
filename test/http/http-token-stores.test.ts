import {
  FileSystem,
  HttpLayerRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse,
  KeyValueStore
} from "@effect/platform"
import { SystemError } from "@effect/platform/Error"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Metric, Option, Stream } from "effect"
import { Consistency, DbRouter, HttpSession, Telemetry } from "effect-db-router"
import * as Causal from "../support/causal.js"
import { eventually, listen, quiet, type Send, type Sent } from "../support/http.js"
import * as RouterTest from "../support/router.js"

const { insert, look, newId, standingStill } = Causal

// No keys: what is kept on the server needs none.
const options = { consistency: Consistency.causal() }

/** Requests that are in their handlers until they are let go. */
const held = new Map<string, Deferred.Deferred<void>>()

const app = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const [, what, text] = request.url.split("/")
  const id = Number(text)
  const hold = held.get(what!)
  if (hold !== undefined) yield* Deferred.await(hold)
  if (what !== "read" && what !== "nothing") yield* insert(id)
  if (what === "violating") yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1/0`).pipe(Effect.ignore)
  if (what === "streaming") {
    const rows = Stream.fromEffect(Effect.map(look(id), (found) => JSON.stringify(found))).pipe(
      Stream.provideContext(yield* Effect.context<SqlClient.SqlClient>())
    )
    return HttpServerResponse.stream(Stream.encodeText(rows))
  }
  return what === "read" ? HttpServerResponse.unsafeJson(yield* look(id)) : HttpServerResponse.empty()
}).pipe(Effect.catchTag("SqlError", Effect.die))

/** Who sends a request; in earnest this would be proven. */
const subject = (request: HttpServerRequest.HttpServerRequest) =>
  Effect.succeed(Option.fromNullable(request.headers["x-user"]))

const token = HttpSession.tokenStore({ subject, timeout: "200 millis" })

const by = (user: string): Sent => ({ headers: { "x-user": user } })

const send = (client: Send, what: string, id: number, sent: Sent = {}) =>
  Effect.promise(() => client(`/${what}/${id}`, sent))

const write = (client: Send, id: number, sent: Sent) =>
  Effect.map(send(client, "write", id, sent), ({ status }) => assert.strictEqual(status, 204))

const shown = (body: string) => {
  const [found, engine] = JSON.parse(body) as [boolean, string]
  return found && engine === "primary" ? "new" : !found && engine !== "primary" ? "old" : body
}

const read = (client: Send, id: number, sent: Sent = {}) =>
  Effect.map(send(client, "read", id, { ...sent, method: "GET" }), ({ body, status }) => {
    assert.strictEqual(status, 200)
    return shown(body)
  })

const storeOf = (store: Layer.Layer<KeyValueStore.KeyValueStore>) =>
  Effect.map(Layer.build(store), (context) => Context.get(context, KeyValueStore.KeyValueStore))

const memory = storeOf(KeyValueStore.layerMemory)

/** A store on disk, opened anew by every process. */
const onDisk = Effect.gen(function* () {
  const directory = yield* Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())
  return storeOf(
    Layer.orDie(KeyValueStore.layerFileSystem(directory)).pipe(
      Layer.provide(Layer.merge(NodeFileSystem.layer, NodePath.layer))
    )
  )
}).pipe(Effect.provide(NodeFileSystem.layer), Effect.orDie)

const serve = (store: KeyValueStore.KeyValueStore, carrier = token) =>
  listen(
    HttpServer.serve(app, HttpSession.middleware({ token: carrier })).pipe(
      Layer.provide(Layer.succeed(KeyValueStore.KeyValueStore, store))
    )
  )

/** The same in another process: a router with a state of its own. */
const serveElsewhere = (store: KeyValueStore.KeyValueStore) =>
  Effect.flatMap(Layer.build(RouterTest.router(options)), (services) => Effect.provide(serve(store), services))

const unavailable = Effect.map(
  Metric.value(Metric.tagged(Telemetry.rejectedTokens, Telemetry.attributes.errorType, "unavailable")),
  ({ count }) => count
)

const failing = (method: string) =>
  new SystemError({ reason: "Unknown", module: "KeyValueStore", method, description: "a store that is down" })

const TestLayer = Layer.provideMerge(quiet, Causal.layer(options))

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a position in a store", (it) => {
  for (const [kind, open] of [
    ["in memory", Effect.map(memory, Effect.succeed)],
    ["on disk", onDisk]
  ] as const) {
    it.scoped(`is the subject's own, in every process that has the store: ${kind}`, () =>
      Effect.gen(function* () {
        const store = yield* open
        const here = yield* serve(yield* store)
        const there = yield* serveElsewhere(yield* store)
        yield* standingStill(
          Effect.gen(function* () {
            const id = yield* newId
            const { headers } = yield* send(here, "write", id, by("ada/../ü:1"))
            assert.deepStrictEqual(headers.getSetCookie(), [])
            assert.strictEqual(yield* read(there, id, by("ada/../ü:1")), "new")
            assert.strictEqual(yield* read(here, id, by("ada/../ü:1")), "new")
            assert.strictEqual(yield* read(there, id, by("bob")), "old")
            assert.strictEqual(yield* read(there, id), "old")
          })
        )
      })
    )
  }

  it.scoped("is kept by a middleware that was made with its store", () =>
    Effect.gen(function* () {
      const client = yield* listen(
        HttpLayerRouter.serve(
          HttpLayerRouter.add("*", "/:what/:id", app).pipe(
            Layer.provide(HttpLayerRouter.middleware(HttpSession.make({ token })).layer)
          ),
          { disableLogger: true, disableListenLog: true }
        ).pipe(Layer.provide(KeyValueStore.layerMemory))
      )
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          yield* write(client, id, by("ada"))
          assert.strictEqual(yield* read(client, id, by("ada")), "new")
          assert.strictEqual(yield* read(client, id, by("bob")), "old")
        })
      )
    })
  )

  it.scoped("stays at the furthest when requests of a subject overlap and the earlier one ends last", () =>
    Effect.gen(function* () {
      const kept = yield* memory
      // The first to write into the store is slow.
      const slow = yield* Deferred.make<void>()
      const written: Array<bigint> = []
      const lsnOf = (value: string | Uint8Array) => BigInt((JSON.parse(String(value)) as { readonly lsn: string }).lsn)
      let key = ""
      const store: KeyValueStore.KeyValueStore = {
        ...kept,
        set: (name, value) =>
          Effect.suspend(() => {
            key = name
            return written.push(lsnOf(value)) === 1 ? Deferred.await(slow) : Effect.void
          }).pipe(Effect.zipRight(kept.set(name, value)))
      }
      const client = yield* serve(store, HttpSession.tokenStore({ subject, timeout: "20 seconds" }))
      const early = yield* Effect.fork(write(client, yield* newId, by("ada")))
      yield* eventually(
        Effect.sync(() => written.length === 1),
        "the first one keeps its position"
      )
      const id = yield* newId
      const late = yield* Effect.fork(write(client, id, by("ada")))
      yield* eventually(DbRouter.primary(Causal.sees(id)), "the second one is committed")
      // Had it not to wait, it would have kept its position by then.
      yield* Effect.sleep("200 millis")
      yield* Deferred.succeed(slow, undefined)
      yield* Fiber.join(early)
      yield* Fiber.join(late)
      assert.isAbove(Number(written[1]! - written[0]!), 0)
      assert.strictEqual(lsnOf(Option.getOrThrow(yield* kept.get(key))), written[1])
    })
  )

  it.scoped("is kept though a timeout around the middleware is over while the store takes it", () =>
    Effect.gen(function* () {
      const kept = yield* memory
      const taken = yield* Deferred.make<void>()
      const released = yield* Deferred.make<void>()
      const store: KeyValueStore.KeyValueStore = {
        ...kept,
        set: (key, value) =>
          Deferred.succeed(taken, undefined).pipe(
            Effect.zipRight(Deferred.await(released)),
            Effect.zipRight(kept.set(key, value))
          )
      }
      const middleware = HttpSession.middleware({ token: HttpSession.tokenStore({ subject, timeout: "20 seconds" }) })
      const client = yield* listen(
        HttpServer.serve(app, (app) =>
          // It is over when the store has the position in its hands.
          Effect.raceFirst(middleware(app), Effect.as(Deferred.await(taken), HttpServerResponse.empty({ status: 504 })))
        ).pipe(Layer.provide(Layer.succeed(KeyValueStore.KeyValueStore, store)))
      )
      const sent = yield* Effect.fork(send(client, "write", yield* newId, by("ada")))
      yield* Deferred.await(taken)
      // It is interrupted by then.
      yield* Effect.sleep("50 millis")
      yield* Deferred.succeed(released, undefined)
      yield* Fiber.join(sent)
      assert.strictEqual(yield* kept.size, 1)
    })
  )

  it.scoped("is good for as long as a token is", () =>
    Effect.gen(function* () {
      const store = yield* memory
      const services = yield* Layer.build(RouterTest.router({ ...options, tokens: { lifetime: "300 millis" } }))
      const client = yield* Effect.provide(serve(store), services)
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          yield* write(client, id, by("ada"))
          yield* eventually(
            Effect.map(read(client, id, by("bob")), (what) => what === "old"),
            "bob's is old"
          )
          yield* Effect.sleep("350 millis")
          assert.strictEqual(yield* read(client, id, by("ada")), "old")
        })
      )
    })
  )

  for (const [how, broken] of [
    ["fails", (method: string) => Effect.fail(failing(method))],
    ["has a defect", () => Effect.dieMessage("a bug")],
    ["never answers", () => Effect.never]
  ] as const) {
    it.scoped(`costs no request its answer when the store ${how}`, () =>
      Effect.gen(function* () {
        const store = { ...(yield* memory), get: () => broken("get"), set: () => broken("set") }
        const client = yield* serve(store)
        yield* standingStill(
          Effect.gen(function* () {
            const before = yield* unavailable
            const id = yield* newId
            yield* write(client, id, by("ada"))
            assert.strictEqual(yield* unavailable, before + 2)
            assert.strictEqual(yield* read(client, id, by("ada")), "old")
            assert.strictEqual(yield* read(client, id), "old")
            assert.isTrue(yield* DbRouter.primary(Causal.sees(id)))
          })
        )
      })
    )
  }

  it.scoped("is not kept of a request whose COMMIT failed; what a body does after the head is not in it", () =>
    Effect.gen(function* () {
      const store = yield* memory
      const client = yield* serve(store)
      const failed = yield* send(client, "violating", yield* newId, by("ada"))
      assert.strictEqual(failed.status, 500)
      assert.isTrue(yield* store.isEmpty)
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          // The body has the request's flow.
          assert.strictEqual(shown((yield* send(client, "streaming", id, by("ada"))).body), "new")
          assert.strictEqual(yield* store.size, 1)
          assert.strictEqual(yield* read(client, id, by("ada")), "new")
        })
      )
    })
  )

  it.scoped("is none with a policy that keeps no positions", () =>
    Effect.gen(function* () {
      const store = yield* memory
      const services = yield* Layer.build(RouterTest.router({ consistency: Consistency.sticky() }))
      const client = yield* Effect.provide(serve(store), services)
      yield* write(client, yield* newId, by("ada"))
      assert.isTrue(yield* store.isEmpty)
    })
  )

  it.scoped("is asked for with what the effects of the request scope need", () =>
    Effect.gen(function* () {
      class User extends Context.Tag("test/User")<User, string>() {}
      class Audit extends Context.Tag("test/Audit")<Audit, { count: number }>() {}
      const audit = { count: 0 }
      const client = yield* listen(
        HttpServer.serve(
          app,
          HttpSession.middleware({
            beforeCommit: Effect.map(Audit, (audit) => audit.count++),
            token: HttpSession.tokenStore({ subject: () => Effect.asSome(User) })
          })
        ).pipe(Layer.provide([Layer.succeed(User, "ada"), Layer.succeed(Audit, audit), KeyValueStore.layerMemory]))
      )
      yield* standingStill(
        Effect.gen(function* () {
          const id = yield* newId
          yield* write(client, id, {})
          assert.strictEqual(yield* read(client, id), "new")
        })
      )
      assert.strictEqual(audit.count, 2)
    })
  )
})
