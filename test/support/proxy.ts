import * as Net from "node:net"
import { Effect, type Scope } from "effect"

const cancelCode = 80_877_102

/** What to do with a message of the server before it goes on to the client. */
export type OnMessage = (type: string, body: Buffer) => Effect.Effect<void> | undefined

/** A proxy in front of a server that looks at every message on its way to the client, and can hold it there. */
export interface Proxy {
  readonly host: string
  readonly port: number
  /** The connections that are open now. */
  readonly open: () => number
  /** How many requests to cancel have come. */
  readonly cancels: () => number
  /** The message goes on when the effect has ended; the same holds for everything after it on that connection. */
  onMessage: OnMessage
  /** What the client is told before a message of the server, as if it came from there. */
  said: (type: string, body: Buffer) => Buffer | undefined
  /** What has to end before a message of a client goes on to the server, but for requests to cancel. */
  onRequest: Effect.Effect<void>
  /** What has to end before a new connection is passed on to the server. */
  onConnect: Effect.Effect<void>
  /** Whether nothing is passed on, in either direction, while connections stay open. */
  silent: boolean
  /** Breaks every connection. */
  readonly reset: () => void
}

/** Cuts the server's stream into its messages. */
const splitter = (each: (message: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 5) {
      const length = rest.readInt32BE(1) + 1
      if (rest.length < length) return
      each(rest.subarray(0, length))
      rest = rest.subarray(length)
    }
  }
}

export const make = (target: {
  readonly host: string
  readonly port: number
}): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function* () {
    const sockets = new Set<Net.Socket>()
    let cancels = 0
    let clients = 0

    const serve = (client: Net.Socket) => {
      clients++
      client.on("close", () => {
        clients--
      })
      const server = new Net.Socket()
      const pair = [client, server]
      for (const socket of pair) {
        sockets.add(socket)
        // Messages go out one by one: with Nagle's algorithm each would wait for the other side to say that it has the one before.
        socket.setNoDelay(true)
        socket.on("error", () => {})
        socket.on("close", () => {
          sockets.delete(socket)
          if (socket === client) server.destroy()
          // What the server has said before is passed on first.
          else void sent.then(() => client.destroy())
        })
      }
      let sent = Promise.resolve()
      const forward = splitter((message) => {
        const type = String.fromCharCode(message[0]!)
        const wait = proxy.onMessage(type, message.subarray(5))
        const said = proxy.said(type, message.subarray(5))
        sent = sent.then(async () => {
          if (wait !== undefined) await Effect.runPromise(wait)
          if (!proxy.silent) client.write(said === undefined ? message : Buffer.concat([said, message]))
        })
      })
      server.on("data", forward)
      server.on("end", () => {
        sent = sent.then(() => {
          client.end()
        })
      })
      client.on("data", (chunk: Buffer) => {
        const isCancel = chunk.length === 16 && chunk.readInt32BE(4) === cancelCode
        if (isCancel) cancels++
        if (proxy.silent) return
        if (early !== undefined) {
          early.push(chunk)
          return
        }
        const wait = isCancel ? Effect.void : proxy.onRequest
        asked = asked.then(async () => {
          await Effect.runPromise(wait)
          server.write(chunk)
        })
      })
      let asked = Promise.resolve()
      let early: Array<Buffer> | undefined = []
      void Effect.runPromise(proxy.onConnect).then(() => {
        if (client.destroyed) return
        server.connect(target.port, target.host)
        for (const chunk of early ?? []) server.write(chunk)
        early = undefined
      })
    }

    const listener = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const server = Net.createServer(serve)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.async<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
        })
    )
    const proxy: Proxy = {
      host: "127.0.0.1",
      port: (listener.address() as Net.AddressInfo).port,
      open: () => clients,
      cancels: () => cancels,
      onMessage: () => undefined,
      said: () => undefined,
      onRequest: Effect.void,
      onConnect: Effect.void,
      silent: false,
      reset: () => {
        for (const socket of sockets) socket.resetAndDestroy()
      }
    }
    return proxy
  })
