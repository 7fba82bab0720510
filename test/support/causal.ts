import { SqlClient } from "@effect/sql"
import { Effect, Layer } from "effect"
import { DbRouter } from "effect-db-router"
import * as RouterTest from "./router.js"

let ids = 0

/** A row of its own for every test. */
export const newId = Effect.sync(() => ++ids)

export const insert = (id: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO note (id) VALUES (${id})`)

/** A new row, written outside the router: by no flow. */
export const insertOutside = Effect.gen(function* () {
  const { primary } = yield* RouterTest.PgCluster.PgCluster
  const id = yield* newId
  yield* primary.query("INSERT INTO note (id) VALUES ($1)", [id])
  return id
})

/** Whether a read finds a row. */
export const sees = (id: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql`SELECT id FROM note WHERE id = ${id}`, (rows) => rows.length === 1)
  )

/** Whether a read finds a row, and on which engine. */
export const look = (id: number) =>
  Effect.map(RouterTest.traced(sees(id)), ([found, statements]) => [found, statements.at(-1)!.engine] as const)

/** Where a read would go, and why. */
export const explained = Effect.flatMap(DbRouter.DbRouter, (router) => router.explain("SELECT id FROM note"))

/** Runs an effect while replicas stand still, all or the first so many, in a flow that has done nothing. */
export const standingStill = <A, E, R>(effect: Effect.Effect<A, E, R>, count?: number) =>
  Effect.gen(function* () {
    const { replicas } = yield* RouterTest.PgCluster.PgCluster
    const still = replicas.slice(0, count)
    yield* RouterTest.settle
    yield* Effect.forEach(still, (replica) => replica.pauseReplay)
    return yield* effect.pipe(
      Effect.timeout("30 seconds"),
      Effect.ensuring(Effect.orDie(Effect.forEach(still, (replica) => replica.resumeReplay)))
    )
  })

/** The table `note`. */
export const Notes = Layer.effectDiscard(
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE IF NOT EXISTS note (id int PRIMARY KEY, text text)`)
)

/** A cluster with a table `note`, and a router over it. */
export const layer = (options?: RouterTest.Options) => Layer.provideMerge(Notes, RouterTest.layer(options))
