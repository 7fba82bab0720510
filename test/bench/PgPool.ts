/** A proxy that looks at every statement and spreads the reads over the servers, against a router in the program. */
import { Effect, Option, Schedule } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"
import * as Debian from "./Debian.js"
import { compare, effects, type Pace, promises, speed } from "./Measure.js"
import { partsOf, urlOf } from "./others/Other.js"
import { each, type Line } from "./Row.js"
import { select } from "./Select.js"
import { type Pair, primaryKeys, router } from "./Servers.js"

const counts = [1, 50]

const against = "pg through pgpool-II"

const whatOf = (connections: number) =>
  `a primary-key SELECT, ${connections} ${connections === 1 ? "connection" : "connections"}`

const missing = counts.map(
  (connections): Line => ({
    section: "pgpool",
    what: whatOf(connections),
    against,
    why: "pgpool is not installed: apt-get install pgpool2"
  })
)

const proxy = ({ primary, replicas }: Pair): Debian.Program => {
  const { database, password, username } = partsOf(urlOf(primary, "pgpool"))
  const backend = ({ host, port }: PgCluster.Node, i: number) => [
    `backend_hostname${i} = '${host}'`,
    `backend_port${i} = ${port}`,
    `backend_weight${i} = ${i === 0 ? 0 : 1}`,
    `backend_flag${i} = 'DISALLOW_TO_FAILOVER'`
  ]
  return {
    name: "pgpool",
    args: (folder) => [
      "-n",
      "-f",
      `${folder}/pgpool.conf`,
      "-a",
      `${folder}/pool_hba.conf`,
      "-F",
      `${folder}/pcp.conf`
    ],
    files: (folder, port) => ({
      "pgpool.conf": [
        "backend_clustering_mode = 'streaming_replication'",
        "listen_addresses = '127.0.0.1'",
        `port = ${port}`,
        "pcp_port = SPARE_PORT",
        `socket_dir = '${folder}'`,
        `pcp_socket_dir = '${folder}'`,
        `pid_file_name = '${folder}/pgpool.pid'`,
        `logdir = '${folder}'`,
        `work_dir = '${folder}'`,
        ...[primary, ...replicas].flatMap(backend),
        "enable_pool_hba = on",
        `pool_passwd = '${folder}/pool_passwd'`,
        `num_init_children = ${Math.max(...counts) + 10}`,
        "max_pool = 1",
        "load_balance_mode = on",
        `sr_check_user = '${username}'`,
        `sr_check_password = '${password}'`,
        `sr_check_database = '${database}'`,
        "health_check_period = 0",
        "use_watchdog = off",
        ""
      ].join("\n"),
      "pool_hba.conf": "host all all 127.0.0.1/32 trust\n",
      pool_passwd: `${username}:TEXT${password}\n`,
      "pcp.conf": ""
    })
  }
}

const through = (port: number, servers: Pair, connections: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { database, password, username } = partsOf(urlOf(servers.primary, "pgpool"))
      return new Pg.Pool({ host: "127.0.0.1", port, user: username, password, database, max: connections })
    }),
    (pool) => Effect.promise(() => pool.end())
  )

/** Shows that it sends reads to the replica, once it knows which server that is. */
const readsOnReplica = (pool: Pg.Pool, { replicas }: Pair) =>
  Effect.promise(() => pool.query("SELECT current_setting('port')::int AS port FROM item WHERE id = 1")).pipe(
    Effect.map(({ rows }) => rows[0].port === replicas[0]!.port),
    Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("100 millis") }),
    Effect.timeoutFail({ duration: "15 seconds", onTimeout: () => new Error("pgpool does not read on the replica") }),
    Effect.orDie
  )

const row = (connections: number, port: number, servers: Pair, pace: Pace, version: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const pool = yield* through(port, servers, connections)
      const id = primaryKeys()
      const text = "SELECT id, name, price, in_stock FROM item WHERE id = $1"
      yield* readsOnReplica(pool, servers)
      const { client } = yield* router(servers, servers.replicas, { maxConnections: connections })
      const [without, routed] = yield* compare(
        [
          promises(connections, () => pool.query({ name: "item_by_id", text, values: [id()] })),
          effects(connections, select(client))
        ],
        pace
      )
      const line: Line = {
        section: "pgpool",
        what: whatOf(connections),
        against,
        reach: { atLeast: 1.5 },
        unit: "x",
        measured: speed(without!, routed!),
        detail: `${each(routed!, without!)}; ${version}`
      }
      return line
    })
  )

export const run = (servers: Pair, pace: Pace) =>
  Effect.flatMap(
    Debian.version("pgpool"),
    Option.match({
      onNone: () => Effect.succeed<ReadonlyArray<Line>>(missing),
      onSome: (version) =>
        Effect.scoped(
          Effect.flatMap(Debian.run(proxy(servers)), (port) =>
            Effect.forEach(counts, (connections) => row(connections, port, servers, pace, version))
          )
        )
    })
  )
