/** Two routers in one program, each for a system of its own: what is known of the one says nothing of the other. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Schedule } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import type * as RouterTest from "../support/router.js"

interface Database {
  readonly cluster: PgCluster.Cluster
  readonly sql: SqlClient.SqlClient
  readonly token: Effect.Effect<Option.Option<string>>
}

class Databases extends Context.Tag("Databases")<Databases, { readonly one: Database; readonly two: Database }>() {}

const database = (name: string, options: RouterTest.Options) =>
  Effect.gen(function* () {
    const cluster = Context.get(yield* Layer.build(Layer.fresh(PgCluster.layer({ replicas: 1 }))), PgCluster.PgCluster)
    yield* cluster.primary.query("CREATE TABLE note (id int PRIMARY KEY)")
    yield* cluster.awaitReplayed
    const router = Layer.fresh(
      DbRouter.layer({
        groups: {
          default: [{ url: cluster.primary.url, name: `${name}-primary` }],
          read: [{ url: cluster.replicas[0]!.url, name: `${name}-replica` }]
        },
        ...options
      })
    )
    const context = yield* Layer.build(router)
    return {
      cluster,
      sql: Context.get(context, SqlClient.SqlClient),
      token: Effect.provide(Consistency.currentToken, context)
    }
  })

const live = (options: RouterTest.Options) =>
  Layer.scoped(
    Databases,
    Effect.map(Effect.all([database("one", options), database("two", options)], { concurrency: 2 }), ([one, two]) => ({
      one: one!,
      two: two!
    }))
  )

const isOnReplica = ({ sql }: Database) =>
  Effect.map(sql<{ yes: boolean }>`SELECT current_setting('in_hot_standby') = 'on' AS yes`, ([row]) => row!.yes)

const sees = ({ sql }: Database, id: number) =>
  Effect.map(sql`SELECT id FROM note WHERE id = ${id}`, (rows) => rows.length === 1)

/** Reads until a replica takes them, which has to be soon. */
const untilOnReplica = (database: Database) =>
  Effect.repeat(isOnReplica(database), { until: (yes) => yes, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeout("5 seconds")
  )

let ids = 0

layer(live({ consistency: Consistency.causal() }), { excludeTestServices: true, timeout: "2 minutes" })(
  "with two systems in one flow",
  (it) => {
    it.effect("reads of both go to their replicas again, soon after a write to both, and after reads of both", () =>
      Effect.gen(function* () {
        const { one, two } = yield* Databases
        for (const written of [one, two, one]) {
          yield* written.sql`INSERT INTO note VALUES (${++ids})`
          for (const database of [one, two, one, two]) yield* untilOnReplica(database)
        }
        // Once they are there, they stay.
        for (let i = 0; i < 20; i++) {
          assert.isTrue(yield* isOnReplica(one))
          assert.isTrue(yield* isOnReplica(two))
        }
      })
    )

    it.effect("a read on the primary of the one does not make the flow forget its write to the other", () =>
      Effect.gen(function* () {
        const { one, two } = yield* Databases
        for (const [written, other] of [
          [one, two],
          [two, one]
        ] as const) {
          const [replica] = written.cluster.replicas
          yield* replica!.pauseReplay
          const id = ++ids
          yield* written.sql`INSERT INTO note VALUES (${id})`
          yield* DbRouter.primary(isOnReplica(other))
          yield* other.sql.withTransaction(isOnReplica(other))
          yield* other.sql`INSERT INTO note VALUES (${id})`
          const found = yield* sees(written, id)
          yield* replica!.resumeReplay
          assert.isTrue(found)
        }
      })
    )

    it.effect("a token of the one system is of that one, whatever the flow has done in the other", () =>
      Effect.gen(function* () {
        const { one, two } = yield* Databases
        yield* DbRouter.reset
        yield* one.sql`INSERT INTO note VALUES (${++ids})`
        assert.isTrue(Option.isSome(yield* one.token))
        assert.isTrue(Option.isNone(yield* two.token))
        const id = ++ids
        yield* two.sql`INSERT INTO note VALUES (${id})`
        const [first, second] = [yield* one.token, yield* two.token].map(Option.getOrThrow)
        assert.notStrictEqual(first, second)
      })
    )
  }
)

layer(live({ consistency: Consistency.causal({ scope: "process" }) }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("with two systems in one process", (it) => {
  it.effect("reads of both go to their replicas again, soon after a write to both", () =>
    Effect.gen(function* () {
      const { one, two } = yield* Databases
      for (const { sql } of [one, two]) yield* sql`INSERT INTO note VALUES (${++ids})`
      for (const database of [one, two, one, two]) yield* untilOnReplica(database)
    })
  )
})
