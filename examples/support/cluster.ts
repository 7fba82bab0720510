import { randomBytes } from "node:crypto"
import { SqlClient } from "@effect/sql"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import { DbRouter } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

/** The router's variables for a cluster that is started for the example: one primary, two replicas. */
export const ClusterEnvironment = Layer.unwrapEffect(
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) =>
    Layer.setConfigProvider(
      ConfigProvider.fromMap(
        new Map([
          ["DATABASE_URL", Redacted.value(primary.url)],
          ["DATABASE_REPLICA_URLS", replicas.map(({ url }) => Redacted.value(url)).join(",")],
          ["DB_ROUTER_TOKEN_KEYS", randomBytes(32).toString("base64")]
        ])
      )
    )
  )
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 2 })))

/** The tables of the examples. Replicas have them when this is done. */
export const Tables = Layer.effectDiscard(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE)`
    yield* sql`CREATE TABLE invoice (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, total int NOT NULL)`
    yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
  })
)

/** Runs a program with a router on a cluster of its own. */
export const run = <A, E>(
  program: Effect.Effect<A, E, DbRouter.Services | PgCluster.PgCluster>,
  router: Layer.Layer<DbRouter.Services, unknown, PgCluster.PgCluster> = DbRouter.layerEnv
): Promise<A> =>
  program.pipe(
    Effect.provide(Tables.pipe(Layer.provideMerge(router), Layer.provideMerge(ClusterEnvironment))),
    Effect.scoped,
    Effect.runPromise
  )
