/**
 * Servers from a JSON endpoint.
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as check from "../validation/check.js"
import * as endpoint from "./endpoint.js"
import * as source from "./source.js"

const { optional, saying } = endpoint

const text = saying(Schema.String, "It must be a text")

const flag = saying(Schema.Boolean, "It must be true or false")

const port = saying(Schema.Int.pipe(Schema.between(1, 65535)), "It must be a whole number from 1 to 65535")

const weight = saying(Schema.Finite.pipe(Schema.positive()), "It must be a positive, finite number, such as 1 or 0.5")

const role = saying(Schema.Literal("primary", "replica"), 'It must be one of "primary", "replica"')

export const Server = endpoint.object(
  Schema.Struct({
    host: saying(Schema.NonEmptyString, "It must be a host name or an address"),
    port: optional(port),
    name: optional(text),
    role: optional(role),
    weight: optional(weight),
    zone: optional(text),
    reads: optional(flag),
    writable: optional(flag),
    serverName: optional(text)
  }),
  'It must be a server: { "host": "db1", "port": 5432 }'
)

const decode = endpoint.decode(Schema.Array(Server), "servers")

const listOf = (answer: unknown): Either.Either<unknown, string> => {
  if (Array.isArray(answer)) return Either.right(answer)
  return check.isObject(answer) && "servers" in answer && Array.isArray(answer.servers)
    ? Either.right(answer.servers)
    : Either.left('its answer must be a list of servers, [{ "host": "db1" }], or { "servers": [...] }')
}

const isOptions = (value: unknown) =>
  Either.gen(function* () {
    const anything: check.Check<unknown> = (_, given) => Either.right(given)
    const given = yield* check.struct({ ...source.fields, url: anything, auth: endpoint.auth })("", value)
    return {
      settings: source.settle(given, "http"),
      asked: yield* endpoint.parse("url", given.url, given.auth)
    }
  })

export const make = (client: HttpClient.HttpClient, options: unknown) =>
  Either.map(isOptions(options), ({ asked, settings }) =>
    source.make(settings, {
      target: asked.shown,
      read: Effect.flatMap(endpoint.get(client, asked), (answer) => Either.flatMap(listOf(answer), decode)),
      describe: (description: string) => ({ description })
    })
  )
