/** PostgreSQL's wire protocol 3.0 from the server's side. */
import type { PgError } from "./PgError.js"
import { type Field, oidOf, sizeOf } from "./Value.js"

export type Message =
  | { readonly _tag: "ssl" }
  | { readonly _tag: "cancel"; readonly pid: number; readonly key: number }
  | { readonly _tag: "startup"; readonly parameters: Readonly<Record<string, string>> }
  | { readonly _tag: "password"; readonly body: Buffer }
  | { readonly _tag: "query"; readonly sql: string }
  | {
      readonly _tag: "parse"
      readonly name: string
      readonly sql: string
      /** The numbers of the types that the client knows; 0 for one that it leaves to the server. */
      readonly types: ReadonlyArray<number>
    }
  | {
      readonly _tag: "bind"
      readonly portal: string
      readonly statement: string
      readonly params: ReadonlyArray<string | null>
    }
  | { readonly _tag: "describe" | "close"; readonly kind: "S" | "P"; readonly name: string }
  | { readonly _tag: "execute"; readonly portal: string; readonly max: number }
  | { readonly _tag: "copyData"; readonly text: string }
  | { readonly _tag: "copyFail"; readonly why: string }
  | { readonly _tag: "sync" | "flush" | "terminate" | "copyDone" | "gone" }

class Reader {
  at = 0

  constructor(readonly bytes: Buffer) {}

  text(): string {
    const end = this.bytes.indexOf(0, this.at)
    const value = this.bytes.toString("utf8", this.at, end)
    this.at = end + 1
    return value
  }

  short(): number {
    this.at += 2
    return this.bytes.readInt16BE(this.at - 2)
  }

  long(): number {
    this.at += 4
    return this.bytes.readInt32BE(this.at - 4)
  }

  value(): string | null {
    const length = this.long()
    if (length < 0) return null
    this.at += length
    return this.bytes.toString("utf8", this.at - length, this.at)
  }
}

const sslRequest = 80877103
const cancelRequest = 80877102

/** Turns bytes into messages, whatever pieces they come in. */
export class Frontend {
  private left: Buffer = Buffer.alloc(0)
  private isStarted = false

  read(bytes: Buffer): ReadonlyArray<Message> {
    this.left = this.left.length === 0 ? bytes : Buffer.concat([this.left, bytes])
    const messages: Array<Message> = []
    while (true) {
      const header = this.isStarted ? 5 : 4
      if (this.left.length < header) return messages
      const size = this.left.readInt32BE(header - 4) + header - 4
      if (this.left.length < size) return messages
      const body = this.left.subarray(header, size)
      const code = this.left[0]!
      this.left = this.left.subarray(size)
      messages.push(this.isStarted ? decode(String.fromCharCode(code), body) : this.first(body))
    }
  }

  private first(body: Buffer): Message {
    const reader = new Reader(body)
    const code = reader.long()
    if (code === sslRequest) return { _tag: "ssl" }
    if (code === cancelRequest) return { _tag: "cancel", pid: reader.long(), key: reader.long() }
    this.isStarted = true
    const parameters: Record<string, string> = {}
    for (let name = reader.text(); name !== ""; name = reader.text()) parameters[name] = reader.text()
    return { _tag: "startup", parameters }
  }
}

const decode = (code: string, body: Buffer): Message => {
  const reader = new Reader(body)
  switch (code) {
    case "Q":
      return { _tag: "query", sql: reader.text() }
    case "P":
      return {
        _tag: "parse",
        name: reader.text(),
        sql: reader.text(),
        types: Array.from({ length: reader.short() }, () => reader.long())
      }
    case "B": {
      const portal = reader.text()
      const statement = reader.text()
      for (let formats = reader.short(); formats > 0; formats--) reader.short()
      const params: Array<string | null> = []
      for (let count = reader.short(); count > 0; count--) params.push(reader.value())
      return { _tag: "bind", portal, statement, params }
    }
    case "D":
    case "C": {
      const kind = body[0] === 83 ? "S" : "P"
      reader.at = 1
      return { _tag: code === "D" ? "describe" : "close", kind, name: reader.text() }
    }
    case "E":
      return { _tag: "execute", portal: reader.text(), max: reader.long() }
    case "S":
      return { _tag: "sync" }
    case "H":
      return { _tag: "flush" }
    case "X":
      return { _tag: "terminate" }
    case "p":
      return { _tag: "password", body }
    case "d":
      return { _tag: "copyData", text: body.toString("utf8") }
    case "c":
      return { _tag: "copyDone" }
    case "f":
      return { _tag: "copyFail", why: reader.text() }
    default:
      throw new Error(`A message of type ${code}`)
  }
}

const message = (code: string, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const size = parts.reduce((sum, part) => sum + part.length, 4)
  const header = Buffer.alloc(5)
  header.write(code, 0, "latin1")
  header.writeInt32BE(size, 1)
  return Buffer.concat([header, ...parts])
}

const cstring = (text: string) => Buffer.from(`${text}\0`)

const long = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

const short = (value: number) => {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(value)
  return bytes
}

export const authentication = (code: number, body: string | Buffer = ""): Buffer =>
  message("R", long(code), typeof body === "string" ? Buffer.from(body) : body)

export const parameterStatus = (name: string, value: string): Buffer => message("S", cstring(name), cstring(value))

export const backendKey = (pid: number, key: number): Buffer => message("K", long(pid), long(key))

const readies = new Map(["I", "T", "E"].map((status) => [status, message("Z", Buffer.from(status))]))

export const readyForQuery = (status: "I" | "T" | "E"): Buffer => readies.get(status)!

export const parseComplete = message("1")
export const bindComplete = message("2")
export const closeComplete = message("3")
export const noData = message("n")
export const emptyQuery = message("I")
export const portalSuspended = message("s")
const columnsOf = (count: number) => [Buffer.from([0]), short(count), ...Array.from({ length: count }, () => short(0))]
export const copyIn = (columns: number): Buffer => message("G", ...columnsOf(columns))
export const copyOut = (columns: number): Buffer => message("H", ...columnsOf(columns))
export const copyData = (text: string): Buffer => message("d", Buffer.from(text))
export const copyDone = message("c")
export const sslRefused = Buffer.from("N")

export const parameterDescription = (types: ReadonlyArray<number>): Buffer =>
  message("t", short(types.length), ...types.map(long))

export const rowDescription = (fields: ReadonlyArray<Field>): Buffer =>
  message(
    "T",
    short(fields.length),
    ...fields.map(({ name, type }) =>
      Buffer.concat([cstring(name), long(0), short(0), long(oidOf(type)), short(sizeOf(type)), long(-1), short(0)])
    )
  )

export const dataRow = (values: ReadonlyArray<string | null>): Buffer =>
  message(
    "D",
    short(values.length),
    ...values.map((value) => {
      if (value === null) return long(-1)
      const bytes = Buffer.from(value)
      return Buffer.concat([long(bytes.length), bytes])
    })
  )

export const commandComplete = (tag: string): Buffer => message("C", cstring(tag))

export const report = (error: PgError): Buffer => {
  const isNotice = error.severity === "WARNING" || error.severity === "NOTICE"
  const { column, constraint, detail, hint, position, schema, table } = error.details
  const all = {
    S: error.severity,
    V: error.severity,
    C: error.code,
    M: error.message,
    D: detail,
    H: hint,
    P: position,
    s: schema,
    t: table,
    c: column,
    n: constraint,
    F: "sim.c",
    L: "1",
    R: error.routine
  }
  const fields = Object.entries(all).filter(([, value]) => value !== undefined)
  return message(isNotice ? "N" : "E", ...fields.map(([code, value]) => cstring(`${code}${value}`)), Buffer.from([0]))
}

export const notification = (pid: number, channel: string, payload: string): Buffer =>
  message("A", long(pid), cstring(channel), cstring(payload))
