/**
 * The network: hosts with links between them, and connections whose bytes take time, may be cut anywhere, and may be lost.
 * A connection keeps the order of its bytes; different ones do not wait for each other.
 */
import { Duplex } from "node:stream"
import type { Chance } from "./Chance.js"
import type { World } from "./World.js"

/** How two hosts reach each other. */
export interface Link {
  /** Milliseconds, one way. */
  latency: number
  jitter: number
  /** What both are without a fault. */
  readonly usual: { readonly latency: number; readonly jitter: number }
  /** Bytes a millisecond. */
  bandwidth: number
  /** `held`: nothing arrives until it heals. `refused`: new connections are, too, at once. */
  state: "up" | "held" | "refused"
  /** When it was not up, in milliseconds; the last time may last. */
  readonly cuts: Array<{ readonly since: number; until: number }>
}

/** One end of a connection, as the server has it. */
export interface ServerEnd {
  /** Bytes from the client. */
  onData: (bytes: Buffer) => void
  /** The client has said that it is done. */
  onEnd: () => void
  /** The connection is gone. */
  onClose: () => void
  send(bytes: Buffer): void
  /** Sends what was sent, then closes. */
  end(): void
  /** Gone at once, and the client hears of it. */
  reset(): void
  /** Gone at once, and the client hears nothing of it until it sends something to a host that is back. */
  vanish(): void
  readonly client: string
  readonly id: number
}

export interface Listener {
  /** `silent`: the packets of the client go nowhere. */
  readonly state: () => "open" | "refusing" | "silent"
  readonly accept: (end: ServerEnd) => void
}

const systemError = (code: string, syscall: string): Error =>
  Object.assign(new Error(`${syscall} ${code}`), { code, syscall, errno: -1 })

/** One direction of a connection. */
class Pipe {
  private busyUntil = 0
  private readonly held: Array<() => void> = []
  private last = 0
  /** How many bytes may still pass; then the connection is reset. */
  budget = Number.POSITIVE_INFINITY

  constructor(
    private readonly network: Network,
    private readonly link: Link,
    private readonly chance: Chance
  ) {}

  /** Runs `arrive` when so many bytes have reached the other side. */
  carry(size: number, arrive: () => void): void {
    const { link, network } = this
    const { world } = network
    const begin = Math.max(world.now, this.busyUntil)
    this.busyUntil = begin + size / link.bandwidth
    const due = Math.max(this.busyUntil + link.latency + this.chance.next() * link.jitter, this.last + 1e-6)
    this.last = due
    world.at(due, () => {
      if (link.state === "up" && this.held.length === 0) arrive()
      else this.held.push(arrive)
    })
  }

  /** What was held back arrives, in its order. */
  release(): void {
    const { world } = this.network
    const waiting = this.held.splice(0)
    const at = Math.max(world.now + this.link.latency, this.last)
    waiting.forEach((arrive, i) => {
      const due = at + (i + 1) * 1e-4
      this.last = due
      world.at(due, arrive)
    })
  }
}

export class Connection {
  state: "connecting" | "open" | "closed" = "connecting"
  /** Its host has vanished, and the client does not know it yet. */
  isForsaken = false
  readonly toServer: Pipe
  readonly toClient: Pipe
  server: ServerEnd | undefined

  constructor(
    readonly network: Network,
    readonly id: number,
    readonly client: string,
    readonly host: string,
    readonly socket: SimSocket,
    link: Link
  ) {
    const chance = network.chance.fork(String(id))
    this.toServer = new Pipe(network, link, chance)
    this.toClient = new Pipe(network, link, chance)
  }

  /** The client's side learns of it now, the server's too. */
  reset(code = "ECONNRESET"): void {
    if (this.state === "closed") return
    this.close()
    this.server?.onClose()
    this.socket.broken(systemError(code, "read"))
  }

  /** Forgets the connection; neither side is told. */
  close(): void {
    this.state = "closed"
    this.network.connections.delete(this)
  }
}

/** What the driver has instead of a socket. */
export class SimSocket extends Duplex {
  connecting = false
  private connection: Connection | undefined
  remoteAddress: string | undefined
  remotePort: number | undefined

  constructor(
    private readonly network: Network,
    private readonly client: string
  ) {
    super({ allowHalfOpen: false, emitClose: true })
  }

  connect(port: number, host: string): this {
    this.connecting = true
    this.remotePort = port
    this.connection = this.network.open(this.client, host, this, () => {
      this.connecting = false
      this.remoteAddress = host
      this.emit("connect")
      this.emit("ready")
      this.uncorkWaiting()
    })
    return this
  }

  setNoDelay(): this {
    return this
  }

  /** After how many milliseconds in which nothing comes TCP asks whether the other end is there. */
  keepAlive: number | undefined

  setKeepAlive(isOn: boolean, delay: number): this {
    this.keepAlive = isOn ? delay : undefined
    return this
  }

  setTimeout(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  /** What has come, and the program has not noticed yet. */
  private readonly unnoticed: Array<() => void> = []

  /** In the order in which it came, though a program that was stalled notices all at one moment. */
  private notice(run: () => void): void {
    this.unnoticed.push(run)
    this.network.notice(() => {
      const first = this.unnoticed.shift()
      if (!this.destroyed) first?.()
    })
  }

  /** The connection has failed. */
  broken(error: Error): void {
    this.notice(() => this.destroy(error))
  }

  /** The other side has ended. */
  ended(): void {
    this.notice(() => this.push(null))
  }

  receive(bytes: Buffer): void {
    this.notice(() => this.push(bytes))
  }

  private waiting: (() => void) | undefined

  private uncorkWaiting(): void {
    const { waiting } = this
    this.waiting = undefined
    waiting?.()
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, callback: (error?: Error | null) => void): void {
    if (this.connecting) {
      this.waiting = () => this._write(chunk, _encoding, callback)
      return
    }
    this.connection?.network.toServer(this.connection, chunk)
    callback()
  }

  override _writev(chunks: Array<{ chunk: Buffer; encoding: string }>, callback: (error?: Error | null) => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), "buffer", callback)
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.connection !== undefined) this.network.endOfClient(this.connection)
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    if (this.connection !== undefined) this.network.closedByClient(this.connection)
    callback(error)
  }
}

export class Network {
  readonly chance: Chance
  readonly connections = new Set<Connection>()
  private readonly listeners = new Map<string, Listener>()
  private readonly links = new Map<string, Link>()
  private ids = 0
  /** Connections that were tried, for the statistics. */
  opened = 0
  /** The most that one host has tried to open to another in one second. */
  busiest = 0
  private readonly lately = new Map<Link, { since: number; count: number }>()

  constructor(readonly world: World) {
    this.chance = world.chance.fork("network")
  }

  /** The driver's option `stream`, for a program on a host. */
  readonly streamOf = (client: string) => (): SimSocket => new SimSocket(this, client)

  listen(host: string, listener: Listener): void {
    this.listeners.set(host, listener)
  }

  link(one: string, other: string): Link {
    const key = one < other ? `${one} ${other}` : `${other} ${one}`
    let link = this.links.get(key)
    if (link === undefined) {
      const chance = this.chance.fork(key)
      const usual = { latency: chance.between(0.1, 0.6), jitter: chance.between(0.05, 0.5) }
      link = { ...usual, usual, bandwidth: 20_000, state: "up", cuts: [] }
      this.links.set(key, link)
    }
    return link
  }

  /** Whether a host has connections left to one that has vanished, which TCP has not noticed yet. */
  isForsaken(client: string, host: string): boolean {
    return [...this.connections].some((one) => one.client === client && one.host === host && one.isForsaken)
  }

  /** Changes how two hosts reach each other. */
  setLink(one: string, other: string, change: Partial<Link>): void {
    const link = this.link(one, other)
    const wasUp = link.state === "up"
    Object.assign(link, change)
    const { now } = this.world
    if (link.state !== "up") {
      if (wasUp) link.cuts.push({ since: now, until: Number.POSITIVE_INFINITY })
      return
    }
    if (!wasUp) link.cuts[link.cuts.length - 1]!.until = now
    for (const connection of this.connections) {
      const { client, host } = connection
      if ((client === one && host === other) || (client === other && host === one)) {
        connection.toServer.release()
        connection.toClient.release()
      }
    }
  }

  /** No connection is cut any more that has not been yet. */
  forgetCuts(): void {
    for (const { toClient, toServer } of this.connections) {
      toClient.budget = Number.POSITIVE_INFINITY
      toServer.budget = Number.POSITIVE_INFINITY
    }
  }

  /** What a program learns of the network, it learns when it is not stalled. */
  notice(run: () => void): void {
    const { world } = this
    const moment = world.noticed(world.now)
    if (moment > world.now) world.at(moment, () => this.notice(run))
    else run()
  }

  open(client: string, host: string, socket: SimSocket, connected: () => void): Connection {
    const { world } = this
    const link = this.link(client, host)
    const connection = new Connection(this, ++this.ids, client, host, socket, link)
    this.connections.add(connection)
    this.opened++
    this.count(link)
    const fail = (code: string) => {
      if (connection.state === "closed") return
      connection.close()
      socket.broken(systemError(code, "connect"))
    }
    const listener = this.listeners.get(host)
    if (listener === undefined) {
      world.after(0.2, () => fail("ENOTFOUND"))
      return connection
    }
    if (link.state === "refused") {
      world.after(0.2, () => fail("ECONNREFUSED"))
      return connection
    }
    // No answer: TCP asks again after 1 s, 3 s, 7 s, ...
    const arrive = (tries: number) => {
      const state = listener.state()
      if (connection.state === "closed") return
      if (state === "silent") {
        if (tries < 6) world.after(1_000 * 2 ** tries, () => connection.toServer.carry(40, () => arrive(tries + 1)))
        return
      }
      if (state === "refusing") {
        connection.toClient.carry(40, () => fail("ECONNREFUSED"))
        return
      }
      const end = this.serverEnd(connection)
      connection.server = end
      listener.accept(end)
      connection.toClient.carry(40, () => {
        if (connection.state === "closed") return
        connection.state = "open"
        this.notice(() => {
          if (!socket.destroyed) connected()
        })
      })
    }
    connection.toServer.carry(40, () => arrive(0))
    return connection
  }

  private count(link: Link): void {
    const { now } = this.world
    let lately = this.lately.get(link)
    if (lately === undefined || now - lately.since >= 1000) {
      lately = { since: now, count: 0 }
      this.lately.set(link, lately)
    }
    this.busiest = Math.max(this.busiest, ++lately.count)
  }

  private serverEnd(connection: Connection): ServerEnd {
    let isGone = false
    const end: ServerEnd = {
      id: connection.id,
      client: connection.client,
      onData: () => {},
      onEnd: () => {},
      onClose: () => {},
      send: (bytes) => {
        if (isGone) return
        this.carry(connection, connection.toClient, bytes, (part) => connection.socket.receive(part))
      },
      end: () => {
        if (isGone) return
        isGone = true
        connection.toClient.carry(1, () => {
          if (connection.state === "closed") return
          connection.close()
          connection.socket.ended()
        })
      },
      reset: () => {
        isGone = true
        connection.toClient.carry(1, () => connection.reset())
      },
      vanish: () => {
        isGone = true
        connection.isForsaken = true
        // What is sent is sent again and again. A host that is back answers with a reset: it does not know the connection.
        let tries = 0
        end.onData = () => {
          if (connection.state === "closed") return
          if (this.listeners.get(connection.host)?.state() !== "silent")
            connection.toClient.carry(1, () => connection.reset())
          else if (++tries > 20) connection.reset("ETIMEDOUT")
          else this.world.after(Math.min(200 * 2 ** tries, 5000), () => end.onData(Buffer.alloc(0)))
        }
        end.onEnd = () => end.onData(Buffer.alloc(0))
        end.onClose = () => {}
        const { keepAlive } = connection.socket
        if (keepAlive !== undefined) this.world.after(keepAlive, () => end.onData(Buffer.alloc(0)))
      }
    }
    return end
  }

  private carry(connection: Connection, pipe: Pipe, bytes: Buffer, arrive: (part: Buffer) => void): void {
    const part = bytes.length > pipe.budget ? bytes.subarray(0, pipe.budget) : bytes
    const isCut = part.length < bytes.length
    pipe.budget -= part.length
    pipe.carry(part.length, () => {
      if (connection.state === "closed") return
      if (part.length > 0) arrive(part)
      if (isCut) {
        this.world.tell(
          `net: connection ${connection.id} to ${connection.host} is cut in the middle of ${bytes.length} bytes`
        )
        connection.reset()
      }
    })
  }

  toServer(connection: Connection, bytes: Buffer): void {
    if (connection.state === "closed") return
    // The driver writes from a buffer that it uses again.
    this.carry(connection, connection.toServer, Buffer.from(bytes), (part) => connection.server?.onData(part))
  }

  endOfClient(connection: Connection): void {
    connection.toServer.carry(1, () => {
      if (connection.state !== "closed") connection.server?.onEnd()
    })
  }

  /** The program has let go of its socket: what it has sent is still on its way. */
  closedByClient(connection: Connection): void {
    if (connection.state === "closed") return
    connection.toServer.carry(1, () => {
      if (connection.state === "closed") return
      connection.close()
      connection.server?.onClose()
    })
  }
}
