/** PersistedQueue: a job and what it is about are committed together; the worker sees both. */
// #region usage
import { PersistedQueue } from "@effect/experimental"
import { SqlClient, SqlPersistedQueue } from "@effect/sql"
import { Effect, Layer, Schema } from "effect"
import { DbRouter, DbRouterLive } from "effect-db-router"

const jobs = PersistedQueue.make({ name: "invoices", schema: Schema.Struct({ invoice: Schema.Number }) })

// All statements of the queue itself write, so they run on the primary.
export const QueueLive = PersistedQueue.layer.pipe(
  Layer.provide(SqlPersistedQueue.layerStore({ pollInterval: "100 millis" })),
  Layer.provideMerge(DbRouterLive)
)

const place = (customer: string, total: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ id: number }>`INSERT INTO invoice ${sql.insert({ customer, total })} RETURNING id`
    yield* Effect.flatMap(jobs, (queue) => queue.offer({ invoice: row!.id })) // in the same transaction
    if (total <= 0) return yield* Effect.fail("no such total") // neither invoice nor job
  }).pipe(DbRouter.session())

// A read on the primary binds the reads after it: they see at least what the primary had then, from whichever replica has it.
// Outside the session: in one the position is not known before its end, and all its reads would stay on the primary.
const seeAllThatIsCommitted = Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.primary(sql`SELECT 1`))

const bill = (invoice: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ customer: string; total: number; server: string }>`
      SELECT customer, total, current_setting('cluster_name') AS server FROM invoice WHERE id = ${invoice}`
    return row
  }).pipe(DbRouter.session())

const work = Effect.flatMap(jobs, (queue) =>
  queue.take(({ invoice }) => Effect.zipRight(seeAllThatIsCommitted, bill(invoice)))
)

// #endregion usage

import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
    yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
    yield* Effect.ignore(place("Grace", 0))
    yield* place("Ada", 10)
    const behind = yield* work
    yield* report("No replica has it", behind, behind?.customer === "Ada" && behind.server === "primary")
    yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
    yield* place("Ada", 20)
    yield* awaitReplayed
    const caughtUp = yield* work
    // Mostly on a replica; on the primary if none has told in time that it has it.
    yield* report("The replicas have it", caughtUp, caughtUp?.total === 20)
  }).pipe(
    Effect.provide(
      PersistedQueue.layer.pipe(Layer.provide(SqlPersistedQueue.layerStore({ pollInterval: "100 millis" })))
    ),
    Effect.timeout("1 minute")
  )
)
