import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { assert, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster, TestSession } from "effect-db-router/testing"
import { type Flow, flows } from "../../examples/http/Flows.js"
import * as Notes from "../../examples/http/Notes.js"
import { routes, Server } from "../../examples/http/Server.js"
import { eventually, quiet } from "../support/http.js"
import { failure, node } from "../support/run.js"

// With one connection a flow that holds one while it needs another would never end.
const Router = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url, maxConnections: 1 }],
        read: replicas.map(({ url }) => ({ url, maxConnections: 1 }))
      }
    })
  )
)

const TestLayer = Layer.effectDiscard(Notes.create).pipe(
  Layer.provideMerge(Router),
  Layer.provideMerge(PgCluster.layer({ replicas: 1 })),
  Layer.provideMerge(quiet)
)

/** Sends the request of a flow to a server of its own. */
const request = ({ path }: Flow) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      Layer.provideMerge(Server, NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
    )
    const { address } = Context.get(context, HttpServer.HttpServer)
    const response = yield* Effect.promise(() =>
      fetch(HttpServer.formatAddress(address) + path, { method: "POST", headers: { connection: "close" } })
    )
    return { status: response.status, body: yield* Effect.promise(() => response.text()) }
  })

const check = <E, R>(flow: Flow, notes: Effect.Effect<ReadonlyArray<string>, E, R>) =>
  Effect.gen(function* () {
    const { body, status } = yield* request(flow)
    assert.strictEqual(status, flow.status)
    if (flow.body !== undefined) assert.deepStrictEqual(JSON.parse(body), flow.body)
    // A background job may still be at work.
    yield* eventually(
      Effect.map(notes, (texts) => texts.length >= flow.notes.length),
      `${flow.notes.length} notes`
    )
    assert.deepStrictEqual([...(yield* notes)].sort(), [...flow.notes])
  })

layer(TestLayer, { excludeTestServices: true, timeout: "2 minutes" })("a flow of the example", (it) => {
  const outside = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
    Effect.map(primary.query<{ readonly text: string }>("SELECT text FROM note"), (rows) =>
      rows.map(({ text }) => text)
    )
  )

  for (const flow of flows) {
    it.scoped(`with sessions of its own: ${flow.path}`, () => Effect.zipRight(Notes.clear, check(flow, outside)))

    it.scoped(`inside one transaction that is rolled back: ${flow.path}`, () =>
      Effect.gen(function* () {
        yield* Notes.clear
        yield* Notes.add("there before")
        yield* Effect.scoped(Effect.zipRight(Notes.clear, check(flow, Notes.all))).pipe(TestSession.rollback)
        assert.deepStrictEqual(yield* outside, ["there before"])
      })
    )
  }
})

it("has a flow for each route", () => {
  const paths = routes.map(({ path }) => new RegExp(`^${path.replaceAll(/:\w+/g, "\\w+")}$`))
  assert.deepStrictEqual(
    paths.filter((path) => !flows.some((flow) => path.test(flow.path))),
    []
  )
})

it("goes through all flows by itself", { timeout: 110_000 }, async () => {
  const ended = await node(["--import", "tsx", "examples/http/main.ts", "--once"], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    timeoutMillis: 100_000
  })
  assert.strictEqual(failure(ended), "")
  assert.strictEqual(ended.stdout.trim().split("\n").length, flows.length)
})
