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
import { Queue } from "../util/linkedQueue.js"

/** What is used of Node's sockets. */
interface Socket {
  readonly destroyed: boolean
  on(event: "readable" | "end", listener: () => void): unknown
  off(event: "readable" | "end", listener: () => void): unknown
  once(event: "close", listener: () => void): unknown
  read(): Uint8Array | null
  unshift(chunk: Uint8Array): void
  destroy(): unknown
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

/** The socket of a request of Node's HTTP/1 server. A stream of HTTP/2 tells by itself. */
const socketOf = ({ source }: HttpServerRequest): Socket | undefined =>
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

/** How much is kept of what comes before a request is answered, in bytes. */
const earlyLimit = 65_536

/**
 * Closes the socket of a request that asks for an upgrade when its client ends it: Node reads nothing from it, and would not notice.
 * What comes is given back to the next owner, when this is ended.
 */
const closeAtEnd = (socket: Socket): (() => void) => {
  const early: Array<Uint8Array> = []
  let bytes = 0
  const read = () => {
    for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) {
      early.push(chunk)
      bytes += chunk.length
    }
    if (bytes > earlyLimit) socket.off("readable", read)
  }
  const close = () => socket.destroy()
  socket.on("readable", read)
  socket.on("end", close)
  return () => {
    socket.off("readable", read)
    socket.off("end", close)
    if (!socket.destroyed) for (const chunk of early.splice(0).reverse()) socket.unshift(chunk)
  }
}

/** What is used of the body that Node reads for a request. */
interface Incoming {
  readonly readableEnded: boolean
  on(event: "newListener", listener: (event: string | symbol, listener: (error: Error) => void) => void): unknown
}

const isIncoming = (source: unknown): source is Incoming =>
  hasProperty(source, "readableEnded") && hasProperty(source, "on") && isFunction(source.on)

/**
 * Fails what begins to read a body after its client has gone. Node tells those only that read it then: another one would wait for
 * ever where it cannot be interrupted, and keep what its session holds.
 */
export const failLaterReads = (source: unknown): void => {
  if (!isIncoming(source) || source.readableEnded) return
  source.on("newListener", (event, listener) => {
    if (event === "error") queueMicrotask(() => listener(new Error("The client has gone before its body was read")))
  })
}

const interrupt = ({ fiber, request }: Served): void => {
  if (isSent(request)) return
  failLaterReads(request.source)
  fiber.unsafeInterruptAsFork(clientAbortFiberId)
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

/**
 * Interrupts a fiber when the client of its request hangs up before the response is sent. What it returns ends that: before an
 * upgrade, whose socket has an owner of its own.
 */
export const unsafeFollow = (request: HttpServerRequest, fiber: Served["fiber"]): (() => void) => {
  const { headers, source } = request
  const served = new Served(fiber, request)
  const socket = socketOf(request)
  if (socket !== undefined && headers.upgrade !== undefined) {
    const leave = followSocket(socket, served)
    const release = closeAtEnd(socket)
    return () => {
      leave()
      release()
    }
  }
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
