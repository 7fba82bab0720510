import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { cancel } from "./cancel.js"
import type { Connection } from "./connection.js"
import { refuseCopy } from "./copy.js"
import type { Pool } from "./pool.js"
import type { Portal } from "./portal.js"
import { toWire, unsendable } from "./values.js"

/** Rows that are fetched at a time, as `@effect/sql-pg` does. */
export const batchSize = 128

const open = (
  pool: Pool,
  connection: Connection,
  sql: string,
  params: ReadonlyArray<unknown>
): Effect.Effect<Portal, SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        refuseCopy(sql)
        const portal = connection.open(sql, toWire(params), batchSize)
        pool.inFlight++
        return portal
      },
      catch: unsendable
    }),
    (portal) =>
      Effect.suspend(() => {
        pool.inFlight--
        portal.close()
        return portal.isDone ? Effect.void : cancel(connection)
      })
  )

const batches = (pool: Pool, connection: Connection, portal: Portal): Stream.Stream<object, SqlError> =>
  Stream.repeatEffectChunkOption(
    Effect.async<Chunk.Chunk<object>, Option.Option<SqlError>>((resume) => {
      portal.read((error, rows) => {
        if (error !== undefined) {
          connection.whenAnswered(error, () =>
            resume(Effect.fail(Option.some(pool.failed(connection.statementError(error)))))
          )
        } else resume(rows.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(rows)))
      })
      return Effect.suspend(() => {
        portal.close()
        return cancel(connection)
      })
    })
  )

/**
 * The rows of a statement, read as they are consumed, from a connection that is the stream's own for as long as it runs.
 * An interruption while rows are fetched cancels the statement.
 */
export const rows = (
  pool: Pool,
  connection: Effect.Effect<Connection, SqlError, Scope.Scope>,
  sql: string,
  params: ReadonlyArray<unknown>
): Stream.Stream<object, SqlError> =>
  Stream.unwrapScoped(
    Effect.flatMap(connection, (connection) =>
      connection.isUsable
        ? Effect.map(open(pool, connection, sql, params), (portal) => batches(pool, connection, portal))
        : Effect.fail(pool.failed(connection.unsentError))
    )
  )

/** The same on any connection, for a statement that may run elsewhere: until it has rows it fails as soon as the server is
 * known not to answer. */
export const movableRows = (pool: Pool, sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const { connection } = yield* pool.checkout(true)
      const end = pool.onLost((reason) => connection!.fail(reason))
      yield* Effect.addFinalizer(() => Effect.sync(end))
      return Stream.mapChunks(rows(pool, Effect.succeed(connection!), sql, params), (chunk) => {
        end()
        return chunk
      })
    })
  )
