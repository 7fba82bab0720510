import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Logger, LogLevel, Metric, Redacted } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import * as Causal from "../support/causal.js"
import * as RouterTest from "../support/router.js"

const { explained, insert, look, newId, sees, standingStill } = Causal

const withPolicy = (consistency: Consistency.Consistency, options?: RouterTest.Options) =>
  RouterTest.router({ consistency, ...options })

/** How long an effect takes, in milliseconds. */
const taking = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([duration]) => Duration.toMillis(duration))

// The routers of other tests are not to warn.
const aloud = Logger.withMinimumLogLevel(LogLevel.All)

/** Keeps what is logged as a warning. */
const warnings = (seen: Array<string>) =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ logLevel, message }) => {
      if (logLevel._tag === "Warning") seen.push(String(message))
    })
  )

layer(Causal.layer(), { excludeTestServices: true, timeout: "2 minutes" })("options of causal", (it) => {
  it.effect("wait: a read waits for a replica so long, then it is the primary's, and the next one does not wait", () =>
    standingStill(
      Effect.gen(function* () {
        const id = yield* newId
        yield* insert(id)
        const first = yield* taking(look(id))
        assert.isAtLeast(first, 980)
        // A write of another flow, for the same replicas that have not got on.
        const other = yield* newId
        const fiber = yield* Effect.forkDaemon(
          Effect.zipRight(insert(other), Effect.zip(look(other), taking(look(other))))
        )
        const [[found, engine], second] = yield* Fiber.join(fiber)
        assert.deepStrictEqual([found, engine], [true, "primary"])
        assert.isBelow(second, first / 2)
      })
    ).pipe(Effect.provide(withPolicy(Consistency.causal({ wait: "1 second" }))))
  )

  it.effect("wait: nothing waits for replicas that it does not use, as with reads: observe", () =>
    standingStill(
      Effect.gen(function* () {
        const id = yield* newId
        yield* insert(id)
        assert.deepStrictEqual(yield* Effect.timeout(look(id), "15 seconds"), [true, "primary"])
      })
    ).pipe(Effect.provide(withPolicy(Consistency.causal({ wait: "30 seconds" }), { reads: "observe" })))
  )

  it.effect("wait: a replica that gets on in time is waited for", () =>
    standingStill(
      Effect.gen(function* () {
        const { replicas } = yield* RouterTest.PgCluster.PgCluster
        const id = yield* newId
        yield* insert(id)
        const reading = yield* Effect.fork(look(id))
        yield* Effect.sleep("200 millis")
        yield* replicas[1]!.resumeReplay
        assert.deepStrictEqual(yield* Fiber.join(reading), [true, replicas[1]!.name])
      })
    ).pipe(Effect.provide(withPolicy(Consistency.causal({ wait: "20 seconds" }))))
  )

  it.effect("wait: 0 polls no replica", () =>
    standingStill(
      Effect.gen(function* () {
        const count = Effect.map(Metric.snapshot, (all) =>
          all
            .filter(({ metricKey }) => metricKey.name === "db.router.position_questions")
            .reduce(
              (sum, { metricState }) => sum + Number((metricState as unknown as { readonly count: number }).count),
              0
            )
        )
        const before = yield* count
        const id = yield* newId
        yield* insert(id)
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        assert.strictEqual(yield* count, before)
        yield* Effect.zipRight(insert(yield* newId), sees(id)).pipe(Effect.provide(withPolicy(Consistency.causal())))
        assert.isAbove(yield* count, before)
      })
    ).pipe(Effect.provide(withPolicy(Consistency.causal({ wait: 0 }))))
  )

  for (const scope of ["process", "flow"] as const) {
    it.effect(`scope: "${scope}"`, () =>
      standingStill(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const seesOthers = scope === "process"
          for (const write of [
            insert,
            (id: number) => sql.withTransaction(insert(id)),
            (id: number) => DbRouter.session(insert(id))
          ]) {
            const id = yield* newId
            yield* Effect.flatMap(Effect.forkDaemon(write(id)), Fiber.await)
            assert.strictEqual(yield* sees(id), seesOthers)
            assert.strictEqual(yield* sees(id), seesOthers)
          }
        })
      ).pipe(Effect.provide(withPolicy(Consistency.causal({ scope }))))
    )
  }

  it.effect("window: where servers are not probed, for so long after a write; told once", () => {
    const told: Array<string> = []
    return standingStill(
      Effect.gen(function* () {
        const id = yield* newId
        assert.strictEqual((yield* explained).group, "read")
        yield* insert(id)
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        yield* Effect.sleep("1200 millis")
        assert.strictEqual((yield* explained).group, "read")
        assert.isFalse(yield* sees(id))
        yield* DbRouter.session(insert(yield* newId))
        assert.deepStrictEqual(yield* look(id), [true, "primary"])
        const names = told
          .filter((line) => line.includes("does not tell its position"))
          .map((line) => line.split(" ")[0])
        assert.deepStrictEqual([...names].sort(), ["primary", "replica1", "replica2"])
      })
    ).pipe(
      aloud,
      Effect.provide(withPolicy(Consistency.causal({ window: "1 second" }), { health: false })),
      Effect.provide(warnings(told))
    )
  })

  it.effect("window: where a role may not ask, whose commits succeed all the same", () =>
    Effect.gen(function* () {
      const { primary, replicas, ...cluster } = yield* RouterTest.PgCluster.PgCluster
      yield* primary.query("CREATE ROLE app LOGIN PASSWORD 'app'")
      yield* primary.query("GRANT ALL ON note TO app")
      yield* cluster.awaitReplayed
      const at = (node: RouterTest.PgCluster.Node) => {
        const url = new URL(Redacted.value(node.url))
        url.username = "app"
        url.password = "app"
        return { url: Redacted.make(url.toString()), name: node.name }
      }
      const told: Array<string> = []
      const router = DbRouter.layer({
        groups: { default: [at(primary)], read: replicas.map(at) },
        health: { interval: "1 hour" },
        consistency: Consistency.causal({ window: "1 second" })
      })
      yield* standingStill(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const first = yield* newId
          yield* insert(first)
          assert.deepStrictEqual(yield* look(first), [true, "primary"])
          const forbid = "REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC"
          yield* primary.query(forbid)
          for (const write of [
            insert,
            (id: number) => sql.withTransaction(insert(id)),
            (id: number) => DbRouter.session(insert(id))
          ]) {
            const id = yield* newId
            yield* write(id)
            assert.deepStrictEqual(yield* look(id), [true, "primary"])
            assert.deepStrictEqual(yield* look(id), [true, "primary"])
          }
          yield* Effect.sleep("1200 millis")
          assert.isFalse(yield* sees(first))
          const lines = told.filter((line) => line.includes("primary does not tell its position"))
          assert.lengthOf(lines, 1)
          assert.include(lines[0]!, "permission denied for function pg_current_wal_insert_lsn")
        })
      ).pipe(
        aloud,
        Effect.provide(router),
        Effect.provide(warnings(told)),
        Effect.ensuring(Effect.orDie(primary.query("GRANT EXECUTE ON FUNCTION pg_current_wal_insert_lsn() TO PUBLIC")))
      )
    })
  )
})
