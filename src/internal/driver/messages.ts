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

/** Ends what stands or falls together. */
export const sync = message("S")

/** Runs all that was bound to the unnamed portal. */
export const executeAndSync = Buffer.concat([execute, sync])
