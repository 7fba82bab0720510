import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { Probe } from "../src/internal/probe.js"

layer(PgCluster.layer({ replicas: 1 }), { timeout: "60 seconds", excludeTestServices: true })("a probe", (it) => {
  it.effect("tells servers apart that start within a millisecond: it has their start to the microsecond", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const reports = yield* Effect.forEach([primary, replicas[0]!], (node) =>
        Effect.gen(function* () {
          const probe = yield* Effect.acquireRelease(
            Effect.sync(() => new Probe(() => {})),
            (probe) => Effect.sync(() => probe.close())
          )
          const config = { connectionString: Redacted.value(node.url) }
          const found = yield* probe.run(config, Duration.seconds(5), true, undefined)
          const [row] = yield* node.query(
            "SELECT to_char(extract(epoch FROM pg_postmaster_start_time()) * 1000, 'FM9999999999999.000') AS started"
          )
          assert.strictEqual(found.startedAt.toFixed(3), row!.started)
          return found
        })
      )
      assert.deepStrictEqual(
        reports.map(({ role }) => role),
        ["primary", "replica"]
      )
    }).pipe(Effect.scoped)
  )
})
