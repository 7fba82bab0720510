import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { Limits } from "../../Health.js"

/** PostgreSQL's `plan_cache_mode`: whether a prepared statement is planned for each run's values, or once for all. */
export type PlanCacheMode = "auto" | "force_custom_plan" | "force_generic_plan"

/** An engine's options after validation. Of an engine given by `url`, `host`, `port` and `database` are read from it. */
export interface ResolvedEngine {
  readonly name: string
  readonly weight: number
  readonly zone: string | undefined
  /** Default: `true`. */
  readonly writable: boolean
  /** For labels only; `undefined` where the driver decides (`PGHOST`, `PGPORT`, `PGDATABASE`). */
  readonly address: {
    readonly host: string | undefined
    readonly port: number | undefined
    readonly database: string | undefined
  }
  /** How to connect, with the router's own parameters taken off the URL. */
  readonly client: ResolvedClient
}

/** `PgClientConfig` after validation: durations decoded, `path` turned into `host`, the pool's bounds given. */
export interface ResolvedClient extends Omit<PgClientConfig, "path"> {
  /** Yields the password of each new connection, where it was given as an Effect. Then there is no `password`. */
  readonly passwordEffect?: Effect.Effect<Redacted.Redacted, unknown> | undefined
  /** Default: `10`, as in `pg`. */
  readonly maxConnections: number
  /** Default: `0`. */
  readonly minConnections: number
  /** Default: `"effect-db-router"`. */
  readonly applicationName: string
  /** `undefined`: 5 seconds, for a new connection and for waiting for a free one, as in `PgClient`. */
  readonly connectTimeout?: Duration.Duration | undefined
  /** `undefined`: 10 seconds, as in `pg`. */
  readonly idleTimeout?: Duration.Duration | undefined
  /** `undefined`: no limit, as in `pg`. */
  readonly connectionTTL?: Duration.Duration | undefined
  /** Default: `false`. */
  readonly allowCleartextPassword: boolean
}

/** `HealthOptions` after validation. */
export interface ResolvedHealth extends Limits {
  readonly interval: Duration.Duration
  readonly timeout: Duration.Duration
  readonly ejectShare: number
  readonly ejectTime: Duration.Duration
  readonly slowStart: Duration.Duration
}
