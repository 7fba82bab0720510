/**
 * One PostgreSQL server: its address, its connection pool, its part in the choice among the engines of a group.
 *
 * @since 0.1.0
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Pg from "pg"
import { Exclusive } from "./internal/driver/exclusive.js"
import { Pool, type Request, type Result } from "./internal/driver/pool.js"
import { rows } from "./internal/driver/stream.js"
import type { ResolvedClient, ResolvedEngine } from "./RouterConfig.js"
import type { Candidate } from "./Selector.js"

/**
 * How the connections of an engine's pool are used now.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolStatus {
  /** Connections that are open. */
  readonly total: number
  /** Connections that are open and that nobody uses. */
  readonly idle: number
  /** Statements and transactions that wait for a connection. */
  readonly waiting: number
  /** The most connections there may be. */
  readonly max: number
}

/**
 * A connection for one's own use: one statement at a time.
 *
 * @since 0.1.0
 * @category models
 */
export type ExclusiveConnection = Pick<Exclusive, keyof Exclusive>

/**
 * One server. Connections are opened when statements need them, so making an engine connects to nothing.
 *
 * @since 0.1.0
 * @category models
 */
export interface Engine extends Candidate {
  readonly address: ResolvedEngine["address"]
  readonly client: ResolvedClient
  /** Whether statements may be sent to it. */
  readonly isEligible: boolean
  readonly poolStatus: PoolStatus
  /** Runs one autocommitted statement on any connection. An interruption cancels it on the server. */
  readonly query: (request: Request) => Effect.Effect<Result, SqlError>
  /** The rows of one autocommitted statement, on a connection of its own. */
  readonly stream: (sql: string, params: ReadonlyArray<unknown>) => Stream.Stream<object, SqlError>
  /** A connection for one's own use until the scope closes. */
  readonly reserve: Effect.Effect<ExclusiveConnection, SqlError, Scope.Scope>
  /** Tells how long a statement took, in milliseconds, for strategies that choose by latency. */
  readonly observeLatency: (millis: number) => void
  /** Takes the engine out of the choice, or puts it back. What runs on it goes on. */
  readonly setDrained: (drained: boolean) => void
}

/** How fast the average of the latency forgets: the weight of the newest statement. */
const latencyWeight = 0.1

/** How long connecting to a server may take when the configuration does not say: `PgClient`'s own default. */
const defaultConnectTimeout = Duration.seconds(5)

/**
 * The driver's options for an engine.
 *
 * @since 0.1.0
 * @category conversions
 */
export const poolConfig = (client: ResolvedClient): Pg.PoolConfig => {
  const millis = (duration: Duration.Duration | undefined) =>
    duration === undefined ? undefined : Duration.toMillis(duration)
  return {
    connectionString: client.url && Redacted.value(client.url),
    user: client.username,
    host: client.host,
    database: client.database,
    password: client.password && Redacted.value(client.password),
    ssl: client.ssl,
    port: client.port,
    ...(client.stream && { stream: client.stream }),
    connectionTimeoutMillis: Duration.toMillis(client.connectTimeout ?? defaultConnectTimeout),
    idleTimeoutMillis: millis(client.idleTimeout),
    max: client.maxConnections,
    min: client.minConnections,
    maxLifetimeSeconds: client.connectionTTL && Duration.toSeconds(client.connectionTTL),
    application_name: client.applicationName,
    types: client.types
  }
}

class EngineImpl implements Engine {
  readonly name: string
  readonly weight: number
  readonly zone: string | undefined
  readonly address: ResolvedEngine["address"]
  readonly client: ResolvedClient
  readonly reserve: Effect.Effect<Exclusive, SqlError, Scope.Scope>
  latency = 0
  private drained = false

  constructor(
    config: ResolvedEngine,
    private readonly pool: Pool
  ) {
    this.name = config.name
    this.weight = config.weight
    this.zone = config.zone
    this.address = config.address
    this.client = config.client
    this.reserve = Effect.map(pool.checkout, (lease) => new Exclusive(pool, lease))
  }

  get inFlight(): number {
    return this.pool.inFlight
  }

  get waiting(): number {
    return this.pool.waiting
  }

  get isEligible(): boolean {
    return !this.drained
  }

  get poolStatus(): PoolStatus {
    return {
      total: this.pool.total,
      idle: this.pool.idle,
      waiting: this.pool.waiting,
      max: this.client.maxConnections
    }
  }

  query(request: Request): Effect.Effect<Result, SqlError> {
    return this.pool.query(request)
  }

  stream(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    const connection = Effect.map(this.pool.checkout, (lease) => lease.connection!)
    return rows(this.pool, connection, sql, params)
  }

  observeLatency(millis: number): void {
    this.latency = this.latency === 0 ? millis : this.latency + latencyWeight * (millis - this.latency)
  }

  setDrained(drained: boolean): void {
    this.drained = drained
  }
}

/**
 * Makes an engine. When the scope closes, statements that still run get up to `shutdownTimeout` to end; then every
 * connection is closed. `maxPrepared` bounds the prepared statements per connection; `0` prepares none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  config: ResolvedEngine,
  options: { readonly maxPrepared: number; readonly shutdownTimeout: Duration.Duration }
): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () =>
          new Pool(poolConfig(config.client), {
            maxPrepared: options.maxPrepared,
            // Without a `connectTimeout` of one's own only the connecting is bounded, not the wait for a busy pool.
            waitMillis: config.client.connectTimeout === undefined ? 0 : Duration.toMillis(config.client.connectTimeout)
          })
      ),
      (pool) => pool.close(options.shutdownTimeout)
    ),
    (pool) => new EngineImpl(config, pool)
  )
