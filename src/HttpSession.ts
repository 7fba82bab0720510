/**
 * The request scope: a session opened and closed around one HTTP request. It commits before the first byte of the response
 * leaves, when the status says so, and rolls back otherwise.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import type { HttpMethod } from "@effect/platform/HttpMethod"
import { RouteContext } from "@effect/platform/HttpRouter"
import * as HttpServerError from "@effect/platform/HttpServerError"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import type { KeyValueStore } from "@effect/platform/KeyValueStore"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as unit from "./internal/client/openSession.js"
import { DbRouter } from "./internal/client/service.js"
import type { Runner } from "./internal/client/transactionRunner.js"
import type { Rules } from "./internal/context/rules.js"
import { withBody } from "./internal/http/body.js"
import * as PreResponse from "./internal/http/preResponse.js"
import { RequestFlow, RequestScope, RequestSession } from "./internal/http/requestScope.js"
import * as carriers from "./internal/http/tokenTransport.js"
import * as sessionOptions from "./internal/session/options.js"
import { Tokens } from "./internal/tokens/tokens.js"
import * as limits from "./internal/util/limits.js"
import * as check from "./internal/validation/check.js"
import * as Log from "./internal/validation/log.js"
import * as RouterError from "./RouterError.js"
import type * as Session from "./Session.js"

/**
 * Which requests get a session, which of them are committed, and how. `R` is what `beforeCommit` needs, `T` what `token` needs, `S`
 * what `session` needs.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never, T = never, S = never> {
  /** The statuses that commit. Default: `commitByStatus`, those below 400. A client that hangs up never commits. */
  readonly commits?: ((status: number) => boolean) | undefined
  /**
   * The requests that get no session, so that their statements commit one by one: by method, or by anything in the request.
   * Default: none.
   */
  readonly skip?: ReadonlyArray<HttpMethod> | ((request: HttpServerRequest) => boolean) | undefined
  /** If `true`, the sessions of GET and HEAD requests refuse statements that may write. Default: `false`. */
  readonly readOnlyGet?: boolean | undefined
  /**
   * If `true`, the handler is interrupted when the client hangs up. `false` leaves that to the platform, which interrupts the
   * routes of a router that are not `uninterruptible`, and no app without a router; what runs to its end is committed by
   * its status. Default: `true`, except around a route that is `uninterruptible`. A middleware around the whole router
   * cannot see that of a route: give it `false`.
   */
  readonly interruptible?: boolean | undefined
  /**
   * The longest wait of a request for the next byte of its body while its session holds a connection. Then the response is a 408,
   * all is rolled back, and the handler is interrupted. An upload that goes on is not cut, however long it takes, nor one that is
   * read before the first statement that needs a transaction. For requests of Node's HTTP/1 server; what is in front of a web
   * handler has limits of its own. Default: 3 seconds, less than others wait for a connection.
   */
  readonly bodyTimeout?: Duration.DurationInput | undefined
  /**
   * Runs inside the session of every request that commits, right before the COMMIT that ends it, after the `beforeCommit`
   * effects of the handler. When it fails, the response is a 500 and all is rolled back. Default: none.
   */
  readonly beforeCommit?: Effect.Effect<unknown, unknown, R> | undefined
  /**
   * Options of the sessions: isolation, timeouts, settings, ... One value for all requests, or a function of the request, which may
   * return an Effect: for settings of a tenant, which hold for the streaming body as well. The Effect runs before the session,
   * with the request's routing context. When it fails, the handler does not run, and the response is that of the error: a
   * `Respondable` or an `HttpServerResponse` says which, anything else is a 500 and is logged, options that cannot be used
   * included. Default: none.
   */
  readonly session?: Session.Options | ((request: HttpServerRequest) => OptionsOfRequest<S>) | undefined
  /**
   * The way by which a client's next request learns what this one has written and read, also in another process:
   * {@link tokenCookie}, {@link tokenHeader} or {@link tokenStore}, or several of them. Needs a policy that keeps positions
   * (`Consistency.causal()`), and keys that the processes share (the option `tokens.keys` of the router). Default: none, every
   * request starts clean: a cookie on a response is for its owner to decide.
   */
  readonly token?: TokenCarrier<T> | ReadonlyArray<TokenCarrier<T>> | undefined
}

/**
 * The options of one request's session.
 *
 * @since 0.1.0
 * @category models
 */
export type OptionsOfRequest<R = never> = Session.Options | Effect.Effect<Session.Options, unknown, R>

/**
 * A way that a position takes from one request to the next. {@link tokenCookie}, {@link tokenHeader} and {@link tokenStore} are
 * the ones there are.
 *
 * @since 0.1.0
 * @category tokens
 */
export interface TokenCarrier<R = never> extends carriers.Carrier<R> {}

/**
 * The cookie of {@link tokenCookie}.
 *
 * @since 0.1.0
 * @category tokens
 */
export interface TokenCookieOptions extends carriers.CookieOptions {}

/**
 * Carries the token in a cookie, for browsers. Its `Max-Age` is the lifetime of tokens. It is set by a request that has written, or
 * was shown by the primary what replicas may not have (a write that failed or was rolled back, a read there), and by no other unless
 * `reads` says so; and never on a response that shared caches may keep (`Cache-Control: public`, `s-maxage`, `max-age` without
 * `private`): say `private` or `no-store` where a response follows a write. Throws a `RouterConfigError` for what no
 * cookie can be.
 *
 * @example
 * ```ts
 * import { HttpSession } from "effect-db-router"
 *
 * // What a client has written, its next request sees, in any process with the same `tokens.keys`.
 * const withCookie = HttpSession.middleware({ token: HttpSession.tokenCookie() })
 * ```
 *
 * @since 0.1.0
 * @category tokens
 */
export const tokenCookie = (options: TokenCookieOptions = {}): TokenCarrier => carriers.cookie(options)

/**
 * The headers of {@link tokenHeader}.
 *
 * @since 0.1.0
 * @category tokens
 */
export interface TokenHeaderOptions extends carriers.HeaderOptions {}

/**
 * Carries the token in a header of the response, which the client sends with its next requests: for APIs. Scripts of other
 * origins see it only if `Access-Control-Expose-Headers` names it. Throws a `RouterConfigError` for what no header can be.
 *
 * @example
 * ```ts
 * import { HttpSession } from "effect-db-router"
 *
 * const withHeader = HttpSession.middleware({ token: HttpSession.tokenHeader() })
 * ```
 *
 * @since 0.1.0
 * @category tokens
 */
export const tokenHeader = (options: TokenHeaderOptions = {}): TokenCarrier => carriers.header(options)

/**
 * The options of {@link tokenStore}.
 *
 * @since 0.1.0
 * @category tokens
 */
export interface TokenStoreOptions<E = never, R = never> extends carriers.StoreOptions<E, R> {}

/**
 * Keeps the position on the server, for each subject, in the `KeyValueStore` of the context: for clients without cookies. All
 * processes need the same store; what is in one needs no key. One entry a subject, which nothing removes: it is not used any
 * more after the lifetime of tokens, and gives way to the next one. A store gets and sets but cannot compare, so of two
 * processes that answer the same subject at the same time the earlier position may win.
 *
 * @example
 * ```ts
 * import { HttpServerRequest } from "@effect/platform"
 * import { Effect, Option } from "effect"
 * import { HttpSession } from "effect-db-router"
 *
 * // One position for each user of the API.
 * const withStore = HttpSession.middleware({
 *   token: HttpSession.tokenStore({
 *     subject: (request) => Effect.succeed(Option.fromNullable(request.headers["x-user"]))
 *   })
 * })
 * ```
 *
 * @since 0.1.0
 * @category tokens
 */
export const tokenStore = <E = never, R = never>(options: TokenStoreOptions<E, R>): TokenCarrier<R | KeyValueStore> =>
  carriers.store(options)

/**
 * Returns `true` if a request with this status commits: below 400.
 *
 * @example
 * ```ts
 * import { HttpSession } from "effect-db-router"
 *
 * // A 409 commits too: it has been written down why.
 * const app = HttpSession.middleware({ commits: (status) => HttpSession.commitByStatus(status) || status === 409 })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const commitByStatus = (status: number): boolean => status < 400

/**
 * A middleware that runs every request in a session, for an `HttpApp` (on Node or as a web handler), `HttpServer.serve`,
 * `HttpRouter.use`, `HttpApiBuilder.serve`, and `HttpLayerRouter` (`HttpLayerRouter.middleware(..., { global: true })`). Where
 * an API takes an Effect of a middleware, {@link make} fits better.
 *
 * **The end.** The session ends before the first byte of the response leaves. The status that the app answers with decides,
 * and that of a failure is the one it is rendered with, whatever it is: a typed error that an API encodes as 303 commits.
 * Pre-response handlers that the app itself adds run after the end and can no longer change the decision: with what the session
 * has set, and each statement by itself, as in a streaming body. Those that were there before the middleware, or that a middleware
 * around it adds, run without. One thing is left: a streaming body that such a handler puts into a response of a web handler has
 * not what the session has set where the middleware is the argument of `HttpApp.toWebHandler`: put it around the app.
 * A status that does not commit (default: 400 and above), a failure, a defect, and a client that hangs up roll back; the
 * handler is interrupted when the client hangs up, which a plain app is not.
 *
 * **A COMMIT that fails**, or that the server answers with ROLLBACK because a statement had failed, is logged, and makes the
 * response an empty 500. The handler's headers and cookies are gone with what they told of, except those of CORS.
 *
 * **The routing context** starts clean: nothing of other requests, nor of the program around the server. All fibers of the
 * request have one flow.
 *
 * **Effects of `afterCommit`** run before the response leaves, outside the session. Fork what is slow.
 *
 * **Bodies.** HEAD is as GET. The statements of a streaming body (`HttpServerResponse.stream`, server-sent events) run after
 * the end of the session, each by itself, in the routing context of the request; it makes no difference whether the stream
 * has captured the handler's context. Files and other raw bodies are only sent: statements in them, in finalizers of the
 * request's scope, and in fibers that outlive the request fail with the reason `SessionClosed`. See `DbRouter.detached`.
 *
 * **Tokens** (option `token`). The request's flow begins with the position that the request brings; a token that is forged,
 * expired or impossible is ignored and counted (metric `db.router.rejected_tokens`), and the request starts clean. The response
 * takes the position of the end along, after the COMMIT, if the request wrote, or read further than it knew (of reads on replicas a
 * cookie tells only with its option `reads`), and never where shared caches may keep the response. So do requests that
 * `skip` names. What a streaming body or a WebSocket does after the head cannot be in it, and a 500 for a failed COMMIT has none.
 *
 * **WebSockets.** `HttpServerRequest.upgrade` ends the session, with the status 101, before the client hears of the
 * upgrade. Everything later commits by itself, or in sessions of its own (`DbRouter.session` around each message).
 *
 * **Inside another session** or transaction (a second middleware, a server started inside a session) the request joins it. What
 * that has set holds for streaming bodies, too. Where this middleware asks for what the session around does not have
 * (`settings`, `readOnly`, `isolation`, ...), no handler runs: the response is a 500, and the log says what to do.
 *
 * It must run in the fiber of the request. When a middleware around it forks it and does not join that fiber, the response
 * does not wait for it: all is rolled back, and an error is logged.
 *
 * **Uploads that stall** while the session holds a connection are ended with a 408: option `bodyTimeout`.
 *
 * Throws a `RouterConfigError` at once when `bodyTimeout`, or options of the session that are the same for all requests, cannot
 * be used.
 *
 * @example
 * ```ts
 * import { HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { HttpSession } from "effect-db-router"
 *
 * const app = HttpRouter.empty.pipe(
 *   HttpRouter.post(
 *     "/customers",
 *     Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *       Effect.as(sql`INSERT INTO customer (name) VALUES ('Ada')`, HttpServerResponse.empty({ status: 201 }))
 *     )
 *   )
 * )
 *
 * const ServerLive = HttpServer.serve(app, HttpSession.middleware({ readOnlyGet: true }))
 * ```
 *
 * @since 0.1.0
 * @category middleware
 */
export const middleware = <R0 = never, T0 = never, S0 = never>(
  options: Options<R0, T0, S0> = {}
): (<E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<E, R | R0 | T0 | S0 | DbRouter | Scope.Scope>) => {
  const policy = resolve(options)
  return (app) => Effect.flatMap(DbRouter, (router) => inSession(app, policy, router))
}

/**
 * A middleware that has its router. It is for APIs that pass no requirements and no errors of theirs through a middleware,
 * which is what `E` says in their terms.
 *
 * @since 0.1.0
 * @category models
 */
export type Middleware = <E extends HttpLayerRouter.unhandled>(
  app: HttpApp.Default<E>
) => HttpApp.Default<E, Scope.Scope>

/**
 * Makes the same middleware with the router and the services of `beforeCommit` that are there now. For
 * `HttpApiBuilder.middleware(HttpSession.make())`, also in the layer of `HttpApiBuilder.toWebHandler`, and
 * `HttpLayerRouter.middleware(HttpSession.make())`, by route (`.layer`) or global: the requirements become those of the layer.
 *
 * @example
 * ```ts
 * import { HttpApiBuilder, HttpLayerRouter } from "@effect/platform"
 * import { HttpSession } from "effect-db-router"
 *
 * const ofApi = HttpApiBuilder.middleware(HttpSession.make())
 *
 * const ofRoutes = HttpLayerRouter.middleware(HttpSession.make()).layer
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <R0 = never, T0 = never, S0 = never>(
  options: Options<R0, T0, S0> = {}
): Effect.Effect<Middleware, never, R0 | T0 | S0 | DbRouter> => {
  const policy = resolve(options)
  return Effect.map(Effect.context<R0 | T0 | S0 | DbRouter>(), (context) => {
    const provide = <A, E>(effect: Effect.Effect<A, E, R0 | T0 | S0>): Effect.Effect<A, E> =>
      Effect.mapInputContext(effect, (request: Context.Context<never>) => Context.merge(context, request))
    const closed = {
      ...policy,
      beforeCommit: policy.beforeCommit && provide(policy.beforeCommit),
      sessionOf: (request: HttpServerRequest) => {
        const given = policy.sessionOf(request)
        return isMade(given) ? given : provide(given)
      },
      carriers: policy.carriers.map((carrier) => carriers.provided(carrier, provide))
    }
    return (app) => inSession(app, closed, Context.get(context, DbRouter))
  })
}

interface Policy<R> {
  readonly commits: (status: number) => boolean
  readonly isSkipped: (request: HttpServerRequest) => boolean
  readonly isInterruptible: boolean
  readonly bodyTimeout: Duration.Duration
  readonly beforeCommit: Effect.Effect<unknown, unknown, R> | undefined
  readonly sessionOf: (request: HttpServerRequest) => GivenBy<R>
  readonly carriers: ReadonlyArray<carriers.Carrier<R>>
}

/** The options of a session, or what makes them. */
type GivenBy<R> = sessionOptions.Given | Effect.Effect<sessionOptions.Given, unknown, R>

const isMade = <R>(given: GivenBy<R>): given is sessionOptions.Given => !Effect.isEffect(given)

const reading = (given: sessionOptions.Given): sessionOptions.Given => ({ ...given, readOnly: true })

const givenBy = <R>(
  session: Exclude<Options<never, never, R>["session"], undefined>
): ((request: HttpServerRequest) => GivenBy<R>) => {
  if (typeof session === "function") {
    return (request) =>
      Effect.suspend(() => {
        const made = session(request)
        return Effect.flatMap(Effect.isEffect(made) ? made : Effect.succeed(made), sessionOptions.resolve)
      })
  }
  const fixed = Either.getOrThrowWith(sessionOptions.resolve(session), (error) => error)
  return () => fixed
}

const bodyTimeoutOf = (given: Duration.DurationInput = limits.body): Duration.Duration =>
  Either.getOrThrowWith(check.duration({ positive: true })("bodyTimeout", given), (error) => error)

const resolve = <R, T, S>(options: Options<R, T, S>): Policy<R | T | S> => {
  const { beforeCommit, commits = commitByStatus, interruptible = true, readOnlyGet = false } = options
  const skip = options.skip ?? []
  const given = givenBy(options.session ?? {})
  const isReading = ({ method }: HttpServerRequest) => readOnlyGet && (method === "GET" || method === "HEAD")
  return {
    commits,
    isSkipped: typeof skip === "function" ? skip : ({ method }) => skip.includes(method),
    isInterruptible: interruptible,
    bodyTimeout: bodyTimeoutOf(options.bodyTimeout),
    beforeCommit,
    sessionOf: (request) => {
      const found = given(request)
      return !isReading(request) ? found : isMade(found) ? reading(found) : Effect.map(found, reading)
    },
    carriers: options.token === undefined ? [] : [options.token].flat()
  }
}

const inSession = <E, R, R0>(
  plain: HttpApp.Default<E, R>,
  policy: Policy<R0>,
  router: DbRouter
): HttpApp.Default<E, R | R0 | Scope.Scope> =>
  Effect.flatMap(HttpServerRequest, (request) =>
    Effect.withFiberRuntime((fiber) => {
      const isInterruptible = policy.isInterruptible && !isUninterruptibleRoute(fiber.currentContext)
      const app = isInterruptible ? Effect.interruptible(plain) : plain
      const given = policy.sessionOf(request)
      const options = isMade(given)
        ? Effect.succeed(Exit.succeed(given))
        : Effect.exit(isInterruptible ? Effect.interruptible(given) : given)
      const around = router.runner.workOf(fiber)
      if (around !== undefined && around.session?.ended !== true) {
        const rules = router.runner.rulesOf(fiber)
        const joined = inside(app, request, rules, router.runner)
        if (policy.isSkipped(request)) return joined
        return Effect.flatMap(options, (options) => {
          if (Exit.isFailure(options)) return refused(options.cause)
          return sessionOptions.holds(options.value, rules) ? joined : refused(Cause.fail(RouterError.sessionActive()))
        })
      }
      const beforeCommit =
        policy.beforeCommit === undefined ? Effect.succeed(undefined) : router.runner.deferred(policy.beforeCommit)
      const inOwn = (flow: RequestFlow, given: sessionOptions.Given, scope: RequestScope) =>
        Effect.zipWith(unit.open(router.runner, given), beforeCommit, (opened, beforeCommit) =>
          scope.hold(new RequestSession(opened, flow, policy.commits, beforeCommit, isInterruptible))
        ).pipe(
          Effect.flatMap((session) =>
            session.serve(
              request.headers.upgrade === undefined
                ? session.limited(app, policy.bodyTimeout)
                : withRequest(app, session.endedByUpgrade(request, scope.leave))
            )
          )
        )
      return Effect.flatMap(RequestScope.begin(request, fiber), (scope) =>
        Effect.flatMap(carriedOf(policy, router, request), (carried) =>
          Effect.flatMap(RequestFlow.begin(request, carried), (flow) => {
            if (policy.isSkipped(request)) {
              if (request.headers.upgrade !== undefined) scope.leave()
              return PreResponse.around(flow.run(app), flow.run, (response) => flow.take(response))
            }
            if (isMade(given)) return inOwn(flow, given, scope)
            return Effect.flatMap(flow.run(options), (options) =>
              Exit.isFailure(options) ? refused(options.cause) : inOwn(flow, options.value, scope)
            )
          })
        )
      )
    })
  )

/** A request inside another session. What comes after that still has what has been set there. */
const inside = <E, R>(
  app: HttpApp.Default<E, R>,
  request: HttpServerRequest,
  rules: Rules | undefined,
  runner: Runner
): HttpApp.Default<E, R> => {
  if (rules === undefined) return app
  const outside = runner.around(rules)
  return PreResponse.around(
    Effect.map(app, (response) => withBody(response, request, outside)),
    outside
  )
}

/** The response to a request that gets no session, as the options of one could not be made. */
const refused = (cause: Cause.Cause<unknown>): Effect.Effect<HttpServerResponse> =>
  Cause.isInterruptedOnly(cause)
    ? Effect.failCause(Cause.stripFailures(cause))
    : Effect.flatMap(HttpServerError.causeResponse(cause), ([response]) =>
        response.status < 500
          ? Effect.succeed(response)
          : Effect.as(Log.error("The session of a request could not be opened", cause), response)
      )

const carriedOf = <R>(
  policy: Policy<R>,
  router: DbRouter,
  request: HttpServerRequest
): Effect.Effect<carriers.Carried | undefined, never, R> => {
  const tokens = Tokens.ofService(router.client)
  if (tokens === undefined || policy.carriers.length === 0) return Effect.succeed(undefined)
  return Effect.map(Effect.context<R>(), (context) => {
    const provide = <A, E>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, context)
    const all = policy.carriers.map((carrier) => carriers.provided(carrier, provide))
    return new carriers.Carried(all, tokens, request)
  })
}

const isUninterruptibleRoute = (context: Context.Context<never>): boolean => {
  const route = Context.getOption(context, RouteContext)
  return route._tag === "Some" && route.value.route.uninterruptible
}

const withRequest = <E, R>(app: HttpApp.Default<E, R>, request: HttpServerRequest): HttpApp.Default<E, R> =>
  Effect.mapInputContext(app, (context: Context.Context<R | HttpServerRequest>) =>
    Context.add(context, HttpServerRequest, request)
  )
