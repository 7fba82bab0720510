/** The status page, and what it shows as JSON. */
// #region usage
import { HttpLayerRouter } from "@effect/platform"
import { Layer } from "effect"
import { HttpStatus } from "effect-db-router"

// GET /db/ is the page, GET /db/status.json what it shows. Put it behind what guards your other operations.
const StatusLive = HttpStatus.layer("/db", { operations: true }) // the page can drain and undrain

// HttpStatus.app() is the same as an HttpApp, for HttpRouter.mountApp("/db", ...) and everything else.
const ServerLive = HttpLayerRouter.serve(Layer.mergeAll(StatusLive /* , your routes */))

// #endregion usage

import { createServer } from "node:http"
import { HttpClient, HttpServer } from "@effect/platform"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect } from "effect"
import { run } from "./support/cluster.js"

const program = Effect.gen(function* () {
  const address = yield* HttpServer.addressFormattedWith(Effect.succeed)
  const page = yield* Effect.flatMap(HttpClient.get(`${address}/db/`), (response) => response.text)
  const json = yield* Effect.flatMap(HttpClient.get(`${address}/db/status.json`), (response) => response.json)
  return [page, json as HttpStatus.Status] as const
}).pipe(
  Effect.provide(Layer.provideMerge(ServerLive, NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))),
  Effect.provide(NodeHttpClient.layer)
)

const [page, { engines, writer }] = await run(program)
console.log(page.length, writer, engines)
if (!page.startsWith("<!doctype html>") || engines.length !== 3 || writer === undefined) process.exitCode = 1
