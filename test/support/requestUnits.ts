/**
 * Requests as units of work: through `HttpSession.middleware`, with each ending, without a port. A client that hangs up is an
 * interruption of the fiber that handles the request, as servers do it, or an `AbortSignal`.
 */
import { HttpApp, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Stream } from "effect"
import { type DbRouter, HttpSession } from "effect-db-router"

type Services = DbRouter.Services
export type Body = (key: string) => Effect.Effect<unknown, unknown, Services>

/** What becomes of a response's body. */
type Reads = "to its end" | "not at all" | "a part"

interface Asked {
  readonly method?: "GET" | "POST"
  readonly status?: number
  readonly reads?: Reads
  readonly options?: HttpSession.Options
  /** What the handler does, instead of the body. */
  readonly only?: string
}

const answer = ({ reads, status = 200 }: Asked) =>
  reads === undefined
    ? Effect.succeed(HttpServerResponse.empty({ status }))
    : Effect.map(SqlClient.SqlClient, (sql) =>
        HttpServerResponse.stream(
          Stream.map(sql.unsafe<{ readonly a: string }>("select many from t").stream, ({ a }) => Buffer.from(`${a}\n`)),
          { status }
        )
      )

/** A handler, and what it has done when it answered. */
const handler = (body: Body, asked: Asked) => {
  let done: unknown
  const work =
    asked.only === undefined
      ? body("one")
      : Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.as(sql.unsafe(asked.only!), "done"))
  const app = Effect.flatMap(work, (value) => {
    done = value
    return answer(asked)
  })
  return { app, outcome: (status: number): unknown => (status < 400 ? done : status) }
}

const drained = (response: HttpServerResponse.HttpServerResponse, reads: Reads | undefined) => {
  const { body } = response
  if (body._tag !== "Stream" || reads === "not at all") return Effect.void
  return Effect.interruptible(Stream.runDrain(reads === "a part" ? Stream.take(body.stream, 1) : body.stream))
}

const post = (method: string, signal?: AbortSignal) =>
  new Request("http://localhost/", { method, signal: signal ?? null })

type App<R> = HttpApp.Default<unknown, R>
type Told = (value: unknown) => void

/** Handled as a server on Node does it: the body is sent by the fiber of the request. */
const handled =
  (asked: Asked, around: (app: App<Services>) => App<Services | HttpServerRequest.HttpServerRequest> = (app) => app) =>
  (body: Body, told: Told): Effect.Effect<unknown, unknown, Services> =>
    Effect.suspend(() => {
      const { app, outcome } = handler(body, asked)
      let status: number | undefined
      const send = (_: HttpServerRequest.HttpServerRequest, response: HttpServerResponse.HttpServerResponse) =>
        Effect.suspend(() => {
          status ??= response.status
          told(outcome(status))
          return drained(response, asked.reads)
        })
      return HttpApp.toHandled(HttpSession.middleware(asked.options)(around(app)), send).pipe(
        Effect.provideService(
          HttpServerRequest.HttpServerRequest,
          HttpServerRequest.fromWeb(post(asked.method ?? "POST"))
        ),
        Effect.as(undefined),
        Effect.zipRight(Effect.sync(() => (status === undefined ? "not answered" : outcome(status))))
      )
    })

/** Handled as a web handler does it: a client hangs up by its `AbortSignal`, and the body is a `ReadableStream`. */
const web =
  (asked: Asked) =>
  (body: Body, told: Told): Effect.Effect<unknown, unknown, Services> =>
    Effect.flatMap(Effect.runtime<Services>(), (runtime) =>
      Effect.async<unknown>((resume) => {
        const { app, outcome } = handler(body, asked)
        const leaving = new AbortController()
        let reader: ReadableStreamDefaultReader<Uint8Array> | undefined
        let over = () => {}
        const isOver = new Promise<void>((resolve) => {
          over = resolve
        })
        const seen = Effect.zipRight(
          Effect.addFinalizer(() => Effect.sync(() => over())),
          HttpSession.middleware(asked.options)(app)
        )
        const read = async () => {
          for (let parts = 0; ; parts++) {
            if (asked.reads === "a part" && parts === 1) return reader!.cancel()
            if ((await reader!.read()).done) return
          }
        }
        const handle = HttpApp.toWebHandlerRuntime(runtime)(seen)
        void handle(post(asked.method ?? "POST", leaving.signal)).then(async ({ body, status }) => {
          told(outcome(status))
          reader = body?.getReader() as typeof reader
          // A stream that fails has been told of already.
          if (reader !== undefined) await read().catch(() => {})
          await isOver
          resume(Effect.succeed(outcome(status)))
        })
        return Effect.promise(() => {
          leaving.abort()
          void reader?.cancel().catch(() => {})
          return isOver
        })
      })
    )

const routed = (app: App<Services>): App<Services | HttpServerRequest.HttpServerRequest> =>
  HttpRouter.empty.pipe(HttpRouter.post("/", app))

/** The units, by name: what the matrix has to know of each is what it says of its own. */
export const units = {
  request: { run: handled({}), isWhole: true, isRequest: true },
  "request, 409": { run: handled({ status: 409 }), isUndone: true, isRequest: true },
  "request, read-only GET": {
    run: handled({ method: "GET", only: "select 1", options: { readOnlyGet: true } }),
    isRequest: true
  },
  "request with settings": {
    run: handled({ options: { session: { settings: { "app.user": "1" } } } }),
    isWhole: true,
    isRequest: true
  },
  "request of a router of HTTP": {
    run: handled({}, routed),
    isWhole: true,
    isRequest: true
  },
  "request that a client does not interrupt": {
    run: handled({ options: { interruptible: false } }),
    isWhole: true,
    isRequest: true,
    isInsistent: true
  },
  "request, skipped": { run: handled({ options: { skip: ["POST"] } }), isRequest: true },
  "request, body read to its end": { run: handled({ reads: "to its end" }), isWhole: true, isRequest: true },
  "request, body not read": { run: handled({ reads: "not at all" }), isWhole: true, isRequest: true },
  "request, body read in part": { run: handled({ reads: "a part" }), isWhole: true, isRequest: true },
  "request, body with settings": {
    run: handled({ reads: "to its end", options: { session: { settings: { "app.user": "1" } } } }),
    isWhole: true,
    isRequest: true
  },
  "web request": { run: web({}), isWhole: true },
  "web request, 409": { run: web({ status: 409 }), isUndone: true },
  "web request, body read to its end": { run: web({ reads: "to its end" }), isWhole: true },
  "web request, body read in part": { run: web({ reads: "a part" }), isWhole: true }
} as const
