/**
 * Validation of one engine's configuration.
 */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import { RouterConfigError } from "../../RouterError.js"
import * as check from "../validation/check.js"
import { list } from "../validation/printValue.js"
import * as url from "./url.js"

/** Where an engine stands in the options, and what it is called if it does not say so itself. */
export interface Slot {
  readonly field: string
  readonly name: string
}

const host: check.Check<string> = (field, value) =>
  typeof value === "string" && /^[^\s@,]+$/.test(value) && !value.includes("://")
    ? Either.right(value)
    : check.invalid(
        field,
        value,
        'It must be one host name, an address, or the directory of a Unix socket; a URL belongs into the field "url"'
      )

const path: check.Check<string> = (field, value) =>
  typeof value === "string" && value.startsWith("/")
    ? Either.right(value)
    : check.invalid(field, value, "It must be the directory of a Unix socket, such as /run/postgresql")

type Name = Exclude<PgClientConfig["transformQueryNames"], undefined>
type Tls = Exclude<PgClientConfig["ssl"], undefined | boolean>
type Types = Exclude<PgClientConfig["types"], undefined>
type MakeStream = Exclude<PgClientConfig["stream"], undefined>

/** Every field that an engine may have. */
export const fields = {
  name: check.text,
  weight: check.positive,
  zone: check.text,
  writable: check.boolean,
  allowCleartextPassword: check.boolean,
  url: check.redacted,
  host,
  port: check.integer(1, 65535),
  path,
  ssl: check.either(check.boolean, check.object<Tls>(), "It must be true, false or the options of tls.connect"),
  database: check.text,
  username: check.text,
  password: check.redactedOrEffect,
  stream: check.callable<MakeStream>(),
  idleTimeout: check.duration({ positive: false }),
  connectTimeout: check.duration({ positive: false }),
  maxConnections: check.integer(1),
  minConnections: check.integer(0),
  connectionTTL: check.duration({ positive: false }),
  applicationName: check.text,
  spanAttributes: check.object<Record<string, unknown>>(),
  transformResultNames: check.callable<Name>(),
  transformQueryNames: check.callable<Name>(),
  transformJson: check.boolean,
  types: check.object<Types>("It must be an object with the function getTypeParser")
} satisfies Record<
  keyof Required<PgClientConfig> | url.OwnParameter | "writable" | "allowCleartextPassword",
  check.Check<unknown>
>

type Given = check.Struct<typeof fields>

const isEngine = check.struct(fields, {
  connectionString: 'Did you mean "url"?',
  user: 'Did you mean "username"?',
  max: 'Did you mean "maxConnections"?',
  min: 'Did you mean "minConnections"?',
  hostname: 'Did you mean "host"?'
})

// The driver lets the URL win over these without a word, even where the URL says nothing about them.
const partsOfUrl = ["host", "port", "path", "database", "username", "password"] as const

const both = (field: string, name: keyof Given, given: Given, other: string): check.Checked<never> =>
  check.invalid(`${field}.${name}`, given[name], `It cannot be given together with "${other}"; say it in one place`)

const readUrl = (field: string, given: Given): check.Checked<url.EngineUrl | undefined> =>
  Either.gen(function* () {
    if (given.url === undefined) {
      return given.host !== undefined && given.path !== undefined
        ? yield* both(field, "path", given, "host")
        : undefined
    }
    const asked = Effect.isEffect(given.password)
    for (const part of partsOfUrl) {
      if (given[part] !== undefined && !(asked && part === "password")) return yield* both(field, part, given, "url")
    }
    const parsed = yield* Either.mapLeft(
      url.parse(Redacted.value(given.url)),
      ({ remedy, value }) => new RouterConfigError({ field: `${field}.url`, value, remedy })
    )
    if (asked && hasPassword(parsed.url)) {
      return yield* check.invalidSecret(`${field}.password`, 'The "url" has a password too; say it in one place')
    }
    for (const name of parsed.own.keys()) {
      if (given[name] !== undefined) return yield* both(field, name, given, "url")
    }
    return parsed.saysTls && given.ssl !== undefined ? yield* both(field, "ssl", given, "url") : parsed
  })

const hasPassword = (url: string): boolean => {
  if (!URL.canParse(url)) return false
  const { password, searchParams } = new URL(url)
  return password !== "" || searchParams.has("password")
}

/** The pool of `pg` has 10 connections if nothing is said. */
const defaultConnections = 10

const poolBounds = (field: string, given: Given) => {
  const { maxConnections = defaultConnections, minConnections = 0 } = given
  return minConnections <= maxConnections
    ? Either.right({ maxConnections, minConnections })
    : check.invalid(
        `${field}.minConnections`,
        minConnections,
        `It must not be more than maxConnections, which is ${maxConnections}`
      )
}

/** Validates what an engine's entry holds, or what its Effect has yielded. */
export const resolve = (slot: Slot, config: unknown) =>
  Either.gen(function* () {
    const { field } = slot
    const given = yield* isEngine(field, config)
    const address = yield* readUrl(field, given)
    const own = address?.own ?? new Map<url.OwnParameter, string>()
    const bounds = yield* poolBounds(field, given)
    const { name, password, path, weight, writable, zone, ...client } = given
    const fromUrl = {
      name: own.has("name") ? yield* check.text(`${field}.name`, own.get("name")) : undefined,
      zone: own.has("zone") ? yield* check.text(`${field}.zone`, own.get("zone")) : undefined,
      weight: own.has("weight") ? yield* weightOf(`${field}.weight`, own.get("weight")!) : undefined
    }
    const host = address?.host ?? given.host ?? path
    return Object.freeze({
      name: name ?? fromUrl.name ?? slot.name,
      weight: weight ?? fromUrl.weight ?? 1,
      zone: zone ?? fromUrl.zone,
      writable: writable ?? true,
      address: Object.freeze({
        host,
        port: address?.port ?? given.port,
        database: address?.database ?? given.database
      }),
      client: Object.freeze({
        ...client,
        ...bounds,
        ...(Effect.isEffect(password) ? { passwordEffect: password } : password !== undefined && { password }),
        applicationName: given.applicationName ?? "effect-db-router",
        allowCleartextPassword: given.allowCleartextPassword ?? false,
        ...(address === undefined ? {} : { url: Redacted.make(address.url) }),
        ...(path === undefined ? {} : { host: path })
      })
    })
  })

const weightOf = (field: string, text: string): check.Checked<number> => {
  const weight = text.trim() === "" ? Number.NaN : Number(text)
  return check.positive(field, Number.isNaN(weight) ? text : weight)
}

export type Engine = Either.Either.Right<ReturnType<typeof resolve>>

const transforms = ["transformQueryNames", "transformResultNames", "transformJson", "types"] as const

interface Transforming {
  readonly name: string
  readonly client: Pick<PgClientConfig, (typeof transforms)[number]>
}

/** The routed client has one compiler and one row transform, so no other engine may ask for different ones. */
export const checkTransforms = (first: Transforming, other: Transforming, field: string): check.Checked<void> => {
  for (const name of transforms) {
    const asked = other.client[name]
    const used = first.client[name] ?? (name === "transformJson" ? true : undefined)
    if (asked !== undefined && asked !== used) {
      return check.invalid(
        `${field}.${name}`,
        asked,
        `The routed client has one of it, from the default group's engine ${list([first.name])}: leave it out here, or ` +
          "name the same value in both"
      )
    }
  }
  return Either.void
}
