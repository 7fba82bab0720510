/**
 * Servers from DNS: the addresses of one name, or the SRV records of a service.
 */
import { NODATA, NOTFOUND, promises, type SrvRecord } from "node:dns"
import { isIP } from "node:net"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as check from "../validation/check.js"
import * as address from "./address.js"
import * as source from "./source.js"

export interface Resolver {
  /** All IPv4 and IPv6 addresses of a name. */
  readonly addresses: (hostname: string) => Effect.Effect<ReadonlyArray<string>, unknown>
  /** All SRV records of a service. */
  readonly services: (name: string) => Effect.Effect<ReadonlyArray<SrvRecord>, unknown>
}

// Each question has a resolver of its own: it reads the system's configuration anew, and `cancel` ends this question only.
const asking = <A>(
  make: () => promises.Resolver,
  ask: (resolver: promises.Resolver) => Promise<A>
): Effect.Effect<A, unknown> =>
  Effect.suspend(() => {
    const resolver = make()
    return Effect.onInterrupt(Effect.tryPromise({ try: () => ask(resolver), catch: (error) => error }), () =>
      Effect.sync(() => resolver.cancel())
    )
  })

export const system: Resolver = {
  addresses: (hostname) =>
    Effect.tryPromise({
      try: () => promises.lookup(hostname, { all: true, order: "verbatim" }),
      catch: (error) => error
    }).pipe(Effect.map((found) => found.map(({ address }) => address))),
  services: (name) =>
    asking(
      () => new promises.Resolver(),
      (resolver) => resolver.resolveSrv(name)
    )
}

const codeOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined

// Only these say that there are none. After any other error the list is unknown, and half a list would drop servers.
const orNone = (found: Promise<ReadonlyArray<string>>): Promise<ReadonlyArray<string>> =>
  found.catch((error) => {
    if (codeOf(error) === NODATA || codeOf(error) === NOTFOUND) return []
    throw error
  })

const bothFamilies = (resolver: promises.Resolver, hostname: string): Promise<ReadonlyArray<string>> =>
  Promise.all([orNone(resolver.resolve4(hostname)), orNone(resolver.resolve6(hostname))]).then((found) => found.flat())

const server: check.Check<string> = (field, value) =>
  Either.flatMap(address.parse(field, value), ({ host, port }) => {
    const bare = isIP(host) === 6 ? `[${host}]` : host
    return isIP(host) === 0
      ? check.invalid(field, value, 'It must be the address of a name server, such as "10.0.0.2" or "[::1]:8600"')
      : Either.right(port === undefined ? bare : `${bare}:${port}`)
  })

const serversOf: check.Check<ReadonlyArray<string>> = (field, value) =>
  Array.isArray(value) && value.length > 0
    ? Either.all(value.map((one, index) => server(`${field}[${index}]`, one)))
    : check.invalid(field, value, 'It must be a list of name servers, such as ["10.0.0.2", "127.0.0.1:8600"]')

/** Asks those name servers, and no file of the system. */
export const resolver = (options: unknown): check.Checked<Resolver> =>
  Either.gen(function* () {
    const given = yield* check.struct({ servers: serversOf })("", options)
    const servers = given.servers ?? (yield* serversOf("servers", undefined))
    const make = () => {
      const one = new promises.Resolver()
      one.setServers(servers)
      return one
    }
    return {
      addresses: (hostname) => asking(make, (one) => bothFamilies(one, hostname)),
      services: (name) => asking(make, (one) => one.resolveSrv(name))
    }
  })

const isResolver: check.Check<Resolver> = (field, value) =>
  check.isObject(value) &&
  "addresses" in value &&
  typeof value.addresses === "function" &&
  "services" in value &&
  typeof value.services === "function"
    ? Either.right(value as Resolver)
    : check.invalid(field, value, "It must be a resolver, such as Topology.resolver({ servers: [...] }) returns")

// The dot at the end of a full name is not in certificates.
const withoutDot = (name: string) => (name.endsWith(".") ? name.slice(0, -1) : name)

const domain: check.Check<string> = (field, value) =>
  typeof value === "string" && address.isHostName(value) && isIP(value) === 0
    ? Either.right(withoutDot(value))
    : check.invalid(field, value, "It must be a name of DNS; for addresses there is Topology.hosts")

const family: check.Check<4 | 6> = (field, value) =>
  value === 4 || value === 6 ? Either.right(value) : check.invalid(field, value, "It must be 4 or 6")

const isOptions = check.struct({
  ...source.fields,
  hostname: domain,
  port: check.integer(1, 65535),
  family,
  srv: domain,
  resolver: isResolver
})

const meanings: Readonly<Record<string, string>> = {
  ENOTFOUND: "there is no such name",
  ENODATA: "the name has no such records",
  ENONAME: "there is no such name",
  EAI_AGAIN: "no name server answered; check the network and the system's name servers",
  ETIMEOUT: "no name server answered; check the network and the name servers",
  ECONNREFUSED: "the name server refused the connection",
  ESERVFAIL: "the name server could not answer (SERVFAIL)",
  EREFUSED: "the name server refused to answer (REFUSED)"
}

/** What a resolver has yielded is no list of addresses. */
class Unusable {
  readonly description = "its resolver yielded something else than a list of addresses"
}

const describe = (cause: unknown) => {
  if (cause instanceof Unusable) return cause
  const code = codeOf(cause)
  const meaning = code === undefined ? undefined : meanings[code]
  return meaning === undefined ? source.failedWith(cause) : { description: meaning, cause }
}

const byName = (hostname: string, port: number | undefined, only: 4 | 6 | undefined, found: unknown) => {
  if (!Array.isArray(found) || !found.every((one) => typeof one === "string" && isIP(one) !== 0)) {
    return Either.left(new Unusable())
  }
  const addresses = new Set<string>(only === undefined ? found : found.filter((one) => isIP(one) === only))
  return Either.right(
    Array.from(addresses)
      .sort()
      .map((host) => ({ host, port, name: `${hostname}/${host}`, serverName: hostname }))
  )
}

// RFC 2782: a record of weight 0 among others has "a very small chance of being selected".
const least = 0.1

const byService = (records: ReadonlyArray<SrvRecord>) => {
  const weighted = records.some(({ weight }) => weight > 0)
  const found = new Map<string, object>()
  for (const { name, port, weight } of records) {
    const host = withoutDot(name)
    // RFC 2782: a target of "." means that the service is decidedly not available at this domain.
    if (host === "") continue
    const key = `${host}:${port}`
    found.set(key, { host, port, name: key, weight: weighted ? weight || least : 1 })
  }
  return Array.from(found.keys())
    .sort()
    .map((key) => found.get(key))
}

/** `reserved` are the fields that do not go together with `other`. */
const alone = (given: Readonly<Record<string, unknown>>, other: string, reserved: ReadonlyArray<string>) => {
  const both = reserved.find((name) => given[name] !== undefined)
  return both === undefined
    ? Either.void
    : check.invalid(both, given[both], `It cannot be given together with "${other}", whose records say it all`)
}

export const make = (options: unknown) =>
  Either.gen(function* () {
    const given = yield* isOptions("", options)
    const settings = source.settle(given, "dns")
    const { addresses, services } = given.resolver ?? system
    if (given.srv !== undefined) {
      const { srv } = given
      yield* alone(given, "srv", ["hostname", "port", "family"])
      return source.make(settings, {
        target: `the SRV records of ${srv}`,
        read: Effect.map(
          Effect.suspend(() => services(srv)),
          byService
        ),
        describe
      })
    }
    const { hostname } = given
    if (hostname === undefined) return yield* check.invalid("hostname", undefined, 'Name "hostname", or "srv"')
    return source.make(settings, {
      target: `the addresses of ${hostname}`,
      read: Effect.flatMap(
        Effect.suspend(() => addresses(hostname)),
        (found) => byName(hostname, given.port, given.family, found)
      ),
      describe
    })
  })
