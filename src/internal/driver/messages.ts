/**
 * Messages of PostgreSQL's protocol that the driver has no methods for, or would write one by one.
 */

const message = (type: string, ...parts: ReadonlyArray<string | number>): Buffer => {
  // A number is one of two bytes, but the last of Execute has four.
  const body = Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.from(`${part}\0`)
      const bytes = Buffer.alloc(type === "E" ? 4 : 2)
      if (type === "E") bytes.writeInt32BE(part)
      else bytes.writeInt16BE(part)
      return bytes
    })
  )
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

/** Forgets a prepared statement, if it is there. */
export const closeStatement = (name: string): Buffer => message("C", `S${name}`)

/** Prepares a statement without parameters. */
export const parse = (name: string, text: string): Buffer => message("P", name, text, 0)

/** Runs a prepared statement without parameters, all results as text, in the unnamed portal. */
export const run = (name: string): Buffer => Buffer.concat([message("B", "", name, 0, 0, 0), execute])

const execute = message("E", "", 0)

/** Has the server send the answers that it has, without ending anything. */
export const flush = message("H")

/** Ends what stands or falls together. */
export const sync = message("S")

/** Runs all that was bound to the unnamed portal. */
export const executeAndSync = Buffer.concat([execute, sync])

const text = 0
const binary = 1

/**
 * Runs a prepared statement with these values, in the unnamed portal, and ends with Sync: one buffer, where the driver writes
 * one for each message. Values are texts, bytes, or nothing for NULL.
 */
export const runWith = (name: string, values: ReadonlyArray<unknown>, isBinary: boolean): Buffer => {
  // Type, length, both names with their ends, three counts, the format of the results.
  let length = 1 + 4 + 1 + name.length + 1 + 2 + 2 + 2 + 2
  for (const value of values) length += 2 + 4 + lengthOf(value)
  const buffer = Buffer.allocUnsafe(length + executeAndSync.length)
  buffer[0] = 0x42
  buffer.writeInt32BE(length - 1, 1)
  buffer[5] = 0
  let at = 6 + buffer.write(name, 6, "latin1")
  buffer[at++] = 0
  at = buffer.writeUInt16BE(values.length, at)
  for (const value of values) at = buffer.writeInt16BE(Buffer.isBuffer(value) ? binary : text, at)
  at = buffer.writeUInt16BE(values.length, at)
  for (const value of values) {
    if (value === null || value === undefined) at = buffer.writeInt32BE(-1, at)
    else if (Buffer.isBuffer(value)) at = buffer.writeInt32BE(value.length, at) + value.copy(buffer, at + 4)
    else {
      const written = buffer.write(value as string, at + 4)
      at = buffer.writeInt32BE(written, at) + written
    }
  }
  at = buffer.writeInt16BE(1, at)
  at = buffer.writeInt16BE(isBinary ? binary : text, at)
  executeAndSync.copy(buffer, at)
  return buffer
}

const lengthOf = (value: unknown): number =>
  value === null || value === undefined ? 0 : Buffer.isBuffer(value) ? value.length : Buffer.byteLength(value as string)
