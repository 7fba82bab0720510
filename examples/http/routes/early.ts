import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import * as Notes from "../Notes.js"

/** What is committed early stays, whatever becomes of the request. */
export const earlyCommit = HttpLayerRouter.route(
  "POST",
  "/early-commit",
  Effect.gen(function* () {
    yield* Notes.add("kept")
    yield* DbRouter.commit
    yield* Notes.add("lost")
    return HttpServerResponse.empty({ status: 409 })
  })
)

/** What is rolled back early is gone; the session goes on. */
export const earlyRollback = HttpLayerRouter.route(
  "POST",
  "/early-rollback",
  Effect.gen(function* () {
    yield* Notes.add("lost")
    yield* DbRouter.rollback
    yield* Notes.add("kept")
    return HttpServerResponse.empty({ status: 201 })
  })
)

// Somebody else, who is slow, and may need a connection too.
const otherService = Effect.zipRight(Effect.sleep("20 millis"), DbRouter.newSession(DbRouter.primary(Notes.all)))

/** A request that waits for somebody else gives its connection back first. Its next statement takes one again. */
export const earlyClose = HttpLayerRouter.route(
  "POST",
  "/early-close",
  Effect.gen(function* () {
    const notes = yield* DbRouter.primary(Notes.all)
    yield* DbRouter.close
    yield* otherService
    yield* Notes.add(`there were ${notes.length}`)
    return HttpServerResponse.empty({ status: 201 })
  })
)
