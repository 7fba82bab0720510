/**
 * The request scope: a session opened and closed around one HTTP request. It commits before the first byte of the response
 * leaves, when the status says so, and rolls back otherwise.
 *
 * @since 0.1.0
 */
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpBody from "@effect/platform/HttpBody"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { outlivesSession } from "./internal/client.js"
import type { DbRouter } from "./internal/service.js"
import * as sessionOptions from "./internal/sessionOptions.js"
import * as unit from "./internal/unit.js"
import * as RoutingContext from "./RoutingContext.js"
import * as Session from "./Session.js"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /** Which statuses commit. Default: `commitByStatus`, those below 400. */
  readonly commits?: ((status: number) => boolean) | undefined
  /**
   * Which requests get no session, so that their statements commit one by one: by method, or by anything in the request.
   * Requests for an upgrade (WebSocket) never get one: it would last as long as the socket. Default: none.
   */
  readonly skip?: ReadonlyArray<HttpMethod> | ((request: HttpServerRequest) => boolean) | undefined
  /** Whether the sessions of GET and HEAD requests refuse what may write. Default: `false`. */
  readonly readOnlyGet?: boolean | undefined
  /** Runs inside every session right before its COMMIT; when it fails, the response is a 500 and all is rolled back. */
  readonly beforeCommit?: Effect.Effect<unknown, unknown, R> | undefined
  /** Options of the sessions: isolation, timeouts, ... Default: none. */
  readonly session?: Session.Options | undefined
}

/**
 * Whether a request with this status commits: below 400.
 *
 * @since 0.1.0
 * @category constructors
 */
export const commitByStatus = (status: number): boolean => status < 400

const isSkipped = (request: HttpServerRequest, skip: Options["skip"]): boolean =>
  request.headers.upgrade !== undefined ||
  (typeof skip === "function" ? skip(request) : (skip?.includes(request.method) ?? false))

const isReading = (request: HttpServerRequest) => request.method === "GET" || request.method === "HEAD"

// The body is sent after the COMMIT, so what it still reads commits by itself.
const withOutlivingBody = (response: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse => {
  const { body } = response
  if (body._tag !== "Stream") return response
  const stream = Stream.fromPull(
    Effect.map(Effect.locally(Stream.toPull(body.stream), outlivesSession, true), Effect.locally(outlivesSession, true))
  )
  return HttpServerResponse.setBody(response, HttpBody.stream(stream, body.contentType, body.contentLength))
}

const finishBy = (
  opened: unit.Unit,
  commits: boolean,
  response: HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (!commits) {
    return Effect.as(Effect.orDie(unit.end(opened, Exit.fail(response.status))), withOutlivingBody(response))
  }
  const { hooks } = opened.session
  return Effect.exit(opened.runner.provideWork(opened.work, 0)(hooks.beforeCommit)).pipe(
    Effect.flatMap((prepared) => Effect.zipRight(unit.end(opened, prepared), prepared)),
    Effect.as(withOutlivingBody(response)),
    // Returned, not failed: an encoder of errors could turn a failure into anything.
    Effect.catchAllCause((cause) =>
      Effect.as(Effect.logError("The request was not committed", cause), HttpServerResponse.empty({ status: 500 }))
    )
  )
}

/**
 * A middleware that runs every request in a session, for an `HttpApp` (on Node or as a web handler), for `HttpServer.serve`,
 * `HttpApiBuilder.serve` and `HttpApiBuilder.middleware`, and for `HttpLayerRouter`, globally or by route.
 *
 * - The response waits for the COMMIT. A COMMIT that fails makes it an empty 500, and is logged.
 * - A status that does not commit (default: 400 and above), a failure, a defect, and a client that hangs up roll back; the
 *   handler is interrupted when the client hangs up, which a plain app is not.
 * - The routing context starts clean: nothing of other requests, nor of the program around the server.
 * - The statements of a streaming body run after the COMMIT, each by itself.
 * - A session that is already open (a test's) is left alone.
 *
 * Throws a `RouterConfigError` at once when the options of the session cannot be used.
 *
 * @since 0.1.0
 * @category middleware
 */
export const middleware =
  <R0 = never>(options: Options<R0> = {}) =>
  <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<E, R | R0 | DbRouter | Scope.Scope> => {
    const { beforeCommit, commits = commitByStatus, readOnlyGet = false, skip } = options
    const writing = Either.getOrThrowWith(sessionOptions.resolve(options.session ?? {}), (error) => error)
    const reading = readOnlyGet ? { ...writing, readOnly: true } : writing
    return Effect.flatMap(HttpServerRequest, (request) =>
      Effect.flatMap(Session.isInSession, (isInSession) => {
        const interruptible = Effect.interruptible(app)
        if (isInSession) return interruptible
        if (isSkipped(request, skip)) return RoutingContext.fresh(interruptible)
        return Effect.gen(function* () {
          const opened = yield* unit.open(isReading(request) ? reading : writing)
          let open = true
          const finish = (response: HttpServerResponse.HttpServerResponse) =>
            Effect.suspend(() => {
              if (!open) return Effect.succeed(response)
              open = false
              return Effect.uninterruptible(finishBy(opened, commits(response.status), response))
            })
          yield* HttpApp.appendPreResponseHandler((_request, response) => finish(response))
          yield* Effect.addFinalizer((exit) =>
            Effect.suspend(() =>
              open
                ? Effect.ignore(unit.end(opened, Exit.isFailure(exit) ? exit : Exit.fail("unanswered")))
                : Effect.void
            )
          )
          const inside =
            beforeCommit === undefined
              ? interruptible
              : Effect.zipRight(Effect.orDie(Session.beforeCommit(beforeCommit)), interruptible)
          return yield* RoutingContext.fresh(opened.runner.provideWork(opened.work, 0)(inside), { shared: true })
        })
      })
    )
  }
