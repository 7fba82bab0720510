/** HTTP: every request is a session, committed before its response leaves. */
// #region usage
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Schema } from "effect"
import { HttpSession } from "effect-db-router"

const app = HttpRouter.empty.pipe(
  HttpRouter.post(
    "/customers",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { name } = yield* HttpServerRequest.schemaBodyJson(Schema.Struct({ name: Schema.String }))
      yield* sql`INSERT INTO customer (name) VALUES (${name})`
      // Below 400 commits, before the first byte of the response leaves. This does not.
      return HttpServerResponse.empty({ status: name === "" ? 422 : 201 })
    })
  )
)

export const ServerLive = HttpServer.serve(app, HttpSession.middleware())

// #endregion usage

import { createServer } from "node:http"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "@effect/platform"
import { layer as NodeHttpServer } from "@effect/platform-node/NodeHttpServer"
import { Layer } from "effect"
import { DbRouter } from "effect-db-router"
import { run } from "./support/cluster.js"

const post = (name: string) =>
  Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    const port = address._tag === "TcpAddress" ? address.port : 0
    const client = yield* HttpClient.HttpClient
    const request = HttpClientRequest.post(`http://127.0.0.1:${port}/customers`)
    return (yield* client.execute(HttpClientRequest.bodyUnsafeJson(request, { name }))).status
  })

const { statuses, stored } = await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const statuses = [yield* post("Ada"), yield* post("")]
    const rows = yield* DbRouter.primary(sql`SELECT name FROM customer`)
    return { statuses, stored: rows.length }
  }).pipe(
    Effect.provide(
      ServerLive.pipe(
        Layer.provideMerge(NodeHttpServer(() => createServer(), { port: 0, host: "127.0.0.1" })),
        Layer.provideMerge(FetchHttpClient.layer)
      )
    )
  )
)
console.log({ statuses, stored })
if (statuses.join() !== "201,422" || stored !== 1) process.exitCode = 1
