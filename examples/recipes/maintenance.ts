/** Maintenance: a replica is drained, restarted and put back, and no read fails. */
// #region usage
import { Effect, Schedule } from "effect"
import { DbRouter } from "effect-db-router"

/** Takes an engine out, waits until nothing runs on it, does the work, and puts it back, whatever became of the work. */
const maintain = <A, E, R>(engine: string, work: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const router = yield* DbRouter.DbRouter
    const isBusy = Effect.map(router.status, (all) =>
      all.some(({ name, pool, inFlight }) => name === engine && (inFlight > 0 || pool.idle < pool.total))
    )
    return yield* Effect.acquireUseRelease(
      router.drain(engine), // no new statements; those that run go on
      () =>
        Effect.zipRight(Effect.repeat(isBusy, { while: (busy) => busy, schedule: Schedule.spaced("50 millis") }), work),
      () => Effect.orDie(router.undrain(engine)) // gets reads once a probe has found it well
    )
  })

// #endregion usage

import { SqlClient } from "@effect/sql"
import { Fiber, Layer, Ref } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { ClusterEnvironment } from "../support/cluster.js"
import { report } from "../support/report.js"

const Router = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    DbRouter.layer({
      groups: {
        default: [{ url: primary.url, name: primary.name }],
        read: replicas.map(({ name, url }) => ({ name, url }))
      },
      health: { interval: "200 millis" }
    })
  )
)

await Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { replicas } = yield* PgCluster.PgCluster
  const counts = yield* Ref.make({ reads: 0, failed: 0 })
  const read = Effect.matchEffect(sql`SELECT pg_sleep(0.01)`, {
    onSuccess: () => Ref.update(counts, ({ failed, reads }) => ({ failed, reads: reads + 1 })),
    onFailure: () => Ref.update(counts, ({ failed, reads }) => ({ failed: failed + 1, reads: reads + 1 }))
  })
  const traffic = yield* Effect.fork(Effect.all([Effect.forever(read), Effect.forever(read)], { concurrency: 2 }))
  yield* Effect.sleep("200 millis")
  yield* maintain("replica1", replicas[0]!.restart)
  yield* Effect.sleep("1 second")
  yield* Fiber.interrupt(traffic)
  const { failed, reads } = yield* Ref.get(counts)
  yield* report(
    "Reads while a replica was restarted",
    `${failed > 0 ? failed : "none"} failed`,
    failed === 0 && reads > 10
  )
  const router = yield* DbRouter.DbRouter
  const states = (yield* router.status).map(({ name, state }) => `${name} ${state}`).join(", ")
  yield* report("Afterwards", states, !states.includes("drain"))
}).pipe(Effect.provide(Router), Effect.provide(ClusterEnvironment), Effect.scoped, Effect.runPromise)
