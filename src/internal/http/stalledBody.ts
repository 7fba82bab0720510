/**
 * Uploads that stall. A request that waits for more of its body, while its session holds a connection, is ended when no byte has
 * come for so long: else it would hold that connection, and what it has locked, for as long as the server lets a request take.
 */
import type { IncomingMessage } from "node:http"
import type * as HttpApp from "@effect/platform/HttpApp"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { hasProperty, isFunction } from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as bounded from "../util/bounded.js"
import * as limits from "../util/limits.js"
import * as Log from "../validation/log.js"
import * as HangUp from "./hangUp.js"

type Response = HttpServerResponse.HttpServerResponse

export interface Options {
  /** For how long no byte may come. */
  readonly timeout: Duration.Duration
  /** Whether the request's session holds a connection now. */
  readonly isHolding: () => boolean
  /** Rolls the session back. */
  readonly abandon: Effect.Effect<void>
}

/** What Node's HTTP/1 server reads of a request that has a body (RFC 9112, section 6). */
const incomingOf = ({ headers, source }: HttpServerRequest): IncomingMessage | undefined =>
  (headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0) &&
  headers.upgrade === undefined &&
  hasProperty(source, "httpVersionMajor") &&
  source.httpVersionMajor === 1 &&
  hasProperty(source, "listenerCount") &&
  isFunction(source.listenerCount) &&
  hasProperty(source, "socket")
    ? (source as unknown as IncomingMessage)
    : undefined

/** Whether all that has come is read, and more is wanted. What a client that has gone leaves unread is never read. */
const isAwaited = (incoming: IncomingMessage): boolean =>
  (incoming.readableLength === 0 || incoming.destroyed) &&
  (incoming.readableFlowing === true || incoming.listenerCount("readable") > 0)

/** How often it is looked at, in its limit. It is the looks that count: between two of them a busy process takes what has come. */
const looks = 8

/** Ends when the body has stalled for that long. Until a body is whole, what comes on its socket belongs to it. */
const stalls = (incoming: IncomingMessage, { isHolding, timeout }: Options): Effect.Effect<void> => {
  let bytes = -1
  let quiet = 0
  const look = Effect.suspend(() => {
    if (incoming.readableEnded) return Effect.never
    const { bytesRead } = incoming.socket
    const comes = bytesRead !== bytes || (incoming.complete && !incoming.destroyed)
    quiet = !comes && isAwaited(incoming) && isHolding() ? quiet + 1 : 0
    bytes = bytesRead
    return Effect.sleep(Duration.toMillis(timeout) / looks)
  })
  return Effect.repeat(look, { while: () => quiet < looks })
}

type Handler<E> = Fiber.RuntimeFiber<Response, E>

/** Whether the body stalls before the handler ends. */
const hasStalled = <E>(handler: Handler<E>, watch: Fiber.RuntimeFiber<void>): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    handler.addObserver(() => resume(Effect.succeed(false)))
    watch.addObserver(() => resume(Effect.succeed(true)))
  })

/** What becomes of a handler, in the fiber around it: as if that had run it itself. */
const join = <E>(handler: Handler<E>): Effect.Effect<Response, E> =>
  Effect.flatMap(handler.await, (exit: Exit.Exit<Response, E>) => Effect.zipRight(handler.inheritAll, exit))

/** Tells a handler that it is interrupted, by those who have interrupted the fiber around it. */
const interrupt = <E>(handler: Handler<E>, cause: Cause.Cause<never>): void => {
  const [first = FiberId.none] = Cause.interruptors(cause)
  handler.unsafeInterruptAsFork(first)
}

/** Ends a body with its socket. Node leaves one that is answered early as it is, and what cannot be interrupted would read on. */
const endWithSocket = (incoming: IncomingMessage): void => {
  const { socket } = incoming
  const end = () => {
    incoming.destroy(new Error("The request was ended, as its body had stalled"))
    HangUp.failLaterReads(incoming)
  }
  if (socket.destroyed) end()
  else socket.once("close", end)
}

/**
 * The response to a request whose body has stalled. What reads the body is interrupted once that has been sent: the platform closes
 * the socket of a body that is left half-read.
 */
const timedOut = <E>(
  handler: Handler<E>,
  incoming: IncomingMessage,
  { abandon, timeout }: Options
): Effect.Effect<Response, never, Scope.Scope> => {
  const sent = Effect.addFinalizer(() => {
    endWithSocket(incoming)
    interrupt(handler, Cause.empty)
    return bounded.fiber(handler, limits.end)
  })
  const why = `its session held a connection, and its body had stalled for ${Duration.format(timeout)}`
  return Effect.zipRight(Log.info(`A request is ended: ${why}`), Effect.zipRight(abandon, sent)).pipe(
    Effect.as(HttpServerResponse.empty({ status: 408, headers: { connection: "close" } }))
  )
}

/** An app whose requests are ended when their bodies stall. */
export const limited = <E, R>(
  app: HttpApp.Default<E, R>,
  request: HttpServerRequest,
  options: Options
): HttpApp.Default<E, R | Scope.Scope> => {
  const incoming = incomingOf(request)
  if (incoming === undefined) return app
  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const handler = yield* Effect.forkDaemon(restore(app))
      const watch = yield* Effect.forkDaemon(Effect.interruptible(stalls(incoming, options)))
      // Interruptible wherever this runs: it is the handler that knows where it may be interrupted.
      const ended = yield* Effect.exit(Effect.interruptible(hasStalled(handler, watch)))
      if (ended._tag === "Failure") interrupt(handler, ended.cause)
      const isStalled = ended._tag === "Success" ? ended.value : yield* hasStalled(handler, watch)
      watch.unsafeInterruptAsFork(FiberId.none)
      return yield* isStalled ? timedOut(handler, incoming, options) : join(handler)
    })
  )
}
