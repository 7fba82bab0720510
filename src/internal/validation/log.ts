/**
 * What the library logs. Servers, topologies and users have a part in the text: control characters are escaped, so that a message
 * is one line, and says nothing to a terminal; passwords in URLs are left out.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Print from "./printValue.js"

const printable = (text: string): string => Print.printable(Print.withoutPasswords(text))

/** An error whose messages are printable, and everything else as it was. */
const printableError = (error: unknown, depth = 0): unknown => {
  if (typeof error === "string") return printable(error)
  if (!(error instanceof Error) || depth > 8) return error
  const { cause, message, stack } = error
  const text = printable(message)
  const inner = printableError(cause, depth + 1)
  if (text === message && inner === cause) return error
  const copy: Error = Object.create(Object.getPrototypeOf(error), Object.getOwnPropertyDescriptors(error))
  const set = (key: string, value: unknown, enumerable = false) =>
    Object.defineProperty(copy, key, { value, enumerable, configurable: true, writable: true })
  set("message", text)
  set("stack", message === "" ? stack : stack?.replaceAll(message, () => text))
  if (cause !== undefined) set("cause", inner, Object.getOwnPropertyDescriptor(error, "cause")?.enumerable)
  return copy
}

const printableCause = (cause: Cause.Cause<unknown>): Cause.Cause<unknown> =>
  Cause.match(cause, {
    onEmpty: Cause.empty as Cause.Cause<unknown>,
    onFail: (error) => Cause.fail(printableError(error)),
    onDie: (defect) => Cause.die(printableError(defect)),
    onInterrupt: Cause.interrupt,
    onSequential: Cause.sequential,
    onParallel: Cause.parallel
  })

const parts = (message: string, causes: ReadonlyArray<unknown>): ReadonlyArray<unknown> => [
  printable(message),
  ...causes.map((cause) => (Cause.isCause(cause) ? printableCause(cause) : printableError(cause)))
]

export const debug = (message: string, ...causes: ReadonlyArray<unknown>): Effect.Effect<void> =>
  Effect.logDebug(...parts(message, causes))

export const info = (message: string, ...causes: ReadonlyArray<unknown>): Effect.Effect<void> =>
  Effect.logInfo(...parts(message, causes))

export const warning = (message: string, ...causes: ReadonlyArray<unknown>): Effect.Effect<void> =>
  Effect.logWarning(...parts(message, causes))

export const error = (message: string, ...causes: ReadonlyArray<unknown>): Effect.Effect<void> =>
  Effect.logError(...parts(message, causes))
