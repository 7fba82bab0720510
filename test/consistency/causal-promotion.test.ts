import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually } from "../support/engine.js"
import { becomes, over, statusOf } from "../support/health.js"
import * as RouterTest from "../support/router.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

const insert = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note VALUES (${text})`)

/** The engine that a read goes to that has to find a row. */
const finds = (text: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [rows, statements] = yield* RouterTest.traced(sql`SELECT text FROM note WHERE text = ${text}`)
    assert.lengthOf(rows, 1, `${text} on ${statements.at(-1)!.engine}`)
    return statements.at(-1)!.engine
  })

describe("causal reads across a promotion", { timeout: 60_000 }, () => {
  it.live("are the new primary's until it has told a position of its timeline, and then replicas' again", () =>
    Effect.flatMap(PgCluster.PgCluster, (cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const [first, second] = [replicas[0]!, replicas[1]!]
        yield* primary.query("create table note (text text)")
        yield* cluster.awaitReplayed
        yield* Effect.gen(function* () {
          const router = yield* DbRouter.DbRouter
          yield* insert("before")
          yield* finds("before")
          yield* cluster.awaitReplayed
          yield* primary.kill
          yield* first.promote
          yield* second.follow(first)
          yield* eventually(
            Effect.map(statusOf("replica1"), ({ group, state }) => `${group} ${state}`),
            (found) => found === "default up"
          )
          yield* becomes("replica2", "up")
          assert.strictEqual((yield* router.explain("SELECT * FROM note")).group, "default")
          assert.strictEqual(yield* finds("before"), "replica1")
          yield* Effect.repeat(finds("before"), { until: (engine) => engine === "replica2", times: 500 })
          yield* insert("after")
          yield* Effect.repeat(finds("after"), { until: (engine) => engine === "replica2", times: 500 })
          // What stands still on the new timeline is past the position of the old one.
          yield* second.pauseReplay
          yield* insert("later")
          assert.strictEqual(yield* finds("later"), "replica1")
        }).pipe(Effect.provide(over(primary, replicas, { consistency: Consistency.causal() })))
      })
    ).pipe(Effect.provide(PgCluster.layer({ replicas: 2 })), Effect.provide(silent))
  )
})
