/** HttpApi: every request is a session, a cookie shows a client its own writes. */
// #region usage
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Layer, Schema } from "effect"
import { HttpSession } from "effect-db-router"

class Taken extends Schema.TaggedError<Taken>()("Taken", { name: Schema.String }) {}

const Customer = Schema.Struct({ name: Schema.String })
const Listed = Schema.Struct({ names: Schema.Array(Schema.String), server: Schema.String })

const Customers = HttpApiGroup.make("customers")
  .add(
    HttpApiEndpoint.post("add", "/customers")
      .setPayload(Customer)
      .addSuccess(Schema.Void)
      .addError(Taken, { status: 409 })
  )
  .add(HttpApiEndpoint.get("list", "/customers").addSuccess(Listed))

const Api = HttpApi.make("shop").add(Customers)

const CustomersLive = HttpApiBuilder.group(Api, "customers", (handlers) =>
  handlers
    .handle("add", ({ payload: { name } }) =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`INSERT INTO invoice (customer, total) VALUES (${name}, 0)`
        const added = yield* sql`INSERT INTO customer (name) VALUES (${name}) ON CONFLICT DO NOTHING RETURNING id`
        if (added.length === 0) return yield* new Taken({ name }) // a 409: the invoice is rolled back
      }).pipe(Effect.catchTag("SqlError", Effect.die))
    )
    .handle("list", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql<typeof Listed.Type>`
          SELECT array(SELECT name FROM customer ORDER BY name) AS names, current_setting('cluster_name') AS server`
        return row!
      }).pipe(Effect.orDie)
    )
)

export const ServerLive = HttpApiBuilder.serve().pipe(
  Layer.provide(HttpApiBuilder.middleware(HttpSession.make({ token: HttpSession.tokenCookie() }))),
  Layer.provide(HttpApiBuilder.api(Api)),
  Layer.provide(CustomersLive)
)

// #endregion usage

import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

await run(
  serving(ServerLive, (send) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
      const add = send("POST", "/customers", { body: { name: "Ada" } })
      // No replica has what is written from here on.
      yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
      const added = yield* add
      const cookie = added.headers["set-cookie"]?.split(";")[0] ?? ""
      yield* report("Added", `${added.status}, with the cookie ${cookie.slice(0, 24)}...`, added.status === 204)
      const mine = (yield* send("GET", "/customers", { headers: { cookie } })).body as typeof Listed.Type
      yield* report("The same client reads", mine, mine.names.length === 1 && mine.server === "primary")
      const other = (yield* send("GET", "/customers")).body as typeof Listed.Type
      yield* report("Another client reads", other, other.names.length === 0 && other.server !== "primary")
      yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
      yield* awaitReplayed
      const again = yield* add
      const [{ n }] = yield* DbRouter.primary(sql<{ n: number }>`SELECT count(*)::int AS n FROM invoice`)
      yield* report("Added again", `${again.status}, and ${n} invoice`, again.status === 409 && n === 1)
    })
  )
)
