import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Telemetry } from "effect-db-router"
import { logRoutes } from "../support/logRoutes.js"

const { engine, failed, group, kind, reason, rule } = Telemetry.attributes

const statement = (attributes: Record<string, unknown>) =>
  Effect.withSpan(Effect.annotateCurrentSpan(attributes), "sql.execute")

describe("the log of routes", () => {
  it.effect("has a line for each statement, with its engine, its rule and what has moved it", () => {
    const lines: Array<string> = []
    const read = {
      [group]: "read",
      [engine]: "replica1",
      [kind]: "read",
      [rule]: "read",
      [reason]: "plain SELECT",
      "db.query.text": "SELECT 1,\n  2 "
    }
    return Effect.gen(function* () {
      yield* statement(read)
      yield* statement({ ...read, [rule]: "moved", [failed]: "replica2" })
      yield* statement({ "db.query.text": "DELETE FROM a" })
      yield* Effect.withSpan(Effect.void, "sql.transaction")
    }).pipe(
      Effect.provide(logRoutes((line) => lines.push(line))),
      Effect.map(() =>
        assert.deepStrictEqual(lines, [
          "read/replica1 (read, read): SELECT 1, 2 -- plain SELECT",
          "read/replica1 (read, moved, after replica2): SELECT 1, 2 -- plain SELECT",
          "-/- (-, -): DELETE FROM a -- -"
        ])
      )
    )
  })
})
