import { fileURLToPath } from "node:url"
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric } from "effect"
import { Telemetry } from "effect-db-router"
import { PullReader, toText } from "../../examples/telemetry/Prometheus.js"
import { failure, node } from "../support/run.js"

describe("the example of telemetry", () => {
  it("shows the trace of a request on two servers, and metrics", { timeout: 110_000 }, async () => {
    const ended = await node(["--import", "tsx", "examples/telemetry/main.ts"], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      timeoutMillis: 100_000
    })
    assert.strictEqual(failure(ended), "")
    assert.notInclude(ended.stdout, "NOT AS IT SHOULD BE")
    assert.match(
      ended.stdout,
      /\nhttp\.server POST, .* ms\n {2}sql\.execute on read-\d \(read, rule read\), .* ms: SELECT .*\n {2}sql\.execute on default-1 \(write, rule write\), .* ms: INSERT .*\n/
    )
    assert.match(ended.stdout, /^db_router_sessions_total\{db_router_outcome="committed"\} 1$/m)
  })

  it.scoped("prints all metrics in Prometheus' format", () =>
    Effect.gen(function* () {
      const { statements, duration, lagSize } = Telemetry
      const of = <Type, In, Out>(metric: Metric.Metric<Type, In, Out>) =>
        Metric.tagged(metric, Telemetry.attributes.engine, 'with "quotes" and \\')
      yield* Metric.incrementBy(of(statements), 3)
      yield* Effect.forEach([0.0005, 0.02, 0.02, 60], (seconds) => Metric.update(of(duration), seconds))
      yield* Metric.set(of(lagSize), 17)
      const reader = new PullReader()
      const text = yield* Effect.provide(
        Effect.map(
          Effect.promise(() => reader.collect()),
          ({ errors, resourceMetrics }) => {
            assert.deepStrictEqual(errors, [])
            return toText(resourceMetrics)
          }
        ),
        NodeSdk.layer(() => ({ resource: { serviceName: "test" }, metricReader: reader }))
      )
      const lines = text.split("\n")
      const label = 'db_router_engine="with \\"quotes\\" and \\\\"'
      const name = "db_client_operation_duration_seconds"
      const { description } = Telemetry.instruments.duration
      for (const line of [
        `db_router_statements_total{${label}} 3`,
        "# TYPE db_router_statements_total counter",
        `# HELP ${name} ${description}`,
        `# TYPE ${name} histogram`,
        `${name}_bucket{${label},le="0.001"} 1`,
        `${name}_bucket{${label},le="0.01"} 1`,
        `${name}_bucket{${label},le="0.05"} 3`,
        `${name}_bucket{${label},le="10"} 3`,
        `${name}_bucket{${label},le="+Inf"} 4`,
        `${name}_count{${label}} 4`,
        "# TYPE db_router_lag_size_bytes gauge",
        `db_router_lag_size_bytes{${label}} 17`
      ]) {
        assert.include(lines, line)
      }
      const sample =
        /^[a-zA-Z_:][\w:]*(\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*"(,[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*")*\})? (\+Inf|-?[\d.e+-]+)$/
      for (const line of lines) assert.match(line, line === "" || line.startsWith("# ") ? /^/ : sample)
      const types = lines.filter((line) => line.startsWith("# TYPE"))
      assert.lengthOf(new Set(types), types.length)
    })
  )
})
