/** The pre-response handlers that an app appends. The platform runs them outside of what the app has run in. */
import * as HttpApp from "@effect/platform/HttpApp"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as place from "../client/currentContext.js"
import type { Outside } from "../transaction/hooks.js"
import * as refs from "../util/refs.js"
import { outliving, withBody } from "./body.js"

type Response = HttpServerResponse

/**
 * An app whose response `answer` changes, after the handlers that are there now. The handlers that the app appends follow, and
 * run as `outside` says, as do the streaming bodies that they make.
 */
export const around = <E, R>(
  app: HttpApp.Default<E, R>,
  outside: Outside,
  answer: (response: Response) => Effect.Effect<Response> = Effect.succeed
): HttpApp.Default<E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const before = fiber.getFiberRef(HttpApp.currentPreResponseHandlers)
    const outlives = fiber.getFiberRef(place.outlivesSession)
    let isRunning = true
    // The handlers that the app appends call it once more with what it has answered.
    let answered: Response | undefined
    const own: HttpApp.PreResponseHandler = (request, response) => {
      if (response === answered) return Effect.succeed(response)
      const given = Option.isNone(before) ? answer(response) : Effect.flatMap(before.value(request, response), answer)
      return Effect.flatMap(given, (response) =>
        Effect.withFiberRuntime((fiber) => {
          answered = response
          // Where a server has the middleware inside of itself, the other handlers follow at once, in here.
          if (isRunning) refs.set(fiber, place.outlivesSession, true)
          return Effect.succeed(response)
        })
      )
    }
    const handlers = Option.some(own)
    refs.set(fiber, HttpApp.currentPreResponseHandlers, handlers)
    return Effect.onExit(app, () =>
      Effect.withFiberRuntime<void>((fiber) => {
        isRunning = false
        refs.set(fiber, place.outlivesSession, outlives)
        const now = fiber.getFiberRef(HttpApp.currentPreResponseHandlers)
        if (now !== handlers && Option.isSome(now)) {
          refs.set(fiber, HttpApp.currentPreResponseHandlers, Option.some(appended(own, now.value, outside)))
        }
        return Effect.void
      })
    )
  })

const appended =
  (own: HttpApp.PreResponseHandler, all: HttpApp.PreResponseHandler, outside: Outside): HttpApp.PreResponseHandler =>
  (request, response) =>
    Effect.flatMap(own(request, response), (answered) =>
      Effect.map(outliving(outside)(Effect.suspend(() => all(request, answered))), (response) =>
        response.body === answered.body ? response : withBody(response, request, outside)
      )
    )
