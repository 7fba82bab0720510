import type { Duplex } from "node:stream"
import { suspendedUnasked } from "./unasked.js"

/**
 * A question of the router's own behind a statement, of one row at most. For the driver, which calls the methods `submit` and
 * `handle...`.
 */
export abstract class OwnQuestion<A> {
  protected row: ReadonlyArray<string | null> | undefined
  private isSent = false
  private isAnswered = false

  protected abstract write(stream: Pick<Duplex, "write">): void

  /** Is called once. */
  protected abstract answered(answer: A): void

  abstract handleError(error: Error): void

  abstract handleReadyForQuery(): void

  /** Sends it now. The driver has just sent a statement, and takes the answers in that order. */
  send(stream: Pick<Duplex, "writable" | "write">): void {
    this.isSent = true
    if (stream.writable) this.write(stream)
  }

  submit(connection: { readonly stream: Duplex }): void {
    if (!this.isSent) this.send(connection.stream)
  }

  handleDataRow({ fields }: { readonly fields: ReadonlyArray<string | null> }): void {
    this.row = fields
  }

  handleRowDescription(): void {}

  handleCommandComplete(): void {}

  handleEmptyQuery(): void {}

  handlePortalSuspended(): void {
    throw suspendedUnasked()
  }

  protected answer(answer: A): void {
    if (this.isAnswered) return
    this.isAnswered = true
    this.answered(answer)
  }
}
