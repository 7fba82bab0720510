import * as Pg from "pg"
import { suspendedUnasked } from "./unasked.js"

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

  /** The driver would ask for the rest, for as long as a server says so. */
  handlePortalSuspended(): void {
    throw suspendedUnasked()
  }
}
