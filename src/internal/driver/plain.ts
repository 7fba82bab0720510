import * as Pg from "pg"
import { checkColumns, suspendedUnasked } from "./unasked.js"

/** What the driver's class has and its type declarations leave out. */
interface Internals {
  readonly _result: { readonly fields: ReadonlyArray<unknown> }
  handleDataRow(message: DataRow): void
}

interface DataRow {
  readonly fields: ReadonlyArray<string | null>
}

const driver = Pg.Query.prototype as unknown as Internals

/** A statement that is not prepared, as the driver runs it. */
export class Plain extends Pg.Query {
  constructor(
    text: string,
    values: ReadonlyArray<unknown>,
    asArrays: boolean,
    callback: (error: Error | null | undefined, result: Pg.QueryResult) => void
  ) {
    super(
      { text, values: values as Array<unknown>, ...(asArrays && { rowMode: "array" }) } as Pg.QueryConfig,
      callback as never
    )
  }

  handleDataRow(message: DataRow): void {
    const internals = this as unknown as Internals
    checkColumns(message.fields, internals._result.fields)
    driver.handleDataRow.call(internals, message)
  }

  /** The driver would ask for the rest, for as long as a server says so. */
  handlePortalSuspended(): void {
    throw suspendedUnasked()
  }
}
