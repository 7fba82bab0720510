import type * as Pg from "pg"
import { RowReader } from "./rows.js"

/** What the driver's connection understands. Its type declarations ask for more than it reads. */
interface Wire {
  parse(message: { readonly text: string }): void
  bind(message: { readonly values: ReadonlyArray<unknown> }): void
  describe(message: { readonly type: "P"; readonly name: "" }): void
  execute(message: { readonly rows: number }): void
  close(message: { readonly type: "P"; readonly name: "" }): void
  flush(): void
  sync(): void
}

type Callback = (error: Error | undefined, rows: ReadonlyArray<object>) => void

/**
 * A statement whose rows are fetched in batches, for `client.query`, which calls the methods `submit` and `handle...`.
 *
 * It sends exactly one Sync, whatever happens and in whatever order, because the server becomes ready once for each: none
 * would leave the connection waiting for ever, and one too many would answer for the statement after it.
 */
export class Portal extends RowReader {
  private wire: Wire | undefined
  private reader: Callback | undefined
  /** Whether the server works on a batch. */
  private isRunning = false
  /** Whether Sync was sent, or will be as soon as anything can be: nothing more can be fetched. */
  private isSynced = false
  /** Whether everything is over, the commit of what the statement did included: the connection may have other work. */
  isDone = false

  constructor(
    readonly text: string,
    private readonly values: ReadonlyArray<unknown>,
    private readonly batchSize: number,
    private readonly onBusy: (busy: boolean) => void
  ) {
    super()
  }

  /** Reads the next batch; an empty one is the end. One read at a time. */
  read(callback: Callback): void {
    this.reader = callback
    if (this.failure !== undefined || this.isDone || (this.isSuspended && this.rows.length > 0)) this.answer()
    else if (this.isSuspended) this.execute()
  }

  /** Ends it. What is being fetched is dropped, and a read that is pending is never answered. */
  close(): void {
    this.reader = undefined
    this.sync()
  }

  submit(connection: Pg.Connection): void {
    const wire = connection as unknown as Wire
    this.wire = wire
    if (this.isSynced) {
      this.end()
      return
    }
    wire.parse({ text: this.text })
    wire.bind({ values: this.values })
    wire.describe({ type: "P", name: "" })
    this.execute()
  }

  handlePortalSuspended(): void {
    this.setRunning(false)
    if (this.failure !== undefined) this.sync()
    this.answer()
  }

  handleCommandComplete(): void {
    // What the statement did is committed by the Sync, which may fail, so the last rows wait for its answer.
    this.sync()
  }

  handleEmptyQuery(): void {
    this.sync()
  }

  handleError(error: Error): void {
    // The driver's own time limit (`query_timeout`) is for the server, not for the consumer of the rows.
    if (error.message === "Query read timeout" && !this.isRunning) return
    this.failure ??= error
    this.setRunning(false)
    this.sync()
    this.answer()
  }

  handleReadyForQuery(): void {
    this.isDone = true
    this.setRunning(false)
    this.answer()
  }

  private get isSuspended(): boolean {
    return this.wire !== undefined && !this.isRunning && !this.isSynced
  }

  private answer(): void {
    const { failure, reader, rows } = this
    if (reader === undefined) return
    this.reader = undefined
    this.rows = []
    reader(failure, rows)
  }

  private execute(): void {
    this.setRunning(true)
    this.wire!.execute({ rows: this.batchSize })
    this.wire!.flush()
  }

  private sync(): void {
    if (this.isSynced) return
    this.isSynced = true
    this.end()
  }

  private end(): void {
    this.wire?.close({ type: "P", name: "" })
    this.wire?.sync()
  }

  private setRunning(running: boolean): void {
    if (running === this.isRunning) return
    this.isRunning = running
    this.onBusy(running)
  }
}
