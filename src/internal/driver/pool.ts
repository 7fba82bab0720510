import { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Pg from "pg"
import * as RouterError from "../../RouterError.js"
import { acquireFailed, cameTooLate } from "../failure.js"
import { cancel, giveUp } from "./cancel.js"
import type { Connection, Member, Result } from "./connection.js"
import { Connections } from "./connections.js"
import { Pipelines } from "./pipelines.js"
import type { Sampler } from "./position.js"
import { judge, PreparedStatements, type Text } from "./prepared.js"
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
class Run implements Member {
  isWanted = true
  connection: Connection | undefined
  /** When it was sent, in milliseconds of the clock, if nothing else ran on its connection. */
  began: number | undefined

  constructor(
    readonly request: Request,
    /** What is known of its text. */
    readonly text: Text | undefined,
    /** How it leaves a connection that it shares with others, if it may share one. */
    readonly move?: () => void
  ) {}

  wasLong(): void {
    this.text?.wasLong()
  }
}

/** The statements that run on one server. */
export class Pool {
  /** Statements that run now. */
  inFlight = 0

  private readonly connections: Connections
  private readonly pipelines: Pipelines
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
    this.pipelines = new Pipelines({
      isGood: (connection) => this.connections.isGood(connection),
      onDeserted: (connection) => void Effect.runFork(this.release(connection))
    })
    this.connections = new Connections(config, this.pipelines, {
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
    let run: Run
    let waiter: ReturnType<Connections["acquire"]>
    const lose = (reason: Error) => {
      if (run.connection !== undefined) return run.connection.fail(reason)
      this.connections.withdraw(waiter)
      callback(this.connectError(reason), undefined)
    }
    if (movable) this.losing.add(lose)
    const attempt = (isRetry: boolean, isFirst: boolean) => {
      const text = this.textOf(request)
      const isShort = movable && !isRetry && text?.name !== undefined && text.isShort
      const current = new Run(request, text, isShort ? () => attempt(false, true) : undefined)
      run = current
      waiter = this.connections.acquire(
        (error, connection) => {
          if (connection === undefined) {
            this.losing.delete(lose)
            return callback(this.connectError(error), undefined)
          }
          this.join(connection, current)
          this.start(connection, current, (error, result) => {
            this.leave(connection, current)
            if (!current.isWanted) return
            if (!isRetry && error !== undefined && mayRepeat(error, isShort)) return attempt(true, false)
            this.losing.delete(lose)
            callback(error, result)
          })
        },
        { isFirst, name: isShort ? text.name : undefined }
      )
    }
    attempt(false, false)
    return Effect.suspend(() => {
      this.losing.delete(lose)
      this.connections.withdraw(waiter)
      run.isWanted = false
      const { connection } = run
      // What others share a connection with ends by itself: a cancel could hit theirs.
      return connection === undefined || connection.pipeline.some(({ isWanted }) => isWanted)
        ? Effect.void
        : this.release(connection)
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
      const run = new Run(request, this.textOf(request))
      this.start(connection, run, (error, result) =>
        resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
      )
      return Effect.suspend(() => {
        run.isWanted = false
        return run.connection === undefined ? Effect.void : cancel(connection)
      })
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
    const { asArrays, params, sql } = request
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
    const name = run.text?.name
    if (name === undefined) this.send(connection, run, config, settle)
    else this.startPrepared(connection, run, { ...config, name }, this.prepared!, settle)
  }

  private send(
    connection: Connection,
    { move, request: { sampler } }: Run,
    config: Pg.QueryConfig,
    callback: (error: Error | undefined, result: Result | undefined) => void
  ): void {
    connection.query(config, callback, {
      isShared: move !== undefined,
      sampler: sampler?.isWanted === true ? sampler : undefined,
      isNamed: this.prepared !== undefined
    })
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
      this.send(connection, run, config, (error, result) => {
        const verdict = error === undefined ? "fine" : judge(error, closed.length === 0)
        if (error === undefined || verdict === "fine") return settle(error, result)
        prepared.forget(connection, config.name)
        // One that shares a connection is repeated on one of its own.
        if (verdict === "suspect" || run.move !== undefined) return settle(error, undefined)
        connection.whenReady(() => {
          // In a transaction the error has aborted it already: only the caller can start again.
          const mayRetry = !isRetry && connection.isUsable && connection.isOutsideTransaction && run.isWanted
          if (mayRetry) execute(true)
          else settle(error, undefined)
        })
      })
    }
    execute(false)
  }

  private textOf({ params, prepare, sql }: Request): Text | undefined {
    return prepare ? this.prepared?.textOf(sql, params.length) : undefined
  }

  private join(connection: Connection, run: Run): void {
    const { pipeline } = connection
    pipeline.push(run)
    if (run.move !== undefined) this.pipelines.add(connection)
    // Behind others it takes as long as they do.
    if (pipeline.length === 1) run.began = this.options.now()
  }

  private leave(connection: Connection, run: Run): void {
    const { pipeline } = connection
    const index = pipeline.indexOf(run)
    // It was cancelled with all others, and the connection may be somebody else's by now.
    if (index < 0) return
    pipeline.splice(index, 1)
    run.text?.ran(run.began && this.options.now() - run.began)
    if (connection.isCancelling) return
    if (pipeline.length > 0) {
      this.connections.admit()
    } else {
      this.pipelines.close(connection)
      this.giveBack(connection)
    }
  }

  /** Cancels what runs on a connection, where nobody waits for any of it, and gives it back. */
  private release(connection: Connection): Effect.Effect<void> {
    this.pipelines.close(connection)
    connection.isCancelling = true
    return Effect.ensuring(
      cancel(connection),
      Effect.sync(() => {
        connection.isCancelling = false
        connection.pipeline.length = 0
        this.giveBack(connection)
      })
    )
  }

  private giveBack(connection: Connection): void {
    // A failed statement is reported before the server is ready again; only then is its transaction status known. A text
    // that left a transaction open ("BEGIN; ...") must not hand it to the next user of the connection.
    connection.whenReady(() => this.connections.put(connection))
  }
}

/** Whether a statement has not run, and would on another connection. */
const mayRepeat = (error: SqlError, isShared: boolean): boolean =>
  cameTooLate(error) || (isShared && error.cause instanceof Error && judge(error.cause, true) === "stale")
