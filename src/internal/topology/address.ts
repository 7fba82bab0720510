/**
 * Hosts and ports as people write them.
 */
import { isIPv6 } from "node:net"
import * as Either from "effect/Either"
import * as check from "../validation/check.js"

export interface Address {
  readonly host: string
  readonly port?: number | undefined
}

const longest = 255

// A host name may hold any letter (international names), but nothing that delimits the parts of a URL or of a list.
export const isHostName = (text: string) => /^[^\s\p{Cc}@,:/?#[\]\\%"'<>]+$/u.test(text)

const isDirectory = (text: string) => text.startsWith("/") && !text.includes("://") && !/[@,\p{Cc}]/u.test(text)

const withoutBrackets = (text: string) => (text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text)

const remedyOf = (text: string): string => {
  if (text.includes("://") || text.includes("@")) {
    return "It must be a host alone, not a URL: user, password and database are taken from the engines of the options"
  }
  if (text.includes(",")) return "It must be one host: list each server by itself"
  if (/^[^:]+:\d+$/.test(text)) return `It must be a host without its port: { host: "db1", port: 5432 }`
  return "It must be a host name, an address, or the directory of a Unix socket"
}

/** A host by itself: a name, an IPv4 or IPv6 address (brackets are taken off), the directory of a Unix socket. */
export const host: check.Check<string> = (field, value) => {
  if (typeof value !== "string") {
    return check.invalid(field, value, "It must be a host name, an address, or the directory of a Unix socket")
  }
  const bare = withoutBrackets(value)
  return value.length <= longest &&
    (bare === value ? isHostName(value) || isDirectory(value) || isIPv6(value) : isIPv6(bare))
    ? Either.right(bare)
    : check.invalid(field, value, remedyOf(value))
}

const port = check.integer(1, 65535)

const split = (field: string, text: string): check.Checked<readonly [host: string, port: string | undefined]> => {
  const bracketed = /^(\[[^\]]*\])(?::(.*))?$/.exec(text)
  if (bracketed !== null) return Either.right([bracketed[1]!, bracketed[2]])
  const colon = text.indexOf(":")
  if (colon < 0 || text.startsWith("/") || text.includes("://") || text.includes("@")) {
    return Either.right([text, undefined])
  }
  return text.includes(":", colon + 1)
    ? check.invalid(field, text, 'It has several colons: write an IPv6 address in brackets, such as "[::1]:5432"')
    : Either.right([text.slice(0, colon), text.slice(colon + 1)])
}

/** `db1`, `db1:5432`, `10.0.0.1:5432`, `[::1]`, `[::1]:5432`, or the directory of a Unix socket. */
export const parse: check.Check<Address> = (field, value) =>
  Either.gen(function* () {
    if (typeof value !== "string") {
      return yield* check.invalid(field, value, 'It must be a text such as "db1:5432", or an object { host: "db1" }')
    }
    const [name, digits] = yield* split(field, value.trim())
    // What follows the colon, and is no number, may be a password.
    if (digits !== undefined && !/^\d{1,5}$/.test(digits)) {
      return yield* check.invalidSecret(
        field,
        'After the colon it must have a port from 1 to 65535, such as "db1:5432"'
      )
    }
    return {
      host: yield* host(field, name),
      ...(digits === undefined ? {} : { port: yield* port(field, Number(digits)) })
    }
  })
