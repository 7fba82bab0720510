import type { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Stream from "effect/Stream"
import type { Leaves } from "../classifier/finding.js"
import * as bounded from "../util/bounded.js"
import { cancel } from "./cancel.js"
import type { Connection } from "./connection.js"
import { type Cursor, PortalCursor } from "./cursor.js"
import type { Opening } from "./opening.js"
import type { Lease, Pool, Request, Result } from "./pool.js"
import { Stale } from "./prepared.js"
import { refused } from "./refused.js"
import { command } from "./run.js"
import { rows } from "./stream.js"

/** Statements at the start of a transaction whose answers the caller does not need. */
const isRepeatable = /^\s*(?:savepoint|set)\b|^SELECT set_config\([^;]*$/i

/**
 * A connection that is checked out for exclusive use: a transaction, or `reserve`. One statement at a time. After the release
 * every use of it fails, because another checkout may have the connection by then.
 */
export class Exclusive {
  /** The statements of its transaction, while all of them can run again; none otherwise. */
  private repeatable: ReadonlyArray<Request> | undefined
  /** The number of cancels of the running statement. */
  private cancels = 0

  /** With an opening it begins a transaction: not at once, but together with the first statement, or right before it. */
  constructor(
    private readonly pool: Pool,
    private readonly lease: Lease,
    private readonly opening?: Opening
  ) {
    if (opening !== undefined) this.repeatable = []
  }

  /** It can run another statement. */
  get isUsable(): boolean {
    return this.lease.connection?.isUsable ?? false
  }

  /** Notes session state that a statement is about to leave behind: it is reset before the next checkout. */
  leave(leaves: Leaves): void {
    this.lease.connection?.traces.note(leaves)
  }

  /** Releases it, if the scope of the checkout has not. */
  get giveBack(): Effect.Effect<void> {
    return this.pool.giveBack(this.lease)
  }

  /** The server has begun the transaction; the answer may not have reached its caller yet. */
  get hasBegun(): boolean {
    return this.opening?.isDone !== false || this.lease.connection?.isOutsideTransaction === false
  }

  /** Whether the transaction that it has begun is no more. Its own COMMIT or ROLLBACK may have ended it, or a text of its user's. */
  get isOver(): boolean {
    const { connection } = this.lease
    return (
      connection?.isOutsideTransaction === true &&
      this.opening?.isDone === true &&
      connection.isReady &&
      connection.isUsable
    )
  }

  /** Waits until the server is ready, which it is when a statement is answered, but not yet when it has failed. */
  readonly settled: Effect.Effect<void> = Effect.suspend(() => {
    const { connection } = this.lease
    if (connection === undefined || connection.isReady) return Effect.void
    return Effect.async<void>((resume) => connection.whenReady(() => resume(Effect.void)))
  })

  /** Has the server begin it now. */
  readonly begun: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (this.hasBegun) return Effect.void
    const begin = command(this.opening!.sql)
    const { cancels } = this
    return Effect.flatMap(this.connection, (connection) =>
      Effect.flatMap(this.pool.queryOn(connection, begin), () => {
        this.opening!.isDone = true
        // What comes next must not be sent behind a cancel that has found nothing left to cancel.
        return this.cancels === cancels ? Effect.void : refused
      })
    )
  })

  /**
   * Runs one statement. An interruption cancels it on the server, and waits until the connection is ready again. The first one
   * of a transaction that turns out to be prepared no more begins it again, and runs without a name.
   */
  query(request: Request): Effect.Effect<Result, SqlError> {
    return Effect.suspend(() => {
      const { lease, pool, repeatable } = this
      const { connection } = lease
      if (connection === undefined) return refused
      if (repeatable === undefined) {
        return this.hasBegun ? pool.queryOn(connection, request) : this.first(connection, request)
      }
      return Effect.matchEffect(this.hasBegun ? pool.queryOn(connection, request) : this.first(connection, request), {
        onFailure: (error) => {
          this.repeatable = undefined
          return error instanceof Stale ? this.again(connection, request, repeatable) : Effect.fail(error)
        },
        onSuccess: (result) => {
          this.repeatable = isRepeatable.test(request.sql) ? [...repeatable, request] : undefined
          return Effect.succeed(result)
        }
      })
    })
  }

  private first(connection: Connection, request: Request): Effect.Effect<Result, SqlError> {
    const { pool } = this
    return pool.takesOpening(request)
      ? pool.queryOn(connection, request, this.opening)
      : Effect.zipRight(this.begun, pool.queryOn(connection, request))
  }

  private again(
    connection: Connection,
    request: Request,
    before: ReadonlyArray<Request>
  ): Effect.Effect<Result, SqlError> {
    const { pool } = this
    const run = (request: Request) => pool.queryOn(connection, { ...request, prepare: false })
    return Effect.zipRight(
      Effect.map(pool.queryOn(connection, command("ROLLBACK")), () => {
        this.opening!.isDone = false
      }),
      Effect.zipRight(
        this.begun,
        Effect.zipRight(
          Effect.forEach(before, run, { discard: true }),
          Effect.suspend(() => run(request))
        )
      )
    )
  }

  /**
   * Runs one statement whose outcome must be known, and never cancels it. An interruption waits up to `limit` for the
   * answer; then the socket is closed.
   */
  finish(request: Request, limit: Duration.Duration): Effect.Effect<Result, SqlError> {
    return Effect.uninterruptible(
      Effect.flatMap(this.inside, (connection) => {
        connection.mustFinish = true
        let exit: Exit.Exit<Result, SqlError> | undefined
        let wake = () => {}
        this.pool.beginOn(connection, request, (error, result) => {
          connection.mustFinish = false
          exit = error === undefined ? Exit.succeed(result!) : Exit.fail(error)
          wake()
        })
        const ended = Effect.async<void>((resume) => {
          if (exit !== undefined) return resume(Effect.void)
          wake = () => resume(Effect.void)
        })
        return Effect.flatMap(bounded.sinceInterruption(ended, limit), ({ state }) => {
          const answer = Effect.suspend(() => exit!)
          // The statement fails as soon as its socket is closed.
          return state === "answered" ? answer : Effect.zipRight(Effect.zipRight(this.destroy, ended), answer)
        })
      })
    )
  }

  /** Cancels what runs, and waits until the connection is ready again. */
  readonly cancel: Effect.Effect<void> = Effect.suspend(() => {
    this.cancels++
    return this.lease.connection === undefined ? Effect.void : cancel(this.lease.connection)
  })

  /** The rows of one statement. No other statement can run until the stream ends. */
  stream(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return rows(this.pool, this.inside, sql, params)
  }

  /**
   * A statement whose rows are fetched batch by batch, with other statements in between: in a transaction only. `portal`
   * is a name that nothing else on the connection has.
   */
  cursor(portal: string, sql: string, params: ReadonlyArray<unknown>): Cursor {
    return new PortalCursor(this.pool, this.lease, this.inside, portal, sql, params)
  }

  /** Closes the socket at once; the pool will replace the connection. */
  readonly destroy: Effect.Effect<void> = Effect.sync(() => this.lease.connection?.destroy())

  /** The connection, once its transaction has begun. */
  private readonly inside: Effect.Effect<Connection, SqlError> = Effect.suspend(() => {
    this.repeatable = undefined
    return this.hasBegun ? this.connection : Effect.zipRight(this.begun, this.connection)
  })

  private readonly connection: Effect.Effect<Connection, SqlError> = Effect.suspend(() =>
    this.lease.connection === undefined ? refused : Effect.succeed(this.lease.connection)
  )
}
