import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import * as Notes from "../Notes.js"

/** The first statement begins the transaction; it is committed before the response leaves. */
export const simple = HttpLayerRouter.route(
  "POST",
  "/simple",
  Effect.gen(function* () {
    yield* Notes.add("one")
    yield* Notes.add("two")
    return HttpServerResponse.empty({ status: 201 })
  })
)

/** The request sees what it has written, before the COMMIT and after it, whatever the replicas have replayed. */
export const readYourWrites = HttpLayerRouter.route(
  "POST",
  "/read-your-writes",
  Effect.gen(function* () {
    yield* Notes.add("mine")
    return yield* HttpServerResponse.json(yield* Notes.all)
  })
)
