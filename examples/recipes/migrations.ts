/** PgMigrator: migrations as a layer below the program, on the primary. */
// #region usage
import { SqlClient } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { Effect, Layer } from "effect"
import { DbRouterLive } from "effect-db-router"

const Migrations = PgMigrator.layer({
  // Or PgMigrator.fromFileSystem("migrations").
  loader: PgMigrator.fromRecord({
    "0001_create_city": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE city (name text PRIMARY KEY)`),
    "0002_add_cities": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO city VALUES ('Oslo'), ('Rome')`)
  })
})

// The program begins clean: what the migrations have written does not keep its reads on the primary.
export const DatabaseLive = Migrations.pipe(Layer.provideMerge(DbRouterLive))

// #endregion usage

import * as NodeContext from "@effect/platform-node/NodeContext"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
    const cities = sql<{ name: string; server: string }>`
      SELECT name, current_setting('cluster_name') AS server FROM city ORDER BY name`
    // Replicas that do not have the tables yet fail no read: it runs on the primary.
    yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
    yield* Effect.gen(function* () {
      const early = yield* DbRouter.replica(cities)
      yield* report("Before the replicas have the table", early, early.length === 2 && early[0]!.server === "primary")
      yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
      yield* awaitReplayed
      const late = yield* DbRouter.replica(cities)
      yield* report("When they have it", late, late.length === 2 && late[0]!.server !== "primary")
    }).pipe(Effect.provide(Migrations))
  }).pipe(Effect.provide(NodeContext.layer))
)
