/** A cluster with the load's tables in it, and routers over it. */
import { Effect, Redacted } from "effect"
import type { DbRouter, RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { schema } from "./Load.js"
import type { Pace } from "./Pace.js"

/** A server that can be asked. */
export type Server = Pick<PgCluster.Node, "name" | "query">

/** Makes what is not there yet. */
export const prepare = ({ awaitReplayed, primary }: PgCluster.Cluster) =>
  Effect.gen(function* () {
    for (const sql of schema) yield* primary.query(sql)
    yield* awaitReplayed
  })

export const cluster = Effect.tap(PgCluster.make({ replicas: 2 }), prepare)

/** Where an engine connects to, if not to the node itself. */
export type Through = (node: PgCluster.Node) => { readonly host: string; readonly port: number }

/** How the router connects to a node. Its connections are found by the name. */
export const engine = (
  node: PgCluster.Node,
  pace: Pace,
  applicationName: string,
  through: Through = (node) => node
): RouterConfig.EngineConfig => {
  const url = new URL(Redacted.value(node.url))
  const { host, port } = through(node)
  url.host = `${host}:${port}`
  url.searchParams.set("statement_timeout", String(pace.statementTimeout))
  return {
    name: node.name,
    url: Redacted.make(url.href),
    applicationName,
    connectTimeout: pace.connectTimeout,
    maxConnections: 10
  }
}

export const health = ({ interval, maxLag, timeout }: Pace): RouterConfig.HealthOptions => ({
  interval,
  timeout,
  maxLag
})

export const options = (
  { primary, replicas }: Pick<PgCluster.Cluster, "primary" | "replicas">,
  pace: Pace,
  applicationName: string,
  through?: Through
): RouterConfig.Options => ({
  groups: {
    default: [engine(primary, pace, applicationName, through)],
    read: replicas.map((node) => engine(node, pace, applicationName, through))
  },
  health: health(pace),
  shutdownTimeout: "5 seconds"
})

/** How an engine does now. */
export const statusOf = (router: DbRouter.DbRouter, name: string) =>
  Effect.map(router.status, (all) => all.find((engine) => engine.name === name)!)

/** Waits, without a limit, until the status of an engine is as wanted; tells when. */
export const awaitStatus = (
  router: DbRouter.DbRouter,
  name: string,
  wanted: (status: DbRouter.EngineStatus) => boolean
): Effect.Effect<number> =>
  Effect.map(Effect.repeat(Effect.delay(statusOf(router, name), "5 millis"), { until: wanted }), () =>
    performance.now()
  )

/** The connections that a server has under that name, those of the probes too. */
export const connections = (node: Server, applicationName: string) =>
  Effect.map(
    node.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE $1 || '%'", [
      applicationName
    ]),
    ([row]) => row!.n
  )

/** Effects at the same time. */
export const all = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>) =>
  Effect.all(effects, { concurrency: "unbounded" })
