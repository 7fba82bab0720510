/**
 * A PostgreSQL in this process that knows just enough SQL to tell what was committed, and answers as late as it is told to.
 */
import * as Net from "node:net"
import { Effect, type Scope } from "effect"

/** How long a statement works, and how long its answer is on its way, in milliseconds. `Infinity`: for ever. */
export interface Delay {
  readonly work: number
  readonly answer: number
}

export interface Server {
  readonly port: number
  /** How late a statement is. */
  delayOf: (sql: string) => Delay
  /** How long a request to cancel is on its way, and a new connection. */
  cancelDelay: number
  connectDelay: number
  /** Whether its connection is cut when a statement has arrived, or when it has been carried out. */
  cutOf: (sql: string) => "before" | "after" | undefined
  /** Hears of every statement that arrives. */
  onStatement: (sql: string) => void
  /** The keys whose INSERT is committed. */
  readonly committed: ReadonlySet<string>
  /** Connections in an open transaction, and statements that are worked on, of connections that are not closed. */
  readonly open: () => number
  readonly connections: () => number
  /** Whether it works on nothing that will ever end. */
  readonly isQuiet: () => boolean
}

const int16 = (value: number) => {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(value)
  return bytes
}
const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
const text = (value: string) => Buffer.from(`${value}\0`)
const message = (type: string, ...parts: ReadonlyArray<Buffer>) => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}
const described = (columns: ReadonlyArray<string>) =>
  message(
    "T",
    int16(columns.length),
    ...columns.map((name) => Buffer.concat([text(name), int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)]))
  )
const rowOf = (values: ReadonlyArray<string>) =>
  message(
    "D",
    int16(values.length),
    ...values.map((value) => Buffer.concat([int32(Buffer.byteLength(value)), Buffer.from(value)]))
  )
const errorOf = (code: string, said: string) =>
  message("E", text("SERROR"), text("VERROR"), text(`C${code}`), text(`M${said}`), Buffer.from([0]))
const command = (tag: string) => message("C", text(tag))
const notification = (channel: string, payload: string) => message("A", int32(0), text(channel), text(payload))

/** How long after its LISTEN a channel has news, in milliseconds. */
const newsAfter = 2

const catalog = JSON.stringify({
  version: 180_004,
  standardStrings: true,
  volatileBuiltins: [],
  functions: {},
  relations: { public: { reads: ["t"], others: {} } },
  types: {},
  operators: {},
  attributes: {}
})

class Refused extends Error {
  constructor(
    readonly code: string,
    said: string
  ) {
    super(said)
  }
}

interface Answer {
  readonly columns: ReadonlyArray<string> | undefined
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  readonly tag: string
}

const said = (tag: string): Answer => ({ columns: undefined, rows: [], tag })
const rowsOf = (columns: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): Answer => ({
  columns,
  rows,
  tag: `SELECT ${rows.length}`
})

/** How many rows a statement has whose text says `many`. */
const many = 300

/** One session of the server: what SQL does to it. */
class Session {
  status: "I" | "T" | "E" = "I"
  private frames: Array<{ readonly name: string; readonly keys: Array<string> }> = []

  constructor(private readonly committed: Set<string>) {}

  columnsOf(sql: string): ReadonlyArray<string> | undefined {
    return /^\s*(?:select|with|show|values)/i.test(sql) ? (/^\s*select where/i.test(sql) ? [] : ["a"]) : undefined
  }

  abort(): void {
    this.status = "I"
    this.frames = []
  }

  fail(): void {
    if (this.status === "T") this.status = "E"
  }

  run(sql: string): Answer {
    const [word = "", name = ""] = sql
      .trim()
      .replace(/\b(?:TO )?SAVEPOINT /g, "")
      .replace("ROLLBACK TO ", "UNDO ")
      .split(/\s+/)
    switch (word.toUpperCase()) {
      case "COMMIT": {
        const tag = this.status === "E" ? "ROLLBACK" : "COMMIT"
        if (this.status === "T") for (const { keys } of this.frames) for (const key of keys) this.committed.add(key)
        this.abort()
        return said(tag)
      }
      case "ROLLBACK":
        if (!/^\s*ROLLBACK TO/i.test(sql)) {
          this.abort()
          return said("ROLLBACK")
        }
        return this.undo(name)
      case "UNDO":
        return this.undo(name)
      default:
    }
    if (this.status === "E") throw new Refused("25P02", "current transaction is aborted")
    if (/^\s*SAVEPOINT/i.test(sql)) {
      this.frames.push({ name: sql.trim().split(/\s+/)[1]!, keys: [] })
      return said("SAVEPOINT")
    }
    switch (word.toUpperCase()) {
      case "BEGIN":
        this.status = "T"
        this.frames = [{ name: "", keys: [] }]
        return said("BEGIN")
      case "RELEASE": {
        const index = this.indexOf(name)
        const released = this.frames.splice(index)
        this.frames[index - 1]!.keys.push(...released.flatMap(({ keys }) => keys))
        return said("RELEASE")
      }
      case "INSERT": {
        const key = /'([^']*)'/.exec(sql)![1]!
        if (this.status === "I") this.committed.add(key)
        else this.frames.at(-1)!.keys.push(key)
        return said("INSERT 0 1")
      }
      default:
    }
    if (sql.includes("json_build_object")) return rowsOf(["a"], [[catalog]])
    if (sql.includes("1/0")) throw new Refused("22012", "division by zero")
    if (/^\s*select where/i.test(sql)) return rowsOf([], this.frames.some(({ keys }) => keys.length > 0) ? [] : [[]])
    return this.columnsOf(sql) === undefined
      ? said(word.toUpperCase())
      : rowsOf(
          ["a"],
          Array.from({ length: sql.includes("many") ? many : 1 }, (_, i) => [String(i)])
        )
  }

  private undo(name: string): Answer {
    const index = this.indexOf(name)
    this.frames.splice(index)
    this.frames.push({ name, keys: [] })
    this.status = "T"
    return said("ROLLBACK")
  }

  private indexOf(name: string): number {
    const index = this.frames.findLastIndex((frame) => frame.name === name)
    if (this.status === "I" || index < 1) {
      this.fail()
      throw new Refused("3B001", `savepoint "${name}" does not exist`)
    }
    return index
  }
}

interface Portal {
  readonly sql: string
  answer: Answer | undefined
  offset: number
}

/** One connection. */
class Backend {
  private readonly session: Session
  private readonly statements = new Map<string, string>()
  private readonly portals = new Map<string, Portal>()
  private out: Array<Buffer> = []
  private isSkipping = false
  private interrupt: (() => void) | undefined
  isWorking = false
  /** Whether it works on what never ends. */
  isStuck = false
  isClosed = false
  private queue = Promise.resolve()
  pending = 0

  constructor(
    private readonly socket: Net.Socket,
    private readonly server: Server,
    committed: Set<string>
  ) {
    this.session = new Session(committed)
  }

  get isOpen(): boolean {
    return this.session.status !== "I" || this.isWorking
  }

  cancel(): void {
    this.interrupt?.()
  }

  receive(type: string, body: Buffer): void {
    this.pending++
    this.queue = this.queue.then(async () => {
      await this.handle(type, body)
      this.pending--
    })
  }

  /** What it has received it still does; then its transaction is rolled back. */
  closed(): void {
    this.isClosed = true
    void this.queue.then(() => this.session.abort())
  }

  private tell(channel: string): void {
    if (!this.socket.destroyed) this.socket.write(notification(channel, "news"))
  }

  private flush(): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(this.out))
    this.out = []
  }

  private async handle(type: string, body: Buffer): Promise<void> {
    if (type === "X") {
      this.socket.end()
      return
    }
    if (type === "S") {
      this.isSkipping = false
      this.out.push(message("Z", Buffer.from(this.session.status)))
      this.flush()
      return
    }
    if (type === "H") return this.flush()
    if (this.isSkipping) return
    const strings = body.toString("utf8").split("\0")
    switch (type) {
      case "Q": {
        const whole = strings[0]!
        for (const sql of whole.includes("json_build_object") ? [whole] : whole.split(";")) {
          try {
            const answer = await this.run(sql)
            if (answer.columns !== undefined) this.out.push(described(answer.columns), ...answer.rows.map(rowOf))
            this.out.push(command(answer.tag))
          } catch (error) {
            this.refuse(error)
            break
          }
        }
        this.out.push(message("Z", Buffer.from(this.session.status)))
        return this.flush()
      }
      case "P":
        this.statements.set(strings[0]!, strings[1]!)
        this.out.push(message("1"))
        return
      case "B":
        this.portals.set(strings[0]!, { sql: this.statements.get(strings[1]!) ?? "", answer: undefined, offset: 0 })
        this.out.push(message("2"))
        return
      case "D": {
        const name = strings[0]!.slice(1)
        const isStatement = strings[0]!.startsWith("S")
        const sql = (isStatement ? this.statements.get(name) : this.portals.get(name)?.sql) ?? ""
        const columns = this.session.columnsOf(sql)
        if (isStatement) {
          const count = Math.max(0, ...[...sql.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n)))
          this.out.push(message("t", int16(count), ...Array.from({ length: count }, () => int32(25))))
        }
        this.out.push(columns === undefined ? message("n") : described(columns))
        return
      }
      case "C":
        this.out.push(message("3"))
        return
      case "E":
        return this.execute(this.portals.get(strings[0]!), body.readInt32BE(body.length - 4))
      default:
    }
  }

  private async execute(portal: Portal | undefined, max: number): Promise<void> {
    try {
      if (portal === undefined) throw new Refused("34000", "portal does not exist")
      portal.answer ??= await this.run(portal.sql)
      const { rows, tag } = portal.answer
      const end = max === 0 ? rows.length : portal.offset + max
      this.out.push(...rows.slice(portal.offset, end).map(rowOf))
      portal.offset = end
      this.out.push(end < rows.length ? message("s") : command(tag))
    } catch (error) {
      this.refuse(error)
      this.isSkipping = true
    }
  }

  private refuse(error: unknown): void {
    if (!(error instanceof Refused)) throw error
    this.session.fail()
    this.out.push(errorOf(error.code, error.message))
  }

  private async run(sql: string): Promise<Answer> {
    const { answer, work } = this.server.delayOf(sql)
    const cut = this.server.cutOf(sql)
    this.server.onStatement(sql)
    if (cut === "before") {
      this.socket.destroy()
      throw new Refused("57P01", "cut")
    }
    this.isWorking = true
    this.isStuck = work === Number.POSITIVE_INFINITY
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = work === 0 ? undefined : setTimeout(resolve, Math.min(work, 2 ** 30))
        if (work === 0) resolve()
        this.interrupt = () => {
          clearTimeout(timer)
          reject(new Refused("57014", "canceling statement due to user request"))
        }
      })
    } finally {
      this.interrupt = undefined
      this.isStuck = false
      this.isWorking = false
    }
    const result = this.session.run(sql)
    if (cut === "after") this.socket.destroy()
    const channel = /^LISTEN "(.*)"/.exec(sql)?.[1]
    if (channel !== undefined) setTimeout(() => this.tell(channel), newsAfter).unref()
    this.isStuck = answer === Number.POSITIVE_INFINITY
    if (answer > 0) await new Promise<void>((resolve) => void setTimeout(resolve, Math.min(answer, 2 ** 30)).unref())
    this.isStuck = false
    return result
  }
}

/** Listens on the loopback interface until the scope closes. */
export const make: Effect.Effect<Server, never, Scope.Scope> = Effect.acquireRelease(
  Effect.async<readonly [Net.Server, Server, Set<Net.Socket>]>((resume) => {
    const backends = new Map<number, Backend>()
    const sockets = new Set<Net.Socket>()
    const committed = new Set<string>()
    let pids = 0
    const listening = Net.createServer((socket) => {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on("error", () => {})
      let rest: Buffer = Buffer.alloc(0)
      let backend: Backend | undefined
      socket.on("close", () => {
        sockets.delete(socket)
        backend?.closed()
      })
      const greet = () => {
        const pid = ++pids
        backend = new Backend(socket, server, committed)
        backends.set(pid, backend)
        setTimeout(
          () => {
            if (socket.destroyed) return
            socket.write(
              Buffer.concat([
                message("R", int32(0)),
                message("S", text("server_version"), text("18.4")),
                message("S", text("client_encoding"), text("UTF8")),
                message("K", int32(pid), int32(7)),
                message("Z", Buffer.from("I"))
              ])
            )
          },
          Math.min(server.connectDelay, 2 ** 30)
        ).unref()
      }
      socket.on("data", (chunk) => {
        rest = Buffer.concat([rest, chunk])
        for (;;) {
          if (backend === undefined) {
            if (rest.length < 8 || rest.length < rest.readInt32BE(0)) return
            const code = rest.readInt32BE(4)
            if (code === 80_877_102) {
              const pid = rest.readInt32BE(8)
              setTimeout(
                () => {
                  backends.get(pid)?.cancel()
                  socket.end()
                },
                Math.min(server.cancelDelay, 2 ** 30)
              ).unref()
              return
            }
            rest = rest.subarray(rest.readInt32BE(0))
            greet()
          } else {
            if (rest.length < 5 || rest.length < rest.readInt32BE(1) + 1) return
            const length = rest.readInt32BE(1) + 1
            backend.receive(String.fromCharCode(rest[0]!), rest.subarray(5, length))
            rest = rest.subarray(length)
          }
        }
      })
    })
    const alive = () => [...backends.values()].filter(({ isClosed }) => !isClosed)
    const server: Server = {
      get port() {
        return (listening.address() as Net.AddressInfo).port
      },
      delayOf: () => ({ work: 0, answer: 0 }),
      cancelDelay: 0,
      connectDelay: 0,
      cutOf: () => undefined,
      onStatement: () => {},
      committed,
      open: () => alive().filter(({ isOpen }) => isOpen).length,
      connections: () => alive().length,
      isQuiet: () => [...backends.values()].every(({ isStuck, pending }) => pending === 0 || isStuck)
    }
    listening.listen(0, "127.0.0.1", () => resume(Effect.succeed([listening, server, sockets])))
  }),
  ([listening, , sockets]) =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
      listening.close()
    })
).pipe(Effect.map(([, server]) => server))
