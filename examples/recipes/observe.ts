/** Adopting the router: everything on the primary, and what would have gone where. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter, RouterConfig } from "effect-db-router"

// The environment's options, with nothing on replicas yet: DB_ROUTER_READS=observe says the same.
export const ObservingLive = Effect.map(RouterConfig.fromEnv, (options) =>
  DbRouter.layer({ ...options, reads: "observe" })
)

/** The routes of statements in a flow that has seen nothing yet. */
const tryOut = (statements: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const router = yield* DbRouter.DbRouter
    yield* DbRouter.reset
    return yield* Effect.forEach(statements, (text) =>
      Effect.map(router.explain(text), ({ kind, observed, reason }) => ({
        text,
        kind,
        reason,
        wouldGoTo: observed?.group
      }))
    )
  })

// #endregion usage

import { Layer } from "effect"
import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [read, write, call] = yield* tryOut([
      "SELECT name FROM customer",
      "UPDATE customer SET name = 'Ada'",
      "SELECT nextval('customer_id_seq')"
    ])
    yield* report("A plain read", read, read?.wouldGoTo === "read")
    yield* report("A write", write, write?.kind === "write" && write.wouldGoTo === undefined)
    yield* report("A call of nextval", call, call?.kind === "write")
    const [{ server }] = yield* sql<{ server: string }>`SELECT current_setting('cluster_name') AS server`
    yield* report("A read runs on", server, server === "primary")
  }),
  Layer.unwrapEffect(ObservingLive)
)
