import { HttpLayerRouter, HttpServerResponse } from "@effect/platform"
import { Data, Effect, Schema } from "effect"
import { DbRouter } from "effect-db-router"
import * as Notes from "../Notes.js"

class Refused extends Data.TaggedError("Refused") {}

/** Each block is a transaction of its own. */
export const atomic = HttpLayerRouter.route(
  "POST",
  "/atomic",
  Effect.gen(function* () {
    yield* DbRouter.atomic(Notes.add("kept"))
    yield* Effect.ignore(DbRouter.atomic(Effect.zipRight(Notes.add("lost"), new Refused())))
    return HttpServerResponse.empty({ status: 409 })
  })
)

const Params = Schema.Struct({
  current: Schema.Literal("commit", "rollback", "append", "savepoint", "fail"),
  block: Schema.Literal("succeeds", "fails")
})

/** `current` says what becomes of a transaction that is open already. What the session still has is rolled back by the 409. */
export const atomicInTransaction = HttpLayerRouter.route(
  "POST",
  "/atomic/:current/:block",
  Effect.gen(function* () {
    const { block, current } = yield* HttpLayerRouter.schemaPathParams(Params)
    yield* Notes.add("before")
    yield* Notes.add("inside").pipe(
      Effect.zipRight(block === "fails" ? new Refused() : Effect.void),
      DbRouter.atomic({ current }),
      Effect.catchTag("Refused", () => Effect.void)
    )
    return HttpServerResponse.empty({ status: 409 })
  })
)
