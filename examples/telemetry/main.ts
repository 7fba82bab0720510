/**
 * Metrics in Prometheus' text format, and the trace of one request with its queries on two servers. (--serve: until Ctrl-C)
 */
import { createServer } from "node:http"
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { SqlClient } from "@effect/sql"
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Console, Effect, Layer, Schedule, Schema } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { ClusterEnvironment, Tables } from "../support/cluster.js"
import { report } from "../support/report.js"
import { PullReader, toText } from "./Prometheus.js"
import { treeOf } from "./Trace.js"

// #region usage
// The router needs nothing but this layer around it: its metrics are Effect's, its spans those of the statements.
const reader = new PullReader()
const spans = new InMemorySpanExporter()
const Observability = NodeSdk.layer(() => ({
  resource: { serviceName: "shop" },
  metricReader: reader,
  spanProcessor: new SimpleSpanProcessor(spans)
}))

const metrics = Effect.map(
  Effect.promise(() => reader.collect()),
  ({ resourceMetrics }) =>
    HttpServerResponse.text(toText(resourceMetrics), { contentType: "text/plain; version=0.0.4" })
)
// #endregion usage

const Invoice = Schema.Struct({ customer: Schema.String, total: Schema.Int })

const app = HttpRouter.empty.pipe(
  HttpRouter.post(
    "/invoices",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { customer, total } = yield* HttpServerRequest.schemaBodyJson(Invoice)
      // A read, so on a replica; a write, so on the primary.
      const found = yield* sql`SELECT id FROM customer WHERE name = ${customer}`
      if (found.length === 0) return HttpServerResponse.empty({ status: 422 })
      yield* sql`INSERT INTO invoice (customer, total) VALUES (${customer}, ${total})`
      return HttpServerResponse.empty({ status: 201 })
    })
  ),
  HttpRouter.get("/metrics", metrics)
)

const post = (address: string, customer: string) =>
  Effect.promise(() =>
    fetch(`${address}/invoices`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ customer, total: 42 })
    })
  )

/** The spans of the request, once all of them have ended. */
const requestOf = Effect.suspend(() => {
  const all = spans.getFinishedSpans()
  const root = all.find(({ name }) => name === "http.server POST")
  return root === undefined ? Effect.fail("it has not ended") : Effect.succeed(treeOf(all, root))
}).pipe(Effect.retry(Schedule.spaced("10 millis").pipe(Schedule.upTo("5 seconds"))))

const main = HttpServer.addressFormattedWith((address) =>
  Effect.gen(function* () {
    if (process.argv.includes("--serve")) {
      yield* Console.log(`curl ${address}/metrics`)
      return yield* Effect.never
    }
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO customer (name) VALUES ('Ada')`
    yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
    spans.reset()
    const { status } = yield* post(address, "Ada")
    yield* report("the answer", status, status === 201)
    const trace = yield* requestOf
    const isSplit =
      trace.some((line) => /on replica|on read-/.test(line)) && trace.some((line) => /on default-/.test(line))
    yield* report("its trace", `\n${trace.join("\n")}`, isSplit)
    const text = yield* Effect.promise(() => fetch(`${address}/metrics`).then((response) => response.text()))
    const shown = text
      .split("\n")
      .filter((line) => /^db_router_(statements|sessions)_total|duration_seconds_count/.test(line))
    yield* report(
      "some of its metrics",
      `\n${shown.join("\n")}`,
      ["write", "read"].every((kind) => shown.some((line) => line.includes(`kind="${kind}"`)))
    )
  })
)

const Server = HttpServer.serve(app, HttpSession.middleware())

NodeRuntime.runMain(
  Effect.provide(
    main,
    Server.pipe(
      Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
      Layer.provideMerge(Tables),
      Layer.provideMerge(DbRouter.layerEnv),
      Layer.provideMerge(ClusterEnvironment),
      Layer.provideMerge(Observability)
    )
  )
)
