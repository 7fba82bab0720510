import { SqlError } from "@effect/sql/SqlError"
import utils from "pg/lib/utils.js"

/**
 * Parameters in the form that they are sent in, by the driver's own conversion. Throws when one cannot be converted (a
 * bigint or a cycle in JSON): the driver would find that out in the middle of a statement, and call back twice.
 */
export const toWire = (params: ReadonlyArray<unknown>): ReadonlyArray<unknown> => params.map(utils.prepareValue)

/** The error of a statement whose parameters cannot be converted: it was not sent. */
export const unsendable = (cause: unknown): SqlError => new SqlError({ cause, message: "Failed to execute statement" })
