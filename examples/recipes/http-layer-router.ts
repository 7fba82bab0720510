/** HttpLayerRouter: sessions for some routes, tokens in a header, one transaction or none. */
// #region usage
import { HttpLayerRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Layer, Schema } from "effect"
import { DbRouter, HttpSession } from "effect-db-router"

const addCustomer = HttpLayerRouter.route(
  "POST",
  "/customers",
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { name } = yield* HttpServerRequest.schemaBodyJson(Schema.Struct({ name: Schema.String }))
    yield* sql`INSERT INTO customer (name) VALUES (${name})`
    yield* DbRouter.afterCommit(Effect.logDebug("what cannot be taken back: a mail, a message"))
    return HttpServerResponse.empty({ status: name === "" ? 422 : 201 }) // 422 rolls back
  })
)

const listCustomers = HttpLayerRouter.route(
  "GET",
  "/customers",
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    return yield* HttpServerResponse.json(yield* sql`SELECT name FROM customer ORDER BY name`)
  })
)

const health = HttpLayerRouter.route("GET", "/health", HttpServerResponse.text("well"))

// The session commits before the response leaves. GET and HEAD may not write.
const InSession = HttpLayerRouter.middleware(
  HttpSession.make({ readOnlyGet: true, token: HttpSession.tokenHeader() })
).layer

export const ServerLive = HttpLayerRouter.serve(
  Layer.mergeAll(
    HttpLayerRouter.addAll([addCustomer, listCustomers]).pipe(Layer.provide(InSession)),
    HttpLayerRouter.addAll([health]) // no session
  ),
  { disableLogger: true, disableListenLog: true }
)

// #endregion usage

import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

await run(
  serving(ServerLive, (send) =>
    Effect.gen(function* () {
      const { replicas } = yield* PgCluster.PgCluster
      yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
      const added = yield* send("POST", "/customers", { body: { name: "Ada" } })
      const refused = yield* send("POST", "/customers", { body: { name: "" } })
      const statuses = [added.status, refused.status].join()
      yield* report("Added, refused", statuses, statuses === "201,422")
      const headers = { "db-router-token": added.headers["db-router-token"] ?? "" }
      const mine = (yield* send("GET", "/customers", { headers })).body
      yield* report("With the token", mine, JSON.stringify(mine) === '[{"name":"Ada"}]')
      const others = (yield* send("GET", "/customers")).body
      yield* report("Without it, from a replica that is behind", others, JSON.stringify(others) === "[]")
      const { body } = yield* send("GET", "/health")
      yield* report("A route without a session", body, body === "well")
    })
  )
)
