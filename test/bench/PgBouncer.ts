/**
 * A proxy that lends a connection to a server for one transaction only, so that nothing may be kept on it. Not a
 * measurement of speed: whether a router that prepares nothing works through it.
 */
import { Effect, Option, Redacted, Stream } from "effect"
import { DbRouter } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Debian from "./Debian.js"
import { partsOf, urlOf } from "./others/Other.js"
import type { Line } from "./Row.js"
import { type Pair, router } from "./Servers.js"

/** Fewer than the router's, so that they change hands. */
const serverConnections = 3

const fibers = 30

const rounds = 20

const heading = {
  section: "pgbouncer",
  what: "wrong or failed units of work through pgbouncer, prepare: false",
  against: `transaction mode, ${serverConnections} connections for ${fibers} fibers`
}

const missing: Line = { ...heading, why: "pgbouncer is not installed: apt-get install pgbouncer" }

const proxy = ({ primary, replicas }: Pair): Debian.Program => {
  const database = ({ host, name, port, url }: PgCluster.Node) => {
    const parts = partsOf(Redacted.value(url))
    return (
      `${name} = host=${host} port=${port} dbname=${parts.database}` +
      ` user=${parts.username} password=${parts.password}`
    )
  }
  return {
    name: "pgbouncer",
    args: (folder) => [`${folder}/pgbouncer.ini`],
    files: (folder, port) => ({
      "pgbouncer.ini": [
        "[databases]",
        ...[primary, ...replicas].map(database),
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        `listen_port = ${port}`,
        "unix_socket_dir =",
        "auth_type = any",
        "pool_mode = transaction",
        `default_pool_size = ${serverConnections}`,
        "ignore_startup_parameters = extra_float_digits",
        `pidfile = ${folder}/pgbouncer.pid`,
        ""
      ].join("\n")
    })
  }
}

/** The node of a proxy that stands for one of a cluster. */
const behind = (node: PgCluster.Node, port: number): PgCluster.Node => {
  const url = new URL(urlOf(node, "bench"))
  url.port = String(port)
  url.pathname = `/${node.name}`
  return { ...node, port, url: Redacted.make(url.href) }
}

/** What a fiber does in one round: each kind of statement, in each way that the router has. Returns what is wrong. */
const unit = (router: DbRouter.DbRouter, fiber: number, round: number, servedBy: (port: number) => void) =>
  Effect.gen(function* () {
    const { client: sql } = router
    const account = 500 + fiber
    const balance = (text: string) =>
      Effect.map(sql.unsafe<{ balance: number }>(text, [account]), ([row]) => row?.balance)
    const read = "SELECT balance FROM account WHERE id = $1"
    yield* sql`UPDATE account SET balance = ${round} WHERE id = ${account}`
    const afterWrite = yield* balance(read)
    const inSession = yield* DbRouter.session(
      Effect.zipRight(sql`UPDATE account SET balance = balance + 1 WHERE id = ${account}`, balance(read))
    )
    yield* Effect.exit(
      DbRouter.session(
        Effect.zipRight(sql`UPDATE account SET balance = -1 WHERE id = ${account}`, Effect.fail("rolled back"))
      )
    )
    const afterRollback = yield* balance(read)
    const streamed = yield* Stream.runCount(sql`SELECT id FROM item WHERE id <= ${300}`.stream)
    // Texts that are used again and again are those that would be prepared.
    const [item] = yield* sql<{ name: string; port: string }>`
      SELECT name, current_setting('port') AS port FROM item WHERE id = ${account}`
    servedBy(Number(item?.port))
    const found = [afterWrite, inSession, afterRollback, streamed, item?.name]
    const wanted = [round, round + 1, round + 1, 300, `item ${account}`]
    return found.flatMap((value, i) => (value === wanted[i] ? [] : [`${value} instead of ${wanted[i]}`]))
  }).pipe(
    Effect.provideService(DbRouter.DbRouter, router),
    Effect.catchAll((error) => Effect.succeed([String(error.cause ?? error)])),
    Effect.ensuring(DbRouter.reset)
  )

const check = (servers: Pair, version: string) =>
  Effect.gen(function* () {
    const port = yield* Debian.run(proxy(servers))
    const made = yield* router(
      { ...servers, primary: behind(servers.primary, port) },
      servers.replicas.map((node) => behind(node, port)),
      { prepare: false }
    )
    const wrong: Array<string> = []
    const ports: Array<number> = []
    const rest = Array.from({ length: rounds }, (_, round) => round)
    yield* Effect.forEach(
      Array.from({ length: fibers }, (_, fiber) => fiber),
      (fiber) =>
        Effect.forEach(rest, (round) =>
          Effect.map(
            unit(made, fiber, round, (port) => ports.push(port)),
            (found) => {
              wrong.push(...found)
            }
          )
        ),
      { concurrency: "unbounded", discard: true }
    )
    const byReplica = ports.filter((port) => port === servers.replicas[0]!.port).length
    if (byReplica === 0) return yield* Effect.dieMessage("Nothing was read on the replica through pgbouncer")
    const count = wrong.length
    const line: Line = {
      ...heading,
      reach: { atMost: 0 },
      unit: "",
      measured: { median: count, low: count, high: count },
      detail: [`of ${fibers * rounds}; ${byReplica} read on the replica`, version, ...wrong.slice(0, 1)].join("; ")
    }
    return line
  })

export const run = (servers: Pair) =>
  Effect.flatMap(
    Debian.version("pgbouncer"),
    Option.match({
      onNone: () => Effect.succeed<ReadonlyArray<Line>>([missing]),
      onSome: (version) => Effect.map(Effect.scoped(check(servers, version)), (line): ReadonlyArray<Line> => [line])
    })
  )
