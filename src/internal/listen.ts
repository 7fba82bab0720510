import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import type { Engine } from "../Engine.js"
import { poolConfig } from "../Engine.js"
import * as bounded from "./bounded.js"
import { makeClient } from "./driver/guard.js"
import { Lock } from "./lock.js"

type Listener = {
  readonly notified: (payload: string) => void
  readonly failed: (error: SqlError) => void
}

/** One connection that listens for all the streams of a client. */
class Listening {
  private readonly channels = new Map<string, Set<Listener>>()
  private readonly commands = new Lock()

  constructor(private readonly client: Pg.Client) {
    client.on("notification", ({ channel, payload }) => {
      for (const listener of this.channels.get(channel) ?? []) listener.notified(payload ?? "")
    })
    client.on("error", (cause) => this.fail(cause))
    client.on("end", () => this.fail(new Error("The connection ended")))
  }

  /** Listens until the scope closes. LISTEN and UNLISTEN are sent for the first and the last listener of a channel. */
  listen(channel: string, listener: Listener): Effect.Effect<void, SqlError, Scope.Scope> {
    const identifier = Pg.escapeIdentifier(channel)
    const add = Effect.suspend(() => {
      const listeners = this.channels.get(channel)
      if (listeners !== undefined) {
        listeners.add(listener)
        return Effect.void
      }
      this.channels.set(channel, new Set([listener]))
      return this.command(`LISTEN ${identifier}`)
    })
    const remove = Effect.suspend(() => {
      const listeners = this.channels.get(channel)
      listeners?.delete(listener)
      if (listeners?.size !== 0) return Effect.void
      this.channels.delete(channel)
      return Effect.asVoid(bounded.run(this.command(`UNLISTEN ${identifier}`), "1 second"))
    })
    return Effect.acquireRelease(this.commands.run(Effect.onError(add, () => remove)), () => this.commands.run(remove))
  }

  private command(sql: string): Effect.Effect<void, SqlError> {
    return Effect.asVoid(
      Effect.tryPromise({
        try: () => this.client.query(sql),
        catch: (cause) => new SqlError({ cause, message: "Failed to listen" })
      })
    )
  }

  private fail(cause: Error): void {
    const error = new SqlError({ cause, message: "The connection that listens broke" })
    const listeners = [...this.channels.values()].flatMap((set) => [...set])
    this.channels.clear()
    for (const listener of listeners) listener.failed(error)
  }
}

const connect = (engineOf: () => Engine): Effect.Effect<Listening, SqlError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.tryPromise({
        try: async () => {
          const client = makeClient(poolConfig(engineOf().client))
          // Before the connection is there, `connect` reports its errors itself.
          client.on("error", () => {})
          await client.connect()
          return client
        },
        catch: (cause) => new SqlError({ cause, message: "Failed to acquire connection for listen" })
      }),
      (client) =>
        bounded.run(
          Effect.promise(() => client.end()),
          "1 second"
        )
    ),
    (client) => new Listening(client)
  )

/**
 * `listen` for the engine of the moment that a connection is opened: a stream of the payloads sent to a channel, over one connection that is opened for the first
 * stream and closed after the last. The streams fail when that connection breaks: notifications may have been missed.
 */
export const make = (
  engineOf: () => Engine
): Effect.Effect<(channel: string) => Stream.Stream<string, SqlError>, never, Scope.Scope> =>
  Effect.map(
    RcRef.make({ acquire: connect(engineOf) }),
    (listening) => (channel: string) =>
      Stream.asyncPush<string, SqlError>((emit) =>
        Effect.flatMap(RcRef.get(listening), (connection) =>
          connection.listen(channel, {
            notified: (payload) => emit.single(payload),
            failed: (error) => emit.fail(error)
          })
        )
      )
  )
