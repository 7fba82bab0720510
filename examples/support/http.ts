import { createServer } from "node:http"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpServer } from "@effect/platform"
import { layer as NodeHttpServer } from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer } from "effect"

interface Sent {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  /** The decoded JSON, or the text that is none. */
  readonly body: unknown
}

/** Sends a request to the server of the example. */
export type Send = (method: "GET" | "POST", path: string, sent?: Sent) => Effect.Effect<Answer>

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const sendTo =
  (address: string): Send =>
  (method, path, { body, headers = {} } = {}) =>
    Effect.gen(function* () {
      const client = yield* HttpClient.HttpClient
      const plain = HttpClientRequest.make(method)(`${address}${path}`, { headers })
      const response = yield* client.execute(body === undefined ? plain : HttpClientRequest.bodyUnsafeJson(plain, body))
      return { status: response.status, headers: response.headers, body: parsed(yield* response.text) }
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer), Effect.orDie)

/** Runs a server on a free port of 127.0.0.1 while an effect uses it. */
export const serving = <A, E, R, E1, R1>(
  server: Layer.Layer<never, E1, R1 | HttpServer.HttpServer>,
  use: (send: Send, address: string) => Effect.Effect<A, E, R>
) =>
  HttpServer.addressFormattedWith((address) => use(sendTo(address), address)).pipe(
    Effect.provide(
      Layer.provideMerge(
        server,
        NodeHttpServer(() => createServer(), { port: 0, host: "127.0.0.1" })
      )
    )
  )
