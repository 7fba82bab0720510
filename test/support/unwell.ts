/** A server behind a proxy that lets probes through, and does with statements what a test says. */
import * as Net from "node:net"
import { Effect, Redacted, type Scope } from "effect"

/** What becomes of statements, on connections that are not those of probes. `gone`: probes get no answer either. */
export type Mode = "well" | "silent" | "broken" | "gone"

export interface Unwell {
  readonly host: string
  readonly port: number
  mode: Mode
}

const readyForQuery = Buffer.from("5a0000000549", "hex")

/** Connections of probes say so by their application name. */
const nameOfProbes = " health\0"

export const make = (target: {
  readonly host: string
  readonly port: number
}): Effect.Effect<Unwell, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<{ readonly proxy: Unwell; readonly stop: () => void }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((client) => {
          const upstream = Net.connect(target.port, target.host)
          for (const socket of [client, upstream]) {
            sockets.add(socket)
            socket.on("error", () => {})
            socket.on("close", () => {
              sockets.delete(socket)
              client.destroy()
              upstream.destroy()
            })
          }
          let isOfProbe: boolean | undefined
          let isReady = false
          upstream.on("data", (data) => {
            if (data.includes(readyForQuery)) isReady = true
            client.write(data)
          })
          client.on("data", (data) => {
            isOfProbe ??= data.includes(nameOfProbes)
            if (proxy.mode === "gone") client.destroy()
            else if (isOfProbe || !isReady || proxy.mode === "well") upstream.write(data)
            else if (proxy.mode === "broken") client.destroy()
          })
        })
        const stop = () => {
          server.close()
          for (const socket of sockets) socket.destroy()
        }
        const proxy: Unwell = {
          host: "127.0.0.1",
          get port() {
            return (server.address() as Net.AddressInfo).port
          },
          mode: "well"
        }
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ proxy, stop })))
      }),
      ({ stop }) => Effect.sync(stop)
    ),
    ({ proxy }) => proxy
  )

/** The address of a server, through a proxy. */
export const urlOf = ({ host, port }: Unwell, of: Redacted.Redacted): Redacted.Redacted => {
  const url = new URL(Redacted.value(of))
  url.host = `${host}:${port}`
  return Redacted.make(url.href)
}
