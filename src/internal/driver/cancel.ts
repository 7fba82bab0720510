import { isIP } from "node:net"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import * as bounded from "../util/bounded.js"
import * as limits from "../util/limits.js"
import type { CancelTarget, Connection } from "./connection.js"
import { guard } from "./guard.js"

/** The driver's connection below the client, of which it declares no types. */
interface Wire {
  connect(port: number, host: string): void
  connect(path: string): void
  requestSsl(): void
  cancel(processID: number, secretKey: number): void
  on(event: "connect" | "sslconnect" | "end", listener: () => void): void
  on(event: "error", listener: (error: Error) => void): void
  readonly stream: { destroy: () => void }
}

/** How long a cancel may take to show before another one is sent; twice as long after each. */
const firstWait = Duration.millis(50)

/** The options of TLS for a connection to the address that a name stood for: the certificate is for the name. */
const tlsOf = ({ address, host, ssl }: CancelTarget): CancelTarget["ssl"] => {
  if (ssl === false || address === undefined || isIP(host) !== 0) return ssl
  if (ssl === true) return { servername: host }
  // The driver hides the private key from enumeration.
  return { servername: host, ...ssl, ...(ssl.key !== undefined && { key: ssl.key }) }
}

/**
 * Asks the server to cancel what runs on a connection, over a connection of its own: through a full pool the request would
 * wait behind what it is to cancel. Ends when the server has closed that connection, which it does after the signal was
 * sent, so that a cancel can never reach a later statement. Tells whether that is certain: whether no signal can come
 * any more. Failing to reach the server is not an error: cancelling is best effort.
 */
export const requestCancel = (target: CancelTarget | undefined): Effect.Effect<boolean> =>
  target === undefined
    ? Effect.succeed(true)
    : Effect.async<boolean>((resume) => {
        const { host, port, processID, secretKey, sslNegotiation, stream } = target
        const ssl = tlsOf(target)
        const wire = new Pg.Connection({
          ssl,
          ...(sslNegotiation && { sslNegotiation }),
          ...(stream && { stream })
        } as Pg.ConnectionConfig) as unknown as Wire
        guard(wire, {})
        let sent = false
        const send = () => {
          sent = true
          wire.cancel(processID, secretKey)
        }
        wire.on("connect", () => {
          if (ssl === false) send()
          else if (sslNegotiation !== "direct") wire.requestSsl()
        })
        wire.on("sslconnect", send)
        wire.on("error", () => {
          wire.stream.destroy()
          resume(Effect.succeed(!sent))
        })
        wire.on("end", () => resume(Effect.succeed(true)))
        if (host.startsWith("/")) {
          wire.connect(`${host}/.s.PGSQL.${port}`)
        } else {
          wire.connect(port, target.address ?? host)
        }
        return Effect.sync(() => wire.stream.destroy())
      })

/**
 * Cancels what runs on a connection and waits until the server is ready again. Destroys the connection when that takes too
 * long, or when the request is on its way still, since it could reach the next statement then.
 */
export const cancel = (connection: Connection): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!connection.isUsable || connection.isReady) return Effect.void
    const ready = Effect.async<void>((resume) => connection.whenReady(() => resume(Effect.void)))
    // The server ignores a cancel that is there before it has begun the statement, so one may not be enough.
    const request = (wait: Duration.Duration): Effect.Effect<void> =>
      Effect.flatMap(requestCancel(connection.cancelTarget), (isOver) =>
        isOver
          ? Effect.flatMap(Effect.timeoutOption(ready, wait), (done) =>
              done._tag === "None" ? request(Duration.times(wait, 2)) : Effect.void
            )
          : Effect.sync(() => connection.destroy())
      )
    const done = connection.isBusy && !connection.mustFinish ? request(firstWait) : ready
    // Whatever has become of it: without an answer a signal may be on its way still.
    return Effect.map(bounded.run(done, limits.cancel), ({ state }) => {
      if (state !== "answered") connection.destroy()
    })
  })

/** Closes a connection whose statement has no answer yet, and has the server end the statement, if it may be ended. */
export const giveUp = (connection: Connection, reason: Error): void => {
  const { cancelTarget, mustFinish } = connection
  connection.fail(reason)
  if (!mustFinish) Effect.runFork(Effect.timeoutOption(requestCancel(cancelTarget), limits.cancel))
}
