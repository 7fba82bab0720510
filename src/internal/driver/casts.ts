import type { Duplex } from "node:stream"
import * as messages from "./messages.js"
import { OwnQuestion } from "./ownQuestion.js"

/**
 * The types that casts of extensions lead away from without being asked, to one of the same category: where a `text` becomes
 * a `citext`, a comparison with a `text` goes on as one of texts.
 */
const text =
  "SELECT coalesce(string_agg(DISTINCT c.castsource::text, ','), '') FROM pg_catalog.pg_cast c" +
  " JOIN pg_catalog.pg_type s ON s.oid = c.castsource JOIN pg_catalog.pg_type t ON t.oid = c.casttarget" +
  " WHERE c.oid >= 16384 AND c.castcontext <> 'e' AND c.castsource < 16384 AND s.typcategory = t.typcategory"

const bytes = Buffer.concat([messages.parse("", text), messages.run(""), messages.sync])

/** Asks a server for them, behind a statement. */
export class CastQuestion extends OwnQuestion<ReadonlySet<number> | undefined> {
  /** `answered` is called once, without types if the server did not tell them. */
  constructor(protected readonly answered: (types: ReadonlySet<number> | undefined) => void) {
    super()
  }

  protected write(stream: Pick<Duplex, "write">): void {
    stream.write(bytes)
  }

  handleError(): void {
    this.answer(undefined)
  }

  handleReadyForQuery(): void {
    const list = this.row === undefined ? undefined : String(this.row[0])
    this.answer(list === undefined ? undefined : new Set(list === "" ? [] : list.split(",").map(Number)))
  }
}
