import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import * as Notes from "../Notes.js"

// A mail, a message on a queue: an action that cannot be undone.
const sendReceipt = Notes.add("receipt")

/** An action that cannot be undone runs after the COMMIT, and not at all without one. */
export const afterCommit = HttpLayerRouter.route(
  "POST",
  "/after-commit/:answer",
  Effect.gen(function* () {
    const { answer } = yield* HttpLayerRouter.params
    yield* Notes.add("order")
    yield* DbRouter.afterCommit(sendReceipt)
    return HttpServerResponse.empty({ status: answer === "accepted" ? 201 : 409 })
  })
)

const ship = Effect.zipRight(Effect.sleep("20 millis"), Notes.add("shipped"))

/** The job begins when there is something to work on, and does not hold up the response. It has a session of its own. */
export const backgroundJob = HttpLayerRouter.route(
  "POST",
  "/background-job",
  Effect.gen(function* () {
    yield* Notes.add("order")
    yield* DbRouter.afterCommit(Effect.forkDaemon(DbRouter.newSession(ship)))
    return HttpServerResponse.empty({ status: 202 })
  })
)
