import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { Probe } from "../../src/internal/engine/probe.js"

const probing = Effect.acquireRelease(
  Effect.sync(() => new Probe(() => {})),
  (probe) => Effect.sync(() => probe.close())
)

layer(PgCluster.layer({ replicas: 1 }), { timeout: "60 seconds", excludeTestServices: true })("a probe", (it) => {
  it.scoped("is answered, however late this process comes to read it", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const probe = yield* probing
      const run = (limit: Duration.DurationInput) =>
        probe.run({ connectionString: Redacted.value(primary.url) }, Duration.decode(limit), false, undefined)
      yield* run("5 seconds")
      for (let i = 0; i < 10; i++) {
        const asked = yield* Effect.fork(run("50 millis"))
        yield* Effect.yieldNow()
        const until = performance.now() + 200
        while (performance.now() < until);
        assert.strictEqual((yield* Fiber.join(asked)).role, "primary")
      }
      yield* primary.freeze
      const error = yield* Effect.ensuring(Effect.flip(run("50 millis")), Effect.orDie(primary.thaw))
      assert.include(String(error.cause), "No answer within 50 ms")
    })
  )

  it.effect("tells servers apart that start within a millisecond: it has their start to the microsecond", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const reports = yield* Effect.forEach([primary, replicas[0]!], (node) =>
        Effect.gen(function* () {
          const probe = yield* probing
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
