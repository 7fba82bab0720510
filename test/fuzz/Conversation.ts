/** What a server has said, recorded from a real one, and played to a client again. */
import { Socket } from "node:net"
import { Duplex } from "node:stream"
import { setImmediate, setTimeout } from "node:timers"

/** What a server says when the client has said something that asks for an answer. One that follows from it is a function. */
export type Turn = Buffer | ((said: Buffer) => Buffer)

/** What of the client's messages asks for an answer: Sync, Flush, a query, a password, and the first one of all. */
const asks = new Set(["S", "H", "Q", "p"])

/** Reads what a client says, as far as to know when a server would answer. */
class Listener {
  private rest = Buffer.alloc(0)
  private hasStarted = false

  constructor(private readonly asked: (said: Buffer) => void) {}

  hear(bytes: Buffer): void {
    this.rest = Buffer.concat([this.rest, bytes])
    for (;;) {
      const head = this.hasStarted ? 1 : 0
      if (this.rest.length < head + 4) return
      const length = head + this.rest.readInt32BE(head)
      if (this.rest.length < length) return
      const message = this.rest.subarray(0, length)
      this.rest = this.rest.subarray(length)
      const isAsking = !this.hasStarted || asks.has(String.fromCharCode(message[0]!))
      this.hasStarted = true
      if (isAsking) this.asked(message)
    }
  }
}

/** What the driver does with a socket besides reading and writing. */
class Tuned extends Duplex {
  setNoDelay(): this {
    return this
  }

  setKeepAlive(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }
}

/** A connection to a real server that remembers what the server says, turn by turn. */
export class Recorder extends Tuned {
  private readonly socket = new Socket()
  private readonly listener: Listener

  constructor(turns: Array<Buffer>) {
    super({ allowHalfOpen: false })
    this.listener = new Listener(() => turns.push(Buffer.alloc(0)))
    this.socket.on("connect", () => this.emit("connect"))
    this.socket.on("error", (error) => this.destroy(error))
    this.socket.on("end", () => this.push(null))
    this.socket.on("data", (chunk) => {
      turns[turns.length - 1] = Buffer.concat([turns.at(-1)!, chunk])
      this.push(chunk)
    })
  }

  connect(port: number, host: string): this {
    this.socket.connect(port, host)
    return this
  }

  override _read(): void {}

  override _write(chunk: Buffer, _: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.listener.hear(chunk)
    this.socket.write(chunk, callback)
  }

  override _final(callback: () => void): void {
    this.socket.end(callback)
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.socket.destroy()
    callback(error)
  }
}

/** A connection without a server: it plays a conversation, in pieces, and leaves when the client has nothing more to say. */
export class Replay extends Tuned {
  private readonly listener = new Listener((said) => this.answer(said))
  private turn = 0
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly turns: ReadonlyArray<Turn>,
    /** What becomes of a turn, in how many pieces. */
    private readonly change: (bytes: Buffer, turn: number) => ReadonlyArray<Buffer>,
    /** How long a client may say nothing until the server leaves, in milliseconds. */
    private readonly patience: (turn: number) => number
  ) {
    super({ allowHalfOpen: false })
  }

  connect(): this {
    setImmediate(() => {
      if (!this.destroyed) this.emit("connect")
    })
    this.wait()
    return this
  }

  override _read(): void {}

  override _write(chunk: Buffer, _: BufferEncoding, callback: () => void): void {
    this.listener.hear(chunk)
    callback()
  }

  override _final(callback: () => void): void {
    this.leave()
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    clearTimeout(this.timer)
    callback(error)
  }

  private answer(said: Buffer): void {
    const turn = this.turns[this.turn]
    if (turn === undefined) {
      this.leave()
      return
    }
    const pieces = this.change(typeof turn === "function" ? turn(said) : turn, this.turn++)
    setImmediate(() => {
      for (const piece of pieces) if (!this.readableEnded && !this.destroyed) this.push(piece)
      this.wait()
    })
  }

  private leave(): void {
    if (!this.destroyed) this.push(null)
  }

  private wait(): void {
    clearTimeout(this.timer)
    if (!this.destroyed) this.timer = setTimeout(() => this.leave(), this.patience(this.turn))
  }
}
