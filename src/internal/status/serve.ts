import { isIPv4, isIPv6 } from "node:net"
import type * as HttpApp from "@effect/platform/HttpApp"
import { RouteContext } from "@effect/platform/HttpRouter"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { DbRouter, EngineStatus } from "../client/service.js"
import * as Log from "../validation/log.js"
import { withoutPasswords } from "../validation/printValue.js"
import { Journal } from "./journal.js"
import { contentSecurityPolicy, page } from "./page.js"
import { type Policy, take } from "./snapshot.js"

const names = ["", "status.json", "drain", "undrain", "act"] as const

type Name = (typeof names)[number]

const isName = (name: string): name is Name => names.some((one) => one === name)

const headers = {
  "cache-control": "no-store",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY"
}

const json = (body: unknown, status = 200, more: Readonly<Record<string, string>> = {}) =>
  HttpServerResponse.text(JSON.stringify(body), {
    status,
    contentType: "application/json",
    headers: { ...headers, ...more }
  })

const refuse = (status: number, error: string, more?: Readonly<Record<string, string>>) => json({ error }, status, more)

const html = HttpServerResponse.text(page, {
  contentType: "text/html; charset=utf-8",
  headers: { ...headers, "content-security-policy": contentSecurityPolicy }
})

const segments = (path: string) => path.split("/").filter((segment) => segment !== "").length

/** The part of the app that a request is for, however the app was mounted; `undefined` where there is none. */
const nameOf = (url: string, route: RouteContext["route"] | undefined): Name | undefined => {
  const path = url.replace(/[?#].*$/s, "").replace(/^[a-z]+:\/\/[^/]*/i, "")
  const parts = path.split("/").slice(1)
  const last = parts.at(-1) ?? ""
  // The app was mounted at this one path.
  if (route !== undefined && !route.path.endsWith("*")) return isName(last) ? last : ""
  // A router takes its own prefix off the URL; what else of the path leads here is still there.
  const led = route === undefined ? 0 : segments(route.path.slice(0, -1))
  const taken = route === undefined ? 0 : segments(Option.getOrElse(route.prefix, () => ""))
  const rest = parts.slice(Math.max(0, led - taken))
  const [name = ""] = rest
  return rest.length <= 1 && isName(name) ? name : undefined
}

/** Whether a page of this origin has sent a request. Browsers set both headers, and let no script do it. */
const isSameOrigin = ({ headers }: HttpServerRequest): boolean => {
  const site = headers["sec-fetch-site"]
  if (site !== undefined) return site === "same-origin"
  const { host, origin } = headers
  if (origin === undefined || host === undefined || !URL.canParse(origin)) return false
  const url = new URL(origin)
  return url.host === host && url.origin === origin
}

/** The name of the host that a request is for, without its port; IPv6 addresses keep their brackets. */
const hostOf = ({ headers }: HttpServerRequest): string | undefined =>
  (headers[":authority"] ?? headers.host)?.toLowerCase().replace(/:\d*$/, "").replace(/\.$/, "")

/** An address can be no page's own name. */
const isAddress = (host: string): boolean => isIPv4(host) || (host.startsWith("[") && isIPv6(host.slice(1, -1)))

// Every browser says the host.
const isAllowed = (host: string | undefined, hosts: Policy["hosts"]): boolean =>
  hosts === undefined ||
  host === undefined ||
  hosts.has(host) ||
  isAddress(host) ||
  host === "localhost" ||
  host.endsWith(".localhost")

/** Does something to a server. */
const operate = (router: DbRouter, policy: Policy, name: "drain" | "undrain" | "act", url: string) =>
  Effect.gen(function* () {
    const parameters = new URL(url, "http://localhost").searchParams
    const engineName = parameters.get("engine")
    const engine = (yield* router.status).find(({ name }) => name === engineName)
    if (engine === undefined) return refuse(404, `There is no server ${JSON.stringify(engineName)}`)
    const run = operationOf(router, policy, name, engine, parameters.get("action"))
    if (run === undefined) return refuse(404, `There is no such action for ${engine.name} now`)
    const failure = yield* Effect.catchAllCause(Effect.as(run, undefined), (cause) =>
      Cause.isInterruptedOnly(cause)
        ? Effect.interrupt
        : Effect.as(Log.warning(`An action on ${engine.name} has failed`, cause), messageOf(cause))
    )
    return failure === undefined ? json(yield* take(router, policy)) : refuse(500, failure)
  })

const operationOf = (
  router: DbRouter,
  policy: Policy,
  name: "drain" | "undrain" | "act",
  engine: EngineStatus,
  label: string | null
): Effect.Effect<unknown, unknown> | undefined =>
  name === "act" ? policy.actions(engine).find((action) => action.label === label)?.run : router[name](engine.name)

const messageOf = (cause: Cause.Cause<unknown>): string =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => "It has failed: the log says why",
    onSome: (error) => withoutPasswords(error instanceof Error ? error.message : String(error))
  })

/** Answers a request. */
const answer = (router: DbRouter, policy: Policy, name: Name | undefined, request: HttpServerRequest) => {
  const host = hostOf(request)
  if (!isAllowed(host, policy.hosts)) {
    const remedy = `HttpStatus.app({ hosts: [${JSON.stringify(host)}] }) allows it`
    return Effect.succeed(refuse(403, `This page does not answer for the host ${JSON.stringify(host)}: ${remedy}`))
  }
  if (name === undefined) return Effect.succeed(refuse(404, "There is nothing here"))
  if (name === "" || name === "status.json") {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return Effect.succeed(refuse(405, "It can only be read", { allow: "GET, HEAD" }))
    }
    return name === ""
      ? Effect.as(Journal.of(router), html)
      : Effect.map(take(router, policy), (status) => json(status))
  }
  return request.method !== "POST"
    ? Effect.succeed(refuse(405, "That takes a POST", { allow: "POST" }))
    : !isSameOrigin(request)
      ? Effect.succeed(refuse(403, "That takes a request of the page itself, by Sec-Fetch-Site or Origin"))
      : name !== "act" && !policy.operations
        ? Effect.succeed(refuse(403, "Operations are off: HttpStatus.app({ operations: true }) turns them on"))
        : operate(router, policy, name, request.url)
}

/** The app over a router. */
export const serve = (router: DbRouter, policy: Policy): HttpApp.Default =>
  Effect.flatMap(HttpServerRequest, (request) =>
    Effect.flatMap(Effect.serviceOption(RouteContext), (route) =>
      answer(
        router,
        policy,
        nameOf(request.url, Option.getOrUndefined(Option.map(route, ({ route }) => route))),
        request
      )
    )
  )
