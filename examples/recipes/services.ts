/** Two services: one calls the other, which sees what the first one has written. */
// #region caller
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Option } from "effect"
import { Consistency, DbRouter } from "effect-db-router"

/** A client that tells whom it calls what this flow has written and read. */
const withToken = (client: HttpClient.HttpClient): HttpClient.HttpClient =>
  HttpClient.mapRequestEffect(client, (request) =>
    Effect.map(
      Consistency.currentToken,
      Option.match({
        onNone: () => request,
        onSome: (token) => HttpClientRequest.setHeader(request, "db-router-token", token)
      })
    )
  )

const order = (billing: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const client = withToken(yield* HttpClient.HttpClient)
    yield* sql`INSERT INTO invoice (customer, total) VALUES ('Ada', 10)`.pipe(DbRouter.session()) // committed: only then call
    const response = yield* client.get(`${billing}/invoices/Ada`)
    return yield* response.json
  })

// #endregion caller

// #region called
import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { HttpSession } from "effect-db-router"

const app = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/invoices/:customer",
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { customer } = yield* HttpRouter.params
      return yield* HttpServerResponse.json(
        yield* sql`SELECT total, current_setting('cluster_name') AS server FROM invoice WHERE customer = ${customer}`
      )
    })
  )
)

// The same DB_ROUTER_TOKEN_KEYS in both services.
export const BillingLive = HttpServer.serve(app, HttpSession.middleware({ token: HttpSession.tokenHeader() }))

// #endregion called

import { FetchHttpClient } from "@effect/platform"
import { Layer } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

// A router of its own, as in another process.
const Billing = BillingLive.pipe(Layer.provide(Layer.fresh(DbRouter.layerEnv)))

await run(
  serving(Billing, (send, address) =>
    Effect.gen(function* () {
      const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
      yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
      const seen = yield* order(address)
      yield* report("With the token, no replica has it", seen, JSON.stringify(seen).includes('"primary"'))
      const blind = (yield* send("GET", "/invoices/Ada")).body
      yield* report("Without", blind, JSON.stringify(blind) === "[]")
      yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
      yield* awaitReplayed
      const later = yield* order(address)
      yield* report("With the token, the replicas have it or will soon", later, JSON.stringify(later).length > 2)
    }).pipe(Effect.provide(FetchHttpClient.layer))
  )
)
