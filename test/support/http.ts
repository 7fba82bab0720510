import { Agent, createServer, request as nodeRequest } from "node:http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiSchema,
  HttpApp,
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse
} from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { SqlClient, SqlError } from "@effect/sql"
import type { PgClient } from "@effect/sql-pg"
import { Cause, Context, Effect, Exit, Layer, Logger, Option, Redacted, Schedule, Schema, type Scope } from "effect"
import { DbRouter, HttpSession, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Pg from "pg"

/** An error that every placement renders with a status that does not commit. */
export class Conflict extends Schema.TaggedError<Conflict>()(
  "Conflict",
  {},
  HttpApiSchema.annotations({ status: 409 })
) {
  [HttpServerRespondable.symbol]() {
    return HttpServerResponse.empty({ status: 409 })
  }
}

/** An error that every placement renders with a status that commits. */
export class Moved extends Schema.TaggedError<Moved>()("Moved", {}, HttpApiSchema.annotations({ status: 303 })) {
  [HttpServerRespondable.symbol]() {
    return HttpServerResponse.empty({ status: 303 })
  }
}

export type Services = DbRouter.DbRouter | SqlClient.SqlClient | PgClient.PgClient

/** Requests that are not committed are logged. */
export const quiet: Layer.Layer<never> = Logger.remove(Logger.defaultLogger)

/** What the app of a test does for `/act/NAME/ID`. */
export type Act = (name: string, id: string) => HttpApp.Default<Conflict | Moved, Services | Scope.Scope>

export interface Sent {
  readonly method?: "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS"
  readonly headers?: Readonly<Record<string, string>>
  /** Runs the moment that the head of the response is there. */
  readonly atHead?: () => unknown
  /** Hangs up when it aborts. */
  readonly signal?: AbortSignal
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** Sends one request. */
export type Send = (path: string, sent?: Sent) => Promise<Answer>

/** A client of a Node server, on connections that are kept alive. */
export const client = (port: number, agent: Agent): Send => {
  const send: Send = (path, { atHead, headers = {}, method = "POST", signal } = {}) =>
    new Promise((resolve, reject) => {
      const request = nodeRequest({ host: "127.0.0.1", port, path, method, headers, agent, signal }, (response) => {
        const seen = new Headers()
        for (let i = 0; i < response.rawHeaders.length; i += 2) {
          seen.append(response.rawHeaders[i]!, response.rawHeaders[i + 1]!)
        }
        atHead?.()
        let body = ""
        response.setEncoding("utf8")
        response.on("data", (text: string) => (body += text))
        response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: seen, body }))
        response.on("error", reject)
      })
      request.on("error", reject)
      request.end()
    })
  return send
}

type WebHandler = (request: Request) => Promise<Response>

const webClient =
  (handler: WebHandler): Send =>
  async (path, { atHead, headers = {}, method = "POST", signal } = {}) => {
    const response = await handler(
      new Request(`http://localhost${path}`, { method, headers, ...(signal && { signal }) })
    )
    atHead?.()
    return { status: response.status, headers: response.headers, body: await textOf(response, signal) }
  }

/** What the server around a web handler does with its response. */
const textOf = async ({ body }: Response, signal: AbortSignal | undefined): Promise<string> => {
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader()
  signal?.addEventListener("abort", () => void reader?.cancel())
  let text = ""
  for (let chunk = await reader?.read(); chunk?.done === false; chunk = await reader?.read()) text += chunk.value
  if (signal?.aborted) throw new Error("The client has hung up")
  return text
}

type Served = Services | HttpServer.HttpServer | HttpRouter.HttpRouter.DefaultServices

/** Serves a layer on a port of its own until the scope closes, and returns a client. */
export const listen = (
  served: Layer.Layer<never, never, Served>
): Effect.Effect<Send & { readonly port: number }, never, Services | Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      Layer.provideMerge(served, Layer.orDie(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })))
    )
    const { address } = Context.get(context, HttpServer.HttpServer)
    const port = address._tag === "TcpAddress" ? address.port : 0
    const agent = yield* Effect.acquireRelease(
      Effect.sync(() => new Agent({ keepAlive: true, maxSockets: 1000 })),
      (agent) => Effect.sync(() => agent.destroy())
    )
    return Object.assign(client(port, agent), { port })
  })

const params = HttpRouter.schemaPathParams(Schema.Struct({ name: Schema.String, id: Schema.String }))

const path = "/act/:name/:id"

const pathSchema = Schema.Struct({ name: Schema.String, id: Schema.String })

class Api extends HttpApi.make("test").add(
  HttpApiGroup.make("acts")
    .add(HttpApiEndpoint.post("write", path).setPath(pathSchema))
    .add(HttpApiEndpoint.get("read", path).setPath(pathSchema))
    .addError(Conflict)
    .addError(Moved)
) {}

const api = <A, E, R>(act: Act, layer: Layer.Layer<A, E, R>) =>
  layer.pipe(
    Layer.provide(HttpApiBuilder.api(Api)),
    Layer.provide(
      HttpApiBuilder.group(Api, "acts", (group) =>
        group
          .handleRaw("write", ({ path }) => act(path.name, path.id))
          .handleRaw("read", ({ path }) => act(path.name, path.id))
      )
    )
  )

const handle = (act: Act) => Effect.flatMap(Effect.orDie(params), ({ id, name }) => act(name, id))

/** An app without a router: nothing around it is interruptible by itself. */
const plain = (act: Act) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ url }) => {
    const [, , name = "", id = ""] = url.split("/")
    return act(name, id)
  })

const routed = (act: Act) => HttpRouter.empty.pipe(HttpRouter.all(path, handle(act)))

const routes = (act: Act) => HttpLayerRouter.add("*", path, handle(act))

const silent = { disableLogger: true, disableListenLog: true } as const

const web = (
  make: (services: Layer.Layer<Services>) => {
    readonly handler: WebHandler
    readonly dispose: () => Promise<void>
  }
) =>
  Effect.flatMap(Effect.context<Services>(), (context) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => make(Layer.merge(Layer.succeedContext(context), quiet))),
        ({ dispose }) => Effect.promise(dispose)
      ),
      ({ handler }) => webClient(handler)
    )
  )

/** Puts `HttpSession` around an app in one of the ways there are. */
export type Placement = (act: Act, options?: HttpSession.Options) => Effect.Effect<Send, never, Services | Scope.Scope>

/** All of them. */
export const placements: Readonly<Record<string, Placement>> = {
  "an HttpApp": (act, options) => listen(HttpServer.serve(HttpSession.middleware(options)(plain(act)))),
  "HttpServer.serve": (act, options) => listen(HttpServer.serve(plain(act), HttpSession.middleware(options))),
  "HttpRouter.use": (act, options) =>
    listen(HttpServer.serve(HttpRouter.use(routed(act), HttpSession.middleware(options)))),
  "HttpApiBuilder.serve": (act, options) => listen(api(act, HttpApiBuilder.serve(HttpSession.middleware(options)))),
  "HttpApiBuilder.middleware": (act, options) =>
    listen(api(act, HttpApiBuilder.serve()).pipe(Layer.provide(HttpApiBuilder.middleware(HttpSession.make(options))))),
  "HttpApiBuilder.middleware, with context": (act, options) =>
    listen(
      api(act, HttpApiBuilder.serve()).pipe(
        Layer.provide(
          HttpApiBuilder.middleware<DbRouter.DbRouter | Scope.Scope | HttpServerRequest.HttpServerRequest>(
            HttpSession.middleware(options),
            { withContext: true }
          )
        )
      )
    ),
  "HttpLayerRouter.middleware, global": (act, options) =>
    listen(
      HttpLayerRouter.serve(
        Layer.merge(routes(act), HttpLayerRouter.middleware(HttpSession.middleware(options), { global: true })),
        silent
      )
    ),
  "HttpLayerRouter.middleware, made, global": (act, options) =>
    listen(
      HttpLayerRouter.serve(
        Layer.merge(routes(act), HttpLayerRouter.middleware(HttpSession.make(options), { global: true })),
        silent
      )
    ),
  "HttpLayerRouter.middleware, by route": (act, options) =>
    listen(
      HttpLayerRouter.serve(
        Layer.provide(routes(act), HttpLayerRouter.middleware(HttpSession.make(options)).layer),
        silent
      )
    ),
  "HttpLayerRouter.addHttpApi": (act, options) =>
    listen(
      HttpLayerRouter.serve(
        Layer.merge(
          api(act, HttpLayerRouter.addHttpApi(Api)),
          HttpLayerRouter.middleware(HttpSession.make(options), { global: true })
        ),
        silent
      )
    ),
  "HttpLayerRouter.serve": (act, options) =>
    listen(HttpLayerRouter.serve(routes(act), { ...silent, middleware: HttpSession.middleware(options) })),
  "HttpApp.toWebHandlerRuntime": (act, options) =>
    Effect.map(Effect.runtime<Services>(), (runtime) =>
      webClient(HttpApp.toWebHandlerRuntime(runtime)(HttpSession.middleware(options)(plain(act))))
    ),
  "HttpApp.toWebHandlerLayer": (act, options) =>
    web((services) => HttpApp.toWebHandlerLayer(plain(act), services, { middleware: HttpSession.middleware(options) })),
  "HttpApiBuilder.toWebHandler": (act, options) =>
    web((services) =>
      HttpApiBuilder.toWebHandler(
        Layer.mergeAll(
          api(act, HttpApiBuilder.api(Api)),
          HttpApiBuilder.middleware(HttpSession.make(options)),
          HttpServer.layerContext
        ).pipe(Layer.provide(services))
      )
    ),
  "HttpLayerRouter.toWebHandler": (act, options) =>
    web((services) =>
      HttpLayerRouter.toWebHandler(
        Layer.merge(routes(act), HttpLayerRouter.middleware(HttpSession.make(options), { global: true })).pipe(
          Layer.provideMerge(services)
        ),
        { disableLogger: true }
      )
    )
}

/** Waits until something holds: a few seconds at most. */
export const eventually = <E, R>(holds: Effect.Effect<boolean, E, R>, what: string) =>
  holds.pipe(
    Effect.filterOrFail(
      (held) => held,
      () => `never: ${what}`
    ),
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.intersect(Schedule.recurs(500))))
  )

/** What connections of our own see of a table `entry (id text)`, past the router. */
export const watch = Effect.gen(function* () {
  const { primary } = yield* PgCluster.PgCluster
  const connections = yield* Effect.acquireRelease(
    Effect.sync(() => new Pg.Pool({ connectionString: Redacted.value(primary.url), max: 8 })),
    (pool) => Effect.promise(() => pool.end())
  )
  return {
    exists: (id: string) =>
      connections
        .query({ text: "SELECT 1 FROM entry WHERE id = $1", values: [id], name: "exists" })
        .then(({ rows }) => rows.length === 1),
    openTransactions: () =>
      connections
        .query(
          "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
        )
        .then(({ rows }) => rows.length)
  }
})

/** Waits until all connections of the router are back, and asserts that none is in a transaction. */
export const nothingIsHeld = Effect.gen(function* () {
  const { openTransactions } = yield* watch
  const { status } = yield* DbRouter.DbRouter
  const allIdle = Effect.map(status, (engines) =>
    engines.every(({ pool }) => pool.idle === pool.total && pool.waiting === 0)
  )
  // Between two looks a request may begin whose client has left before.
  yield* eventually(
    Effect.zipWith(allIdle, Effect.promise(openTransactions), (isIdle, open) => isIdle && open === 0),
    "all connections are idle, and no transaction is open"
  )
})

/** The reason of a statement that was refused. */
export const reasonOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "none"
  const failure = Cause.failureOption(exit.cause)
  return Option.getOrElse(
    Option.flatMap(failure, (error) =>
      error instanceof SqlError.SqlError ? RouterError.reasonOf(error) : Option.none()
    ),
    () => "other"
  )
}

/** A primary with the tables of these tests. Nothing can refer to a `child`: at the COMMIT it is found out. */
export const cluster: Layer.Layer<PgCluster.PgCluster, PgCluster.PgClusterError> = Layer.effectDiscard(
  Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
    primary.query(`
      CREATE TABLE entry (id text PRIMARY KEY);
      CREATE TABLE child (id text REFERENCES entry DEFERRABLE INITIALLY DEFERRED)`)
  )
).pipe(Layer.provideMerge(PgCluster.layer({ replicas: 0 })))

/** A router over it, with so many connections. */
export const router = (
  maxConnections = 10
): Layer.Layer<DbRouter.Services, RouterError.RouterConfigError | SqlError.SqlError, PgCluster.PgCluster> =>
  Layer.unwrapEffect(
    Effect.map(PgCluster.PgCluster, ({ primary }) =>
      DbRouter.layer({ groups: { default: [{ url: primary.url, name: "primary", maxConnections }] } })
    )
  )

export const TestLayer = Layer.provideMerge(router(), cluster).pipe(Layer.provideMerge(quiet))

export const insert = (id: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.orDie(sql`INSERT INTO entry VALUES (${id})`))

/** A write that makes the COMMIT fail. */
export const violate = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.orDie(sql`INSERT INTO child VALUES ('orphan')`)
)

/** Which of these have been committed. */
export const existing = (...ids: ReadonlyArray<string>) =>
  Effect.flatMap(watch, ({ exists }) =>
    Effect.promise(async () => {
      const found = await Promise.all(ids.map(exists))
      return ids.filter((_, i) => found[i])
    })
  ).pipe(Effect.scoped)
