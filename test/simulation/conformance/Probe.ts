/**
 * A connection below the library: the driver connects and logs in, then every message is sent as it is given, and every answer
 * is one line of text.
 */

import type { EventEmitter } from "node:events"
import { Effect } from "effect"
import { Client } from "pg"

export interface Address {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly password: string
  /** What the driver has instead of a socket. */
  readonly stream?: unknown
  readonly application_name?: string
  readonly options?: string
}

/** What the driver's parser makes of a message of the server. */
type Message = Readonly<Record<string, unknown>> & { readonly name: string }

interface Connection extends EventEmitter {
  readonly stream: { write(bytes: Buffer): void; destroy(): void; end(): void }
}

const textOf = (value: unknown) => (value === null || value === undefined ? "null" : String(value))

/** All that an error, or a notice, says and that is the same wherever the server was built. */
export const reportOf = (fields: Readonly<Record<string, unknown>>): string =>
  [
    `${fields.severity} ${fields.code} ${fields.routine}: ${fields.message}`,
    ...["detail", "hint", "position", "schema", "table", "column", "constraint"].flatMap((name) =>
      fields[name] === undefined ? [] : [`${name}: ${fields[name]}`]
    )
  ].join("; ")

const lineOf = (message: Message): string => {
  const { name } = message
  switch (name) {
    case "rowDescription": {
      const fields = message.fields as ReadonlyArray<{
        name: string
        dataTypeID: number
        dataTypeSize: number
        format: string
      }>
      return `row ${fields.map((field) => `${field.name}:${field.dataTypeID}/${field.dataTypeSize}/${field.format}`).join(" ")}`
    }
    case "dataRow":
      return `data ${(message.fields as ReadonlyArray<unknown>).map(textOf).join(" | ")}`
    case "commandComplete":
      return `complete ${message.text}`
    case "readyForQuery":
      return `ready ${message.status}`
    case "parameterDescription":
      return `parameters ${(message.dataTypeIDs as ReadonlyArray<number>).join(" ")}`
    case "parameterStatus":
      return `status ${message.parameterName}=${message.parameterValue}`
    case "notification":
      return `notification ${message.channel}=${message.payload}`
    case "error":
    case "notice":
      return `${name} ${reportOf(message)}`
    case "copyData":
      return `copyData ${(message.chunk as Buffer).toString().trimEnd()}`
    default:
      return name
  }
}

const cstring = (text: string) => Buffer.from(`${text}\0`)
const short = (value: number) => Buffer.from([value >> 8, value & 255])
const long = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

const message = (code: string, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from(code), long(body.length + 4), body])
}

/** Messages of a client. */
export const query = (sql: string) => message("Q", cstring(sql))
export const parse = (name: string, sql: string, types: ReadonlyArray<number> = []) =>
  message("P", cstring(name), cstring(sql), short(types.length), ...types.map(long))
export const bind = (portal: string, statement: string, params: ReadonlyArray<string | null> = []) =>
  message(
    "B",
    cstring(portal),
    cstring(statement),
    short(0),
    short(params.length),
    ...params.map((param) =>
      param === null ? long(-1) : Buffer.concat([long(Buffer.byteLength(param)), Buffer.from(param)])
    ),
    short(0)
  )
export const describe = (kind: "S" | "P", name: string) => message("D", Buffer.from(kind), cstring(name))
export const execute = (portal: string, max = 0) => message("E", cstring(portal), long(max))
export const close = (kind: "S" | "P", name: string) => message("C", Buffer.from(kind), cstring(name))
export const sync = message("S")
export const flush = message("H")
export const copyData = (text: string) => message("d", Buffer.from(text))
export const copyDone = message("c")
export const copyFail = (why: string) => message("f", cstring(why))

export class Probe {
  /** What has come and was not asked for yet. */
  private lines: Array<string> = []
  private wake: (() => void) | undefined
  private isClosed = false

  private constructor(
    private readonly client: Client,
    private readonly connection: Connection,
    /** What the server has said of itself at the start. */
    readonly statuses: ReadonlyMap<string, string>
  ) {
    // The driver has done its part.
    for (const name of [
      "readyForQuery",
      "rowDescription",
      "dataRow",
      "portalSuspended",
      "emptyQuery",
      "commandComplete"
    ])
      connection.removeAllListeners(name)
    for (const name of ["parseComplete", "copyInResponse", "copyData", "notification", "errorMessage", "notice"])
      connection.removeAllListeners(name)
    for (const name of ["error", "end", "drain"]) connection.removeAllListeners(name)
    connection.on("message", (message: Message) => this.add(lineOf(message)))
    connection.on("error", () => {})
    connection.on("end", () => {
      this.isClosed = true
      this.add("closed")
    })
  }

  static async connect(address: Address): Promise<Probe> {
    const client = new Client(address as never)
    const { connection } = client as unknown as { readonly connection: Connection }
    const statuses = new Map<string, string>()
    connection.on("parameterStatus", ({ parameterName, parameterValue }: Message) =>
      statuses.set(String(parameterName), String(parameterValue))
    )
    client.on("error", () => {})
    await client.connect()
    return new Probe(client, connection, statuses)
  }

  get pid(): number {
    return (this.client as unknown as { readonly processID: number }).processID
  }

  get key(): number {
    return (this.client as unknown as { readonly secretKey: number }).secretKey
  }

  private add(line: string): void {
    this.lines.push(line)
    this.wake?.()
  }

  send(...messages: ReadonlyArray<Buffer>): void {
    if (!this.isClosed) this.connection.stream.write(Buffer.concat(messages))
  }

  /** The lines that have come up to one that begins so, or to the end of the connection. */
  readonly readTo = (...begins: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>> =>
    Effect.async((resume) => {
      const look = () => {
        const at = this.lines.findIndex((line) => line === "closed" || begins.some((begin) => line.startsWith(begin)))
        if (at < 0) return
        this.wake = undefined
        resume(Effect.succeed(this.lines.splice(0, at + 1)))
      }
      this.wake = look
      look()
    })

  /** The lines up to the server's being ready again. */
  readonly answer = this.readTo("ready")

  /** Sends, and reads the answer. */
  readonly ask = (...messages: ReadonlyArray<Buffer>) =>
    Effect.suspend(() => {
      this.send(...messages)
      return this.answer
    })

  readonly simple = (sql: string) => this.ask(query(sql))

  /** A statement by the extended protocol, unnamed. */
  readonly run = (sql: string, ...params: ReadonlyArray<string | null>) =>
    this.ask(parse("", sql), bind("", "", params), describe("P", ""), execute(""), sync)

  /** The values of the rows, and nothing else. */
  readonly values = (sql: string) =>
    Effect.map(this.simple(sql), (lines) =>
      lines.flatMap((line) => (line.startsWith("data ") ? [line.slice(5)] : line.startsWith("error") ? [line] : []))
    )

  /** What has come, and nothing was asked: waits until that many lines are there. */
  readonly read = (count: number): Effect.Effect<ReadonlyArray<string>> =>
    Effect.async((resume) => {
      const look = () => {
        if (this.lines.length < count) return
        this.wake = undefined
        resume(Effect.succeed(this.lines.splice(0, count)))
      }
      this.wake = look
      look()
    })

  close(): void {
    if (this.isClosed) return
    this.connection.stream.write(message("X"))
    this.connection.stream.end()
  }
}
