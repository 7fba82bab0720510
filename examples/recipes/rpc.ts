/** RPC: a middleware makes every call a session. */
// #region usage
import { HttpLayerRouter } from "@effect/platform"
import { Rpc, RpcGroup, RpcMiddleware, RpcSerialization, RpcServer } from "@effect/rpc"
import { SqlClient } from "@effect/sql"
import { Effect, Layer, Option, Schema } from "effect"
import { Consistency, DbRouter } from "effect-db-router"

class InSession extends RpcMiddleware.Tag<InSession>()("InSession", { wrap: true }) {}

class Invoices extends RpcGroup.make(
  Rpc.make("Place", {
    payload: { customer: Schema.String, total: Schema.Number },
    success: Schema.Struct({ id: Schema.Number, token: Schema.OptionFromUndefinedOr(Schema.String) }),
    error: Schema.String
  }),
  Rpc.make("Total", {
    payload: { customer: Schema.String },
    success: Schema.Struct({ total: Schema.Number, server: Schema.String })
  })
).middleware(InSession) {}

const InSessionLive = Layer.effect(
  InSession,
  Effect.map(DbRouter.DbRouter, (router) => ({ headers, next }) => {
    const call = next.pipe(
      DbRouter.session(), // commits when the call succeeds; fails and dies: rolls back
      Effect.catchTag("SqlError", Effect.die), // a COMMIT that fails
      Effect.provideService(DbRouter.DbRouter, router)
    )
    const token = headers["db-router-token"]
    return token === undefined
      ? call
      : Consistency.withToken(call, token).pipe(Effect.provideService(DbRouter.DbRouter, router))
  })
)

const HandlersLive = Invoices.toLayer({
  Place: ({ customer, total }) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [row] = yield* sql<{ id: number }>`INSERT INTO invoice ${sql.insert({ customer, total })} RETURNING id`
      if (total <= 0) return yield* Effect.fail("a total has to be positive") // rolls back
      yield* DbRouter.commit // a response of RPC has no headers: commit early, and put the token into the answer
      return { id: row!.id, token: yield* Consistency.currentToken }
    }).pipe(Effect.catchTag("SqlError", Effect.die)),
  Total: ({ customer }) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const [row] = yield* sql<{ total: number; server: string }>`
        SELECT coalesce(sum(total), 0)::int AS total, current_setting('cluster_name') AS server
        FROM invoice WHERE customer = ${customer}`
      return row!
    }).pipe(Effect.orDie)
})

export const ServerLive = HttpLayerRouter.serve(
  RpcServer.layerHttpRouter({ group: Invoices, path: "/rpc", protocol: "http" }).pipe(
    Layer.provide([HandlersLive, InSessionLive, RpcSerialization.layerNdjson])
  ),
  { disableLogger: true, disableListenLog: true }
)

// #endregion usage

import { FetchHttpClient } from "@effect/platform"
import { RpcClient } from "@effect/rpc"
import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

await run(
  serving(ServerLive, (_send, address) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { replicas } = yield* PgCluster.PgCluster
      const client = yield* RpcClient.make(Invoices)
      yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
      const { token } = yield* client.Place({ customer: "Ada", total: 10 })
      const total = client.Total({ customer: "Ada" })
      const headers = { "db-router-token": Option.getOrElse(token, () => "") }
      const mine = yield* RpcClient.withHeaders(total, headers)
      yield* report("With the token", mine, mine.total === 10 && mine.server === "primary")
      const other = yield* total
      yield* report("Without it", other, other.total === 0 && other.server !== "primary")
      const refused = yield* Effect.flip(client.Place({ customer: "Ada", total: 0 }))
      const [{ n }] = yield* DbRouter.primary(sql<{ n: number }>`SELECT count(*)::int AS n FROM invoice`)
      yield* report("A call that fails", `${refused}, and ${n} invoice is there`, n === 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(RpcClient.layerProtocolHttp({ url: `${address}/rpc` })),
      Effect.provide([RpcSerialization.layerNdjson, FetchHttpClient.layer])
    )
  )
)
