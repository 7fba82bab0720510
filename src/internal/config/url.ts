/**
 * The URL of an engine: what is in it, and the router's own parameters taken off.
 */
import * as Either from "effect/Either"
import { hidden } from "../validation/printValue.js"
import * as address from "./address.js"

export interface EngineUrl {
  /** The URL to connect with, as it was given but without the router's own parameters. */
  readonly url: string
  /** The router's own parameters: `name`, `weight`, `zone`. */
  readonly own: ReadonlyMap<OwnParameter, string>
  readonly host: string
  readonly port: number | undefined
  readonly database: string | undefined
  /** Whether it says something about TLS, which then overrides the field `ssl`. */
  readonly saysTls: boolean
}

/** What is wrong, without any part of the URL that could be a piece of a password. */
export interface BadUrl {
  readonly value: string
  readonly remedy: string
}

const ownParameters = ["name", "weight", "zone"] as const

export type OwnParameter = (typeof ownParameters)[number]

const isOwn = (name: string): name is OwnParameter => ownParameters.some((own) => own === name)

const bad = (value: string, remedy: string): Either.Either<never, BadUrl> => Either.left({ value, remedy })

const unreadable = (scheme: string) =>
  bad(
    `${scheme}//${hidden}`,
    `It cannot be read as a URL. ${address.form}, and percent-encode special characters in user name and password ` +
      "(@ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25, a comma as %2C, a space as %20)"
  )

const decode = Either.liftPredicate(
  (text: string) => {
    try {
      decodeURIComponent(text)
      return true
    } catch {
      return false
    }
  },
  () => "malformed"
)

// Anything that a password with an unencoded "/", "?" or "#" would turn a URL into: the rest of it, up to the "@", then
// stands where no "@" belongs.
const isMisread = (url: URL) =>
  url.hash !== "" ||
  url.pathname.includes("@") ||
  url.search.includes("@") ||
  [url.username, url.password, url.hostname, url.pathname].some((part) => Either.isLeft(decode(part)))

const splitQuery = (text: string): readonly [base: string, pairs: ReadonlyArray<string>] => {
  const start = text.indexOf("?")
  return start < 0 ? [text, []] : [text.slice(0, start), text.slice(start + 1).split("&")]
}

const takeOwn = (text: string): Either.Either<readonly [string, ReadonlyMap<OwnParameter, string>], BadUrl> => {
  const [base, pairs] = splitQuery(text)
  const own = new Map<OwnParameter, string>()
  const rest: Array<string> = []
  for (const pair of pairs) {
    const [entry] = new URLSearchParams(pair)
    if (entry === undefined || !isOwn(entry[0])) {
      rest.push(pair)
    } else if (own.has(entry[0])) {
      return bad(`?${entry[0]}=…`, `It says ${entry[0]} more than once; say it once`)
    } else {
      own.set(entry[0], entry[1])
    }
  }
  return Either.right([rest.length === 0 ? base : `${base}?${rest.join("&")}`, own])
}

const tlsParameters = ["ssl", "sslmode", "sslcert", "sslkey", "sslrootcert"]

const checkHost = (host: string): Either.Either<string, BadUrl> => {
  if (host === "") return bad(`postgresql://${hidden}`, address.noHost)
  return host.includes(",")
    ? bad(`postgresql://${hidden}`, "It names several hosts, and stands for one engine here. Give each server its own")
    : Either.right(host)
}

const checkPort = (port: string): Either.Either<number | undefined, BadUrl> => {
  if (port === "") return Either.right(undefined)
  const parsed = Number(port)
  return Number.isInteger(parsed) && parsed >= 1 && parsed <= 65535
    ? Either.right(parsed)
    : bad(`postgresql://${hidden}`, "Its port must be a whole number from 1 to 65535")
}

const schemes = ["postgres:", "postgresql:"]

/** The address as a URL; one that stands for several servers stays as it is, and is refused for that. */
const single = (given: string): Either.Either<string, BadUrl> =>
  Either.mapBoth(address.parse(given), {
    onLeft: (remedy): BadUrl => ({ value: hidden, remedy }),
    onRight: ({ urls: [first, second] }) => (first === undefined || second !== undefined ? given.trim() : first)
  })

/** Reads the URL of an engine. */
export const parse = (given: string): Either.Either<EngineUrl, BadUrl> =>
  Either.gen(function* () {
    const text = yield* single(given)
    const scheme = schemes.find((scheme) => text.toLowerCase().startsWith(`${scheme}//`))
    if (scheme === undefined) return yield* bad(hidden, address.form)
    if (/\s|%(?![0-9a-f]{2})/i.test(text) || !URL.canParse(text)) return yield* unreadable(scheme)
    const url = new URL(text)
    if (isMisread(url)) return yield* unreadable(scheme)
    const [stripped, own] = yield* takeOwn(text)
    // As in the driver: `?host=` and `?port=` stand above the address.
    const host = yield* checkHost(url.searchParams.get("host") || decodeURIComponent(url.hostname))
    const port = yield* checkPort(url.searchParams.get("port") || url.port)
    const database = decodeURIComponent(url.pathname.slice(1))
    return {
      url: stripped,
      own,
      host,
      port,
      database: database === "" ? undefined : database,
      saysTls: tlsParameters.some((name) => url.searchParams.has(name))
    }
  })
