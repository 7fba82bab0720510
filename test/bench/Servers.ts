import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import { Effect } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

/** Rows of the table that is read. */
export const items = 100_000

/** Their primary keys, one after the other, again and again. */
export const primaryKeys = () => {
  let last = 0
  return () => (last++ % items) + 1
}

/** Connections of every pool, routed or not: the default of both. */
export const poolSize = 10

/** Enough for all that are compared, and for a proxy in front of them. */
const maxConnections = 300

const schema = [
  "CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric NOT NULL, in_stock boolean NOT NULL)",
  `INSERT INTO item SELECT n, 'item ' || n, n % 1000 / 10.0, n % 7 > 0 FROM generate_series(1, ${items}) n`,
  "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) WITH (fillfactor = 50)",
  "INSERT INTO account SELECT n, 0 FROM generate_series(1, 1000) n",
  "CREATE TABLE entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL, amount int NOT NULL)",
  "VACUUM ANALYZE"
]

/** A cluster with the tables of all sections in it. */
export const cluster = (replicas: number) =>
  Effect.gen(function* () {
    const { awaitReplayed, primary, ...rest } = yield* PgCluster.make({
      replicas,
      settings: { max_connections: String(maxConnections) }
    })
    for (const sql of schema) yield* primary.query(sql)
    yield* awaitReplayed
    return { ...rest, awaitReplayed, primary }
  })

/** The client that everybody has without a router. */
export const plain = (node: PgCluster.Node) =>
  PgClient.make({ url: node.url, maxConnections: poolSize }).pipe(Effect.provide(Reactivity.layer))

/** A router whose reads go to some nodes. */
export const router = (
  { primary }: PgCluster.Cluster,
  replicas: ReadonlyArray<PgCluster.Node>,
  options: Partial<RouterConfig.Options> & { readonly maxConnections?: number } = {}
) => {
  const { maxConnections = poolSize, ...rest } = options
  const engine = ({ name, url }: PgCluster.Node) => ({ name, url, maxConnections })
  return DbRouter.make({ ...rest, groups: { default: [engine(primary)], read: replicas.map(engine) } }).pipe(
    Effect.provide(Reactivity.layer)
  )
}

/** One primary and one replica; a router over them, and a plain client to each. */
export const pair = Effect.gen(function* () {
  const servers = yield* cluster(1)
  const replica = servers.replicas[0]!
  return {
    ...servers,
    router: yield* router(servers, [replica]),
    plainPrimary: yield* plain(servers.primary),
    plainReplica: yield* plain(replica)
  }
})

export type Pair = Effect.Effect.Success<typeof pair>
