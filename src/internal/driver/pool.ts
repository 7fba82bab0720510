import { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Pg from "pg"
import * as RouterError from "../../RouterError.js"
import { acquireFailed, cameTooLate } from "../failure.js"
import { cancel, giveUp } from "./cancel.js"
import type { Connection, Result } from "./connection.js"
import { Connections } from "./connections.js"
import type { Sampler } from "./position.js"
import { judge, PreparedStatements } from "./prepared.js"
import { toWire, unsendable } from "./values.js"

export type { Result } from "./connection.js"

/** A statement as the driver takes it. */
export interface Request {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
  /** Rows as arrays instead of objects. */
  readonly asArrays: boolean
  /** Whether it may run as a server-side prepared statement. */
  readonly prepare: boolean
  /** Who hears of the server's position right after it. Not for COPY, which takes no message behind it. */
  readonly sampler?: Sampler
}

/** A connection that is checked out, until it is given back. */
export interface Lease {
  connection: Connection | undefined
}

/** Hears how a statement has ended. */
export type Callback = (error: SqlError | undefined, result: Result | undefined) => void

/** One statement on its way: where it runs, and whether anybody still waits for it. */
class Run {
  abandoned = false
  connection: Connection | undefined

  constructor(readonly request: Request) {}

  /** Returns the connection that it runs on now. */
  abandon(): Connection | undefined {
    this.abandoned = true
    return this.connection
  }
}

/** The statements that run on one server. */
export class Pool {
  /** Statements that run now. */
  inFlight = 0

  private readonly connections: Connections
  private readonly prepared: PreparedStatements | undefined
  /** What has to hear that the server does not answer any more. */
  private readonly losing = new Set<(reason: Error) => void>()

  /** `waitMillis` bounds the waiting for a connection; `0` does not. `maxPrepared` is for each connection. */
  constructor(
    config: Pg.PoolConfig,
    private readonly options: {
      readonly maxPrepared: number
      readonly waitMillis: number
      /** Hears of every error. */
      readonly onError: (error: SqlError) => void
      /** Hears that a connection has broken. */
      readonly onBroken: () => void
      readonly now: () => number
    }
  ) {
    this.connections = new Connections(config, {
      max: config.max ?? 10,
      min: config.min ?? 0,
      idleMillis: config.idleTimeoutMillis ?? 10_000,
      lifeMillis: (config.maxLifetimeSeconds ?? 0) * 1_000,
      waitMillis: options.waitMillis,
      now: options.now,
      onBroken: options.onBroken
    })
    this.prepared = options.maxPrepared > 0 ? new PreparedStatements(options.maxPrepared) : undefined
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

  /**
   * Runs one statement on any connection. An interruption cancels it, and waits for that. One that is `movable` fails as
   * soon as the server is known not to answer.
   */
  query(request: Request, movable = false): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) =>
      this.begin(request, movable, (error, result) =>
        resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
      )
    )
  }

  /** The same without a fiber of its own: calls back once. The effect that it returns cancels it, and then there is no call. */
  begin(request: Request, movable: boolean, callback: Callback): Effect.Effect<void> {
    const run = new Run(request)
    const lose = (reason: Error) => {
      if (run.connection !== undefined) return run.connection.fail(reason)
      this.connections.withdraw(waiter)
      callback(this.connectError(reason), undefined)
    }
    if (movable) this.losing.add(lose)
    let waiter: ReturnType<Connections["acquire"]>
    const acquire = (isRetry: boolean) => {
      waiter = this.connections.acquire((error, connection) => {
        if (connection === undefined) {
          this.losing.delete(lose)
          return callback(this.connectError(error), undefined)
        }
        this.start(connection, run, (error, result) => {
          if (run.abandoned) return
          this.giveBack(connection)
          if (!isRetry && error !== undefined && cameTooLate(error)) return acquire(true)
          this.losing.delete(lose)
          callback(error, result)
        })
      })
    }
    acquire(false)
    return Effect.suspend(() => {
      this.losing.delete(lose)
      this.connections.withdraw(waiter)
      const connection = run.abandon()
      return connection === undefined
        ? Effect.void
        : Effect.ensuring(
            cancel(connection),
            Effect.sync(() => this.giveBack(connection))
          )
    })
  }

  /** A connection of one's own, until the scope closes. What still runs then is cancelled. */
  readonly checkout: Effect.Effect<Lease, SqlError, Scope.Scope> = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const lease: Lease = { connection: undefined }
      const wait = Effect.async<void, SqlError>((resume) => {
        const waiter = this.connections.acquire((error, connection) => {
          lease.connection = connection
          resume(connection === undefined ? Effect.fail(this.connectError(error)) : Effect.void)
        })
        return Effect.sync(() => this.connections.withdraw(waiter))
      })
      // The connection may arrive at the same moment as an interruption, so the release cannot hang on the value.
      const end = Effect.suspend(() => {
        const { connection } = lease
        lease.connection = undefined
        if (connection === undefined) return Effect.void
        const giveBack = Effect.sync(() => this.giveBack(connection))
        return connection.isBusy ? Effect.ensuring(cancel(connection), giveBack) : giveBack
      })
      return restore(wait).pipe(
        Effect.onError(() => end),
        Effect.zipRight(Effect.addFinalizer(() => end)),
        Effect.as(lease)
      )
    })
  )

  /** Runs one statement on a connection that is checked out. */
  queryOn(connection: Connection, request: Request): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) => {
      const run = new Run(request)
      this.start(connection, run, (error, result) =>
        resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
      )
      return Effect.suspend(() => (run.abandon() === undefined ? Effect.void : cancel(connection)))
    })
  }

  /** Runs a statement first on every connection from now on, or none. */
  beginWith(sql: string | undefined): void {
    this.connections.beginWith(sql)
  }

  /** Calls back when the server is known not to answer. Returns what ends that. */
  onLost(callback: (reason: Error) => void): () => void {
    this.losing.add(callback)
    return () => {
      this.losing.delete(callback)
    }
  }

  /** The server does not answer: what may run elsewhere fails for this reason, what nobody uses is closed. */
  lose(reason: Error): void {
    const all = [...this.losing]
    this.losing.clear()
    for (const lose of all) lose(reason)
    this.connections.closeIdle()
  }

  /** Notes an error, and returns it. */
  failed(error: SqlError): SqlError {
    this.options.onError(error)
    return error
  }

  private connectError(cause: Error | undefined): SqlError {
    return RouterError.isRouterError(cause)
      ? RouterError.toSqlError(cause)
      : this.failed(new SqlError({ cause: cause ?? new Error("No connection"), message: acquireFailed }))
  }

  /** Waits for running work up to a limit, then closes every connection. New work fails at once. All for this reason. */
  close(limit: Duration.Duration, reason: Error): Effect.Effect<void> {
    return this.connections.close(limit, reason)
  }

  private start(connection: Connection, run: Run, callback: Callback): void {
    const { request } = run
    const { asArrays, params, prepare, sql } = request
    this.inFlight++
    run.connection = connection
    const end = (error: SqlError | undefined, result: Result | undefined) => {
      this.inFlight--
      run.connection = undefined
      callback(error && this.failed(error), result)
    }
    const settle = (error: Error | undefined, result: Result | undefined) => {
      if (error === undefined) {
        end(undefined, result)
        return
      }
      // Whatever still comes is the answer to what nobody waits for any more.
      if (error.message === "Query read timeout") giveUp(connection, error)
      connection.whenAnswered(error, () => end(connection.statementError(error), undefined))
    }
    if (!connection.isUsable) {
      end(connection.unsentError, undefined)
      return
    }
    let values: ReadonlyArray<unknown>
    try {
      values = toWire(params)
    } catch (cause) {
      end(unsendable(cause), undefined)
      return
    }
    const config = { text: sql, values: values as Array<unknown>, ...(asArrays && { rowMode: "array" }) }
    const name = prepare ? this.prepared?.nameOf(sql, params.length) : undefined
    if (name === undefined) this.send(connection, request, config, settle)
    else this.startPrepared(connection, run, { ...config, name }, this.prepared!, settle)
  }

  private send(
    connection: Connection,
    { sampler }: Request,
    config: Pg.QueryConfig,
    callback: (error: Error | undefined, result: Result | undefined) => void
  ): void {
    if (sampler?.isWanted !== true) connection.query(config, callback)
    else connection.queryAndAsk(config, callback, sampler, this.prepared !== undefined)
  }

  private startPrepared(
    connection: Connection,
    run: Run,
    config: Pg.QueryConfig & { readonly name: string },
    prepared: PreparedStatements,
    settle: (error: Error | undefined, result: Result | undefined) => void
  ): void {
    const execute = (isRetry: boolean) => {
      const closed = prepared.use(connection, config.name)
      for (const name of closed) connection.closeStatement(name)
      this.send(connection, run.request, config, (error, result) => {
        const verdict = error === undefined ? "fine" : judge(error, closed.length === 0)
        if (error === undefined || verdict === "fine") return settle(error, result)
        prepared.forget(connection, config.name)
        if (verdict === "suspect") return settle(error, undefined)
        connection.whenReady(() => {
          // In a transaction the error has aborted it already: only the caller can start again.
          const mayRetry = !isRetry && connection.isUsable && connection.isOutsideTransaction && !run.abandoned
          if (mayRetry) execute(true)
          else settle(error, undefined)
        })
      })
    }
    execute(false)
  }

  private giveBack(connection: Connection): void {
    // A failed statement is reported before the server is ready again; only then is its transaction status known. A text
    // that left a transaction open ("BEGIN; ...") must not hand it to the next user of the connection.
    connection.whenReady(() => this.connections.put(connection))
  }
}
