import { SqlError } from "@effect/sql/SqlError"
import utils from "pg/lib/utils.js"
import * as RouterError from "../../RouterError.js"

/** The protocol counts the values of a statement in two bytes (PostgreSQL's "Message Formats", Bind). */
export const maxValues = 65_535

/** The server ends the connection at a message that is longer (`PQ_LARGE_MESSAGE_LIMIT` in its libpq.h). */
const maxBytes = 0x3ffffffe

/** How many bytes a unit of UTF-16 may take. */
const bytesOfUnit = 3

/** A statement that was not sent, and why: nothing of it can have run. */
export class NotSent extends Error {
  override readonly name = "NotSent"
}

/**
 * Parameters in the form that they are sent in, by the driver's own conversion. Throws when one cannot be converted (a
 * bigint or a cycle in JSON), or all of them cannot be sent: the driver would find that out in the middle of a statement.
 */
export const toWire = (params: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  if (params.length > maxValues) {
    throw new NotSent(
      `A statement takes at most ${maxValues} values, and this one has ${params.length}: pass them as an array ` +
        "(= ANY($1), unnest($1)), or in several statements"
    )
  }
  const values: Array<unknown> = []
  let most = 0
  for (let i = 0; i < params.length; i++) {
    const value = utils.prepareValue(params[i])
    values.push(value)
    if (typeof value === "string") most += value.length * bytesOfUnit
    else if (Buffer.isBuffer(value)) most += value.length
  }
  if (most > maxBytes) checkSize(values)
  return values
}

const checkSize = (values: ReadonlyArray<unknown>): void => {
  let bytes = 0
  for (const value of values) {
    if (typeof value === "string" || Buffer.isBuffer(value)) bytes += Buffer.byteLength(value)
  }
  if (bytes > maxBytes) {
    throw new NotSent(`The values of a statement take at most ${maxBytes} bytes, and these take ${bytes}`)
  }
}

/** The error of a statement that was not sent. */
export const unsendable = (cause: unknown): SqlError =>
  RouterError.isRouterError(cause)
    ? RouterError.toSqlError(cause)
    : new SqlError({ cause, message: "Failed to execute statement" })
