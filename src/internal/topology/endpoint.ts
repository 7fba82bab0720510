/**
 * JSON over HTTP, from a server that may be anything. Errors are texts that hold no secret: those of `HttpClient` know the
 * request with its URL and its headers.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { constant } from "effect/Function"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as check from "../validation/check.js"
import { hidden, print } from "../validation/printValue.js"

export interface Auth {
  readonly username: string
  readonly password: Redacted.Redacted
}

export interface Endpoint {
  /** Without credentials. */
  readonly url: URL
  /** What of it may be seen. */
  readonly shown: string
  readonly auth: Auth | undefined
  /** Whether the URL itself must not be seen. */
  readonly secret: boolean
}

const isAuth = check.struct({ username: check.text, password: check.redacted }, { user: 'Did you mean "username"?' })

export const auth: check.Check<Auth> = (field, value) =>
  Either.flatMap(isAuth(field, value), ({ password, username }) => {
    if (username === undefined) return check.invalid(`${field}.username`, undefined, "Basic authentication has a user")
    return password === undefined
      ? check.invalid(`${field}.password`, undefined, "Basic authentication has a password")
      : Either.right({ username, password })
  })

const form = "It must be an http or https URL, such as https://db1.example.org:8008"

const decoded = (field: string, text: string): check.Checked<string> =>
  Either.try({
    try: () => decodeURIComponent(text),
    catch: () => field
  }).pipe(
    Either.orElse(() => check.invalidSecret(field, "Percent-encode special characters in user name and password"))
  )

const authOf = (field: string, url: URL, given: Auth | undefined): check.Checked<Auth | undefined> =>
  Either.gen(function* () {
    if (url.username === "" && url.password === "") return given
    if (given !== undefined) {
      return yield* check.invalidSecret(field, 'It holds credentials, as the field "auth" does; say it in one place')
    }
    return {
      username: yield* decoded(field, url.username),
      password: Redacted.make(yield* decoded(field, url.password))
    }
  })

const without = (url: URL, path = url.pathname): URL => {
  const bare = new URL(url)
  bare.username = ""
  bare.password = ""
  bare.hash = ""
  bare.pathname = path
  return bare
}

// What a password with an unencoded "/", "?" or "#" makes of a URL: the rest of it stands where it would be shown.
const isMisread = ({ hash, pathname, search }: URL) => [hash, pathname, search].some((part) => part.includes("@"))

/** A URL: a text, or a secret of which only the origin is ever shown. `toPath` makes the path that is asked. */
export const parse = (
  field: string,
  value: unknown,
  given: Auth | undefined,
  toPath: (path: string) => string = (path) => path
): check.Checked<Endpoint> =>
  Either.gen(function* () {
    const isSecret = Redacted.isRedacted(value)
    const text = isSecret ? Redacted.value(value) : value
    if (typeof text !== "string") return yield* check.invalid(field, isSecret ? value : text, form)
    const parsed = URL.canParse(text) ? new URL(text) : undefined
    if (parsed !== undefined && isMisread(parsed)) {
      return yield* check.invalidSecret(field, 'Percent-encode special characters in it, such as "@" as %40')
    }
    if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) return yield* check.invalidSecret(field, form)
    const url = without(parsed, toPath(parsed.pathname))
    return {
      url,
      shown: `${url.origin}${isSecret ? (url.pathname === "/" ? "" : `/${hidden}`) : url.pathname}${url.search === "" ? "" : `?${hidden}`}`,
      auth: yield* authOf(field, parsed, given),
      secret: isSecret || url.search !== ""
    }
  })

/** The most bytes that are read of an answer: 1 MiB. */
export const maxBytes = 1024 * 1024

const codeOf = (error: unknown): string | undefined => {
  const seen = new Set<unknown>()
  for (let current = error; typeof current === "object" && current !== null && !seen.has(current); ) {
    if ("code" in current && typeof current.code === "string" && /^[A-Z][A-Z0-9_]*$/.test(current.code)) {
      return current.code
    }
    seen.add(current)
    current = "cause" in current ? current.cause : undefined
  }
  return undefined
}

const statusOf = (status: number): string => {
  if (status === 401 || status === 403) return `it answered ${status}; check the user name and the password`
  if (status === 404) return "it answered 404; check the path"
  return status >= 300 && status < 400
    ? `it answered ${status}, a redirect; name the URL that it leads to`
    : `it answered ${status}`
}

const describe = (error: HttpClientError): string => {
  const code = codeOf(error.cause)
  const why = code === undefined ? "" : ` (${code})`
  if (error.reason === "StatusCode") return statusOf(error.response.status)
  if (error._tag === "ResponseError") return `its answer broke off${why}`
  return error.reason === "InvalidUrl" ? "its URL cannot be used" : `it cannot be reached${why}`
}

const read = (response: HttpClientResponse): Effect.Effect<string, string> =>
  response.stream.pipe(
    Stream.mapError((error) => (error.reason === "EmptyBody" ? undefined : describe(error))),
    Stream.runFoldEffect({ size: 0, chunks: [] as Array<Uint8Array> }, ({ chunks, size }, chunk) => {
      const total = size + chunk.length
      chunks.push(chunk)
      return total > maxBytes ? Effect.fail("its answer is longer than 1 MiB") : Effect.succeed({ size: total, chunks })
    }),
    Effect.map(({ chunks }) => new TextDecoder().decode(Buffer.concat(chunks))),
    Effect.catchAll((problem) => (problem === undefined ? Effect.succeed("") : Effect.fail(problem)))
  )

const mediaType = (response: HttpClientResponse): string | undefined =>
  /^[\w.+-]+\/[\w.+-]+/.exec(response.headers["content-type"] ?? "")?.[0]

const json = (response: HttpClientResponse): Effect.Effect<unknown, string> =>
  Effect.flatMap(read(response), (text) =>
    Effect.try({
      try: (): unknown => JSON.parse(text),
      // The error of JSON.parse quotes the text.
      catch: () => {
        const type = mediaType(response)
        if (text.trim() === "") return "its answer is empty"
        return type === undefined || /json/.test(type)
          ? "its answer is not JSON, or was cut short"
          : `its answer is not JSON but ${type}`
      }
    })
  )

/** The JSON that the endpoint answers to a GET, or what went wrong. */
export const get = (client: HttpClient.HttpClient, { auth, secret, url }: Endpoint): Effect.Effect<unknown, string> => {
  const plain = HttpClientRequest.get(url.href, { acceptJson: true })
  const request =
    auth === undefined ? plain : HttpClientRequest.basicAuth(plain, Redacted.make(auth.username), auth.password)
  // The spans of a request show its URL.
  const scoped = HttpClient.withScope(HttpClient.withTracerDisabledWhen(client, constant(secret)))
  return scoped.execute(request).pipe(
    Effect.mapError(describe),
    Effect.flatMap((response) =>
      response.status >= 200 && response.status < 300 ? json(response) : Effect.fail(statusOf(response.status))
    ),
    Effect.scoped,
    Effect.catchAllCause((cause) =>
      Option.match(Cause.dieOption(cause), {
        onNone: () => Effect.failCause(cause),
        onSome: () => Effect.fail("asking it failed with a defect of the HttpClient")
      })
    )
  )
}

const at = (path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`
    return text === "" ? String(key) : `${text}.${String(key)}`
  }, "")

const inside = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>(
    (current, key) =>
      typeof current === "object" && current !== null ? (current as Record<PropertyKey, unknown>)[key] : undefined,
    value
  )

/** Reads a value by a schema whose messages are remedies. `name` is what the value is called. */
export const decode =
  <A, I>(schema: Schema.Schema<A, I>, name: string) =>
  (value: unknown): Either.Either<A, string> =>
    Either.mapLeft(Schema.decodeUnknownEither(schema)(value), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      if (issue === undefined) return `${name} cannot be used`
      const found = inside(value, issue.path)
      const field = at([name, ...issue.path])
      return found === undefined ? `${field} is missing` : `${field} is ${print(found)}. ${issue.message}`
    })

/** A schema that says what is allowed, without the value, whatever is wrong with it. */
export const saying = <A, I>(schema: Schema.Schema<A, I>, remedy: string): Schema.Schema<A, I> =>
  schema.annotations({ message: () => ({ message: remedy, override: true }) })

const around = <A, I>(schema: Schema.Schema<A, I>, fits: (value: unknown) => boolean, remedy: string) =>
  schema.annotations({ message: ({ actual }) => ({ message: remedy, override: !fits(actual) }) })

/** The same for an object, whose fields say themselves what is wrong with them. */
export const object = <A, I>(schema: Schema.Schema<A, I>, remedy: string): Schema.Schema<A, I> =>
  around(schema, check.isObject, remedy)

/** The same for a list, and its elements. */
export const list = <A, I>(schema: Schema.Schema<A, I>, remedy: string): Schema.Schema<A, I> =>
  around(schema, Array.isArray, remedy)

/** A field that may be left out, or null. */
export const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { nullable: true })
