import { readFileSync } from "node:fs"
import { SqlClient } from "@effect/sql"
import { assert } from "@effect/vitest"
import { Effect, Fiber, Logger, Redacted, type Scope } from "effect"
import type { DbRouter, RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import { activity, eventually, partsOf, stateOf } from "./engine.js"
import { over, statusOf } from "./health.js"
import { spansOf } from "./router.js"

type Services = SqlClient.SqlClient | DbRouter.DbRouter | PgCluster.PgCluster

/** Where a replica is reached, if not by its URL. */
export type Engine = Partial<RouterConfig.EngineConfig>

/**
 * Runs an effect with a router over a primary and its first replica. `on` says how the replica is reached, `primary` how the
 * primary is.
 */
export const routed = <A, E, R>(
  effect: (replica: PgCluster.Node, cluster: PgCluster.Cluster) => Effect.Effect<A, E, R | Services>,
  options: Partial<RouterConfig.Options> & { readonly on?: Engine; readonly primary?: Engine } = {}
) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) => {
    const { on, primary, ...rest } = options
    const replica = cluster.replicas[0]!
    const at = (node: PgCluster.Node, engine: Engine | undefined) => ({
      name: node.name,
      ...(engine === undefined ? { url: node.url } : { ...partsOf(node), host: node.host, port: node.port, ...engine })
    })
    const router = over(cluster.primary, [replica], {
      groups: { default: [at(cluster.primary, primary)], read: [at(replica, on)] },
      ...rest
    })
    return Effect.provide(
      effect(replica, cluster).pipe(Effect.provide(router)),
      Logger.replace(Logger.defaultLogger, Logger.none)
    )
  })

/** How often a read has failed, where and why, and who has answered in the end; none of it when it has never failed. */
export const failuresOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(spansOf(effect), ([, spans]) =>
    spans.flatMap(({ attributes }) =>
      attributes.has("db.router.attempts")
        ? [`${attributes.get("db.router.failed")} -> ${attributes.get("db.router.engine")}`]
        : []
    )
  )

/** The SQLSTATE, or whatever the driver says, of a statement that fails, and the engines that it went to. */
export const refusalOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    spansOf(Effect.flip(effect)),
    ([error, spans]) =>
      [
        stateOf(error),
        spans.flatMap(({ attributes }) =>
          attributes.has("db.router.attempts") ? [attributes.get("db.router.failed")] : []
        )
      ] as const
  )

/** Waits until a server works on a text for a router, and tells for which backend. */
export const backendOf = (node: PgCluster.Node, text: string) =>
  Effect.map(
    eventually(activity(node, "effect-db-router%"), (all) =>
      all.some(({ query, state }) => state === "active" && query.includes(text))
    ),
    (all) => all.find(({ query }) => query.includes(text))!.pid
  )

/** What waits on the replica, and nowhere else. */
export const sleeping = "pg_sleep(CASE current_setting('cluster_name') WHEN 'replica1' THEN 20 ELSE 0 END)"

/** A read that waits on the replica, what is done to it meanwhile, and where it has failed. */
export const whileReading = <E, R>(name: string, meanwhile: (pid: number) => Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    const { replicas } = yield* PgCluster.PgCluster
    const sql = yield* SqlClient.SqlClient
    const reading = yield* Effect.fork(failuresOf(sql.unsafe(`SELECT ${sleeping}, '${name}'`)))
    yield* meanwhile(yield* backendOf(replicas[0]!, `'${name}'`))
    return yield* Fiber.join(reading)
  })

/** Checks that the replica is not taken for a bad one. */
export const stays = Effect.map(statusOf("replica1"), ({ state }) => assert.strictEqual(state, "up"))

/** A session of the driver's own on a server. */
export const client = (
  node: PgCluster.Node,
  config: Pg.ClientConfig = {}
): Effect.Effect<Pg.Client, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const { database, password, username } = partsOf(node)
        const client = new Pg.Client({
          host: node.host,
          port: node.port,
          user: username,
          password: Redacted.value(password),
          database,
          ...config
        })
        client.on("error", () => {})
        await client.connect()
        return client
      },
      catch: (error) => error as Error
    }),
    (client) => Effect.promise(() => client.end().catch(() => {}))
  )

export const signal = (pid: number, name: NodeJS.Signals) => Effect.sync(() => process.kill(pid, name))

/** The process of a server. */
export const postmaster = (node: PgCluster.Node) =>
  Effect.map(node.query<{ path: string }>("SELECT current_setting('data_directory') AS path"), ([row]) =>
    Number(readFileSync(`${row!.path}/postmaster.pid`, "utf8").split("\n")[0])
  )
