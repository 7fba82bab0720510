/**
 * The forms in which libpq and `pg` take an address, as `postgresql://` URLs of one host each. PostgreSQL, "Connection Strings";
 * `pg-connection-string`. No message has a part of the text: any could be a piece of a password.
 */
import * as Either from "effect/Either"

/** What is wrong with an address: the remedy. */
type Spelled<A> = Either.Either<A, string>

export const form = "Write postgresql://user:password@host:5432/database"

export const noHost = `It names no host. ${form}, or postgresql:///database?host=/run/postgresql for a Unix socket`

interface Parts {
  readonly scheme: string
  /** With its `@`, as it was given. */
  readonly login: string
  readonly hosts: string
  readonly path: string
  /** The parameters as they were given, without `?` and `&`. */
  readonly parameters: ReadonlyArray<string>
  readonly fragment: string
}

const nameOf = (parameter: string): string => parameter.slice(0, `${parameter}=`.indexOf("="))

const valueOf = ({ parameters }: Parts, name: string): string | undefined => {
  const parameter = parameters.find((one) => nameOf(one) === name)
  return parameter === undefined ? undefined : (new URLSearchParams(parameter).get(name) ?? undefined)
}

const without = (parts: Parts, ...names: ReadonlyArray<string>): ReadonlyArray<string> =>
  parts.parameters.filter((one) => !names.includes(nameOf(one)))

const written = ({ fragment, hosts, login, parameters, path, scheme }: Parts): string =>
  `${scheme}://${login}${hosts}${path}${parameters.length === 0 ? "" : `?${parameters.join("&")}`}${fragment}`

const encoded = (name: string, value: string): string => `${name}=${encodeURIComponent(value)}`

const read = (text: string): Parts | undefined => {
  const found = /^(postgres(?:ql)?):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/is.exec(text)
  if (found === null) return undefined
  const [, scheme = "", authority = "", path = "", query, fragment = ""] = found
  const at = authority.lastIndexOf("@") + 1
  const parameters = query === undefined || query === "" ? [] : query.replaceAll(" ", "%20").split("&")
  return { scheme, login: authority.slice(0, at), hosts: authority.slice(at), path, parameters, fragment }
}

/** `host=db port=5432 dbname=shop`. */
const fromKeywords = (text: string): string => {
  const given = new Map<string, string>()
  for (const [, name = "", quoted, plain = ""] of text.matchAll(keyword)) {
    given.set(name, (quoted ?? plain).replace(/\\(.)/gs, "$1"))
  }
  const { dbname = "", password, user, ...rest } = Object.fromEntries(given)
  const login = `${encodeURIComponent(user ?? "")}${password === undefined ? "" : `:${encodeURIComponent(password)}`}`
  const parameters = Object.entries(rest).map(([name, value]) => encoded(name, value))
  const at = login === "" ? "" : "@"
  return `postgresql://${login}${at}/${encodeURIComponent(dbname)}${parameters.length === 0 ? "" : `?${parameters.join("&")}`}`
}

const keyword = /([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))/gs

const isKeywords = (text: string): boolean =>
  !text.includes("://") && /^\s*[a-z_]+\s*=/.test(text) && text.replace(keyword, "").trim() === ""

/** `socket://user:password@/run/postgresql?db=shop`. */
const fromSocket = (text: string): string => {
  const [, login = "", directory = "", query = ""] = /^socket:\/\/([^/?#]*@)?([^?#]*)(?:\?([^#]*))?/i.exec(text) ?? []
  const parameters = new URLSearchParams(query)
  const database = parameters.get("db") ?? ""
  const rest = [...parameters].filter(([name]) => name !== "db").map(([name, value]) => encoded(name, value))
  return `postgresql://${login}/${encodeURIComponent(database)}?${[`host=${directory}`, ...rest].join("&")}`
}

/** Forms that are known, and of no use here. */
const others: ReadonlyArray<readonly [RegExp, string]> = [
  [/^(["'`]).*\1$/s, "It is in quotes, which are part of the value here: leave them out"],
  [/^jdbc:/i, `It is a URL for JDBC. ${form}`],
  [/^postgres(?:ql)?\+\w+:\/\//i, `The name of a driver stands behind the scheme (+…): leave it out. ${form}`],
  [
    /^\w+\s*=/,
    `It is a list of keywords with something else in it: quote values with spaces as 'a b', or use a URL. ${form}`
  ]
]

const canonical = (text: string): Spelled<string> => {
  if (/^postgres(?:ql)?:\/\//i.test(text)) return Either.right(text)
  if (/^socket:\/\/\S*$/i.test(text)) return Either.right(fromSocket(text))
  const directory = /^(\/\S+)(?: (\S+))?$/.exec(text)
  if (directory !== null) {
    const [, host = "", database = ""] = directory
    return Either.right(`postgresql:///${encodeURIComponent(database)}?${encoded("host", host)}`)
  }
  if (isKeywords(text)) return Either.right(fromKeywords(text))
  const [, remedy] = others.find(([pattern]) => pattern.test(text)) ?? []
  return Either.left(remedy ?? `It must begin with postgresql:// or postgres://. ${form}`)
}

/** Parameters of libpq that would be passed over, and mean something. */
const unusable: ReadonlyArray<readonly [name: string, remedy: string]> = [
  ["service", "Services (pg_service.conf) are not read. Write host, database and user into the URL"],
  ["hostaddr", 'hostaddr is not read. Write the address as the host; ssl: { servername: "…" } has the name for TLS'],
  ["replication", "A replication connection runs no prepared statements. Leave replication out"],
  ["passfile", "passfile is not read. Name the file in PGPASSFILE"]
]

/** The hosts of an address, each with its own parameters; one where there is one. */
const split = (parts: Parts): Spelled<ReadonlyArray<string>> => {
  const host = valueOf(parts, "host")
  const port = valueOf(parts, "port")
  if (host === undefined || host === "") {
    const hosts = parts.hosts.split(",")
    if (parts.hosts === "") return Either.left(noHost)
    if (hosts.includes("")) return Either.left("One of its hosts is empty: take out the comma")
    return Either.right(hosts.map((one) => written({ ...parts, hosts: one })))
  }
  const hosts = host.split(",")
  const ports = port === undefined ? [] : port.split(",")
  if (hosts.includes("")) return Either.left("One of its hosts is empty: take out the comma")
  if (ports.length > 1 && ports.length !== hosts.length) {
    return Either.left(`It has ${hosts.length} hosts and ${ports.length} ports: give one port for all, or one for each`)
  }
  // The driver takes no URL without a host, and lets the parameter win.
  const named = { ...parts, hosts: parts.hosts === "" || hosts.length > 1 ? "localhost" : parts.hosts }
  if (hosts.length === 1) return Either.right([written(named)])
  return Either.right(
    hosts.map((one, i) => {
      const own = ports[i] ?? ports[0]
      const parameters = [encoded("host", one), ...(own === undefined ? [] : [encoded("port", own)])]
      return written({ ...named, parameters: [...parameters, ...without(parts, "host", "port")] })
    })
  )
}

const roles = {
  any: undefined,
  "read-write": "primary",
  primary: "primary",
  "read-only": "standby",
  standby: "standby",
  "prefer-standby": "standby"
} as const

/** What the servers of an address are to be, by `target_session_attrs`. */
export type Role = "primary" | "standby"

export interface Addresses {
  /** A URL for each host. */
  readonly urls: ReadonlyArray<string>
  readonly role: Role | undefined
}

const isRole = (name: string): name is keyof typeof roles => Object.hasOwn(roles, name)

/** Reads an address in any of its forms. What cannot be read as one is left to the reader of the URL. */
export const parse = (text: string): Spelled<Addresses> =>
  Either.flatMap(canonical(text.trim()), (url) => {
    const parts = read(url)
    if (parts === undefined) return Either.right({ urls: [url], role: undefined })
    const [, remedy] = unusable.find(([name]) => (valueOf(parts, name) ?? "") !== "") ?? []
    if (remedy !== undefined) return Either.left(remedy)
    const wanted = valueOf(parts, "target_session_attrs") ?? "any"
    if (!isRole(wanted)) {
      return Either.left(`target_session_attrs must be one of ${Object.keys(roles).join(", ")}`)
    }
    const isSystem = valueOf(parts, "sslrootcert") === "system"
    // Node's own authorities are those of the system, and what the driver takes without a file.
    const tls = isSystem ? ["sslmode=verify-full", ...without(parts, "sslrootcert", "sslmode")] : parts.parameters
    const clean = without({ ...parts, parameters: tls }, "target_session_attrs", "load_balance_hosts")
    return Either.map(split({ ...parts, parameters: clean }), (urls) => ({ urls, role: roles[wanted] }))
  })

/**
 * The addresses of a list that is separated by commas, in which an address may name several hosts: a comma between the hosts of
 * one address, or in its parameters `host` and `port`, separates no addresses.
 */
export const splitList = (text: string): ReadonlyArray<string> => {
  const addresses: Array<string> = []
  for (const part of text.split(",")) {
    const last = addresses.at(-1)
    const isOfLast = last !== undefined && !/^\s*[a-z+]+:\/\//i.test(part) && isOpen(last)
    if (isOfLast) addresses[addresses.length - 1] = `${last},${part}`
    else addresses.push(part)
  }
  return addresses.map((one) => one.trim()).filter((one) => one !== "")
}

/** Whether an address that ends before a comma goes on behind it. */
const isOpen = (address: string): boolean =>
  /^\s*postgres(?:ql)?:\/\/[^/?#]*$/i.test(address) ||
  /^\s*postgres(?:ql)?:\/\/.*[?&](?:host|port)=[^&#]*$/i.test(address) ||
  (!address.includes("://") && /(?:^|\s)(?:host|port)\s*=\s*[^\s']*$/.test(address))
