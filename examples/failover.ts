/** The primary is killed, a replica promoted: the write that waits runs on it. */
// #region usage
import { SqlClient } from "@effect/sql"
import { Effect, type Redacted, Stream } from "effect"
import { DbRouter, Topology } from "effect-db-router"

// Credentials, database and pool limits are those of the one engine; the list says where the servers are.
const ServersLive = (url: Redacted.Redacted, hosts: ReadonlyArray<string | Topology.Member>) =>
  DbRouter.layer({
    groups: { default: [{ url }] },
    topology: Topology.hosts(hosts), // or make, dns, patroni, http, resolving
    waitForPrimary: { atStart: "30 seconds", statements: "10 seconds" },
    hedge: "50 millis" // a read that a replica has not answered by then also goes to another one
  })

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const router = yield* DbRouter.DbRouter

  // What happens to the servers, each change once.
  const watching = Stream.runForEach(router.events, (event) => Effect.log(event))
  yield* Effect.forkScoped(watching)

  // While there is no primary this waits, up to 10 seconds, and then runs on the one that was promoted.
  yield* sql`INSERT INTO customer (name) VALUES ('Ada')`

  yield* router.drain("replica2") // no new reads: maintenance
  yield* router.undrain("replica2")
  return yield* router.status
})

// #endregion usage

import { PgCluster } from "effect-db-router/testing"
import { ClusterEnvironment } from "./support/cluster.js"

const status = await Effect.gen(function* () {
  const { awaitReplayed, nodes, primary, replicas } = yield* PgCluster.PgCluster
  yield* primary.query("CREATE TABLE customer (name text)")
  yield* awaitReplayed
  const hosts = nodes.map(({ host, name, port }) => ({ host, name, port }))
  return yield* Effect.gen(function* () {
    yield* primary.kill
    yield* Effect.fork(Effect.delay(replicas[0]!.promote, "500 millis"))
    return yield* program
  }).pipe(Effect.provide(ServersLive(primary.url, hosts)))
}).pipe(Effect.provide(ClusterEnvironment), Effect.scoped, Effect.runPromise)

const writer = status.find(({ group }) => group === "default")
console.log(status.map(({ group, name, role, state }) => ({ group, name, role, state })))
if (writer?.name !== "replica1" || writer.role !== "primary") process.exitCode = 1
