import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import * as Notes from "../Notes.js"

/** Work that is committed early stays, even if the request fails. */
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

/** Work that is rolled back early is gone; the session goes on. */
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

// A slow service, which may need a connection too.
const otherService = Effect.zipRight(Effect.sleep("20 millis"), DbRouter.newSession(DbRouter.primary(Notes.all)))

/** A request that waits for another service gives its connection back first. Its next statement takes one again. */
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
