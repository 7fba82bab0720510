import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Data, Effect } from "effect"
import * as Notes from "../Notes.js"

/** A status of 400 and above rolls back. */
export const rollbackByStatus = HttpLayerRouter.route(
  "POST",
  "/rollback-by-status",
  Effect.gen(function* () {
    yield* Notes.add("lost")
    return HttpServerResponse.empty({ status: 409 })
  })
)

class OutOfPaper extends Data.TaggedError("OutOfPaper") {}

/** So does an error; this one is answered with a 500. */
export const rollbackByException = HttpLayerRouter.route(
  "POST",
  "/rollback-by-exception",
  Effect.gen(function* () {
    yield* Notes.add("lost")
    return yield* new OutOfPaper()
  })
)
