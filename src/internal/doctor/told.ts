/**
 * What went wrong between us and a server, in words that hold no secret, and what to do about it.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Redacted from "effect/Redacted"
import type { ResolvedEngine } from "../../RouterConfig.js"
import { hidden, printable } from "../validation/printValue.js"

export interface Told {
  readonly message: string
  readonly code: string | undefined
  readonly remedy: string
}

/** Shorter ones would be found in every other word. */
const shortestSecret = 4

const decoded = (text: string): ReadonlyArray<string> => {
  try {
    return [text, decodeURIComponent(text)]
  } catch {
    return [text]
  }
}

/** The secrets of an engine's connection: the password in all its forms, and the URL with it. */
const secretsOf = ({ client }: ResolvedEngine): ReadonlyArray<string> => {
  const password = client.password === undefined ? [] : [Redacted.value(client.password)]
  if (client.url === undefined) return password
  const text = Redacted.value(client.url)
  const url = new URL(text)
  const parameters = [...url.searchParams].flatMap(([name, value]) => (/password/i.test(name) ? [value] : []))
  const query = text.includes("?") ? [text.slice(text.indexOf("?"))] : []
  return [text, ...query, ...[...password, url.password, ...parameters].flatMap(decoded)]
}

/**
 * A text that a server, the driver or the system has written. They have no reason to repeat a password; should one do it all
 * the same, it goes no further.
 */
export const withoutSecrets = (engine: ResolvedEngine, text: string): string =>
  secretsOf(engine)
    .filter((secret) => secret.length >= shortestSecret)
    .sort((a, b) => b.length - a.length)
    .reduce((clean, secret) => clean.replaceAll(secret, hidden), text)

const fieldOf = (error: object, name: string): string | undefined => {
  const value: unknown = (error as Readonly<Record<string, unknown>>)[name]
  return typeof value === "string" && value !== "" ? value : undefined
}

/** Of several addresses of one name, each has its own error, and all together have no message. */
const messageOf = (cause: Error): string => {
  if (cause.message !== "") return cause.message
  return cause instanceof AggregateError
    ? cause.errors.map((one: unknown) => (one instanceof Error ? one.message : String(one))).join("; ")
    : (fieldOf(cause, "code") ?? cause.name)
}

const remedies: ReadonlyArray<readonly [matches: (code: string, message: string) => boolean, remedy: string]> = [
  [(code) => code === "ECONNREFUSED", "Start the server, or correct its host and port"],
  [(code) => code === "ENOENT" || code === "EACCES", "Correct the path, and who may read it"],
  [(code) => code === "ENOTFOUND" || code === "EAI_AGAIN", "Correct the host name, or repair the name service"],
  [
    (code, message) => code === "ETIMEDOUT" || code === "EHOSTUNREACH" || /time.?out|no answer/i.test(message),
    "Look whether the server runs and a firewall lets this machine through; a far one needs a longer connectTimeout"
  ],
  [(code) => code === "28P01" || code === "28000", "Correct user and password, or pg_hba.conf of the server"],
  [(code) => code === "3D000", "Correct the name of the database"],
  [(code) => code === "53300", "Free connections, or raise max_connections of the server or the limit of the role"],
  [(code) => code === "57P03", "Wait until it has started; a standby needs hot_standby = on to take reads"],
  [(code) => code === "42501", "GRANT the role what the message names"],
  [
    (_, message) => /SSL|TLS|certificate/i.test(message),
    "Make sslmode in the URL, or the option ssl, match what the server offers, with its certificate authority"
  ],
  [(_, message) => /password must be a string|SASL/i.test(message), "Give a user and a password for it"]
]

/** What an error, or the one underneath, says. */
export const textOf = (error: SqlError | Error): string => {
  const cause = error instanceof SqlError ? error.cause : error
  return cause instanceof Error ? messageOf(cause) : error.message
}

/** Says what an error of an engine means. */
export const told =
  (engine: ResolvedEngine) =>
  (error: SqlError | Error): Told => {
    const cause = error instanceof SqlError ? error.cause : error
    const original = textOf(error)
    const code = cause instanceof Error ? fieldOf(cause, "code") : undefined
    const message = printable(withoutSecrets(engine, original))
    const [, remedy] = remedies.find(([matches]) => matches(code ?? "", original)) ?? []
    return { message, code, remedy: remedy ?? "Look into the log of the server" }
  }
