/**
 * Interruption of a request whose client has hung up, as `@effect/platform-node` does it for the response that is being sent.
 * Node queues the responses of pipelined requests, and tells those in the queue nothing when their socket closes: their
 * handlers and bodies would go on, and keep their connections. The socket tells. The body of a web handler's response is told by
 * the signal of its request.
 */
import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import { hasProperty, isFunction } from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { Queue } from "./queue.js"

interface Socket {
  readonly destroyed: boolean
  once(event: "close", listener: () => void): unknown
}

class Served {
  constructor(
    readonly fiber: Fiber.RuntimeFiber<unknown, unknown>,
    readonly request: HttpServerRequest
  ) {}
}

/** What is being served on each socket. One listener for a socket: a client may pipeline any number of requests. */
const servedOn = new WeakMap<Socket, Queue<Served>>()

const isSocket = (socket: unknown): socket is Socket =>
  hasProperty(socket, "once") && isFunction(socket.once) && hasProperty(socket, "destroyed")

/** The socket of a request of Node's HTTP/1 server. A stream of HTTP/2 tells by itself; an upgraded socket has its own owner. */
const socketOf = ({ headers, source }: HttpServerRequest): Socket | undefined =>
  headers.upgrade === undefined &&
  hasProperty(source, "httpVersionMajor") &&
  source.httpVersionMajor === 1 &&
  hasProperty(source, "socket") &&
  isSocket(source.socket)
    ? source.socket
    : undefined

const isSent = (request: HttpServerRequest): boolean =>
  hasProperty(request, "response") &&
  hasProperty(request.response, "writableEnded") &&
  request.response.writableEnded === true

const interrupt = ({ fiber, request }: Served): void => {
  if (!isSent(request)) fiber.unsafeInterruptAsFork(clientAbortFiberId)
}

const servedBy = (socket: Socket): Queue<Served> => {
  const known = servedOn.get(socket)
  if (known !== undefined) return known
  const all = new Queue<Served>()
  servedOn.set(socket, all)
  socket.once("close", () => all.takeAll().forEach(interrupt))
  return all
}

const followSocket = (socket: Socket, served: Served): (() => void) => {
  if (socket.destroyed) {
    interrupt(served)
    return constVoid
  }
  const place = servedBy(socket).add(served)
  return () => place.leave()
}

const followSignal = (signal: AbortSignal, served: Served): (() => void) => {
  const onAbort = () => interrupt(served)
  if (signal.aborted) onAbort()
  signal.addEventListener("abort", onAbort, { once: true })
  return () => signal.removeEventListener("abort", onAbort)
}

/** Interrupts a fiber when the client of its request hangs up before the response is sent. What it returns ends that. */
export const unsafeFollow = (request: HttpServerRequest, fiber: Served["fiber"]): (() => void) => {
  const { source } = request
  const served = new Served(fiber, request)
  const socket = socketOf(request)
  return socket !== undefined
    ? followSocket(socket, served)
    : source instanceof Request
      ? followSignal(source.signal, served)
      : constVoid
}

/** The same for the fiber that runs this, as long as the scope is open. */
export const follow = (request: HttpServerRequest): Effect.Effect<void, never, Scope.Scope> =>
  Effect.withFiberRuntime((fiber) => {
    const leave = unsafeFollow(request, fiber)
    return leave === constVoid ? Effect.void : Effect.addFinalizer(() => Effect.sync(leave))
  })
