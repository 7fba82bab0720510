import { assert, describe, it } from "@effect/vitest"
import { Effect, HashMap, Logger, LogLevel } from "effect"
import { Complaints } from "../../src/internal/telemetry/logOnce.js"

describe("what is wrong for some time", () => {
  it.effect("is logged once, until it is something else, or over", () => {
    const lines: Array<string> = []
    const logger = Logger.make<unknown, void>(({ annotations, logLevel, message }) => {
      const { "db.router.event": event, "db.router.thing": thing } = Object.fromEntries(HashMap.toEntries(annotations))
      lines.push(`${logLevel.label} ${event} ${thing}: ${[message].flat().join(" ")}`)
    })
    return Effect.gen(function* () {
      const complaints = new Complaints()
      yield* complaints.over("db1", "well")
      yield* complaints.of("db1", "gone")
      yield* complaints.of("db1", "gone", new Error("again"))
      yield* complaints.of("db2", "gone")
      yield* complaints.of("db1", "refused")
      yield* complaints.over("db1", "well")
      yield* complaints.over("db1", "well")
      yield* complaints.of("db1", "refused")
      assert.deepStrictEqual(lines, [
        "WARN complaint db1: gone",
        "DEBUG complaint db1: gone Error: again",
        "WARN complaint db2: gone",
        "WARN complaint db1: refused",
        "INFO complaint_over db1: well",
        "WARN complaint db1: refused"
      ])
    }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)), Logger.withMinimumLogLevel(LogLevel.Debug))
  })
})
