/** A schema change while replicas lag: readers of the new column are answered by the primary. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

// 1. Expand: what runs now does not know of the column, what is deployed next does.
const expand = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`ALTER TABLE customer ADD COLUMN IF NOT EXISTS country text NOT NULL DEFAULT 'NO'`
)

// 2. The new release. On a replica that does not have the column yet this fails with 42703, and runs again on the primary.
const countries = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ country: string; server: string }>`SELECT country, current_setting('cluster_name') AS server FROM customer`
)

// 3. Contract, once no release reads the old column any more. A replica that is behind still has it; none that is ahead does.
const contract = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`ALTER TABLE customer DROP COLUMN IF EXISTS old_country`
)

// #endregion usage

import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
    yield* sql`INSERT INTO customer (name) VALUES ('Ada')`
    yield* awaitReplayed
    yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
    yield* expand
    // Of another process, which knows nothing of the migration.
    const early = yield* Effect.provide(countries, DbRouter.layerEnv)
    yield* report("While the replicas lag", early, early[0]?.server === "primary")
    yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
    yield* awaitReplayed
    const late = yield* Effect.provide(countries, DbRouter.layerEnv)
    yield* report("When they have it", late, late[0]?.country === "NO" && late[0].server !== "primary")
    yield* contract
  })
)
