import type { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Stream from "effect/Stream"
import type * as Pg from "pg"
import { destroy, isUsable } from "./client.js"
import type { Pool, Request, Result } from "./pool.js"
import { rows } from "./stream.js"

/** A connection that is checked out for one's own use: a transaction, or `reserve`. One statement at a time. */
export class Exclusive {
  constructor(
    private readonly pool: Pool,
    private readonly client: Pg.PoolClient
  ) {}

  /** Whether it can run another statement. */
  get isUsable(): boolean {
    return isUsable(this.client)
  }

  /** Runs one statement. An interruption cancels it on the server, and waits until the connection is ready again. */
  query(request: Request): Effect.Effect<Result, SqlError> {
    return this.pool.queryOn(this.client, request)
  }

  /**
   * Runs one statement whose outcome must be known, and never cancels it. An interruption waits up to `limit` for the
   * answer; then the socket is closed.
   */
  finish(request: Request, limit: Duration.Duration): Effect.Effect<Result, SqlError> {
    return Effect.uninterruptible(
      Effect.flatMap(Effect.forkDaemon(this.query(request)), (fiber) =>
        Effect.interruptible(Fiber.await(fiber)).pipe(
          Effect.onInterrupt(() =>
            Fiber.await(fiber).pipe(
              Effect.interruptible,
              Effect.timeoutOption(limit),
              Effect.tap((answer) => (answer._tag === "None" ? this.destroy : Effect.void))
            )
          ),
          Effect.exit,
          Effect.zipRight(Fiber.join(fiber))
        )
      )
    )
  }

  /** Cancels what runs, and waits until the connection is ready again. */
  readonly cancel: Effect.Effect<void> = Effect.suspend(() => this.pool.cancelOn(this.client))

  /** The rows of one statement. No other statement can run until the stream ends. */
  stream(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return rows(this.pool, Effect.succeed(this.client), sql, params)
  }

  /** Closes the socket at once; the pool will replace the connection. */
  readonly destroy: Effect.Effect<void> = Effect.sync(() => destroy(this.client))
}
