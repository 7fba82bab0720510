/**
 * Validation of the servers that a source lists. They come from other systems, so nothing is believed.
 */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Either from "effect/Either"
import * as check from "../validation/check.js"
import * as address from "./address.js"

/** A list longer than this is a mistake, and every entry would become a pool. */
const most = 1000

/** What is shown in messages, metrics and spans. */
const label: check.Check<string> = (field, value) =>
  typeof value === "string" && (value.includes("://") || value.includes("@"))
    ? check.invalidSecret(field, "It must not be a URL and hold no credentials")
    : check.text(field, value)

const settings = check.object<Omit<PgClientConfig, "url" | "host" | "port" | "path">>()

const fields = {
  host: address.host,
  port: check.integer(1, 65535),
  name: label,
  weight: check.positive,
  zone: label,
  role: check.oneOf("primary", "replica"),
  reads: check.boolean,
  writable: check.boolean,
  serverName: address.host,
  settings
}

const isMember = check.struct(fields)

// Rows of a table and answers of other programs have more fields than a member, and null for what is left out.
const known = (value: object): object =>
  Object.fromEntries(
    Object.entries(value).filter(
      ([name, given]) => Object.hasOwn(fields, name) && given !== null && given !== undefined
    )
  )

/** One server. */
export const member: check.Check<check.Struct<typeof fields> & address.Address> = (field, value) =>
  Either.gen(function* () {
    if (!check.isObject(value)) {
      return yield* check.invalid(field, value, 'It must be a server: { host: "db1", port: 5432 }')
    }
    const { host, ...rest } = yield* isMember(field, known(value))
    return host === undefined
      ? yield* check.invalid(`${field}.host`, undefined, "Every server has a host")
      : Object.freeze({ host, ...rest })
  })

interface Named extends address.Address {
  readonly name?: string | undefined
}

const nameOf = ({ host, name, port }: Named) =>
  name ?? `${host.includes(":") ? `[${host}]` : host}${port === undefined ? "" : `:${port}`}`

const unique = (field: string, members: ReadonlyArray<Named>): check.Checked<void> => {
  const seen = new Map<string, number>()
  for (const [index, one] of members.entries()) {
    const name = nameOf(one)
    const other = seen.get(name)
    if (other !== undefined) {
      return check.invalid(
        `${field}[${index}]${one.name === undefined ? "" : ".name"}`,
        name,
        `${field}[${other}] is called the same; list each server once, under a name of its own`
      )
    }
    seen.set(name, index)
  }
  return Either.void
}

/** A whole list of servers, at `field`: at least one, each valid, no two of one name. */
export const list: check.Check<ReadonlyArray<Either.Either.Right<ReturnType<typeof member>>>> = (field, value) =>
  Either.gen(function* () {
    if (!Array.isArray(value)) return yield* check.invalid(field, value, 'It must be a list: [{ host: "db1" }, ...]')
    if (value.length === 0) return yield* check.invalid(field, value, "It must list at least one server")
    if (value.length > most) return yield* check.invalid(field, value, `It must list at most ${most} servers`)
    const members = yield* Either.all(value.map((one, index) => member(`${field}[${index}]`, one)))
    yield* unique(field, members)
    return Object.freeze(members)
  })
