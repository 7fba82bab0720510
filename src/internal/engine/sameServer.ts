import * as Redacted from "effect/Redacted"
import type { ResolvedEngine } from "./settings.js"

type Bound = Pick<ResolvedEngine, "address" | "client">

/** What of a URL may change from one connection to the next: the password, and how TLS is made. */
const own = /^(?:password$|ssl)/

/** A URL without that. `undefined` for one that only the driver can read. */
const identityOf = (text: string): string | undefined => {
  if (!URL.canParse(text)) return undefined
  const url = new URL(text)
  const parameters = [...url.searchParams].filter(([name]) => !own.test(name)).sort()
  return JSON.stringify([url.protocol, url.username, url.host, url.pathname, parameters])
}

/**
 * Whether two configurations are of the same server, database and user, to which they connect with another password or certificate
 * at most, or in other numbers.
 */
export const isSameServer = (one: Bound, other: Bound): boolean => {
  const parts = ["host", "port", "database"] as const
  if (parts.some((part) => one.address[part] !== other.address[part])) return false
  if (one.client.username !== other.client.username || one.client.stream !== other.client.stream) return false
  const [a, b] = [one.client.url, other.client.url]
  if (a === undefined || b === undefined) return a === b
  const identity = identityOf(Redacted.value(a))
  return (
    Redacted.value(a) === Redacted.value(b) || (identity !== undefined && identity === identityOf(Redacted.value(b)))
  )
}
