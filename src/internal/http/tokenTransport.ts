/** The ways that a position takes from one request to the next. */
import { parseHeader } from "@effect/platform/Cookies"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as KeyValueStore from "@effect/platform/KeyValueStore"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Hash from "effect/Hash"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Position } from "../../Position.js"
import type { RouterConfigError } from "../../RouterError.js"
import * as RoutingContext from "../../RoutingContext.js"
import { isBefore, reject, type Tokens } from "../tokens/tokens.js"
import * as bounded from "../util/bounded.js"
import { clockOf } from "../util/clock.js"
import { Lock } from "../util/lock.js"
import * as check from "../validation/check.js"
import * as Log from "../validation/log.js"

type Response = HttpServerResponse.HttpServerResponse

/** One of them. What fails here is logged, and the request goes on without. */
export interface Carrier<R> {
  /** What the log calls it. */
  readonly name: string
  /** The positions that a request brings and that are to be believed. */
  readonly read: (request: HttpServerRequest, tokens: Tokens) => Effect.Effect<ReadonlyArray<Position>, unknown, R>
  /** Keeps a position for the next request; the response, if it has to tell. `token` is the same for all carriers. */
  readonly write: (
    position: Position,
    response: Response,
    request: HttpServerRequest,
    tokens: Tokens,
    token: Effect.Effect<string>
  ) => Effect.Effect<Response, unknown, R>
}

/** A carrier whose effects have what they need. */
export const provided = <R, R2>(
  { name, read, write }: Carrier<R>,
  provide: <A, E>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R2>
): Carrier<R2> => ({
  name,
  read: (...args) => provide(read(...args)),
  write: (...args) => provide(write(...args))
})

/** So many tokens of one request are looked at: anyone may send more. */
const maxTokens = 4

const asToken = (
  name: string,
  /** All that has the name of the token: another site of the domain may have put something in front of it. */
  find: (request: HttpServerRequest) => ReadonlyArray<string>,
  put: (response: Response, token: string, lifetime: Duration.Duration) => Response,
  /** Whether what was only read on replicas is carried, too. */
  reads = true
): Carrier<never> => ({
  name,
  read: (request, tokens) =>
    Effect.map(
      Effect.forEach(find(request).slice(0, maxTokens), (text) => tokens.accept(text)),
      Arr.getSomes
    ),
  write: (_position, response, _request, tokens, token) =>
    Effect.withFiberRuntime((fiber) => {
      const { ofPrimary, writtenAt } = fiber.getFiberRef(RoutingContext.flow).seen
      const isNews = reads || ofPrimary || writtenAt > Number.NEGATIVE_INFINITY
      return isNews && !isForOthers(response, clockOf(fiber).unsafeCurrentTimeMillis())
        ? Effect.map(token, (token) => put(response, token, tokens.lifetime))
        : Effect.succeed(response)
    })
})

// `name`, `name=token` or `name="text"`; what stands in quotes is no directive.
const directive = /"(?:[^"\\]|\\.)*(?:"|$)|([^\s,;="]+)(\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|$)|([^\s,;"]*)))?/g

/** Whether a header lets shared caches keep a response, or parts of it: `private="x-field"` keeps that field alone from them. */
const letsKeep = (text: string): boolean => {
  let lets = false
  for (const [, written, argument, quoted, token] of text.matchAll(directive)) {
    const name = written?.toLowerCase()
    if ((name === "private" || name === "no-store") && argument === undefined) return false
    const value = quoted ?? token ?? ""
    if (name === "public" || ((name === "s-maxage" || name === "max-age") && /^0*[1-9]/.test(value))) lets = true
  }
  return lets
}

/** Headers for shared caches of one kind: `CDN-Cache-Control`, and what vendors put before it (RFC 9213). */
const targeted = /^(?:.+-)?cdn-cache-control$|^surrogate-control$/

/**
 * Whether a shared cache may keep a response for other clients, by what its headers say (RFC 9111, sections 3 and 5.2.2; RFC 9213):
 * a token in it would be theirs then, too.
 */
const isForOthers = ({ headers }: Response, now: number): boolean => {
  const { "cache-control": general, expires } = headers
  if (general !== undefined ? letsKeep(general) : isLater(expires, now)) return true
  return Object.entries(headers).some(([name, value]) => targeted.test(name) && letsKeep(value))
}

const isLater = (date: string | undefined, now: number): boolean =>
  date !== undefined && /GMT$/.test(date) && Date.parse(date) > now

/** Throws what is wrong, as a middleware has no layer to fail. */
const checked = <A>(given: Either.Either<A, RouterConfigError>): A => Either.getOrThrowWith(given, (error) => error)

export interface CookieOptions {
  /** Default: `"db-router-token"`. */
  readonly name?: string | undefined
  /** Default: none, the host alone. */
  readonly domain?: string | undefined
  /** Default: `"/"`. */
  readonly path?: string | undefined
  /** Whether scripts cannot read it. Default: `true`. */
  readonly httpOnly?: boolean | undefined
  /** Whether it travels over HTTPS only; browsers make an exception for `localhost`. Default: `true`. */
  readonly secure?: boolean | undefined
  /** Default: `"lax"`. */
  readonly sameSite?: "lax" | "strict" | "none" | undefined
  /** Default: `false`. */
  readonly partitioned?: boolean | undefined
  /**
   * Whether the cookie is set for what a request has only read on replicas, too, so that the client's next one does not go back
   * in time on another replica. Then nearly every response sets it. Default: `false`.
   */
  readonly reads?: boolean | undefined
}

const cookieFields = check.struct({
  name: check.text,
  domain: check.text,
  path: check.text,
  httpOnly: check.boolean,
  secure: check.boolean,
  sameSite: check.oneOf("lax", "strict", "none"),
  partitioned: check.boolean,
  reads: check.boolean
})

/** RFC 6265, section 4.1.1. The platform has looked at it since 0.97.1 only. */
const cookieSpelling = {
  name: /^[!#$%&'*+\-.^_`|~\w]+$/,
  domain: /^[ -:<-~]+$/,
  path: /^[ -:<-~]+$/
} as const

const cookieTexts = ["name", "domain", "path"] as const

export const cookie = (options: CookieOptions): Carrier<never> => {
  const { name = "db-router-token", reads = false, ...given } = checked(cookieFields("token", options))
  const attributes = { httpOnly: true, secure: true, sameSite: "lax", path: "/", ...given } as const
  for (const field of cookieTexts) {
    const text = { domain: undefined, ...attributes, name }[field]
    if (text !== undefined && !cookieSpelling[field].test(text)) {
      throw checked(check.invalid(`token.${field}`, text, "A cookie cannot have it"))
    }
  }
  if (attributes.sameSite === "none" && !attributes.secure) {
    throw checked(
      check.invalid("token.secure", false, 'Browsers take a cookie with sameSite "none" only if it is secure')
    )
  }
  return asToken(
    `the cookie ${name}`,
    ({ cookies, headers }) => {
      const first = cookies[name]
      if (first === undefined) return []
      const text = headers.cookie ?? ""
      return text.indexOf(name) === text.lastIndexOf(name)
        ? [first]
        : text.split(";").flatMap((pair) => parseHeader(pair)[name] ?? [])
    },
    (response, token, maxAge) => HttpServerResponse.unsafeSetCookie(response, name, token, { ...attributes, maxAge }),
    reads
  )
}

export interface HeaderOptions {
  /** In which header a request brings it. Default: `"db-router-token"`. */
  readonly request?: string | undefined
  /** In which header a response has it. Default: the same. */
  readonly response?: string | undefined
}

const headerName: check.Check<string> = (field, value) =>
  typeof value === "string" && /^[!#$%&'*+\-.^_`|~\w]+$/.test(value)
    ? Either.right(value.toLowerCase())
    : check.invalid(field, value, "It must be the name of a header, such as db-router-token")

const headerFields = check.struct({ request: headerName, response: headerName })

export const header = (options: HeaderOptions): Carrier<never> => {
  const names = checked(headerFields("token", options))
  const { request = "db-router-token", response = request } = names
  return asToken(
    `the header ${request}`,
    ({ headers }) => headers[request]?.split(/,\s*/) ?? [],
    (to, token) => HttpServerResponse.setHeader(to, response, token)
  )
}

export interface StoreOptions<E, R> {
  /**
   * The owner of a request: the id of a user or a client, which no other can claim. `None`: the request has no owner and starts
   * clean. Called before the handler and after it, outside its session.
   */
  readonly subject: (request: HttpServerRequest) => Effect.Effect<Option.Option<string>, E, R>
  /**
   * How long to wait for the subject and the store, each time. What takes longer is given up, with a warning in the log: the
   * request starts clean, or the next one does not know of it. Default: `"1 second"`.
   */
  readonly timeout?: Duration.DurationInput | undefined
}

const storeFields = check.struct({ subject: check.callable(), timeout: check.duration({ positive: true }) })

/** The record of a subject in a store. Only the router writes it, so it needs no signature. */
const Stored = Schema.parseJson(
  Schema.Struct({
    system: Schema.String,
    timeline: Schema.Number,
    lsn: Schema.BigInt,
    expiresAt: Schema.Number
  })
)

const decodeStored = Schema.decodeUnknownOption(Stored)
const encodeStored = Schema.encodeSync(Stored)

const locks = 64

export const store = <E, R>(options: StoreOptions<E, R>): Carrier<R | KeyValueStore.KeyValueStore> => {
  const { timeout = Duration.seconds(1) } = checked(storeFields("token", options))
  // What one process writes for a subject, it writes in turn: a store can only get and set.
  const turns = Array.from({ length: locks }, () => new Lock())
  const turnOf = (key: string) => turns[Math.abs(Hash.string(key)) % locks]!
  const found = (kept: KeyValueStore.KeyValueStore, key: string) =>
    Effect.zipWith(kept.get(key), Clock.currentTimeMillis, (text, now) =>
      Option.filter(Option.flatMap(text, decodeStored), ({ expiresAt }) => expiresAt > now)
    )
  const forSubject = <A, E2>(
    request: HttpServerRequest,
    none: A,
    use: (kept: KeyValueStore.KeyValueStore, key: string) => Effect.Effect<A, E2>
  ): Effect.Effect<A, E | E2 | Cause.TimeoutException, R | KeyValueStore.KeyValueStore> => {
    const used = Effect.flatMap(
      Effect.suspend(() => options.subject(request)),
      (subject) =>
        Option.isNone(subject)
          ? Effect.succeed(none)
          : Effect.flatMap(KeyValueStore.KeyValueStore, (kept) => use(kept, `db-router-position:${subject.value}`))
    )
    // Neither is ours: what ignores its interruption does not hold up the request.
    return Effect.flatMap(
      bounded.within(used, timeout),
      (answer): Effect.Effect<A, E | E2 | Cause.TimeoutException> =>
        answer.state === "late" ? Effect.fail(new Cause.TimeoutException()) : answer.exit
    )
  }
  return {
    name: "the key-value store",
    read: (request, tokens) =>
      forSubject(request, [], (kept, key) =>
        Effect.flatMap(
          found(kept, key),
          Option.match({
            onNone: () => Effect.succeed([]),
            onSome: ({ lsn, system, timeline }) => Effect.map(tokens.verify({ system, timeline, lsn }), Option.toArray)
          })
        )
      ),
    write: (position, response, request, tokens) =>
      forSubject(request, response, (kept, key) =>
        turnOf(key).run(
          Effect.gen(function* () {
            const before = yield* found(kept, key)
            if (Option.isSome(before) && isBefore(position, before.value)) return response
            const expiresAt = (yield* Clock.currentTimeMillis) + Duration.toMillis(tokens.lifetime)
            yield* kept.set(key, encodeStored({ ...position, expiresAt }))
            return response
          })
        )
      )
  }
}

/** The position that one request brings, and the one that it leaves behind. */
export class Carried {
  private brought: ReadonlyArray<Position> = []

  constructor(
    private readonly carriers: ReadonlyArray<Carrier<never>>,
    private readonly tokens: Tokens,
    private readonly request: HttpServerRequest
  ) {}

  /** What it brings. */
  readonly read: Effect.Effect<ReadonlyArray<Position>> = Effect.suspend(() =>
    Effect.map(
      Effect.forEach(this.carriers, (carrier) =>
        this.orElse(carrier, "read", Effect.interruptible(carrier.read(this.request, this.tokens)), [])
      ),
      (found) => (this.brought = found.flat())
    )
  )

  /**
   * A response that takes along what the flow has seen, where that is more than the request has brought. The platform runs it
   * as a pre-response handler, which nothing interrupts.
   */
  write(response: Response): Effect.Effect<Response> {
    return Effect.flatMap(this.tokens.position, (position) =>
      position === undefined || this.brought.some((known) => !isBefore(known, position))
        ? Effect.succeed(response)
        : Effect.flatMap(Effect.cached(this.tokens.issue(position)), (token) =>
            Effect.reduce(this.carriers, response, (response, carrier) => {
              const written = carrier.write(position, response, this.request, this.tokens, token)
              return this.orElse(carrier, "kept", written, response)
            })
          )
    )
  }

  private orElse<A>(
    { name }: Carrier<never>,
    what: string,
    effect: Effect.Effect<A, unknown>,
    otherwise: A
  ): Effect.Effect<A> {
    return Effect.catchAllCause(effect, (cause) =>
      Cause.isInterruptedOnly(cause)
        ? Effect.succeed(otherwise)
        : Log.warning(`The position of a request could not be ${what} by ${name}`, cause).pipe(
            Effect.zipRight(reject("unavailable")),
            Effect.as(otherwise)
          )
    )
  }
}
