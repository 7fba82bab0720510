/**
 * The options of the router: their types and defaults, the one place that validates them, and the environment
 * variables that they can come from.
 *
 * @since 0.1.0
 */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Redacted from "effect/Redacted"
import * as Consistency from "./Consistency.js"
import * as engine from "./internal/config/engine.js"
import * as environment from "./internal/config/environment.js"
import * as groups from "./internal/config/groups.js"
import * as optionChecks from "./internal/config/options.js"
import * as tokens from "./internal/config/tokens.js"
import type * as settings from "./internal/engine/settings.js"
import * as check from "./internal/validation/check.js"
import { RouterConfigError } from "./RouterError.js"
import * as Selector from "./Selector.js"
import type * as Token from "./Token.js"
import * as Topology from "./Topology.js"

/**
 * One server: how to connect to it, as for `PgClient`, and what the router needs to know about it.
 *
 * Give either `url` or `host`, `port`, `database`, `username` and `password`, not both: the driver would silently prefer
 * the URL. A URL may carry `name`, `weight` and `zone` as query parameters; they are taken off before it is used, the
 * others (`sslmode`, ...) stay. `path` is the directory of a Unix socket, the same as a `host` that begins with `/`.
 *
 * The routed client has one compiler and one row transform, so `transformQueryNames`, `transformResultNames`,
 * `transformJson` and `types` of the first engine of the default group count; other engines leave them out or name the
 * same.
 *
 * @since 0.1.0
 * @category models
 */
export interface EngineConfig extends Omit<PgClientConfig, "password"> {
  /**
   * The role's password. An Effect is run for each new connection, and has as long as connecting may take: for tokens that expire
   * (RDS IAM, a vault), also beside a `url` without a password. Where it fails the connection does, with an error that shows
   * nothing of it. Programs that are started with the client's configuration, such as `pg_dump`, get none then. Default:
   * `PGPASSWORD`, else `~/.pgpass`.
   */
  readonly password?: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined
  /**
   * The engine's name in `explain`, spans, metrics and error messages, unique among all groups. Default: the group and
   * the position in it, from 1: `"read-2"`. A server that is in two groups is two engines, each with its own pool and name.
   */
  readonly name?: string | undefined
  /** The share of the group's work that it should get, relative to the others. Positive and finite. Default: `1`. */
  readonly weight?: number | undefined
  /** Its zone, for `Selector.preferZone`. Default: none. */
  readonly zone?: string | undefined
  /**
   * If `true`, it takes the writes when it is the primary. `false` for a replica that no promotion is to make the primary of this
   * program: it gets no writes, whatever it says of itself. Default: `true`.
   */
  readonly writable?: boolean | undefined
  /**
   * If `true`, the password is sent as it is to a server that asks for that (LDAP, PAM, RADIUS, `password` in `pg_hba.conf`) where
   * it has not shown a certificate that was verified. Anyone on the way, or in the server's place, could read it. With verified
   * TLS it is sent in any case; SCRAM and MD5 do not send it. Default: `false`, connecting fails.
   */
  readonly allowCleartextPassword?: boolean | undefined
}

/**
 * An engine as it is listed in a group: its configuration, or an Effect that yields it (a secret from a vault, an
 * address from service discovery). What the Effect yields is validated when it has run; until then the engine has its
 * default name, weight and zone.
 *
 * @since 0.1.0
 * @category models
 */
export type EngineInput = EngineConfig | Effect.Effect<EngineConfig, unknown>

/**
 * The engines of every group, by name of the group.
 *
 * The default group holds the servers that may be the primary, mostly one; the read group holds the replicas. Together they
 * are the servers of one system: which of them takes the writes they say themselves when they are probed, and after a
 * promotion another one does. All that do not take the writes take reads. All other groups are reached by
 * `DbRouter.bindGroup`, and stay as they are.
 *
 * @since 0.1.0
 * @category models
 */
export interface Groups {
  readonly [group: string]: ReadonlyArray<EngineInput>
}

/**
 * The options of the router. All but `groups` have a default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The servers. */
  readonly groups: Groups
  /** The group whose engine takes the writes. Default: `"default"`. */
  readonly defaultGroup?: string | undefined
  /**
   * The group whose engines take the reads. Default: `"read"`, which may be missing: then there are no replicas, and the
   * router is a plain client.
   */
  readonly readGroup?: string | undefined
  /** The choice of an engine in a group. Default: `Selector.roundRobin`. */
  readonly strategy?: Selector.Strategy | undefined
  /** `false` sends every statement outside a bind group to the default group. Default: `true`. */
  readonly enabled?: boolean | undefined
  /**
   * The reads that go to replicas. Default: `"automatic"`, all that are shown to be reads. `"explicit"`: only those inside
   * `DbRouter.replica`. `"observe"`: none; spans, metrics and `explain` say where they would have gone.
   */
  readonly reads?: "automatic" | "explicit" | "observe" | undefined
  /** The visibility of a flow's own writes, and of what it has read. Default: `Consistency.causal()`. */
  readonly consistency?: Consistency.Consistency | undefined
  /**
   * The fate of a read when no replica may be used. Default: `"primary"`, it goes to the default group. `"fail"`: it
   * fails with the reason `NoEngineAvailable`.
   */
  readonly onNoReplica?: "primary" | "fail" | undefined
  /**
   * A read outside transactions that a replica has not answered after this long also goes to another replica, if one may
   * take it: the first success counts, and the other one is cancelled. Streams are never sent twice. Default: off.
   */
  readonly hedge?: Duration.DurationInput | HedgeOptions | undefined
  /**
   * If `true`, statements with parameters are prepared on the server, once per connection and text. Default: `true`. Set it
   * to `false` behind a proxy that pools by transaction, such as PgBouncer before 1.21.
   */
  readonly prepare?: boolean | PrepareOptions | undefined
  /** The default classifier. It has no effect on a `SqlClassifier` of your own. */
  readonly classifier?:
    | {
        /** The number of texts whose answer it remembers; the least recently used are forgotten. Default: `4096`. */
        readonly cacheSize?: number | undefined
        /** The interval at which it reads the primary's catalog again. Default: `"1 minute"`. */
        readonly refreshInterval?: Duration.DurationInput | undefined
      }
    | undefined
  /**
   * The health checks: each server is probed on a connection of its own, and reads go only to replicas that answer and
   * are not too far behind. `false`: nothing is probed and every server counts as well. Default: `true`.
   */
  readonly health?: boolean | HealthOptions | undefined
  /**
   * The source of the servers of the default and the read group. Default: `Topology.fixed`, those of `groups`. A `Topology`
   * in the context takes its place.
   */
  readonly topology?: Topology.Topology | undefined
  /** The longest wait for a server that takes the writes, while there is none. Needs `health`. */
  readonly waitForPrimary?: WaitForPrimary | undefined
  /**
   * The longest wait of a read that may run elsewhere for a connection of a replica, while the connections of all replicas are
   * checked out. After the wait the primary, or, with `onNoReplica: "fail"`, another replica takes it.
   * Default: `"1 second"`; `0` does not wait.
   */
  readonly waitForReplica?: Duration.DurationInput | undefined
  /**
   * The number of notifications kept for a stream of `listen` that does not take them. At one more that stream fails, with the
   * reason `ListenerBehind`, once it has taken those; other streams go on. Default: `10000`.
   */
  readonly maxPendingNotifications?: number | undefined
  /** The tokens that carry positions to other requests and processes. Default: signed with a random key of the process. */
  readonly tokens?: Token.Options | undefined
  /**
   * If `true`, statements, transactions, sessions, look-ups of the classifier and the engines themselves are measured: see
   * `Telemetry`. What happens rarely (reads that move, questions for a position, rejected tokens) is counted all the same.
   * Default: `true`, which costs about a microsecond of processor time a statement.
   */
  readonly metrics?: boolean | undefined
  /** The time that closing the layer leaves running work to finish before it closes the connections. Default: `"5 seconds"`. */
  readonly shutdownTimeout?: Duration.DurationInput | undefined
}

/**
 * The longest waits for a server that takes the writes.
 *
 * @since 0.1.0
 * @category models
 */
export interface WaitForPrimary {
  /** While the layer builds. Default: `0`, it fails at once. */
  readonly atStart?: Duration.DurationInput | undefined
  /**
   * A statement, or a transaction, that needs the primary and has not been sent. One that was sent is never sent again.
   * Default: `"5 seconds"`; `0` fails at once.
   */
  readonly statements?: Duration.DurationInput | undefined
}

/**
 * PostgreSQL's `plan_cache_mode`: whether a prepared statement is planned for each run's values, or once for all.
 *
 * @since 0.1.0
 * @category models
 */
export type PlanCacheMode = settings.PlanCacheMode

/**
 * The preparing of statements on the server.
 *
 * @since 0.1.0
 * @category models
 */
export interface PrepareOptions {
  /** The number of statements that a connection keeps prepared; the least recently used make room. Default: `256`. */
  readonly maxPerConnection?: number | undefined
  /**
   * `plan_cache_mode` of every connection, sent in the startup packet's `options`. `"force_custom_plan"` plans each run for
   * its own values, which costs a part of what preparing saves. Default: what the server has, `"auto"` unless it was
   * configured otherwise; then a text whose plan for all values turns out to be slow runs without a name for a minute.
   */
  readonly planCacheMode?: PlanCacheMode | undefined
}

/**
 * The sending of a slow read to a second replica.
 *
 * @since 0.1.0
 * @category models
 */
export interface HedgeOptions {
  /** The time until a second replica is asked: longer than nearly all reads take. */
  readonly after: Duration.DurationInput
  /**
   * The share of the reads that may be sent twice, so that a slow day is not doubled: above `0` and at most `1`. After a time
   * in which none was, ten may be at once. Default: `0.1`.
   */
  readonly maxShare?: number | undefined
}

/**
 * The health checks of the servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface HealthOptions {
  /** The interval of a server's probes; a fifth more or less, by chance. Default: `"2 seconds"`. */
  readonly interval?: Duration.DurationInput | undefined
  /** The time limit of a probe, connecting included. Default: `"1 second"`. */
  readonly timeout?: Duration.DurationInput | undefined
  /** After how many failed probes in a row a server is down. It gets no reads from the first one on. Default: `2`. */
  readonly failures?: number | undefined
  /**
   * A replica that has not replayed what the primary had written this long ago gets no reads until it has. Default:
   * `"10 seconds"`.
   */
  readonly maxLag?: Duration.DurationInput | undefined
  /**
   * A replica that has more than so many bytes of the primary's write-ahead log to replay gets no reads until it has
   * less. Default: `67108864` (64 MiB).
   */
  readonly maxLagBytes?: number | undefined
  /**
   * A replica on which at least five statements of the last 30 seconds, and this share of them, have failed because of it (the
   * connection broke, or a cancel had no answer) gets no reads for `ejectTime`, although it answers probes. They have to fail
   * on three occasions, with a probe between that succeeds: what one restart breaks does not count so. One on which nothing has
   * ended for 5 seconds is tried with a statement of the router's own, and is taken out if that has no answer
   * within `timeout`. The primary is never taken out, nor, with `onNoReplica: "fail"`, the last replica. Default: `0.5`.
   */
  readonly ejectShare?: number | undefined
  /**
   * The time that a replica is out then, at first. After that a statement of the router's own has to succeed on it; each time
   * that it fails, or that the replica fails again soon, it is out for twice as long, up to five minutes. One whose probes fail
   * meanwhile until it is `down` is tried as soon as one succeeds again. `0`: none is ever taken out so. Default: `"10 seconds"`.
   */
  readonly ejectTime?: Duration.DurationInput | undefined
  /**
   * A replica that comes back gets a tenth of its share of the reads at first, and all of it after so long: its caches are cold,
   * and every process of a fleet would send it everything at once. `0`: it gets all of it at once. Where no other replica may be
   * used it gets all reads. Default: `"10 seconds"`.
   */
  readonly slowStart?: Duration.DurationInput | undefined
}

/**
 * An engine's options after validation. Of an engine given by `url`, `host`, `port` and `database` are read from it.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedEngine extends settings.ResolvedEngine {}

/**
 * `PgClientConfig` after validation: durations decoded, `path` turned into `host`, the pool's bounds given.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedClient extends settings.ResolvedClient {}

/**
 * One entry of a group. `name`, `weight` and `zone` are known at once; for an entry that was given as an Effect they are
 * the defaults, and what `config` yields may say otherwise.
 *
 * @since 0.1.0
 * @category models
 */
export interface EngineEntry {
  /** Its place in the options: `groups.read[1]`. */
  readonly field: string
  readonly name: string
  readonly weight: number
  readonly zone: string | undefined
  /** The configuration, where it was given as a value. */
  readonly known: ResolvedEngine | undefined
  /** The configuration, validated. Fails as the entry's own Effect fails, or with a `RouterConfigError`. */
  readonly config: Effect.Effect<ResolvedEngine, unknown>
}

/**
 * A group after validation.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedGroup {
  readonly name: string
  /** Empty only for the read group. */
  readonly engines: ReadonlyArray<EngineEntry>
}

/**
 * The options after validation: every default filled in, nothing in it can be changed.
 *
 * @since 0.1.0
 * @category models
 */
export interface RouterConfig {
  readonly groups: ReadonlyMap<string, ResolvedGroup>
  readonly defaultGroup: string
  /** `undefined` when there can be no replicas: a plain client. */
  readonly readGroup: string | undefined
  readonly strategy: Selector.Strategy
  readonly enabled: boolean
  readonly reads: "automatic" | "explicit" | "observe"
  readonly consistency: Consistency.Consistency
  readonly onNoReplica: "primary" | "fail"
  /** `undefined`: no read is sent twice. */
  readonly hedge: { readonly after: Duration.Duration; readonly maxShare: number } | undefined
  /** The number of statements that a connection keeps prepared; `0` means that none is prepared. */
  readonly maxPreparedPerConnection: number
  /** `undefined`: what the server has. */
  readonly planCacheMode: PlanCacheMode | undefined
  readonly classifier: {
    readonly cacheSize: number
    readonly refreshInterval: Duration.Duration
  }
  /** `undefined`: nothing is probed. */
  readonly health: ResolvedHealth | undefined
  readonly topology: Topology.Topology
  readonly waitForPrimary: { readonly atStart: Duration.Duration; readonly statements: Duration.Duration }
  readonly waitForReplica: Duration.Duration
  readonly maxPendingNotifications: number
  readonly tokens: Token.Resolved
  readonly metrics: boolean
  readonly shutdownTimeout: Duration.Duration
}

/**
 * `HealthOptions` after validation.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResolvedHealth extends settings.ResolvedHealth {}

const isOptions = check.struct(
  optionChecks.fields satisfies Record<keyof Options, check.Check<unknown>>,
  optionChecks.misplaced
)

/**
 * Validates options and fills in the defaults. Nothing is believed, so it serves untyped callers too. The first thing
 * that is wrong is the error: it names the field, the value (never a secret) and what to do.
 *
 * @since 0.1.0
 * @category validation
 */
export const resolve = (options: Options): Either.Either<RouterConfig, RouterConfigError> =>
  Either.gen(function* () {
    const given = yield* isOptions("", options)
    if (given.groups === undefined) {
      return yield* check.invalid("groups", undefined, "Name at least the default group: { default: [{ url: ... }] }")
    }
    const defaultGroup = given.defaultGroup ?? "default"
    const readGroup = given.readGroup ?? "read"
    const resolved = yield* groups.resolve(given.groups, {
      defaultGroup,
      readGroup,
      readGroupNamed: readGroup !== "read"
    })
    const topology = given.topology ?? Topology.fixed
    const hasReplicas =
      resolved.has(readGroup) || resolved.get(defaultGroup)!.engines.length > 1 || topology.source !== undefined
    return Object.freeze({
      groups: resolved,
      defaultGroup,
      readGroup: readGroup !== defaultGroup && hasReplicas ? readGroup : undefined,
      strategy: given.strategy ?? Selector.roundRobin,
      enabled: given.enabled ?? true,
      reads: given.reads ?? "automatic",
      consistency: given.consistency ?? Consistency.causal(),
      onNoReplica: given.onNoReplica ?? "primary",
      hedge: given.hedge,
      maxPreparedPerConnection: optionChecks.maxPrepared(given.prepare),
      planCacheMode: optionChecks.planCacheMode(given.prepare),
      classifier: Object.freeze({
        cacheSize: given.classifier?.cacheSize ?? 4096,
        refreshInterval: given.classifier?.refreshInterval ?? Duration.minutes(1)
      }),
      health: optionChecks.healthOf(given.health),
      topology,
      waitForPrimary: Object.freeze({
        atStart: given.waitForPrimary?.atStart ?? Duration.zero,
        statements: given.waitForPrimary?.statements ?? Duration.seconds(5)
      }),
      waitForReplica: given.waitForReplica ?? Duration.seconds(1),
      maxPendingNotifications: given.maxPendingNotifications ?? 10_000,
      tokens: given.tokens ?? tokens.resolved(),
      metrics: given.metrics ?? true,
      shutdownTimeout: given.shutdownTimeout ?? Duration.seconds(5)
    })
  })

/**
 * Validates the configuration of one engine, such as an Effect has yielded, or `rebind` was given. `slot` says where it
 * stands in the options and what it is called if it does not say so; an `EngineEntry` is one.
 *
 * @since 0.1.0
 * @category validation
 */
export const resolveEngine = (
  slot: { readonly field: string; readonly name: string },
  config: EngineConfig
): Either.Either<ResolvedEngine, RouterConfigError> => engine.resolve(slot, config)

/**
 * Checks that an engine asks for no other transforms or types than `first`, the first engine of the default group. `resolve`
 * has done this for all engines that were given as values; when `first` was given as an Effect, do it once that has
 * yielded.
 *
 * @since 0.1.0
 * @category validation
 */
export const checkTransforms = (
  first: Pick<ResolvedEngine, "name" | "client">,
  other: ResolvedEngine,
  field: string
): Either.Either<void, RouterConfigError> => engine.checkTransforms(first, other, field)

/**
 * The options in the environment, through the current `ConfigProvider`. The variables are in the table of the README.
 *
 * Fails with a `ConfigError` when a variable is missing, and with a `RouterConfigError` that names the variable when its
 * value cannot be used. What it yields is valid, and can be changed before it is used:
 *
 * @example
 * ```ts
 * import { RouterConfig } from "effect-db-router"
 * import { Effect } from "effect"
 *
 * const options = Effect.map(RouterConfig.fromEnv, (options) => ({ ...options, onNoReplica: "fail" as const }))
 * ```
 *
 * @since 0.1.0
 * @category environment
 */
export const fromEnv: Effect.Effect<Options, ConfigError | RouterConfigError> = Effect.flatMap(
  environment.load,
  ({ options, variableOf }) =>
    Either.mapBoth(resolve(options), {
      onLeft: ({ field, remedy, value }) =>
        new RouterConfigError({ field, value, remedy, variable: variableOf(field) }),
      onRight: () => options
    })
)
