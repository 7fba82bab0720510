import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Progress } from "./batch.js"
import { cancel } from "./cancel.js"
import type { Connection } from "./connection.js"
import { refuseCopy } from "./copy.js"
import type { Lease, Pool } from "./pool.js"
import { batchSize } from "./stream.js"
import { toWire, unsendable } from "./values.js"

/** A statement in a transaction whose rows are fetched in batches. Between them the connection is free. */
export interface Cursor {
  /** The next rows; none is the end. An interruption cancels the statement. */
  readonly fetch: Effect.Effect<ReadonlyArray<object>, SqlError>
  /** What its last batch was answered with; empty until then. */
  readonly command: string
  /** Lets go of the rows that were not fetched. */
  readonly close: Effect.Effect<void>
}

export class PortalCursor implements Cursor {
  private progress: Progress | undefined

  constructor(
    private readonly pool: Pool,
    private readonly lease: Lease,
    private readonly connection: Effect.Effect<Connection, SqlError>,
    private readonly portal: string,
    private readonly sql: string,
    private readonly params: ReadonlyArray<unknown>
  ) {}

  get command(): string {
    return this.progress?.command ?? ""
  }

  readonly fetch: Effect.Effect<ReadonlyArray<object>, SqlError> = Effect.suspend(() =>
    this.progress?.state === "done" ? Effect.succeed([]) : Effect.flatMap(this.connection, (on) => this.fetchOn(on))
  )

  readonly close: Effect.Effect<void> = Effect.sync(() => {
    const { connection } = this.lease
    if (this.progress?.state === "open" && connection?.isUsable === true) connection.closePortal(this.portal)
  })

  private fetchOn(connection: Connection): Effect.Effect<ReadonlyArray<object>, SqlError> {
    return Effect.async<ReadonlyArray<object>, SqlError>((resume) => {
      let isRunning = true
      try {
        refuseCopy(this.sql)
        this.progress ??= { portal: this.portal, sql: this.sql, values: toWire(this.params), state: "new" }
      } catch (error) {
        return resume(Effect.fail(unsendable(error)))
      }
      this.pool.inFlight++
      connection.fetch(this.progress, batchSize, (error, rows) => {
        this.pool.inFlight--
        isRunning = false
        resume(
          error === undefined ? Effect.succeed(rows) : Effect.fail(this.pool.failed(connection.statementError(error)))
        )
      })
      return Effect.suspend(() => (isRunning ? cancel(connection) : Effect.void))
    })
  }
}
