/** Scenarios on a real cluster, which several share. */
import { Reactivity } from "@effect/experimental"
import { Effect, type Exit, Logger, type Scope } from "effect"
import { PgCluster } from "effect-db-router/testing"
import { createTables, database, role, schema } from "../Schema.js"
import { type Node, password, rows, type Scenario, type Site } from "./Site.js"

/** The longest that a scenario may take. */
const limit = "40 seconds"

const quoted = (value: unknown) => (value === null ? "NULL" : `'${String(value)}'`)

/** Puts the tables back to what they hold at first. */
const reset = [
  ...schema.toReversed().map(({ name }) => `DELETE FROM ${name}`),
  ...rows.map(({ row, table }) => {
    const columns = Object.keys(row!)
    return `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${Object.values(row!).map(quoted).join(", ")})`
  })
].join("; ")

const prepare = [
  `CREATE ROLE ${role} LOGIN PASSWORD '${password}'`,
  `GRANT pg_read_all_stats TO ${role}`,
  `GRANT CREATE ON SCHEMA public TO ${role}`,
  ...createTables,
  ...schema.map(({ name }) => `ALTER TABLE ${name} OWNER TO ${role}`)
]

const setting = (node: PgCluster.Node, name: string, value: string | undefined) =>
  Effect.zipRight(
    node.query(value === undefined ? `ALTER SYSTEM RESET ${name}` : `ALTER SYSTEM SET ${name} = '${value}'`),
    node.query("SELECT pg_reload_conf()")
  )

const nodeOf = (cluster: PgCluster.Cluster, node: PgCluster.Node, name: string): Node => {
  const { orDie } = Effect
  return {
    name,
    address: { host: node.host, port: node.port, database, user: role, password },
    pauseReplay: orDie(node.pauseReplay),
    resumeReplay: orDie(node.resumeReplay),
    kill: orDie(node.kill),
    freeze: orDie(node.freeze),
    thaw: orDie(node.thaw),
    stop: orDie(node.stop),
    start: orDie(Effect.zipRight(node.start, setting(node, "restore_command", undefined))),
    // It looks for its log where it is told that there is none, which takes a while.
    stopToStartSlowly: orDie(
      Effect.zipRight(node.query("ALTER SYSTEM SET restore_command = 'sleep 0.5; false'"), node.stop)
    ),
    promote: orDie(node.promote),
    rejoin: (upstream) => orDie(node.rejoin(cluster.nodes.find(({ port }) => port === upstream.address.port)!)),
    setReadOnly: (isReadOnly) =>
      orDie(
        Effect.zipRight(
          setting(node, "default_transaction_read_only", isReadOnly ? "on" : undefined),
          // A new session is given what is read anew.
          Effect.sleep("50 millis")
        )
      )
  }
}

const siteOf = (cluster: PgCluster.Cluster): Site => {
  const [primary, replica, other] = cluster.nodes.map((node, i) => nodeOf(cluster, node, `n${i + 1}`))
  const onPrimary = (use: (node: PgCluster.Node) => Effect.Effect<unknown, PgCluster.PgClusterError>) =>
    Effect.orDie(Effect.asVoid(Effect.flatMap(cluster.currentPrimary, use)))
  return {
    primary: primary!,
    replica: replica!,
    other: other!,
    settled: Effect.orDie(cluster.awaitReplayed),
    setSynchronous: (standbys) =>
      onPrimary((node) =>
        Effect.zipRight(
          setting(node, "synchronous_standby_names", standbys === 0 ? undefined : `ANY ${standbys} (*)`),
          Effect.sleep("100 millis")
        )
      ),
    vacuum: onPrimary((node) => Effect.forEach(schema, ({ name }) => node.query(`VACUUM ${name}`)))
  }
}

/** A cluster of its own. */
export const cluster = (
  primarySettings: Readonly<Record<string, string>> = {}
): Effect.Effect<PgCluster.Cluster, PgCluster.PgClusterError, Scope.Scope> =>
  Effect.tap(
    PgCluster.make({
      primarySettings,
      replicas: 2,
      database,
      settings: {
        superuser_reserved_connections: "0",
        deadlock_timeout: "200ms",
        max_standby_streaming_delay: "0",
        hot_standby_feedback: "off",
        autovacuum: "off"
      }
    }),
    ({ awaitReplayed, primary }) =>
      Effect.zipRight(
        Effect.forEach(prepare, (sql) => primary.query(sql), { discard: true }),
        awaitReplayed
      )
  )

/** What becomes of a scenario on a cluster. */
export const runOn = (
  { awaitReplayed, primary, ...cluster }: PgCluster.Cluster,
  { run }: Scenario
): Effect.Effect<Exit.Exit<unknown, unknown>, PgCluster.PgClusterError> =>
  Effect.gen(function* () {
    yield* primary.query(reset)
    yield* awaitReplayed
    const scenario = run(siteOf({ awaitReplayed, primary, ...cluster })).pipe(
      Effect.scoped,
      Effect.timeout(limit),
      Effect.provide(Reactivity.layer),
      Effect.provide(Logger.remove(Logger.defaultLogger))
    )
    // What a flow has seen goes no further than its scenario.
    return yield* Effect.promise(() => Effect.runPromiseExit(scenario))
  })
