/**
 * How to connect to a server that a topology knows: as to the first engine of the default group, but for what it says itself.
 */
import type * as Either from "effect/Either"
import * as Equal from "effect/Equal"
import * as Redacted from "effect/Redacted"
import { type ResolvedClient, type ResolvedEngine, resolveEngine } from "../../RouterConfig.js"
import type { RouterConfigError } from "../../RouterError.js"
import type { Member } from "../../Topology.js"

const defaultPort = 5432

/** The name of a member that does not give one. */
const addressOf = ({ host, port }: Member, template: ResolvedEngine) =>
  `${host.includes(":") ? `[${host}]` : host}:${port ?? template.address.port ?? defaultPort}`

export const nameOf = (member: Member, template: ResolvedEngine): string => member.name ?? addressOf(member, template)

/** Whether a member is the server that an engine connects to. */
export const isAt = ({ address }: Pick<ResolvedEngine, "address">, member: Member, template: ResolvedEngine): boolean =>
  address.host === member.host &&
  (address.port ?? defaultPort) === (member.port ?? template.address.port ?? defaultPort)

/** The template's URL, for the member's server. */
const urlOf = (url: Redacted.Redacted, { host, port, settings }: Member): Redacted.Redacted => {
  const at = new URL(Redacted.value(url))
  // Where they are, they count more than what stands before the path.
  at.searchParams.delete("host")
  at.searchParams.delete("port")
  // Before the path there is no place for the directory of a socket, nor for the zone of an address.
  if (/^\/|:/.test(host)) at.searchParams.set("host", host)
  else at.hostname = host
  if (port !== undefined) at.port = String(port)
  // It carries these itself; the driver would prefer them to others beside it.
  if (settings?.username !== undefined) at.username = encodeURIComponent(settings.username)
  if (settings?.password !== undefined) at.password = encodeURIComponent(Redacted.value(settings.password))
  if (settings?.database !== undefined) at.pathname = `/${encodeURIComponent(settings.database)}`
  return Redacted.make(at.href)
}

/** Where to connect, and as whom. */
const whereOf = (member: Member, { address, client }: ResolvedEngine) => {
  if (client.url !== undefined) return { url: urlOf(client.url, member) }
  const { database, password, username } = member.settings ?? {}
  return {
    host: member.host,
    port: member.port ?? address.port,
    ...(database !== undefined && { database }),
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password })
  }
}

/** The engine's configuration. */
export const resolve = (member: Member, template: ResolvedEngine): Either.Either<ResolvedEngine, RouterConfigError> => {
  const name = nameOf(member, template)
  const { serverName, settings = {} } = member
  const { host: _host, passwordEffect, port: _port, url: _url, ...client } = template.client
  const { database: _database, password: _password, username: _username, ...others } = settings
  const ssl = settings.ssl ?? client.ssl
  return resolveEngine(
    { field: `topology.${name}`, name },
    {
      ...client,
      ...(settings.password === undefined && passwordEffect !== undefined && { password: passwordEffect }),
      ...others,
      ...whereOf(member, template),
      ...(ssl !== undefined &&
        ssl !== false &&
        serverName !== undefined && { ssl: { servername: serverName, ...(ssl === true ? {} : ssl) } }),
      name,
      weight: member.weight ?? 1,
      zone: member.zone,
      writable: member.writable ?? true
    }
  )
}

/** Whether two configurations lead to the same server in the same way. */
export const isSameClient = (one: ResolvedClient, other: ResolvedClient): boolean => {
  const keys = new Set([...Object.keys(one), ...Object.keys(other)])
  const at = (client: ResolvedClient, key: string) => client[key as keyof ResolvedClient]
  return [...keys].every((key) => isSame(at(one, key), at(other, key)))
}

const isSame = (one: unknown, other: unknown): boolean => {
  if (Equal.equals(one, other)) return true
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false
  if (Object.getPrototypeOf(one) !== Object.prototype || Object.getPrototypeOf(other) !== Object.prototype) return false
  const keys = Object.keys(one)
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => isSame((one as Record<string, unknown>)[key], (other as Record<string, unknown>)[key]))
  )
}
