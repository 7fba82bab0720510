/**
 * One PostgreSQL server: its address, its connection pool, its part in the choice among the engines of a group.
 *
 * @since 0.1.0
 */
import { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Health from "./Health.js"
import type { Leaves } from "./internal/classifier/finding.js"
import { Exclusive } from "./internal/driver/exclusive.js"
import { acquireFailed, ServerLost } from "./internal/driver/failure.js"
import { trial } from "./internal/driver/failureAction.js"
import type { Config } from "./internal/driver/guard.js"
import { Opening } from "./internal/driver/opening.js"
import { type Callback, type Cancellable, Pool, type Request, type Result } from "./internal/driver/pool.js"
import { command } from "./internal/driver/run.js"
import { movableRows, rows } from "./internal/driver/stream.js"
import { type Pace, unsettledMillis } from "./internal/engine/pace.js"
import { obtain } from "./internal/engine/password.js"
import { Probe } from "./internal/engine/probe.js"
import { isSameServer } from "./internal/engine/sameServer.js"
import type { PlanCacheMode, ResolvedClient, ResolvedEngine } from "./internal/engine/settings.js"
import * as bounded from "./internal/util/bounded.js"
import { elapsedOf } from "./internal/util/clock.js"
import * as limits from "./internal/util/limits.js"
import type { Restore } from "./internal/util/restore.js"
import { type Positions, Tracker } from "./internal/wal/lsnTracker.js"
import * as RouterError from "./RouterError.js"
import type { Candidate } from "./Selector.js"

/**
 * The present use of the connections of an engine's pool.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolStatus {
  /** Connections that are open. */
  readonly total: number
  /** Open connections that are not checked out. */
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
  /** It takes the writes when it is the primary. */
  readonly isWritable: boolean
  /** `drain` has taken it out of the choice. */
  readonly isDrained: boolean
  /** The findings of its probes; `undefined` while it is not probed. */
  readonly health: Health.Health | undefined
  readonly poolStatus: PoolStatus
  /** It has an idle connection, or may open one. */
  readonly hasRoom: boolean
  /** All of its connections are in use, and no statement on them has ended for much longer than its statements take. */
  readonly isStuck: boolean
  /** The number of its server: another one after each move to another server. New credentials alone are no move. */
  readonly binding: number
  /** Its known positions in the write-ahead log. */
  readonly positions: Positions
  /** The part of its share of the work that it gets now, from 0.1 to 1: less than 1 for a while after it has come back. */
  readonly warmth: number
  /**
   * Runs one autocommitted statement on any connection. An interruption cancels it on the server. One that is `movable`, a
   * read that may run elsewhere, fails as soon as the server is known not to answer. With `left`, which then says how, the
   * caller cancels it himself.
   */
  readonly query: (request: Request, movable?: boolean, left?: Cancellable) => Effect.Effect<Result, SqlError>
  /**
   * `query` of a statement that is `movable`, without a fiber: calls back once, with the answer. The effect that it returns
   * cancels the statement, and then there is no call.
   */
  readonly begin: (request: Request, callback: Callback) => Effect.Effect<void>
  /** The rows of one autocommitted statement, on a connection of its own. `movable`: until it has rows, as for `query`. */
  readonly stream: (
    sql: string,
    params: ReadonlyArray<unknown>,
    movable?: boolean,
    /** The session state that the statement leaves behind on its connection. */
    leaves?: Leaves
  ) => Stream.Stream<object, SqlError>
  /** A connection for one's own use until the scope closes. */
  readonly reserve: Effect.Effect<ExclusiveConnection, SqlError, Scope.Scope>
  /**
   * A connection for a transaction, which the server begins, with this text, together with the first statement. Until its
   * `giveBack` it is the caller's, who must be uninterruptible; `restore` makes the waiting interruptible. `isMovable`: it may
   * begin on another server.
   */
  readonly transaction: (
    begin: string,
    restore: Restore,
    isMovable?: boolean
  ) => Effect.Effect<ExclusiveConnection, SqlError>
  /** The number of statements that have succeeded on it. */
  readonly answered: number
  /** Statements run there, and none has ended for so long, in milliseconds. */
  readonly isSilent: (millis: number) => boolean
  /** Runs a statement such as programs send on a connection of its own. Takes no longer than `limit`. */
  readonly trial: (limit: Duration.Duration) => Effect.Effect<void, SqlError>
  /** Tells how long a statement took, in milliseconds, for strategies that choose by latency. */
  readonly observeLatency: (millis: number) => void
  /**
   * Asks the server what it is, on a connection that is free, else on one of the probes' own; on a new one where `fresh` says
   * so. Takes no longer than `limit`. One at a time.
   */
  readonly probe: (limit: Duration.Duration, fresh: boolean) => Effect.Effect<Health.Report, SqlError>
  /** Statements have shown since that time what a probe would find: it needs no connection. */
  readonly proven: (at: number) => void
  /**
   * Has every connection read at the strongest isolation that standbys have, repeatable read, where the default is
   * serializable, which they refuse. Tells whether that is new.
   */
  readonly avoidSerializable: () => boolean
  /** Has connections read at the server's own default isolation again: it has become a primary. */
  readonly restoreIsolation: () => void
  /** Has every connection replaced once nothing runs on it: what they have begun with holds no more. */
  readonly renew: () => void
  /**
   * Ends everything that runs or waits on its connections, and goes on with new ones: it has stopped being the primary, and
   * nothing that was begun on it may be committed there.
   */
  readonly drop: (reason: string) => Effect.Effect<void>
  /** It has failed, or has become the primary: for a while its connections are opened one at a time. */
  readonly unsettle: () => void
  /** It has come back: what of its share of the work it gets grows from a tenth to all of it in so many milliseconds. */
  readonly warmUp: (millis: number) => void
  /** Says how it is. */
  readonly setHealth: (health: Health.Health) => void
  /** Sets the listener for every error of a statement. */
  readonly onError: (listener: (error: SqlError) => void) => void
  /** Tells it of an error of a connection beside its pool. */
  readonly heard: (error: SqlError) => void
  /** Says that the server does not answer: what is `movable` fails for this reason, idle connections are closed. */
  readonly lose: (reason: string) => void
  /** Its part in the choice from now on. */
  readonly setShare: (weight: number, zone: string | undefined) => void
  /** Sets if it takes the writes from now on when it is the primary. */
  readonly setWritable: (writable: boolean) => void
  /** Takes the engine out of the choice, or puts it back. What runs on it goes on. */
  readonly setDrained: (drained: boolean) => void
  /**
   * Moves the engine to another server. The new pool has to answer first; only then do new statements go there. What runs or
   * waits on the old one gets up to `shutdownTimeout` to end. With the same server, database and user (another password or
   * certificate, other limits) only new connections are opened with it, and nothing is cut or forgotten. Fails, and changes
   * nothing, when a connection with the new configuration does not answer: within `connectTimeout` once it is there, 5 seconds
   * where that is no limit.
   */
  readonly rebind: (config: ResolvedEngine) => Effect.Effect<void, SqlError>
}

/** The weight of the newest statement in the moving average of the latency. */
const latencyWeight = 0.1

/** The first part of its share for a server that has come back. As in Envoy (`min_weight_percent` of its slow start). */
const coldest = 0.1

/** The time without an end after which all statements count as stuck: in milliseconds, and in times of a statement's latency. */
const stuckMillis = 100
const stuckTimes = 10

/** Sends a server a query: one that takes connections may leave statements without an answer. */
const answers = (pool: Pool, limit: Duration.Duration): Effect.Effect<unknown, SqlError> =>
  Effect.flatMap(bounded.within(pool.query(command("SELECT 1")), limit), (answer) => {
    if (answer.state !== "late") return answer.exit
    const cause = new ServerLost(`no answer within ${Duration.format(limit)}`)
    return Effect.fail(new SqlError({ cause, message: acquireFailed }))
  })

/** The time limit of a password: a little less than that of connecting, so that the error says which of them it was. */
const passwordOf = (client: ResolvedClient): Config["password"] => {
  const { password, passwordEffect } = client
  if (passwordEffect !== undefined)
    return () => obtain(passwordEffect, Duration.times(limits.connecting(client.connectTimeout), 0.9))
  return password && Redacted.value(password)
}

/**
 * The driver's options for an engine.
 *
 * @since 0.1.0
 * @category conversions
 */
export const poolConfig = (client: ResolvedClient): Config => {
  const millis = (duration: Duration.Duration | undefined) =>
    duration === undefined ? undefined : Duration.toMillis(duration)
  return {
    connectionString: client.url && Redacted.value(client.url),
    user: client.username,
    host: client.host,
    database: client.database,
    password: passwordOf(client),
    ssl: client.ssl,
    port: client.port,
    ...(client.stream && { stream: client.stream }),
    connectionTimeoutMillis: Duration.toMillis(client.connectTimeout ?? limits.connect),
    idleTimeoutMillis: millis(client.idleTimeout),
    max: client.maxConnections,
    min: client.minConnections,
    maxLifetimeSeconds: client.connectionTTL && Duration.toSeconds(client.connectionTTL),
    application_name: client.applicationName,
    types: client.types,
    allowCleartextPassword: client.allowCleartextPassword
  }
}

/** The longest wait of a request for a connection, a new one or an idle one. */
const waitMillisOf = ({ connectTimeout = limits.connect }: ResolvedClient): number => Duration.toMillis(connectTimeout)

class EngineImpl implements Engine {
  readonly name: string
  weight: number
  zone: string | undefined
  address: ResolvedEngine["address"]
  client: ResolvedClient
  latency = 0
  isDrained = false
  isWritable: boolean
  health: Health.Health | undefined
  binding = 0
  private pool: Pool
  readonly positions = new Tracker(() => elapsedOf(this.clock))
  private readonly prober = new Probe(() => this.positions.forget())
  private probed: number | undefined
  private initial: string | undefined
  private unsettledUntil = Number.NEGATIVE_INFINITY
  private backAt = 0
  private warmMillis = 0
  private listener: (error: SqlError) => void = () => {}
  /** The pools of servers that it was bound to before, until they are closed. */
  private readonly leaving = new Set<Fiber.RuntimeFiber<void>>()

  constructor(
    config: ResolvedEngine,
    private readonly options: Options,
    private readonly clock: Clock.Clock
  ) {
    this.name = config.name
    this.weight = config.weight
    this.zone = config.zone
    this.address = config.address
    this.client = config.client
    this.isWritable = config.writable
    this.pool = this.makePool(config.client)
  }

  readonly reserve: Effect.Effect<Exclusive, SqlError, Scope.Scope> = Effect.suspend(() => {
    const { pool } = this
    return Effect.map(pool.checkout(false), (lease) => new Exclusive(pool, lease))
  })

  transaction(begin: string, restore: Restore, isMovable = false): Effect.Effect<Exclusive, SqlError> {
    return Effect.suspend(() => {
      const { pool } = this
      return Effect.map(pool.take(restore, isMovable), (lease) => new Exclusive(pool, lease, new Opening(begin)))
    })
  }

  rebind(config: ResolvedEngine): Effect.Effect<void, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const pool = this.makePool(config.client)
        return restore(answers(pool, limits.connecting(config.client.connectTimeout))).pipe(
          Effect.onError(() => pool.close(Duration.zero, RouterError.routerClosed())),
          Effect.zipRight(
            Effect.suspend(() =>
              isSameServer(this, config) ? this.reconfigure(pool, config) : this.move(pool, config)
            )
          )
        )
      })
    )
  }

  /** Goes on with another pool, to another server. */
  private move(pool: Pool, config: ResolvedEngine): Effect.Effect<void> {
    const before = this.pool
    this.pool = pool
    this.binding++
    this.initial = undefined
    this.positions.rebind()
    this.address = config.address
    this.client = config.client
    this.isWritable = config.writable
    this.latency = 0
    return this.leave(before, this.options.shutdownTimeout, new ServerLost(`${this.name} has moved to another server`))
  }

  /** Opens connections with another configuration from now on; those that are open stay. `proof` has shown that it can. */
  private reconfigure(proof: Pool, { client, writable }: ResolvedEngine): Effect.Effect<void> {
    this.client = client
    this.isWritable = writable
    this.pool.renew(this.poolConfig(client), waitMillisOf(client))
    return this.leave(proof, Duration.zero, RouterError.routerClosed())
  }

  /** Closes every connection, and those to servers of before. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    Effect.zipRight(
      Effect.zipRight(
        Effect.sync(() => this.prober.close()),
        this.pool.close(this.options.shutdownTimeout, RouterError.routerClosed())
      ),
      Fiber.awaitAll(this.leaving)
    )
  )

  drop(reason: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const left = this.leave(this.pool, Duration.zero, new ServerLost(reason))
      this.pool = this.makePool(this.client)
      this.positions.forget()
      if (this.initial !== undefined) this.pool.beginWith(this.initial)
      return left
    })
  }

  /** Closes a pool, in the background. */
  private leave(pool: Pool, limit: Duration.Duration, reason: Error): Effect.Effect<void> {
    return Effect.map(Effect.forkDaemon(pool.close(limit, reason)), (fiber) => {
      this.leaving.add(fiber)
      fiber.addObserver(() => this.leaving.delete(fiber))
    })
  }

  get inFlight(): number {
    return this.pool.inFlight
  }

  get waiting(): number {
    return this.pool.waiting
  }

  get hasRoom(): boolean {
    return this.pool.hasRoom
  }

  get isStuck(): boolean {
    const { hasRoom, movedAt } = this.pool.connections
    return !hasRoom && elapsedOf(this.clock) - movedAt > Math.max(stuckMillis, stuckTimes * this.latency)
  }

  get poolStatus(): PoolStatus {
    return {
      total: this.pool.total,
      idle: this.pool.idle,
      waiting: this.pool.waiting,
      max: this.client.maxConnections
    }
  }

  query(request: Request, movable = false, left?: Cancellable): Effect.Effect<Result, SqlError> {
    return this.pool.query(request, movable, left)
  }

  begin(request: Request, callback: Callback): Effect.Effect<void> {
    return this.pool.begin(request, true, callback)
  }

  stream(
    sql: string,
    params: ReadonlyArray<unknown>,
    movable = false,
    leaves?: Leaves
  ): Stream.Stream<object, SqlError> {
    return Stream.suspend(() => {
      const { pool } = this
      if (movable) return movableRows(pool, sql, params)
      return rows(
        pool,
        Effect.map(pool.checkout(false), ({ connection }) => {
          if (leaves !== undefined) connection!.traces.note(leaves)
          return connection!
        }),
        sql,
        params
      )
    })
  }

  get answered(): number {
    return this.pool.answered
  }

  isSilent(millis: number): boolean {
    return this.pool.inFlight > 0 && elapsedOf(this.clock) - this.pool.connections.endedAt > millis
  }

  trial(limit: Duration.Duration): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => trial(poolConfig(this.client), limit))
  }

  observeLatency(millis: number): void {
    this.latency = this.latency === 0 ? millis : this.latency + latencyWeight * (millis - this.latency)
  }

  setShare(weight: number, zone: string | undefined): void {
    this.weight = weight
    this.zone = zone
  }

  setWritable(writable: boolean): void {
    this.isWritable = writable
  }

  setDrained(drained: boolean): void {
    this.isDrained = drained
  }

  probe(limit: Duration.Duration, fresh: boolean): Effect.Effect<Health.Report, SqlError> {
    return Effect.zipRight(
      this.probeTurn(fresh),
      Effect.suspend(() => {
        const { binding } = this
        const isOther = this.probed !== binding
        this.probed = binding
        const at = elapsedOf(this.clock)
        const question = this.positions.ask()
        return Effect.map(this.ask(limit, fresh || isOther), ({ found, isNew }) => {
          const report = Health.continued(this.health?.report, found)
          // One that comes from another server than new connections do is asked on a new one the next time.
          if (this.binding === binding && !this.positions.report(question, at, report, isNew)) this.probed = undefined
          return report
        })
      })
    )
  }

  /** Waits until a probe may connect, where it has to. */
  private probeTurn(fresh: boolean): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.isUnsettled && (fresh || !this.prober.isConnected)
        ? Effect.async<void>((resume) =>
            Effect.sync(
              this.options.pace.await(() => {
                resume(Effect.void)
                return true
              }, true)
            )
          )
        : Effect.void
    )
  }

  /** One probe, and whether it has connected anew. After one that has failed nothing less will do. */
  private ask(
    limit: Duration.Duration,
    fresh: boolean
  ): Effect.Effect<{ readonly found: Health.Report; readonly isNew: boolean }, SqlError> {
    const { client, pool, prober } = this
    const mayRide = !fresh && this.health !== undefined && Health.answers(this.health)
    return Effect.acquireUseRelease(
      Effect.sync(() => (mayRide ? pool.connections.lend() : undefined)),
      (lent) => {
        if (lent !== undefined) return Effect.map(prober.ride(lent, limit), (found) => ({ found, isNew: false }))
        const config = { ...poolConfig(client), application_name: `${client.applicationName} health` }
        const isNew = fresh || !prober.isConnected
        return Effect.map(prober.run(config, limit, fresh, this.initial), (found) => ({ found, isNew }))
      },
      (lent, exit) =>
        Effect.sync(() => {
          if (lent === undefined) return
          if (Exit.isSuccess(exit)) pool.connections.restore(lent)
          else lent.destroy()
        })
    )
  }

  proven(at: number): void {
    this.positions.proven(at)
    this.prober.leave()
  }

  avoidSerializable(): boolean {
    if (this.initial !== undefined) return false
    this.initial = "SET default_transaction_isolation = 'repeatable read'"
    this.pool.beginWith(this.initial)
    return true
  }

  restoreIsolation(): void {
    if (this.initial === undefined) return
    this.initial = undefined
    this.pool.beginWith(undefined)
  }

  renew(): void {
    this.pool.beginWith(this.initial)
  }

  unsettle(): void {
    this.unsettledUntil = elapsedOf(this.clock) + unsettledMillis
  }

  private get isUnsettled(): boolean {
    return elapsedOf(this.clock) < this.unsettledUntil
  }

  warmUp(millis: number): void {
    this.backAt = elapsedOf(this.clock)
    this.warmMillis = millis
  }

  get warmth(): number {
    if (this.warmMillis === 0) return 1
    const warmth = (elapsedOf(this.clock) - this.backAt) / this.warmMillis
    if (warmth >= 1) this.warmMillis = 0
    return Math.min(1, Math.max(coldest, warmth))
  }

  setHealth(health: Health.Health): void {
    this.health = health
  }

  onError(listener: (error: SqlError) => void): void {
    this.listener = listener
  }

  heard(error: SqlError): void {
    this.listener(error)
  }

  lose(reason: string): void {
    this.positions.forget()
    this.pool.lose(new ServerLost(reason))
  }

  private poolConfig(client: ResolvedClient): Config {
    const { planCacheMode } = this.options
    return { ...poolConfig(client), parameters: planCacheMode && `-c plan_cache_mode=${planCacheMode}` }
  }

  private makePool(client: ResolvedClient): Pool {
    const pool: Pool = new Pool(this.poolConfig(client), {
      maxPrepared: this.options.maxPrepared,
      waitMillis: waitMillisOf(client),
      movableMillis: Duration.toMillis(this.options.waitForReplica),
      busyError: (millis) => RouterError.poolBusy(this.name, client.maxConnections, millis),
      // What is left of a pool to another server says nothing of this one.
      onError: (error) => {
        if (pool === this.pool) this.listener(error)
      },
      onBroken: () => {
        if (pool === this.pool) this.positions.forget()
      },
      // Statements that were routed by the positions of another server run elsewhere.
      met: (startedAt) => {
        if (pool !== this.pool || this.health === undefined || !this.positions.meet(startedAt)) return
        this.probed = undefined
        this.renew()
        this.pool.lose(new ServerLost(`Another server answers at the address of ${this.name}`))
      },
      isPaced: () => this.isUnsettled,
      turn: (open) => {
        this.options.pace.await(open)
      },
      now: () => elapsedOf(this.clock)
    })
    return pool
  }
}

/**
 * The options of a router that its engines need.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The number of statements that a connection keeps prepared; `0` prepares none. */
  readonly maxPrepared: number
  /** `plan_cache_mode` of its connections; `undefined`: what the server has. */
  readonly planCacheMode?: PlanCacheMode | undefined
  /** The time that closing leaves running work to finish. */
  readonly shutdownTimeout: Duration.Duration
  /** The longest wait of a movable statement for a connection that is checked out. */
  readonly waitForReplica: Duration.Duration
  /** The pace at which a router opens connections where not all of them may be opened at once. */
  readonly pace: Pick<Pace, "await">
}

/**
 * Makes an engine. When the scope closes, statements that still run get up to `shutdownTimeout` to end; then every
 * connection is closed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (config: ResolvedEngine, options: Options): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.clock, (clock) => new EngineImpl(config, options, clock)),
    (engine) => engine.close
  )
