import type { Duplex } from "node:stream"
import * as messages from "./messages.js"
import { copyUnasked, suspendedUnasked } from "./unasked.js"

/**
 * The types that casts of extensions lead away from without being asked, to one of the same category: where a `text` becomes
 * a `citext`, a comparison with a `text` goes on as one of texts.
 */
const text =
  "SELECT coalesce(string_agg(DISTINCT c.castsource::text, ','), '') FROM pg_catalog.pg_cast c" +
  " JOIN pg_catalog.pg_type s ON s.oid = c.castsource JOIN pg_catalog.pg_type t ON t.oid = c.casttarget" +
  " WHERE c.oid >= 16384 AND c.castcontext <> 'e' AND c.castsource < 16384 AND s.typcategory = t.typcategory"

const bytes = Buffer.concat([messages.parse("", text), messages.run(""), messages.sync])

/** Asks a server for them, behind a statement. For the driver, which calls the methods `submit` and `handle...`. */
export class CastQuestion {
  private types: ReadonlySet<number> | undefined
  private isSent = false
  private isAnswered = false

  /** `answered` is called once, without types if the server did not tell them. */
  constructor(private readonly answered: (types: ReadonlySet<number> | undefined) => void) {}

  /** Sends it now. The driver has just sent a statement, and takes the answers in that order. */
  send(stream: Pick<Duplex, "writable" | "write">): void {
    this.isSent = true
    if (stream.writable) stream.write(bytes)
  }

  submit(connection: { readonly stream: Duplex }): void {
    if (!this.isSent) this.send(connection.stream)
  }

  handleDataRow({ fields }: { readonly fields: ReadonlyArray<string | null> }): void {
    const list = String(fields[0])
    this.types = new Set(list === "" ? [] : list.split(",").map(Number))
  }

  handleRowDescription(): void {}

  handleCommandComplete(): void {}

  handleEmptyQuery(): void {}

  handlePortalSuspended(): void {
    throw suspendedUnasked()
  }

  handleCopyInResponse(): void {
    throw copyUnasked()
  }

  handleError(): void {
    this.answer(undefined)
  }

  handleReadyForQuery(): void {
    this.answer(this.types)
  }

  private answer(types: ReadonlySet<number> | undefined): void {
    if (this.isAnswered) return
    this.isAnswered = true
    this.answered(types)
  }
}
