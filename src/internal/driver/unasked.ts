/** What a server does though nothing asked for it. Thrown while it is read, it ends the connection. */
import { ProtocolViolation } from "../failure.js"

/** A row has to have the columns that were described: none of them, where nothing was. */
export const checkColumns = (row: ReadonlyArray<unknown>, described: ReadonlyArray<unknown>): void => {
  if (row.length !== described.length) {
    throw new ProtocolViolation(`The server has sent rows of ${row.length} columns, not ${described.length}`)
  }
}

export const suspendedUnasked = (): Error =>
  new ProtocolViolation("The server keeps rows back, though it was asked for all of them")

export const copyUnasked = (): Error =>
  new ProtocolViolation("The server copies data, though it was asked for its position")
