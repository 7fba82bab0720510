import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pg from "pg"
import { Connection } from "./connection.js"
import { acquireFailed, ServerLost } from "./failure.js"

/** A statement such as programs send, on a connection of its own, as a probe says nothing of those. Takes no longer than `limit`. */
export const trial = (config: Pg.ClientConfig, limit: Duration.Duration): Effect.Effect<void, SqlError> =>
  Effect.async<void, SqlError>((resume) => {
    const millis = Duration.toMillis(limit)
    let connection: Connection | undefined
    const end = (cause: unknown) => {
      clearTimeout(timer)
      connection?.destroy()
      resume(cause === undefined ? Exit.void : Exit.fail(new SqlError({ cause, message: acquireFailed })))
    }
    const timer = setTimeout(() => end(new ServerLost(`A statement had no answer within ${millis} ms`)), millis)
    try {
      const opened = new Connection({ ...config, connectionTimeoutMillis: millis }, () => {})
      connection = opened
      opened.connect((error) => {
        if (error === undefined) opened.query({ text: "SELECT 1" }, end)
        else end(error)
      })
    } catch (cause) {
      end(cause)
    }
    return Effect.sync(() => {
      clearTimeout(timer)
      connection?.destroy()
    })
  })
