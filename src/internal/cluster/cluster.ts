import * as Crypto from "node:crypto"
import * as Path from "node:path"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import * as Account from "./account.js"
import * as Binaries from "./binaries.js"
import { PgClusterError } from "./error.js"
import * as Files from "./files.js"
import * as Member from "./member.js"
import * as Place from "./place.js"
import { inRealTime } from "./poll.js"
import * as Position from "./position.js"
import * as Replication from "./replication.js"
import * as Server from "./server.js"
import * as Settings from "./settings.js"
import * as Watchdog from "./watchdog.js"

/** The options with their defaults filled in. */
export interface Config {
  readonly replicas: number
  readonly settings: Readonly<Record<string, string>>
  readonly primarySettings: Readonly<Record<string, string>>
  readonly replicaSettings: Readonly<Record<string, string>>
  readonly database: string
  readonly username: string
  readonly startTimeout: Duration.Duration
  readonly binDir: string | undefined
  readonly directory: string | undefined
  /** Different ports that are free, as far as can be known. */
  readonly freePorts: (count: number) => Effect.Effect<ReadonlyArray<number>, PgClusterError>
}

const invalid = (detail: string) => Effect.fail(new PgClusterError({ reason: "InvalidOptions", detail }))

const reserved = new Set([
  "port",
  "dynamic_shared_memory_type",
  "cluster_name",
  "primary_conninfo",
  "listen_addresses",
  "data_directory"
])

/** Of which a standby needs as much as its primary. */
const limits = new Set([
  "max_connections",
  "max_locks_per_transaction",
  "max_prepared_transactions",
  "max_wal_senders",
  "max_worker_processes"
])

const validate = (config: Config): Effect.Effect<void, PgClusterError> => {
  if (!Number.isInteger(config.replicas) || config.replicas < 0 || config.replicas > 15) {
    return invalid(`The option replicas is ${config.replicas}; allowed is a whole number from 0 to 15`)
  }
  for (const field of ["username", "database"] as const) {
    if (!/^[^\0\n\r]+$/.test(config[field]) || Buffer.byteLength(config[field]) > 63) {
      return invalid(`The option ${field} is ${JSON.stringify(config[field])}; allowed are 1 to 63 bytes on one line`)
    }
  }
  if (/^pg_|["$'\\]/.test(config.username)) {
    return invalid(
      `The option username is ${config.username}; initdb allows no name with a quote, $, \\ or pg_ before it`
    )
  }
  for (const field of ["settings", "primarySettings", "replicaSettings"] as const) {
    for (const [name, value] of Object.entries(config[field])) {
      if (reserved.has(name) || !/^[A-Za-z_][\w.]*$/.test(name) || /[\0\n\r]/.test(value)) {
        return invalid(
          `The option ${field} holds ${JSON.stringify(name)}, which is the cluster's own, or not a setting on one line`
        )
      }
    }
  }
  return Effect.void
}

/** A directory with runnable binaries in reach. */
const prepare = (
  config: Config
): Effect.Effect<Server.Home & { readonly isGuarded: () => boolean }, PgClusterError, Scope.Scope> =>
  Effect.gen(function* () {
    const accounts = yield* Account.candidates
    const binaries = yield* Binaries.locate(config.binDir)
    const place = Place.choose(config.directory)
    const { account, directory, isGuarded, reachable } = yield* Watchdog.make(place, binaries.binDir, accounts)
    const home = { directory, account, isGuarded, startTimeout: config.startTimeout }
    if (reachable && !binaries.incomplete) return { ...home, binDir: binaries.binDir }
    const elsewhere = Place.forPrograms(place)
    const programs =
      elsewhere === place ? directory : (yield* Watchdog.make(elsewhere, binaries.binDir, [account])).directory
    return { ...home, binDir: yield* Binaries.copy(binaries.binDir, Path.join(programs, "binaries"), account) }
  })

const makeMembers = (config: Config, home: Server.Home, password: string, ports: ReadonlyArray<number>) => {
  const { username, database } = config
  const connection = (index: number) => ({ host: "127.0.0.1", port: ports[index]!, username, database, password })
  const primary = Member.make({
    name: "primary",
    home,
    connection: connection(0),
    settings: { ...config.settings, ...config.primarySettings },
    upstream: undefined
  })
  const replicas = Array.from({ length: config.replicas }, (_, index) =>
    Member.make({
      name: `replica${index + 1}`,
      home,
      connection: connection(index + 1),
      settings: { ...config.settings, ...config.replicaSettings },
      upstream: primary
    })
  )
  return { primary, replicas, all: [primary, ...replicas] }
}

type Members = ReturnType<typeof makeMembers>

const killAll = (members: Members): Effect.Effect<void> =>
  Effect.forEach(members.all, (member) => Effect.exit(Server.kill(member.server)), { discard: true })

/** The work of the watchdog, for the case that it was killed. */
const removeAll = (members: Members): Effect.Effect<void> =>
  Effect.zipRight(
    killAll(members),
    Effect.forEach(members.all, (member) => Effect.exit(Server.removeData(member.server)), { discard: true })
  )

const startAll = (members: Members): Effect.Effect<void, PgClusterError> =>
  Effect.zipRight(
    Effect.forEach(members.all, Member.configure, { discard: true }),
    Effect.forEach(members.all, (member) => Server.start(member.server), { concurrency: "unbounded", discard: true })
  )

/** Starts all servers at once; again on other ports if one was taken meanwhile. */
const startOnFreePorts = (
  config: Config,
  home: Server.Home,
  password: string,
  attempts: number
): Effect.Effect<Members, PgClusterError> =>
  Effect.gen(function* () {
    const ports = yield* config.freePorts(config.replicas + 1)
    const members = makeMembers(config, home, password, ports)
    return yield* Effect.as(startAll(members), members).pipe(
      Effect.catchIf(
        (error) => error.reason === "PortTaken" && attempts > 1,
        () => Effect.zipRight(killAll(members), startOnFreePorts(config, home, password, attempts - 1))
      )
    )
  })

const makeDataDirectories = (config: Config, home: Server.Home, password: string) =>
  Effect.gen(function* () {
    const { primary, replicas } = makeMembers(config, home, password, [])
    yield* Server.initialise(primary.server, config.username, password)
    const copied = Object.entries(primary.settings).filter(([name]) => limits.has(name.toLowerCase()))
    if (replicas.length > 0 && copied.length > 0) yield* Server.settle(primary.server, copied)
    yield* Member.writePassfile(home, { username: config.username, password })
    yield* Effect.forEach(
      replicas,
      (replica) =>
        Effect.zipRight(
          Files.copyTree(primary.server.data, replica.server.data, home.account),
          Member.markStandby(replica)
        ),
      { concurrency: 2, discard: true }
    )
  })

const makeDatabase = (config: Config, members: Members): Effect.Effect<void, PgClusterError> => {
  if (config.database === "postgres") return Effect.void
  return Member.administer(members.primary, (query) =>
    query(`create database ${Pg.escapeIdentifier(config.database)}`)
  ).pipe(Effect.zipRight(Position.awaitReplayed(members.all, config.startTimeout)))
}

const build = (config: Config): Effect.Effect<Members, PgClusterError, Scope.Scope> =>
  Effect.gen(function* () {
    yield* validate(config)
    const home = yield* prepare(config)
    const password = Crypto.randomBytes(18).toString("base64url")
    yield* makeDataDirectories(config, home, password)
    const members = yield* startOnFreePorts(config, home, password, 10)
    yield* Effect.addFinalizer(() => (home.isGuarded() ? Effect.void : removeAll(members)))
    yield* Effect.forEach(members.replicas, (replica) => Replication.awaitStreaming(replica, members.primary), {
      concurrency: "unbounded",
      discard: true
    })
    yield* makeDatabase(config, members)
    return members
  })

/** What a caller may do with one server. */
const toNode = (member: Member.Member, memberOf: (node: { readonly name: string }) => Member.Member) => ({
  name: member.name,
  host: member.connection.host,
  port: member.connection.port,
  url: Redacted.make(Settings.url(member.connection)),
  isRunning: Effect.sync(() => Server.pidOf(member.server) !== undefined),
  log: Effect.sync(() => Server.logOf(member.server)),
  query: <A extends object = Record<string, unknown>>(sql: string, parameters?: ReadonlyArray<unknown>) =>
    inRealTime(
      Effect.scoped(
        Effect.flatMap(Member.connect(member, member.connection.database), (query) => query<A>(sql, parameters))
      )
    ),
  pauseReplay: inRealTime(Replication.pauseReplay(member)),
  resumeReplay: inRealTime(Replication.resumeReplay(member)),
  kill: Member.exclusively(member, Server.kill(member.server)),
  freeze: Member.exclusively(member, Server.freeze(member.server)),
  thaw: Member.exclusively(member, Server.thaw(member.server)),
  stop: Member.exclusively(member, Server.stop(member.server)),
  start: Member.exclusively(member, Server.start(member.server)),
  restart: Member.exclusively(member, Effect.zipRight(Server.stop(member.server), Server.start(member.server))),
  promote: Member.exclusively(member, Replication.promote(member)),
  rejoin: (upstream: { readonly name: string }) =>
    Member.exclusively(
      member,
      Effect.suspend(() => Replication.rejoin(member, memberOf(upstream)))
    ),
  follow: (upstream: { readonly name: string }) =>
    Member.exclusively(
      member,
      Effect.suspend(() => Replication.follow(member, memberOf(upstream)))
    )
})

/** Builds a cluster that ends with the scope, or with this process, however that ends. */
export const make = (config: Config) =>
  inRealTime(
    Effect.map(build(config), (members) => {
      const byNode = new Map<object, Member.Member>()
      const memberOf = (node: object): Member.Member => {
        const found = byNode.get(node)
        if (found === undefined) throw new TypeError("That node belongs to another cluster")
        return found
      }
      const nodes = members.all.map((member) => {
        const node = toNode(member, memberOf)
        byNode.set(node, member)
        return node
      })
      const nodeOf = (member: Member.Member) => nodes[members.all.indexOf(member)]!
      return {
        primary: nodes[0]!,
        replicas: nodes.slice(1),
        nodes,
        database: config.database,
        username: config.username,
        password: Redacted.make(members.primary.connection.password),
        currentPrimary: inRealTime(Effect.map(Position.currentPrimary(members.all), nodeOf)),
        awaitReplayed: inRealTime(Position.awaitReplayed(members.all, config.startTimeout))
      }
    })
  )
