/** Combinators: the primary, a replica, a group of its own, streams. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect, Stream } from "effect"
import { DbRouter } from "effect-db-router"

const report = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const count = sql<{ n: number }>`SELECT count(*)::int AS n FROM invoice`

  const exact = yield* DbRouter.primary(count) // the default group
  const recent = yield* DbRouter.replica(count) // a replica, even after a write of this flow
  const heavy = yield* count.pipe(DbRouter.bindGroup("analytics")) // a group of its own

  const all = DbRouter.stream.replica(sql`SELECT * FROM invoice`.stream)
  const rows = yield* Stream.runCount(all)

  yield* DbRouter.reset // this flow begins anew: nothing forced, bound or sticky
  return { exact, recent, heavy, rows }
})

// #endregion usage

import { Layer } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { run } from "./support/cluster.js"

const WithAnalytics = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url }],
        read: [{ url: replicas[0]!.url, name: "replica" }],
        analytics: [{ url: replicas[1]!.url, name: "analytics", maxConnections: 2 }]
      }
    })
  )
)

await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const cluster = yield* PgCluster.PgCluster
    yield* sql`INSERT INTO invoice (customer, total) SELECT 'Ada', i FROM generate_series(1, 1000) AS i`
    yield* cluster.awaitReplayed
    const { exact, heavy, recent, rows } = yield* report
    console.log({ exact, recent, heavy, rows })
    const router = yield* DbRouter.DbRouter
    const { engine } = yield* DbRouter.bindGroup(router.explain("SELECT 1"), "analytics")
    if (engine !== "analytics" || rows !== 1000 || exact[0]!.n !== 1000) process.exitCode = 1
  }),
  WithAnalytics
)
