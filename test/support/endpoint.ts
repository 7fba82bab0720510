/**
 * An HTTP server that answers as a test says, and remembers what it was asked.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Cause, Effect, Inspectable, type Scope } from "effect"

export type Answer = (response: ServerResponse, request: IncomingMessage) => unknown

export interface Asked {
  readonly url: string
  readonly authorization: string | undefined
  readonly headers: IncomingMessage["headers"]
}

export interface Endpoint {
  readonly port: number
  /** `http://127.0.0.1:PORT`. */
  readonly url: string
  readonly asked: Array<Asked>
  /** Replaces the answer. */
  answer: Answer
  /** Connections that are open now. */
  readonly open: () => number
  /** Stops listening and cuts open connections. */
  readonly kill: Effect.Effect<void>
}

export const json =
  (body: unknown, status = 200): Answer =>
  (response) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))

export const text =
  (body: string, options: { readonly status?: number; readonly type?: string } = {}): Answer =>
  (response) =>
    response.writeHead(options.status ?? 200, { "content-type": options.type ?? "application/json" }).end(body)

/** Takes the request, and answers nothing. */
export const silence: Answer = () => undefined

export const make = (answer: Answer): Effect.Effect<Endpoint, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<Endpoint>((resume) => {
      const sockets = new Set<{ readonly destroy: () => unknown }>()
      const asked: Array<Asked> = []
      const server = createServer((request, response) => {
        const { headers, url = "" } = request
        asked.push({ url, headers, authorization: headers.authorization })
        endpoint.answer(response, request)
      })
      server.on("connection", (socket) => {
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket))
      })
      const kill = Effect.async<void>((done) => {
        server.close(() => done(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
      const endpoint: Endpoint = { port: 0, url: "", asked, answer, open: () => sockets.size, kill }
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed(Object.assign(endpoint, { port, url: `http://127.0.0.1:${port}` })))
      })
    }),
    ({ kill }) => kill
  )

/** A URL without a listener. */
export const closed = Effect.scoped(Effect.map(make(silence), ({ url }) => url))

/** All that a log could show of an error. */
export const seen = (error: unknown): string =>
  [String(error), Inspectable.toStringUnknown(error), Cause.pretty(Cause.fail(error)), JSON.stringify(error)].join("\n")
