/** Workflows of @effect/cluster: their storage on the primary, their activities as sessions. */
// #region usage
import { ClusterWorkflowEngine, SingleRunner } from "@effect/cluster"
import { SqlClient } from "@effect/sql"
import { Activity, Workflow } from "@effect/workflow"
import { Effect, Layer, Schema } from "effect"
import { DbRouter, RouterConfig } from "effect-db-router"

const Bill = Workflow.make({
  name: "Bill",
  payload: { order: Schema.Number, customer: Schema.String },
  success: Schema.Number,
  idempotencyKey: ({ order }) => String(order)
})

const BillLive = Bill.toLayer(
  Effect.fnUntraced(function* ({ customer, order }) {
    // An activity may run again when its end is not recorded: what it does has to stand that.
    const total = yield* Activity.make({
      name: "charge",
      success: Schema.Number,
      execute: Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`INSERT INTO customer (name) VALUES (${customer}) ON CONFLICT DO NOTHING`
        yield* sql`INSERT INTO invoice (customer, total) VALUES (${customer}, ${order * 10})`
        return order * 10
      }).pipe(DbRouter.session(), Effect.orDie)
    })
    // Another activity, in another fiber maybe in another process: it reads on the primary what the first one wrote.
    return yield* Activity.make({
      name: "check",
      success: Schema.Number,
      execute: Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql<{
          total: number
        }>`SELECT sum(total)::int AS total FROM invoice WHERE customer = ${customer}`
        return row!.total - total
      }).pipe(DbRouter.primary, Effect.orDie)
    })
  })
)

// What one fiber of the cluster writes another one reads, so its tables are no matter for replicas. This router follows the
// primary as the other one does, and sends it everything.
const StorageClient = Layer.unwrapEffect(
  Effect.map(RouterConfig.fromEnv, (options) => DbRouter.layer({ ...options, enabled: false }))
)

export const WorkflowsLive = BillLive.pipe(
  Layer.provideMerge(ClusterWorkflowEngine.layer),
  Layer.provide(SingleRunner.layer().pipe(Layer.provide(StorageClient)))
)

const placeOrder = (order: number, customer: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE IF NOT EXISTS placed (id int PRIMARY KEY)`
    yield* sql`INSERT INTO placed VALUES (${order})`
    // Not before the COMMIT, and not without it.
    yield* DbRouter.afterCommit(Bill.execute({ order, customer }, { discard: true }))
  }).pipe(DbRouter.session())

// #endregion usage

import { PgCluster } from "effect-db-router/testing"
import { run } from "../support/cluster.js"
import { report } from "../support/report.js"

await run(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
    yield* Effect.forEach(replicas, ({ pauseReplay }) => pauseReplay)
    yield* placeOrder(3, "Ada")
    const left = yield* Bill.execute({ order: 3, customer: "Ada" }) // the same key: the result of the one that runs
    const [{ n }] = yield* DbRouter.primary(sql<{ n: number }>`SELECT count(*)::int AS n FROM invoice`)
    yield* report("The workflow has ended, with replicas that stand still", `${left} is left`, left === 0)
    yield* report("It has charged", `${n} time`, n === 1)
    yield* Effect.forEach(replicas, ({ resumeReplay }) => resumeReplay)
    yield* awaitReplayed
    yield* primary.kill
    yield* Effect.delay(replicas[0]!.promote, "2 seconds")
    const after = yield* Bill.execute({ order: 4, customer: "Grace" })
    yield* report("After a failover", `${after} is left`, after === 0)
  }).pipe(Effect.provide(WorkflowsLive))
)
