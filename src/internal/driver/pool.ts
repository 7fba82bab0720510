import { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Pg from "pg"
import * as RouterError from "../../RouterError.js"
import { type Place, Queue } from "../util/linkedQueue.js"
import type { Restore } from "../util/restore.js"
import { cancel } from "./cancel.js"
import type { Connection, Result } from "./connection.js"
import { AllInUse, type Bounds, Connections, type Wish } from "./connections.js"
import { acquireFailed, cameTooLate } from "./failure.js"
import type { Opening } from "./opening.js"
import { Pipelines } from "./pipelines.js"
import { PreparedStatements, Stale } from "./prepared.js"
import { type Callback, type Request, Run, type Runs } from "./run.js"

export type { Result } from "./connection.js"
export type { Callback, Request } from "./run.js"

/** A checked-out connection, until its release. */
export interface Lease {
  connection: Connection | undefined
}

/** The cancel of a statement that waits for an answer, for a caller that runs it on interruption. */
export interface Cancellable {
  cancel: Effect.Effect<void> | undefined
}

/** Called when the server does not answer any more. */
interface Loser {
  readonly lose: (reason: Error) => void
}

const boundsOf = (config: Pg.PoolConfig, waitMillis: number): Bounds => ({
  max: config.max ?? 10,
  min: config.min ?? 0,
  idleMillis: config.idleTimeoutMillis ?? 10_000,
  lifeMillis: (config.maxLifetimeSeconds ?? 0) * 1_000,
  waitMillis
})

/** The statements that run on one server. */
export class Pool implements Runs {
  inFlight = 0
  answered = 0
  readonly prepared: PreparedStatements | undefined
  readonly now: () => number
  readonly connections: Connections
  readonly pipelines: Pipelines
  /** What has to hear that the server does not answer any more. */
  readonly losing = new Queue<Loser>()

  /**
   * `waitMillis` bounds the waiting for a connection; `0` does not. `movableMillis`: of what is movable, for one that others
   * use. `maxPrepared` is for each connection.
   */
  constructor(
    config: Pg.PoolConfig,
    private readonly options: {
      readonly maxPrepared: number
      readonly waitMillis: number
      readonly movableMillis: number
      /** The error of what waits in vain for a connection that others use. */
      readonly busyError: (millis: number) => RouterError.RouterError
      /** Hears of every error. */
      readonly onError: (error: SqlError) => void
      /** Hears that a connection has broken. */
      readonly onBroken: () => void
      readonly isPaced: () => boolean
      readonly turn: (open: () => boolean) => void
      /** Hears when the server of a new connection has started. */
      readonly met?: ((startedAt: number) => void) | undefined
      readonly now: () => number
    }
  ) {
    this.connections = new Connections(config, {
      ...boundsOf(config, options.waitMillis),
      movableMillis: options.movableMillis,
      now: options.now,
      onBroken: options.onBroken,
      met: options.met,
      isPaced: options.isPaced,
      turn: options.turn,
      share: () => this.pipelines.find()
    })
    this.pipelines = new Pipelines(this.connections, options.now, (connection) => this.cancelled(connection))
    this.now = options.now
    this.prepared = options.maxPrepared > 0 ? new PreparedStatements(options.maxPrepared) : undefined
  }

  /** Opens connections with another configuration from now on, to the same server. Those that are open stay. */
  renew(config: Pg.PoolConfig, waitMillis: number): void {
    this.connections.renew(config, boundsOf(config, waitMillis))
  }

  /** Statements, streams and transactions that wait for a connection. */
  get waiting(): number {
    return this.connections.waiting
  }

  get total(): number {
    return this.connections.total
  }

  get idle(): number {
    return this.connections.idle
  }

  /** A statement would not have to wait for the end of another one. */
  get hasRoom(): boolean {
    return this.connections.hasRoom
  }

  /**
   * Runs one statement on any connection. An interruption cancels it and waits for that, unless the cancel is left to the
   * caller (`left`). One that is `movable` fails as soon as the server is known not to answer.
   */
  query(request: Request, movable = false, left?: Cancellable): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) => {
      let isAnswered = false
      const cancel = this.begin(request, movable, (error, result) => {
        isAnswered = true
        if (left !== undefined) left.cancel = undefined
        resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
      })
      if (left === undefined) return cancel
      if (!isAnswered) left.cancel = cancel
      return undefined
    })
  }

  /** The same without a fiber of its own: calls back once. The effect that it returns cancels it, and then there is no call. */
  begin(request: Request, movable: boolean, callback: Callback): Effect.Effect<void> {
    const job = new Job(request, this, movable, callback)
    job.begin(false)
    return Effect.suspend(() => job.cancel())
  }

  /** A connection of one's own, until the scope closes. What still runs then is cancelled. `isMovable` as for `take`. */
  checkout(isMovable: boolean): Effect.Effect<Lease, SqlError, Scope.Scope> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.tap(this.take(restore, isMovable), (lease) => Effect.addFinalizer(() => this.giveBack(lease)))
    )
  }

  /**
   * A connection of one's own, until it is given back. The caller must be uninterruptible; `restore` makes the waiting
   * interruptible. `isMovable`: it may be had from another server.
   */
  take(restore: Restore, isMovable: boolean): Effect.Effect<Lease, SqlError> {
    return Effect.suspend(() => {
      const lease: Lease = { connection: undefined }
      let got: Exit.Exit<Lease, SqlError> | undefined
      let wake = () => {}
      const wish: Wish = {
        isMovable,
        got: (error, connection) => {
          lease.connection = connection
          got = connection === undefined ? Exit.fail(this.connectError(error)) : Exit.succeed(lease)
          wake()
        }
      }
      this.connections.acquire(wish)
      if (got !== undefined) return got
      const wait = Effect.async<void>((resume) => {
        wake = () => resume(Effect.void)
        if (got !== undefined) wake()
      })
      // The connection may arrive at the same moment as an interruption, so the release cannot hang on the value.
      const withdraw = Effect.suspend(() => {
        this.connections.withdraw(wish)
        return this.giveBack(lease)
      })
      return Effect.zipRight(
        Effect.onError(restore(wait), () => withdraw),
        Effect.suspend(() => got!)
      )
    })
  }

  /** Ends a lease. What still runs on its connection is cancelled. */
  giveBack(lease: Lease): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { connection } = lease
      lease.connection = undefined
      if (connection === undefined) return Effect.void
      if (connection.isBusy) {
        return Effect.ensuring(
          cancel(connection),
          Effect.sync(() => {
            this.cancelled(connection)
            this.connections.giveBack(connection)
          })
        )
      }
      this.connections.giveBack(connection)
      return Effect.void
    })
  }

  /** Runs one statement on a connection that is checked out, with what begins its transaction if it `takesOpening`. */
  queryOn(connection: Connection, request: Request, opening?: Opening): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) => {
      const answer: Callback = (error, result) => resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
      const run = new OwnRun(request, this, answer, opening)
      run.start(connection)
      return Effect.suspend(() => {
        run.isWanted = false
        return run.connection === undefined ? Effect.void : cancel(connection)
      })
    })
  }

  /** Whether BEGIN may go out with a statement: a single one, that has run before. */
  takesOpening({ prepare, sql }: Request): boolean {
    return prepare && this.prepared?.nameOf(sql) !== undefined
  }

  /** The same without a fiber of its own: calls back once. */
  beginOn(connection: Connection, request: Request, callback: Callback): void {
    new OwnRun(request, this, callback).start(connection)
  }

  /** Runs a statement first on every connection from now on, or none. */
  beginWith(sql: string | undefined): void {
    this.connections.beginWith(sql)
  }

  /** Calls back when the server is known not to answer. Returns what ends that. */
  onLost(callback: (reason: Error) => void): () => void {
    const place = this.losing.add({ lose: callback })
    return () => {
      place.leave()
    }
  }

  /** The server does not answer: statements that may run elsewhere fail for this reason, idle connections are closed. */
  lose(reason: Error): void {
    for (const loser of this.losing.takeAll()) loser.lose(reason)
    // The requests that wait have sent nothing. They may wait for a server that answers.
    this.connections.refuseAll(reason)
    this.connections.closeIdle()
  }

  /** What ran on a connection was cancelled. Where the server has not answered that, the connection is closed. */
  private cancelled(connection: Connection): void {
    if (!connection.isUsable)
      this.failed(connection.statementError(new Error("Connection terminated: a cancel had no answer")))
  }

  failed(error: SqlError): SqlError {
    this.options.onError(error)
    return error
  }

  /** The error of what gets no connection. */
  connectError(cause: Error | undefined): SqlError {
    if (cause instanceof AllInUse) {
      return this.failed(new SqlError({ cause: this.options.busyError(cause.millis), message: acquireFailed }))
    }
    return RouterError.isRouterError(cause)
      ? RouterError.toSqlError(cause)
      : this.failed(new SqlError({ cause: cause ?? new Error("No connection"), message: acquireFailed }))
  }

  /** Waits for running work up to a limit, then closes every connection. New work fails at once. All for this reason. */
  close(limit: Duration.Duration, reason: Error): Effect.Effect<void> {
    return this.connections.close(limit, reason)
  }
}

/** One statement on a connection that is checked out. */
class OwnRun extends Run {
  override readonly isShared = false

  constructor(
    request: Request,
    pool: Pool,
    private readonly callback: Callback,
    opening?: Opening
  ) {
    super(request, pool, opening)
  }

  override move(): void {}

  protected override ended(_: Connection, error: SqlError | undefined, result: Result | undefined): void {
    this.callback(error, result)
  }
}

/** One statement on any connection. */
class Job extends Run implements Wish {
  override readonly isShared: boolean
  timer: NodeJS.Timeout | undefined
  place: Place<Wish> | undefined
  /** Among those that hear that the server does not answer. */
  private losing: Place<Loser> | undefined
  /** The same on another connection, instead of it. */
  private next: Job | undefined

  constructor(
    request: Request,
    private readonly pool: Pool,
    readonly isMovable: boolean,
    private readonly callback: Callback,
    private readonly isRetry = false
  ) {
    super(request, pool)
    const { text } = this
    this.isShared = isMovable && !isRetry && text?.name !== undefined && text.isShort
  }

  /** Runs it, before those who wait if it `isFirst`. */
  begin(isFirst: boolean): void {
    if (this.isMovable) this.losing = this.pool.losing.add(this)
    this.pool.connections.acquire(this, isFirst)
  }

  got(error: Error | undefined, connection: Connection | undefined): void {
    if (connection === undefined) {
      this.answer(this.pool.connectError(error), undefined)
    } else {
      this.pool.pipelines.join(connection, this)
      this.start(connection)
    }
  }

  override move(): void {
    this.again(false, true)
  }

  lose(reason: Error): void {
    if (this.connection !== undefined) {
      this.connection.fail(reason)
    } else {
      this.pool.connections.withdraw(this)
      this.callback(this.pool.connectError(reason), undefined)
    }
  }

  /** Ends it, without calling back. */
  cancel(): Effect.Effect<void> {
    if (this.next !== undefined) return this.next.cancel()
    const { connection, pool } = this
    this.losing?.leave()
    pool.connections.withdraw(this)
    this.isWanted = false
    return connection === undefined ? Effect.void : pool.pipelines.abandon(connection)
  }

  protected override ended(connection: Connection, error: SqlError | undefined, result: Result | undefined): void {
    this.pool.pipelines.leave(connection, this)
    if (!this.isWanted) return
    if (error !== undefined && !this.isRetry && this.mayRepeat(error)) this.again(true, false)
    else this.answer(error, result)
  }

  private again(isRetry: boolean, isFirst: boolean): void {
    this.losing?.leave()
    this.next = new Job(this.request, this.pool, this.isMovable, this.callback, isRetry)
    this.next.begin(isFirst)
  }

  /** Whether it has not run, and would on another connection. */
  private mayRepeat(error: SqlError): boolean {
    return cameTooLate(error) || (this.isShared && error instanceof Stale)
  }

  private answer(error: SqlError | undefined, result: Result | undefined): void {
    this.losing?.leave()
    this.callback(error, result)
  }
}
