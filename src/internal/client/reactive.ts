import type * as Reactivity from "@effect/experimental/Reactivity"
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Mailbox from "effect/Mailbox"
import * as Stream from "effect/Stream"
import * as RoutingContext from "../../RoutingContext.js"

/**
 * The reactive queries of a client. A query runs again after a write to what it reads. No replica may have replayed that write
 * yet, and nothing would run the query once more when one has.
 */
export const reactive = (
  reactivity: Reactivity.Reactivity.Service
): Pick<SqlClient.SqlClient, "reactive" | "reactiveMailbox"> => {
  const reactiveMailbox: SqlClient.SqlClient["reactiveMailbox"] = (keys, effect) =>
    Effect.suspend(() => {
      let ran = false
      const run = Effect.suspend(() => {
        const again = ran
        ran = true
        return again ? Effect.locally(effect, RoutingContext.stickToPrimary, true) : effect
      })
      return reactivity.query(keys, run)
    })
  return {
    reactiveMailbox,
    reactive: (keys, effect) => Stream.unwrapScoped(Effect.map(reactiveMailbox(keys, effect), Mailbox.toStream))
  }
}
