import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Causal from "../support/causal.js"
import { eventually } from "../support/engine.js"
import * as RouterTest from "../support/router.js"

const { explained, insertOutside, sees } = Causal

const group = Effect.map(explained, ({ group }) => group)

/**
 * Waits until all replicas are known to be further behind than that. A read stays away from one before that, by how long ago
 * it was asked, and comes back when it has said that it is fresh enough still.
 */
const areBehind = (millis: number) =>
  eventually(
    Effect.flatMap(DbRouter.DbRouter, ({ status }) => status),
    (all) => all.filter(({ group }) => group === "read").every(({ lag }) => lag !== undefined && lag.millis > millis)
  )

layer(
  Causal.layer({
    consistency: Consistency.eventual(),
    health: { interval: "100 millis", maxLag: "1 minute" }
  }),
  { excludeTestServices: true, timeout: "2 minutes" }
)("maxStaleness", (it) => {
  it.effect("lets reads go to replicas that are known to be that fresh, else to the primary", () =>
    Effect.gen(function* () {
      const { awaitReplayed, replicas } = yield* RouterTest.PgCluster.PgCluster
      const bounded = DbRouter.maxStaleness("2 seconds")
      yield* eventually(bounded(group), (now) => now === "read")
      const id = yield* Causal.standingStill(
        Effect.gen(function* () {
          const id = yield* insertOutside
          yield* eventually(bounded(group), (now) => now === "default")
          yield* areBehind(2_000)
          assert.isTrue(yield* bounded(sees(id)))
          assert.isTrue(yield* bounded(DbRouter.replica(sees(id))))
          const { reason } = yield* DbRouter.maxStaleness(explained, "2 seconds")
          assert.strictEqual(reason, "no replica is known to be fresh enough")
          // Without it, or with a bound that is wide enough, they do not see it.
          assert.isFalse(yield* sees(id))
          assert.isFalse(yield* DbRouter.maxStaleness(sees(id), "1 hour"))
          // The innermost counts.
          assert.isFalse(yield* bounded(DbRouter.maxStaleness(sees(id), "1 hour")))
          assert.isTrue(yield* DbRouter.maxStaleness(bounded(sees(id)), "1 hour"))
          // Nor does a bind group know it.
          assert.isFalse(yield* bounded(DbRouter.bindGroup(sees(id), "analytics")))
          return id
        })
      )
      yield* eventually(bounded(group), (now) => now === "read")
      // What is younger than the bound may be missing still.
      yield* awaitReplayed
      assert.isTrue(yield* bounded(sees(id)))
      assert.lengthOf(replicas, 2)
    })
  )

  it.effect("goes by the replica that is fresh", () =>
    Causal.standingStill(
      Effect.gen(function* () {
        const { replicas } = yield* RouterTest.PgCluster.PgCluster
        yield* insertOutside
        const engine = Effect.map(explained, ({ engine }) => engine)
        const looks = Effect.map(Effect.replicateEffect(engine, 4), (all) => [...new Set(all)])
        yield* eventually(
          DbRouter.maxStaleness(looks, "2 seconds"),
          (engines) => engines.length === 1 && engines[0] === replicas[1]!.name
        )
        assert.lengthOf(yield* looks, 2)
      }),
      1
    )
  )

  it.effect("holds for a stream, and not for what its consumer does", () =>
    Causal.standingStill(
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const id = yield* insertOutside
        yield* areBehind(1_000)
        const rows = DbRouter.stream.maxStaleness(
          sql<{ id: number }>`SELECT id FROM note WHERE id = ${id}`.stream,
          "1 second"
        )
        const found = yield* Stream.runCollect(Stream.mapEffect(rows, (row) => sees(row.id)))
        assert.deepStrictEqual([...found], [false])
      })
    )
  )

  it.effect("trusts no replica that is not probed (health: false)", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* DbRouter.maxStaleness(group, "1 hour"), "default")
      assert.strictEqual(yield* group, "read")
    }).pipe(Effect.provide(RouterTest.router({ health: false })))
  )
})
