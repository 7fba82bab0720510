import type * as Pg from "pg"
import { RowReader } from "./rows.js"

/** What the driver's connection understands. Its type declarations ask for more than it reads. */
interface Wire {
  parse(message: { readonly text: string }): void
  bind(message: { readonly portal: string; readonly values: ReadonlyArray<unknown> }): void
  describe(message: { readonly type: "P"; readonly name: string }): void
  execute(message: { readonly portal: string; readonly rows: number }): void
  sync(): void
}

/** A statement of which batches of rows are fetched, and how far that is. */
export interface Progress {
  readonly portal: string
  readonly sql: string
  readonly values: ReadonlyArray<unknown>
  state: "new" | "open" | "done"
  /** The first word of the tag that it was answered with in the end; none until then. */
  command?: string
}

/**
 * One batch of rows, for `client.query`. In a transaction the server keeps a named portal from one batch to the next,
 * whatever runs in between, and unlike a cursor of SQL's it may belong to any statement.
 */
export class Batch extends RowReader {
  private isAnswered = false

  constructor(
    private readonly progress: Progress,
    private readonly size: number,
    private readonly callback: (error: Error | undefined, rows: ReadonlyArray<object>) => void
  ) {
    super()
  }

  get text(): string {
    return this.progress.sql
  }

  submit(connection: Pg.Connection): void {
    const wire = connection as unknown as Wire
    const { portal, sql, state, values } = this.progress
    if (state === "new") {
      wire.parse({ text: sql })
      wire.bind({ portal, values })
      this.progress.state = "open"
    }
    wire.describe({ type: "P", name: portal })
    wire.execute({ portal, rows: this.size })
    wire.sync()
  }

  handlePortalSuspended(): void {}

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.progress.state = "done"
    this.progress.command = text.split(" ", 1)[0]!
  }

  handleEmptyQuery(): void {
    this.progress.state = "done"
  }

  handleError(error: Error): void {
    // The driver's own time limit (`query_timeout`) passes for a batch that has long ended too.
    if (this.isAnswered) return
    this.progress.state = "done"
    this.answer(error, [])
  }

  handleReadyForQuery(): void {
    this.answer(this.failure, this.rows)
  }

  private answer(error: Error | undefined, rows: ReadonlyArray<object>): void {
    if (this.isAnswered) return
    this.isAnswered = true
    this.callback(error, rows)
  }
}
