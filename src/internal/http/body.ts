/** What of a request's work comes after its session. */

import * as HttpBody from "@effect/platform/HttpBody"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as place from "../client/currentContext.js"
import type { Outside } from "../transaction/hooks.js"
import * as HangUp from "./hangUp.js"

type Response = HttpServerResponse.HttpServerResponse

/** Runs an effect as `outside` says, and not in a session that has ended, also where it has captured the context of that. */
export const outliving =
  (outside: Outside): Outside =>
  (effect) =>
    outside(Effect.locally(effect, place.outlivesSession, true))

/** A response whose streaming body runs as `outside` says, and not in a session that has ended. It ends when its client hangs up. */
export const withBody = (response: Response, request: HttpServerRequest, outside: Outside): Response => {
  const { body } = response
  if (body._tag !== "Stream") return response
  const outlives = outliving(outside)
  const pull = Effect.map(outlives(Stream.toPull(body.stream)), outlives)
  const stream = Stream.fromPull(Effect.zipRight(HangUp.follow(request), pull))
  return HttpServerResponse.setBody(response, HttpBody.stream(stream, body.contentType, body.contentLength))
}
