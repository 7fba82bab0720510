/** Patroni, pgbouncer, RDS and Aurora: how the router is told of them. */
// #region patroni
import { FetchHttpClient } from "@effect/platform"
import { Layer, type Redacted } from "effect"
import { Consistency, DbRouter, Topology } from "effect-db-router"

/** The servers that Patroni knows, asked for every 10 seconds; what the probes find of them decides. */
const patroni = (url: Redacted.Redacted, interfaces: ReadonlyArray<string>) =>
  DbRouter.layer({
    groups: { default: [{ url }] }, // user, password, database, limits; any member's address
    waitForPrimary: { atStart: "30 seconds", statements: "15 seconds" } // longer than a failover takes
  }).pipe(
    Layer.provide(Topology.layerPatroni({ urls: interfaces })), // "http://db1:8008", ...
    Layer.provide(FetchHttpClient.layer)
  )
// #endregion patroni

// #region pgbouncer
/** Every server behind an entry of its own in pgbouncer's [databases], so that each is one server. */
const pgbouncer = (primary: Redacted.Redacted, replicas: ReadonlyArray<Redacted.Redacted>) =>
  DbRouter.layer({
    groups: { default: [{ url: primary }], read: replicas.map((url) => ({ url })) },
    prepare: false // with pool_mode = transaction
  })
// #endregion pgbouncer

// #region rds
/** The endpoints of the instance and of its read replicas. */
const rds = (primary: Redacted.Redacted, replicas: ReadonlyArray<Redacted.Redacted>) =>
  DbRouter.layer({
    groups: {
      default: [{ url: primary, name: "primary" }],
      read: replicas.map((url, i) => ({ url, name: `replica${i + 1}` }))
    }
  })
// #endregion rds

// #region aurora
/** The cluster endpoint, and the instance endpoints of the readers. Nothing is probed, no position is compared. */
const aurora = (cluster: Redacted.Redacted, readers: ReadonlyArray<Redacted.Redacted>) =>
  DbRouter.layer({
    groups: {
      default: [{ url: cluster, connectionTTL: "5 minutes" }],
      read: readers.map((url) => ({ url, connectionTTL: "5 minutes" }))
    },
    health: false,
    consistency: Consistency.window("2 seconds") // longer than the readers are behind
  })

// #endregion aurora

import { HttpServer, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { ClusterEnvironment } from "../support/cluster.js"
import { serving } from "../support/http.js"
import { report } from "../support/report.js"

const visit = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const server = sql<{ server: string }>`SELECT current_setting('cluster_name') AS server`
  const router = yield* DbRouter.DbRouter
  yield* sql`INSERT INTO visit VALUES (1)`
  const [after] = yield* server
  // A flow's reads stay where its first one was until the other replica is known to be as far. These are of different flows.
  const others = yield* Effect.replicateEffect(Effect.zipRight(DbRouter.reset, server), 4)
  const servers = [...new Set(others.map(([row]) => row!.server))].sort().join(", ")
  return { after: after!.server, servers, engines: (yield* router.status).length }
})

await Effect.gen(function* () {
  const { awaitReplayed, nodes, primary, replicas } = yield* PgCluster.PgCluster
  yield* primary.query("CREATE TABLE visit (id int)")
  yield* awaitReplayed
  const urls = replicas.map(({ url }) => url)

  // Stands in for Patroni's REST interface.
  const members = nodes.map(({ host, name, port }) => ({
    name,
    host,
    port,
    role: name === primary.name ? "leader" : "replica",
    state: name === primary.name ? "running" : "streaming",
    api_url: "http://127.0.0.1:1/patroni"
  }))
  const Interface = HttpServer.serve(Effect.succeed(HttpServerResponse.unsafeJson({ members })))
  const isSpread = ({ engines, servers }: { engines: number; servers: string }) =>
    engines === 3 && servers === "replica1, replica2"

  const viaPatroni = yield* serving(Interface, (_send, address) =>
    Effect.provide(visit, patroni(primary.url, [address]))
  )
  yield* report("Patroni", viaPatroni, isSpread(viaPatroni))
  const viaPgbouncer = yield* Effect.provide(visit, pgbouncer(primary.url, urls))
  yield* report("pgbouncer, prepare: false", viaPgbouncer, isSpread(viaPgbouncer))
  const onRds = yield* Effect.provide(visit, rds(primary.url, urls))
  yield* report("RDS", onRds, isSpread(onRds))
  const onAurora = yield* Effect.provide(visit, aurora(primary.url, urls))
  yield* report("Aurora", onAurora, isSpread(onAurora) && onAurora.after === "primary")
}).pipe(Effect.provide(ClusterEnvironment), Effect.scoped, Effect.runPromise)
