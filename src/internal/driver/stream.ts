import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Pg from "pg"
import Cursor from "pg-cursor"
import { destroy, isUsable, statementError, whenReady } from "./client.js"
import type { Pool } from "./pool.js"

/** Rows that are fetched at a time, as `@effect/sql-pg` does. */
export const batchSize = 128

const closeTimeout = Duration.seconds(5)

/** A cursor and whether it has failed: then the driver has closed it already, and would wait for that to be answered twice. */
interface Open {
  readonly cursor: Cursor<object>
  failed: boolean
}

const close = (client: Pg.PoolClient, open: Open): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const done = () => {
      client.off("end", done)
      client.off("error", done)
      resume(Effect.void)
    }
    if (open.failed || !isUsable(client)) {
      return whenReady(client, done)
    }
    // The driver calls back when the server is ready, which it never is once the connection has ended.
    client.once("end", done)
    client.once("error", done)
    open.cursor.close(done)
  }).pipe(
    Effect.interruptible,
    Effect.timeoutOption(closeTimeout),
    Effect.tap((closed) => (closed._tag === "None" ? Effect.sync(() => destroy(client)) : Effect.void)),
    Effect.asVoid
  )

/**
 * The rows of a statement, read as they are consumed, from a connection that is the stream's own for as long as it runs.
 * An interruption while rows are fetched cancels the statement.
 */
export const rows = (
  pool: Pool,
  connection: Effect.Effect<Pg.PoolClient, SqlError, Scope.Scope>,
  sql: string,
  params: ReadonlyArray<unknown>
): Stream.Stream<object, SqlError> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const client = yield* connection
      const open = yield* Effect.acquireRelease(
        Effect.try({
          try: (): Open => ({ cursor: client.query(new Cursor<object>(sql, params as Array<unknown>)), failed: false }),
          catch: (cause) => new SqlError({ cause, message: "Failed to execute statement" })
        }),
        (open) => close(client, open)
      )
      const pull = Effect.async<Chunk.Chunk<object>, Option.Option<SqlError>>((resume) => {
        open.cursor.read(batchSize, (error, batch) => {
          if (error) {
            open.failed = true
            resume(Effect.fail(Option.some(statementError(client, error))))
          } else {
            resume(batch.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(batch)))
          }
        })
        return pool.cancelOn(client)
      })
      return Stream.repeatEffectChunkOption(pull)
    })
  )
