/** COPY through the connection, which no statement here reads from or writes to. */
import * as RouterError from "../../RouterError.js"
import { ProtocolViolation } from "./failure.js"

const word = /\bcopy\b/i
const literals = /'[^']*(?:'|$)|"[^"]*(?:"|$)|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/g
const copying = /(?:^|;)\s*copy\b[^;]*\b(?:from\s+stdin|to\s+stdout)\b/i

/** Refuses a text that copies through the connection, before anything of it is sent. Throws. */
export const refuseCopy = (sql: string): void => {
  if (word.test(sql) && copying.test(sql.replace(literals, " "))) throw RouterError.copyUnsupported()
}

/**
 * What a server does that begins to copy, while it answers a text. Thrown while it is read, it ends the connection: what the text
 * has done is not known.
 */
export const copyBegun = (sql: string | undefined): Error =>
  sql !== undefined && word.test(sql)
    ? new Error("Connection terminated, as COPY through the connection is not supported")
    : new ProtocolViolation("The server copies data, though nothing has asked for it")
