import { Reactivity } from "@effect/experimental"
import { SqlClient } from "@effect/sql"
import type { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Logger, Option, Stream } from "effect"
import { Consistency, DbRouter, RoutingContext } from "effect-db-router"
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

  // The old primary goes on, and the routers probe too seldom to notice.
  it.live("that were shown a later timeline have what begins on the primary begin on the new one", () =>
    Effect.flatMap(PgCluster.PgCluster, (cluster) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const [replica] = replicas
        yield* primary.query("create table note (text text)")
        yield* cluster.awaitReplayed
        const make = DbRouter.make({
          groups: {
            default: [{ url: primary.url, name: primary.name }],
            read: [{ url: replica!.url, name: replica!.name }]
          },
          consistency: Consistency.causal(),
          health: { interval: "10 minutes" }
        }).pipe(Effect.provide(Reactivity.layer))
        const find = (sql: SqlClient.SqlClient) => sql`SELECT text FROM note WHERE text = 'new'`
        const add = (sql: SqlClient.SqlClient) => sql`INSERT INTO note VALUES ('new') RETURNING text`
        const units: Record<
          string,
          (sql: PgClient.PgClient) => Effect.Effect<ReadonlyArray<unknown>, unknown, DbRouter.DbRouter>
        > = {
          "a transaction": (sql) => sql.withTransaction(find(sql)),
          "a transaction of a session": (sql) => DbRouter.newSession(sql.withTransaction(find(sql))),
          "the first statement of a session": (sql) => DbRouter.newSession(DbRouter.primary(find(sql))),
          "a read on the primary": (sql) => DbRouter.primary(find(sql)),
          "a stream on the primary": (sql) =>
            DbRouter.primary(Effect.map(Stream.runCollect(find(sql).stream), Chunk.toReadonlyArray)),
          "a connection of its own": (sql) =>
            Effect.scoped(
              Effect.flatMap(sql.reserve, (connection) =>
                connection.execute("SELECT text FROM note WHERE text = 'new'", [], undefined)
              )
            ),
          "a write": add
        }
        const routers = yield* Effect.forEach(Object.entries(units), ([name, run]) =>
          Effect.map(make, (router) => ({ name, run, router }))
        )
        yield* replica!.promote
        yield* replica!.query("insert into note values ('new')")
        const blind: Array<string> = []
        for (const { name, router, run } of routers) {
          const found = yield* Effect.gen(function* () {
            assert.isNotEmpty(yield* find(router.client), `the promoted replica before ${name}`)
            // Waits for the position of what was read.
            assert.isTrue(Option.isSome(yield* Consistency.currentToken))
            return yield* run(router.client)
          }).pipe(Effect.provideService(DbRouter.DbRouter, router), RoutingContext.fresh)
          if (found.length === 0) blind.push(name)
        }
        assert.deepStrictEqual(blind, [])
        assert.lengthOf(yield* primary.query("select text from note"), 0)
      })
    ).pipe(Effect.scoped, Effect.provide(PgCluster.layer({ replicas: 1 })), Effect.provide(silent))
  )
})
