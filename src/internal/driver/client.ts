import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pg from "pg"

/** What the driver's client has and its type declarations leave out. */
interface Internals {
  readonly processID: number | null
  readonly secretKey: number | null
  readonly readyForQuery: boolean
  readonly _queryable: boolean
  readonly _ending: boolean
  readonly connection: {
    readonly stream: { destroy: () => void }
    readonly parsedStatements: Record<string, string>
  }
}

interface CancelConnection {
  connect(port: number, host: string): void
  connect(path: string): void
  requestSsl(): void
  cancel(processID: number, secretKey: number): void
  on(event: "connect" | "sslconnect" | "end", listener: () => void): void
  on(event: "error", listener: (error: Error) => void): void
  readonly stream: { destroy: () => void }
}

const internals = (client: Pg.PoolClient): Internals => client as unknown as Internals

/** How long a cancelled statement may take to end before its connection is destroyed. */
const cancelTimeout = Duration.seconds(5)

const firstErrors = new WeakMap<Pg.PoolClient, Error>()

/**
 * Keeps the first error of a connection: the server says why it closes one (57P01, 57P05, ...) before the next query fails
 * without a reason. Also keeps a connection that dies while it is checked out from ending the process.
 */
export const watch = (client: Pg.PoolClient): void => {
  client.on("error", (error: Error) => {
    if (!firstErrors.has(client)) firstErrors.set(client, error)
  })
}

/** Whether the connection can run another statement. */
export const isUsable = (client: Pg.PoolClient): boolean => internals(client)._queryable && !internals(client)._ending

/** Whether the server is known to be outside a transaction on this connection. */
export const isOutsideTransaction = (client: Pg.PoolClient): boolean => client.getTransactionStatus() === "I"

/** Closes the socket at once. Whatever runs on it fails. */
export const destroy = (client: Pg.PoolClient): void => internals(client).connection.stream.destroy()

/** Makes the driver forget that it has parsed a prepared statement. */
export const forgetPrepared = (client: Pg.PoolClient, name: string): void => {
  delete internals(client).connection.parsedStatements[name]
}

/** The error of a statement, with the connection's own first error when the connection is what failed. */
export const statementError = (client: Pg.PoolClient, error: Error): SqlError =>
  new SqlError({
    cause: isUsable(client) ? error : (firstErrors.get(client) ?? error),
    message: "Failed to execute statement"
  })

/** Calls back when the server has finished with everything sent so far, or the connection has ended. */
export const whenReady = (client: Pg.PoolClient, callback: () => void): void => {
  if (internals(client).readyForQuery || !isUsable(client)) {
    callback()
    return
  }
  const done = () => {
    client.off("drain", done)
    client.off("end", done)
    client.off("error", done)
    callback()
  }
  client.once("drain", done)
  client.once("end", done)
  client.once("error", done)
}

/**
 * Asks the server to cancel what runs on the connection, over a connection of its own: through a full pool the request
 * would wait behind what it is to cancel. Ends when the server has closed that connection, which it does after the signal
 * was sent, so that a cancel can never reach a later statement. Failing to reach the server is not an error: cancelling
 * is best effort.
 */
const requestCancel = (client: Pg.PoolClient, config: Pg.PoolConfig): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const { processID, secretKey } = internals(client)
    if (processID === null || secretKey === null) {
      return resume(Effect.void)
    }
    const connection = new Pg.Connection({
      ssl: client.ssl,
      ...(config.stream && { stream: config.stream })
    }) as unknown as CancelConnection
    const send = () => connection.cancel(processID, secretKey)
    connection.on("connect", () => (client.ssl ? connection.requestSsl() : send()))
    connection.on("sslconnect", send)
    connection.on("error", () => resume(Effect.void))
    connection.on("end", () => resume(Effect.void))
    if (client.host.startsWith("/")) {
      connection.connect(`${client.host}/.s.PGSQL.${client.port}`)
    } else {
      connection.connect(client.port, client.host)
    }
    return Effect.sync(() => connection.stream.destroy())
  })

/**
 * Cancels what runs on the connection and waits until the server is ready again; destroys the connection when it does not
 * get ready in time.
 */
export const cancel = (client: Pg.PoolClient, config: Pg.PoolConfig): Effect.Effect<void> => {
  const bounded = (effect: Effect.Effect<void>) => Effect.timeoutOption(Effect.interruptible(effect), cancelTimeout)
  const ready = Effect.async<void>((resume) => whenReady(client, () => resume(Effect.void)))
  return Effect.suspend(() =>
    isUsable(client) && !internals(client).readyForQuery
      ? bounded(requestCancel(client, config)).pipe(
          Effect.zipRight(bounded(ready)),
          Effect.tap((done) => (done._tag === "None" ? Effect.sync(() => destroy(client)) : Effect.void)),
          Effect.asVoid
        )
      : Effect.void
  )
}
