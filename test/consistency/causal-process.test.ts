/** With `scope: "process"`: a write whose position its server has forgotten binds the process until the primary tells another. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const inAnotherFlow = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.forkDaemon(Effect.zipRight(DbRouter.reset, effect)), Fiber.join)

layer(
  Causal.layer({
    consistency: Consistency.causal({ scope: "process", wait: 0 }),
    health: { interval: "300 millis" }
  }),
  { excludeTestServices: true, timeout: "2 minutes" }
)("a write of the process whose connection broke before its position was known", (it) => {
  it.effect("does not keep the reads of all flows on the primary", () =>
    Effect.gen(function* () {
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      const sql = yield* SqlClient.SqlClient
      yield* RouterTest.settle
      // No question goes with a text of several statements: its position is asked for later.
      yield* inAnotherFlow(sql.unsafe("CREATE TABLE lost (id int); INSERT INTO lost VALUES (1)"))
      yield* primary.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
      )
      const read = inAnotherFlow(
        Effect.map(
          sql<{
            standby: boolean
            n: number
          }>`SELECT pg_is_in_recovery() AS standby, (SELECT count(*)::int FROM lost) AS n`,
          ([row]) => row!
        )
      )
      // Never without the write, wherever it runs.
      const until = Effect.suspend(function loop(): typeof read {
        return Effect.flatMap(read, (row) =>
          row.standby || row.n === 0 ? Effect.succeed(row) : Effect.delay(Effect.suspend(loop), "20 millis")
        )
      })
      const seen = yield* Effect.timeout(until, "20 seconds")
      assert.deepStrictEqual(seen, { standby: true, n: 1 })
    })
  )
})
