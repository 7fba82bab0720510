import { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import { cancel, destroy, isOutsideTransaction, isUsable, statementError, watch, whenReady } from "./client.js"
import { isStale, PreparedStatements } from "./prepared.js"

/** A statement as the driver takes it. */
export interface Request {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
  /** Rows as arrays instead of objects. */
  readonly asArrays: boolean
  /** Whether it may run as a server-side prepared statement. */
  readonly prepare: boolean
}

/** What the driver answers: one result, or one for each statement of a text that holds several. */
export type Result = Pg.QueryResult | ReadonlyArray<Pg.QueryResult>

type Callback = (error: SqlError | undefined, result: Result | undefined) => void

type Release = (error?: Error | boolean) => void

/** One statement on its way: where it runs, and whether anybody still waits for it. */
class Run {
  abandoned = false
  client: Pg.PoolClient | undefined

  constructor(readonly request: Request) {}

  /** Returns the connection that it runs on now. */
  abandon(): Pg.PoolClient | undefined {
    this.abandoned = true
    return this.client
  }
}

/** The connections to one server. */
export class Pool {
  /** Statements that run now. */
  inFlight = 0

  private readonly pg: Pg.Pool
  private readonly clients = new Set<Pg.PoolClient>()
  private readonly prepared: PreparedStatements | undefined

  constructor(
    private readonly config: Pg.PoolConfig,
    maxPrepared: number
  ) {
    this.pg = new Pg.Pool(config)
    this.prepared = maxPrepared > 0 ? new PreparedStatements(maxPrepared) : undefined
    // Without a listener, an idle connection that the server closes ends the process.
    this.pg.on("error", () => {})
    this.pg.on("connect", (client) => {
      this.clients.add(client)
      watch(client)
    })
    this.pg.on("remove", (client) => {
      this.clients.delete(client)
    })
  }

  /** Statements and transactions that wait for a connection. */
  get waiting(): number {
    return this.pg.waitingCount
  }

  get total(): number {
    return this.pg.totalCount
  }

  get idle(): number {
    return this.pg.idleCount
  }

  /** Runs one statement on any connection. */
  query(request: Request): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) => {
      const run = new Run(request)
      let release: Release = () => {}
      this.pg.connect((error, client, done) => {
        if (run.abandoned) {
          return done()
        }
        if (error !== undefined || client === undefined) {
          return resume(Exit.fail(connectError(error)))
        }
        release = done
        this.start(client, run, (error, result) => {
          if (!run.abandoned) {
            this.release(client, done)
            resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error))
          }
        })
      })
      return Effect.suspend(() => {
        const client = run.abandon()
        return client === undefined
          ? Effect.void
          : Effect.ensuring(
              cancel(client, this.config),
              Effect.sync(() => this.release(client, release))
            )
      })
    })
  }

  /** A connection of one's own, until the scope closes. Its statements must have ended by then. */
  readonly checkout: Effect.Effect<Pg.PoolClient, SqlError, Scope.Scope> = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      let acquired: { readonly client: Pg.PoolClient; readonly release: Release } | undefined
      let abandoned = false
      const wait = Effect.async<void, SqlError>((resume) => {
        this.pg.connect((error, client, release) => {
          if (abandoned) {
            return release()
          }
          if (error !== undefined || client === undefined) {
            return resume(Effect.fail(connectError(error)))
          }
          acquired = { client, release }
          resume(Effect.void)
        })
      })
      // The connection may arrive at the same moment as an interruption, so the release cannot hang on the value.
      const giveBack = Effect.sync(() => {
        abandoned = true
        if (acquired !== undefined) this.release(acquired.client, acquired.release)
      })
      return restore(wait).pipe(
        Effect.onError(() => giveBack),
        Effect.zipRight(Effect.addFinalizer(() => giveBack)),
        Effect.map(() => acquired!.client)
      )
    })
  )

  /** Runs one statement on a connection that is checked out. */
  queryOn(client: Pg.PoolClient, request: Request): Effect.Effect<Result, SqlError> {
    return Effect.async<Result, SqlError>((resume) => {
      const run = new Run(request)
      this.start(client, run, (error, result) => resume(error === undefined ? Exit.succeed(result!) : Exit.fail(error)))
      return Effect.suspend(() => (run.abandon() === undefined ? Effect.void : cancel(client, this.config)))
    })
  }

  /** Cancels what runs on a connection that is checked out. */
  cancelOn(client: Pg.PoolClient): Effect.Effect<void> {
    return cancel(client, this.config)
  }

  /** Waits for running work up to a limit, then closes every connection. */
  close(limit: Duration.Duration): Effect.Effect<void> {
    return Effect.promise(() => this.pg.end()).pipe(
      Effect.interruptible,
      Effect.timeoutOption(limit),
      Effect.tap((ended) =>
        Effect.sync(() => {
          if (ended._tag === "None") this.clients.forEach(destroy)
        })
      ),
      Effect.asVoid
    )
  }

  private start(client: Pg.PoolClient, run: Run, callback: Callback): void {
    this.inFlight++
    run.client = client
    const { request } = run
    const settle: Callback = (error, result) => {
      this.inFlight--
      run.client = undefined
      callback(error, result)
    }
    const name =
      request.prepare && this.prepared !== undefined
        ? this.prepared.nameOf(request.sql, request.params.length)
        : undefined
    if (name === undefined) {
      this.send(client, request, undefined, (error, result) =>
        error === undefined ? settle(undefined, result) : settle(statementError(client, error), undefined)
      )
    } else {
      this.startPrepared(client, run, name, this.prepared!, settle)
    }
  }

  private startPrepared(
    client: Pg.PoolClient,
    run: Run,
    name: string,
    prepared: PreparedStatements,
    settle: Callback
  ): void {
    const fail = (error: Error) => settle(statementError(client, error), undefined)
    const execute = (retried: boolean) =>
      this.send(client, run.request, name, (error, result) => {
        if (error === undefined) {
          return settle(undefined, result)
        }
        if (retried || !isStale(error)) {
          return fail(error)
        }
        whenReady(client, () => {
          prepared.forget(client, name)
          // In a transaction the error has aborted it already: only the caller can start again.
          if (!isUsable(client) || !isOutsideTransaction(client) || run.abandoned) {
            return fail(error)
          }
          deallocate(client, name, () => {
            if (run.abandoned) return fail(error)
            prepared.use(client, name)
            execute(true)
          })
        })
      })
    const evicted = prepared.use(client, name)
    if (evicted === undefined) {
      execute(false)
    } else {
      deallocate(client, evicted, () => (run.abandoned ? fail(new Error("Interrupted")) : execute(false)))
    }
  }

  private send(
    client: Pg.PoolClient,
    request: Request,
    name: string | undefined,
    callback: (error: Error | undefined, result: Result | undefined) => void
  ): void {
    const config = {
      text: request.sql,
      values: request.params as Array<unknown>,
      ...(name === undefined ? undefined : { name }),
      ...(request.asArrays ? { rowMode: "array" } : undefined)
    }
    try {
      client.query(config, (error: Error | null | undefined, result: Result) =>
        error === null || error === undefined ? callback(undefined, result) : callback(error, undefined)
      )
    } catch (error) {
      callback(error as Error, undefined)
    }
  }

  private release(client: Pg.PoolClient, release: Release): void {
    // A failed statement is reported before the server is ready again; only then is its transaction status known. A text
    // that left a transaction open ("BEGIN; ...") must not hand it to the next user of the connection.
    whenReady(client, () => release(!isUsable(client) || !isOutsideTransaction(client)))
  }
}

const deallocate = (client: Pg.PoolClient, name: string, callback: () => void): void => {
  // It fails when the server does not know the name, which is just as well.
  client.query(`DEALLOCATE "${name}"`, () => whenReady(client, callback))
}

const connectError = (cause: Error | undefined): SqlError =>
  new SqlError({ cause: cause ?? new Error("No client returned"), message: "Failed to acquire connection" })
