/**
 * A page that shows a router at a glance: its servers and their health, the routes of statements with their reasons, recent
 * events. It is an `HttpApp`: it is served where you mount it.
 *
 * **Protect it.** It has no authentication. A visitor sees the addresses of the servers and the texts of statements, and with
 * `operations` takes servers out of use. Mount it behind what guards the rest of your operations (a login, a VPN, a port of its
 * own). A port on `127.0.0.1` alone is no guard against the pages of a browser there, which can make
 * their own names lead to it: with `operations` or `actions` the page answers for addresses, `localhost` and {@link Options.hosts}
 * alone.
 *
 * ```ts
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 * import { HttpStatus } from "effect-db-router"
 *
 * const routes = HttpRouter.empty.pipe(
 *   HttpRouter.get("/", HttpServerResponse.text("Hello")),
 *   HttpRouter.mountApp("/db", HttpStatus.app())
 * )
 * ```
 *
 * | request | answer |
 * | --- | --- |
 * | `GET <mount>/` | the page, one HTML file that loads nothing from elsewhere, under a strict Content-Security-Policy |
 * | `GET <mount>/status.json` | all that the page shows, as {@link Status} |
 * | `POST <mount>/drain?engine=NAME`, `/undrain?engine=NAME` | does it, with `operations: true`; answers as `status.json` |
 * | `POST <mount>/act?engine=NAME&action=LABEL` | runs one of {@link Options.actions}; answers as `status.json` |
 *
 * A POST has to come from the page itself: `Sec-Fetch-Site` is `same-origin`, or, where a browser sends none, `Origin` names the
 * host that was asked. Else the answer is 403; another method is 405, an unknown name 404, an action that fails 500 with its
 * message, without the passwords of URLs in it. No password and no URL of a server is ever part of an answer, no parameter of a
 * statement, and by default no constant either.
 *
 * The page asks for `status.json` again and again; nothing is kept running for it on the server.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { DbRouter, type EngineStatus } from "./internal/client/service.js"
import { type Decided, Journal, type Traffic as Statements } from "./internal/status/journal.js"
import { serve } from "./internal/status/serve.js"
import type * as snapshot from "./internal/status/snapshot.js"

/**
 * Something that can be done to a server: a button of the page.
 *
 * @since 0.1.0
 * @category models
 */
export interface Action extends snapshot.Action {
  /** The label of the button, unlike any other of that server: `"Promote"`. */
  readonly label: string
  /** The effect of the button. When it fails, the page shows the message of its error; defects are only logged. */
  readonly run: Effect.Effect<unknown, unknown>
}

/**
 * The content and the operations of the page.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** If `true`, the page can drain and undrain servers. Default: `false`. */
  readonly operations?: boolean | undefined
  /**
   * The form of the texts of statements; their parameters (`$1`) are never shown. Default: `"masked"`, each constant as `?` and
   * no comments, since `CREATE ROLE ... PASSWORD '...'` and connection strings are constants. `true`: as they were written.
   * `false`: not at all; reasons still name functions and relations.
   */
  readonly texts?: boolean | "masked" | undefined
  /**
   * The hosts that requests may be for, as in `"db.example.com"`, without a port. Addresses, `localhost` and names below it are
   * always allowed; a request for another host is answered with 403. A page of the web can make a name of its own lead to your
   * port (DNS rebinding), but not to another name or an address. Default: none beside those where there are `operations` or
   * `actions`, else any. `true`: any, for a page behind a proxy that checks the host itself.
   */
  readonly hosts?: ReadonlyArray<string> | true | undefined
  /** Default: `"effect-db-router"`. */
  readonly title?: string | undefined
  /** A line below the title. Default: none. */
  readonly description?: string | undefined
  /** The interval at which the page refreshes. Default: `"1 second"`. */
  readonly refresh?: Duration.DurationInput | undefined
  /**
   * Buttons of your own for a server as it is now, such as those of your cluster manager. They do not need `operations`.
   * Called for every server and every answer, so it has to be quick. Default: none.
   */
  readonly actions?: ((engine: EngineStatus) => ReadonlyArray<Action>) | undefined
}

/**
 * The content of `status.json`. Unknown values are absent. All times are in milliseconds of the clock.
 *
 * @since 0.1.0
 * @category models
 */
export interface Status extends snapshot.Status {}

/**
 * A server in `status.json`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Server extends snapshot.Server {}

/**
 * The statements that were sent to a server, by what they are. One that is moved to another server counts for both.
 *
 * @since 0.1.0
 * @category models
 */
export interface Traffic extends Statements {}

/**
 * The last decision for one statement and one reason. Where more than 256 statements are sent between two answers, the last
 * 256 are looked at; the last 60 kinds are kept.
 *
 * @since 0.1.0
 * @category models
 */
export interface Decision extends Decided {}

const hostsOf = ({ actions, hosts, operations }: Options): ReadonlySet<string> | undefined => {
  if (hosts === true) return undefined
  if (hosts !== undefined) return new Set(hosts.map((host) => host.toLowerCase()))
  return operations === true || actions !== undefined ? new Set() : undefined
}

const resolve = (options: Options): snapshot.Policy => ({
  operations: options.operations ?? false,
  texts: options.texts ?? "masked",
  hosts: hostsOf(options),
  title: options.title ?? "effect-db-router",
  description: options.description,
  refresh: Duration.toMillis(options.refresh ?? "1 second"),
  actions: options.actions ?? (() => [])
})

/**
 * The app, for `HttpRouter.mountApp("/db", HttpStatus.app())`, for routes that lead to it, or as a server of its own.
 * Statements, decisions and events are recorded from the first request on, in bounded room, until the router closes;
 * {@link make} and {@link layer} record from the start.
 *
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { HttpStatus } from "effect-db-router"
 *
 * const routes = HttpRouter.mountApp(HttpRouter.empty, "/db", HttpStatus.app({ operations: true }))
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const app = (options: Options = {}): HttpApp.Default<never, DbRouter> => {
  const policy = resolve(options)
  return Effect.flatMap(DbRouter, (router) => serve(router, policy))
}

/**
 * The same app with the router that is there now. Statements, decisions and events are recorded from here on.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<HttpApp.Default, never, DbRouter> => {
  const policy = resolve(options)
  return Effect.flatMap(DbRouter, (router) => Effect.as(Journal.of(router), serve(router, policy)))
}

/**
 * The same app as routes of `HttpLayerRouter`, below a path. (A wildcard route alone does not match its own root there.)
 *
 * @example
 * ```ts
 * import { HttpLayerRouter } from "@effect/platform"
 * import { Layer } from "effect"
 * import { HttpStatus } from "effect-db-router"
 *
 * const ServerLive = HttpLayerRouter.serve(Layer.mergeAll(HttpStatus.layer("/db"))) // and your routes
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  path: `/${string}`,
  options: Options = {}
): Layer.Layer<never, never, HttpLayerRouter.HttpRouter | DbRouter> => {
  const mount = path.replace(/\/+$/, "")
  return HttpLayerRouter.use((router) =>
    Effect.flatMap(make(options), (app) =>
      Effect.zipRight(router.add("*", `/${mount.slice(1)}`, app), router.add("*", `${mount}/*` as `/${string}`, app))
    )
  )
}
