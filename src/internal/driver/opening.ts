import * as messages from "./messages.js"

/** There are as many as there are options of BEGIN. */
const all = new Map<string, Buffer>()

const bytesOf = (sql: string): Buffer => {
  let bytes = all.get(sql)
  if (bytes === undefined) {
    bytes = Buffer.concat([messages.parse("", sql), messages.run(""), messages.flush])
    all.set(sql, bytes)
  }
  return bytes
}

/**
 * The BEGIN of a transaction, which goes out in front of its first statement, in the same packet. There is no Sync between
 * the two: when BEGIN fails, the server passes over the statement. With Flush it says at once that it has begun, however
 * long the statement takes.
 */
export class Opening {
  readonly bytes: Buffer
  /** Whether the server has begun the transaction. */
  isDone = false

  constructor(readonly sql: string) {
    this.bytes = bytesOf(sql)
  }
}
