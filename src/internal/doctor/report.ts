import type * as Health from "../../Health.js"
import type { Explanation } from "../client/service.js"

/**
 * - `ok`: nothing to do
 * - `warning`: it works, and could work better, or will not always
 * - `problem`: something is not used, or fails
 *
 * @since 0.1.0
 * @category models
 */
export type Level = "ok" | "warning" | "problem"

/**
 * What a finding is about. These names stay the same from version to version.
 *
 * @since 0.1.0
 * @category models
 */
export type Code =
  | "configuration"
  | "topology"
  | "connect"
  | "encryption"
  | "version"
  | "privileges"
  | "statistics"
  | "catalog"
  | "volatility"
  | "primary"
  | "role"
  | "same-server"
  | "database"
  | "replay"
  | "lag"
  | "clock"
  | "connections"
  | "proxy"
  | "balancer"
  | "isolation"
  | "read-only"
  | "conflicts"
  | "feedback"
  | "synchronous"
  | "idle-timeout"
  | "tokens"
  | "question"

/**
 * @since 0.1.0
 * @category models
 */
export interface Finding {
  readonly level: Level
  readonly code: Code
  /** The engine that it is about; `undefined`: all of them together. */
  readonly engine: string | undefined
  readonly message: string
  /** What to do; `undefined` for what is `ok`. */
  readonly remedy: string | undefined
}

/**
 * How far a replica is behind the primary.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lag {
  /** Write-ahead log that the primary had before the replica was asked, and that the replica had not replayed. */
  readonly bytes: number
  /**
   * In milliseconds: how long it took to replay that. Where it had not after a second, the age of the last commit that it has
   * replayed, by its own clock, which may be more than the true lag.
   */
  readonly millis: number
  /** Whether it had replayed that within a second. */
  readonly caughtUp: boolean
}

/**
 * What a server's clock shows, minus what this machine's does: positive where the server's is ahead. In milliseconds; the truth
 * is up to `uncertainty`, half of the round trip, more or less.
 *
 * @since 0.1.0
 * @category models
 */
export interface Skew {
  readonly millis: number
  readonly uncertainty: number
}

/**
 * The connections of a server.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connections {
  /** `max_connections`. */
  readonly max: number
  /** `superuser_reserved_connections` and `reserved_connections`. */
  readonly reserved: number
  /** `CONNECTION LIMIT` of the role; `undefined`: none. */
  readonly roleLimit: number | undefined
  /** `CONNECTION LIMIT` of the database; `undefined`: none. */
  readonly databaseLimit: number | undefined
  /** How many this role may have here, at most. */
  readonly available: number
  /** How many clients are connected now, as far as this role sees. */
  readonly inUse: number
  /** How many of those are pools of this configuration: the same role and application name. */
  readonly own: number
}

/**
 * What was found of one engine. What it did not tell is `undefined`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Server {
  readonly name: string
  /** Where it is configured, or the topology has it. */
  readonly group: string
  readonly host: string | undefined
  readonly port: number | undefined
  readonly database: string | undefined
  /** How the router would see it: `down`, `up`, `lagging` or `foreign`. */
  readonly state: Health.State
  /** Why it is not `up`. */
  readonly reason: string | undefined
  readonly role: Health.Report["role"] | undefined
  /** PostgreSQL's, such as `"18.1"`. */
  readonly version: string | undefined
  /** `system_identifier`: the same for all servers that stem from one `initdb`. */
  readonly system: string | undefined
  readonly timeline: number | undefined
  /** The insert position of a primary, the replay position of a replica, as a `pg_lsn`. */
  readonly position: string | undefined
  /** Of a replica that follows the primary. */
  readonly lag: Lag | undefined
  /** How long an answer takes, in milliseconds: the shortest of three. */
  readonly roundTrip: number | undefined
  readonly skew: Skew | undefined
  /** The role it was asked as. */
  readonly user: string | undefined
  readonly isSuperuser: boolean | undefined
  /** Whether the connection to the server is encrypted; behind a proxy, the proxy's connection. */
  readonly isEncrypted: boolean | undefined
  /** Whether something else than the server itself takes the connections, such as PgBouncer. */
  readonly isProxied: boolean | undefined
  /** Whether several connections to its address have met several servers, as behind a balancer. */
  readonly isBalanced: boolean | undefined
  /** `maxConnections` of the engine. */
  readonly pool: number | undefined
  readonly connections: Connections | undefined
  /** The settings that matter to the router, in the unit that PostgreSQL keeps them in: `"30000 ms"`. */
  readonly settings: Readonly<Record<string, string>>
  /** Functions that the router calls and this role may not. */
  readonly refusedFunctions: ReadonlyArray<string>
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** Whether there is no `problem` among the findings. */
  readonly healthy: boolean
  /** When it was made, in milliseconds of the clock. */
  readonly at: number
  /** For how many processes with these options the connections were counted. */
  readonly instances: number
  /** The engine that takes the writes; `undefined`: none. */
  readonly primary: string | undefined
  readonly servers: ReadonlyArray<Server>
  /** Problems first, then warnings, then what is in order. */
  readonly findings: ReadonlyArray<Finding>
}

/**
 * A statement, and where it would go now.
 *
 * @since 0.1.0
 * @category models
 */
export interface Explained {
  readonly sql: string
  /** `undefined` where it would fail. */
  readonly route: Explanation | undefined
  /** Why it would fail. */
  readonly error: string | undefined
}

export const ok = (code: Code, engine: string | undefined, message: string): Finding => ({
  level: "ok",
  code,
  engine,
  message,
  remedy: undefined
})

export const warning = (code: Code, engine: string | undefined, message: string, remedy: string): Finding => ({
  level: "warning",
  code,
  engine,
  message,
  remedy
})

export const problem = (code: Code, engine: string | undefined, message: string, remedy: string): Finding => ({
  level: "problem",
  code,
  engine,
  message,
  remedy
})
