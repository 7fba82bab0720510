/**
 * The present list of servers. The servers themselves say which of them is the primary, in the probes; the roles of a topology
 * only hasten those.
 *
 * Nothing that a source answers is believed: every server needs a host without scheme, user or password, a port from 1 to
 * 65535, a positive weight, and a name that no other has; a list has at least one server and at most 1000. A list that cannot
 * be read, or that has anything wrong, is a `TopologyError`, and the router goes on with the one it has.
 *
 * @since 0.1.0
 */
import type { HttpClient } from "@effect/platform/HttpClient"
import * as HttpClientTag from "@effect/platform/HttpClient"
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import * as dnsSource from "./internal/topology/dns.js"
import * as hostsSource from "./internal/topology/hosts.js"
import * as httpSource from "./internal/topology/http.js"
import * as patroniSource from "./internal/topology/patroni.js"
import type { RouterConfigError, TopologyError } from "./RouterError.js"

/**
 * One server that a topology knows. What it leaves out (credentials, database, limits of the pool) is taken from the first
 * engine of the default group.
 *
 * @since 0.1.0
 * @category models
 */
export interface Member {
  /** A host name, an IPv4 or IPv6 address (with or without brackets), or the directory of a Unix socket. */
  readonly host: string
  /** Default: that of the first engine of the default group, else `5432`. */
  readonly port?: number | undefined
  /** The name of the engine. Default: `host:port`. A member of the same name is the same engine, wherever it moves. */
  readonly name?: string | undefined
  /** The share of the reads, relative to the others: positive. Default: `1`. */
  readonly weight?: number | undefined
  /** The zone of the server, for `Selector.preferZone`. Default: none. */
  readonly zone?: string | undefined
  /** The role by the source. A change has the server probed at once; the probe decides. */
  readonly role?: "primary" | "replica" | undefined
  /**
   * `false`: no read is sent there while it is a replica (Patroni's tag `noloadbalance`); it may still become the primary,
   * and then takes what a primary takes. Default: `true`.
   */
  readonly reads?: boolean | undefined
  /** `false`: no write is sent there, also when it says that it is the primary. Default: `true`. */
  readonly writable?: boolean | undefined
  /** The name in the server's certificate, where `host` is an address. Default: `host`. */
  readonly serverName?: string | undefined
  /** Anything else of the connection that differs from the first engine of the default group. */
  readonly settings?: Omit<PgClientConfig, "url" | "host" | "port" | "path"> | undefined
}

/**
 * The schedule of reading something again.
 *
 * @since 0.1.0
 * @category models
 */
export interface Rereading {
  /** The interval. */
  readonly interval: Duration.Duration
  /** Also before a session begins, when the last time was this long ago. `undefined`: it is not. */
  readonly beforeSession: Duration.Duration | undefined
  /** The longest wait of a session for it; then it begins with what is known. Default: 5 seconds. */
  readonly timeout?: Duration.Duration | undefined
}

/**
 * A list of servers that may change.
 *
 * @since 0.1.0
 * @category models
 */
export interface Source extends Rereading {
  /** Reads the list. When it fails, the router goes on with the one it has. */
  readonly members: Effect.Effect<ReadonlyArray<Member>, TopologyError>
}

/**
 * The source of the servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Topology {
  readonly name: string
  /** `undefined`: the engines of the options. */
  readonly source: Source | undefined
  /** The schedule on which engines of the options that were given as Effects are run again. Default: never. */
  readonly resolving?: Rereading | undefined
}

/**
 * A `Topology` in the context of the router's layer takes the place of the option `topology`.
 *
 * @since 0.1.0
 * @category tags
 */
export const Topology = Context.GenericTag<Topology>("effect-db-router/Topology")

/**
 * The schedule of reading a list of servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The topology's name in errors. Default: that of its constructor (`"custom"`, `"hosts"`, `"dns"`, `"patroni"`, `"http"`). */
  readonly name?: string | undefined
  /** The interval at which the list is read. Default: `"10 seconds"`. */
  readonly interval?: Duration.DurationInput | undefined
  /**
   * The list is also read before a session begins, when it was last read this long ago or longer; `0`: before each. The
   * session waits for it, `timeout` at most, and for servers that have moved too. Default: it is not.
   */
  readonly beforeSession?: Duration.DurationInput | undefined
  /** The time limit of reading the list. Default: `"5 seconds"`. */
  readonly timeout?: Duration.DurationInput | undefined
}

// As HttpSession.middleware does: a value that is wrong when a program is put together is told there and then.
const orThrow = <A>(checked: Either.Either<A, RouterConfigError>): A => Either.getOrThrowWith(checked, identity)

/**
 * The engines of the options, and no others. They may change roles: the primary is the one that says so.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fixed: Topology = { name: "fixed", source: undefined }

/**
 * The engines of the options; those that were given as Effects run again, and are followed where they lead to another server,
 * or yield another password. An Effect that fails, and a server that does not answer, change nothing.
 *
 * Throws a `RouterConfigError` at once when an option cannot be used.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { DbRouter, type RouterConfig, Topology } from "effect-db-router"
 *
 * declare const fromVault: Effect.Effect<RouterConfig.EngineConfig, Error>
 *
 * // Follows where the secret leads, and its new passwords.
 * const RouterLive = DbRouter.layer({
 *   groups: { default: [fromVault] },
 *   topology: Topology.resolving({ interval: "1 minute" })
 * })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const resolving = (options: Omit<Options, "timeout"> = {}): Topology => orThrow(hostsSource.resolving(options))

/**
 * A list that an Effect yields: from a service registry, a table, a file. With `beforeSession` it is what
 * context-async-sqlalchemy's `before_create_session_handler` is for, which changes the host before a session begins.
 *
 * Its failures, its defects, its own interruption and taking longer than `timeout` (it is interrupted, and not waited for) all
 * are a `TopologyError`. An error's text may hold a secret, so the message has only the error's name; the error itself is the
 * `cause`. Fields that a `Member` does not have are ignored, and `null` counts as left out.
 *
 * Throws a `RouterConfigError` at once when an option cannot be used.
 *
 * @example
 * ```ts
 * import { Topology } from "effect-db-router"
 * import { Effect } from "effect"
 *
 * declare const registry: Effect.Effect<ReadonlyArray<{ readonly host: string }>, Error>
 *
 * const topology = Topology.make({ members: registry, interval: "30 seconds", beforeSession: "1 second" })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options & { readonly members: Effect.Effect<ReadonlyArray<Member>, unknown> }
): Topology => orThrow(hostsSource.make(options))

/**
 * A list that does not change, whose servers say themselves which one is the primary: libpq's `target_session_attrs`, but all
 * the time. An entry is a text (`"db1"`, `"db1:5432"`, `"[::1]:5432"`, the directory of a Unix socket) or a `Member`. A URL is
 * refused: user, password and database are those of the first engine of the default group.
 *
 * Throws a `RouterConfigError` at once when an entry cannot be used.
 *
 * @example
 * ```ts
 * import { Topology } from "effect-db-router"
 *
 * const topology = Topology.hosts(["db1:5432", "db2", "[fd00::3]:5433", { host: "db4", zone: "eu-1a" }])
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const hosts = (list: ReadonlyArray<string | Member>, options: Pick<Options, "name"> = {}): Topology =>
  orThrow(hostsSource.hosts(list, options))

/**
 * Asks DNS: `addresses(hostname)` yields all IPv4 and IPv6 addresses of a name, `services(name)` all SRV records of a service,
 * as `node:dns` has them. Both may fail with anything; an error with the `code` of a `node:dns` error is explained by it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Resolver extends dnsSource.Resolver {}

/**
 * The resolver of the system: addresses as other programs find them (`getaddrinfo`, so the hosts file counts), SRV records
 * from the system's name servers.
 *
 * @since 0.1.0
 * @category resolvers
 */
export const systemResolver: Resolver = dnsSource.system

/**
 * A resolver that asks these name servers (`"10.0.0.2"`, `"127.0.0.1:8600"`, `"[::1]:53"`), and no others: Consul's, say. When
 * one of the two questions, for IPv4 and for IPv6 addresses, has no answer, the whole fails.
 *
 * Throws a `RouterConfigError` at once when an address cannot be used.
 *
 * @since 0.1.0
 * @category resolvers
 */
export const resolver = (options: { readonly servers: ReadonlyArray<string> }): Resolver =>
  orThrow(dnsSource.resolver(options))

/**
 * One name with an address for every server.
 *
 * @since 0.1.0
 * @category models
 */
export interface DnsAddresses {
  /** The name. Its addresses become members called `hostname/address`, whose `serverName` it is. */
  readonly hostname: string
  /** The port of all of them. Default: that of the first engine of the default group, else `5432`. */
  readonly port?: number | undefined
  /**
   * Only IPv4, or only IPv6. A server that has an address of each would count as two servers. Default: both.
   */
  readonly family?: 4 | 6 | undefined
  readonly srv?: undefined
}

/**
 * The SRV records of a service (RFC 2782).
 *
 * @since 0.1.0
 * @category models
 */
export interface DnsServices {
  /**
   * The service, such as `"_postgresql._tcp.example.org"`. Targets become members called `target:port`, with the record's
   * weight; `0` next to others counts as `0.1`. Priorities are not used: the router knows which servers answer.
   */
  readonly srv: string
  readonly hostname?: undefined
  readonly port?: undefined
  readonly family?: undefined
}

/**
 * The servers that DNS knows: all addresses of one name (a Kubernetes headless service), or the SRV records of a service.
 * It is asked again every `interval`, whatever the time to live of the records.
 *
 * Throws a `RouterConfigError` at once when an option cannot be used.
 *
 * @example
 * ```ts
 * import { Topology } from "effect-db-router"
 *
 * const headless = Topology.dns({ hostname: "postgres.shop.svc.cluster.local", family: 4 })
 *
 * const consul = Topology.dns({
 *   srv: "postgres.service.consul",
 *   resolver: Topology.resolver({ servers: ["127.0.0.1:8600"] })
 * })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const dns = (
  options: Options &
    (DnsAddresses | DnsServices) & {
      /** Default: `systemResolver`. */
      readonly resolver?: Resolver | undefined
    }
): Topology => orThrow(dnsSource.make(options))

/**
 * Basic authentication. Other headers, certificates and proxies belong to the `HttpClient`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Auth {
  readonly username: string
  readonly password: Redacted.Redacted
}

/**
 * The options of asking Patroni.
 *
 * @since 0.1.0
 * @category models
 */
export interface PatroniOptions extends Options {
  /**
   * REST interfaces of members of the cluster, such as `"http://db1:8008"`; `/cluster` is added to the path, and takes the
   * place of `/patroni` at its end, as in `api_url`. One of a `Redacted` is shown by its origin only.
   */
  readonly urls: ReadonlyArray<string | Redacted.Redacted>
  /**
   * The wait for one interface before the next is asked too; the first good answer counts. Default: `"1 second"`.
   */
  readonly patience?: Duration.DurationInput | undefined
  /** Default: the credentials in each URL, if there are any. */
  readonly auth?: Auth | undefined
}

/**
 * The servers that Patroni knows, from `GET /cluster` of its REST interface
 * (https://patroni.readthedocs.io/en/latest/rest_api.html).
 *
 * The interface that answered last is asked first, then the URLs in their order, then the interfaces of the other members
 * that the last answer named (`api_url`): one is enough to be alive. They are sent the credentials of the one that named
 * them; an answer over https is not followed to http.
 *
 * A member is listed when its state is `running`, `streaming` or `in archive recovery`; without any, the reading fails. A
 * `leader` is believed to be the primary, others (`standby_leader` too) to be replicas. The tag `noloadbalance` gives
 * `reads: false`; the custom tag `zone`, where it is a text, is the zone. Lag and timeline are the probes' matter.
 *
 * Fails with a `RouterConfigError` when an option cannot be used. Answers are read up to 1 MiB.
 *
 * @example
 * ```ts
 * import { Topology } from "effect-db-router"
 * import { FetchHttpClient } from "@effect/platform"
 * import { Layer } from "effect"
 *
 * const topology = Topology.layerPatroni({ urls: ["http://db1:8008", "http://db2:8008"] }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const patroni = (options: PatroniOptions): Effect.Effect<Topology, RouterConfigError, HttpClient> =>
  Effect.flatMap(HttpClientTag.HttpClient, (client) => patroniSource.make(client, options))

/**
 * One server in the answer of a JSON endpoint. Fields that it does not have are ignored, and `null` counts as left out. They
 * mean what those of a `Member` mean.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Server: Schema.Schema<ServerFields, ServerEncoded> = httpSource.Server

/**
 * `Server`, as it is read.
 *
 * @since 0.1.0
 * @category schemas
 */
export interface ServerFields extends Omit<Member, "settings"> {}

/**
 * `Server`, as it is written in JSON.
 *
 * @since 0.1.0
 * @category schemas
 */
export interface ServerEncoded {
  readonly host: string
  /** A whole number from 1 to 65535. */
  readonly port?: number | null | undefined
  readonly name?: string | null | undefined
  readonly role?: "primary" | "replica" | null | undefined
  /** A positive, finite number. */
  readonly weight?: number | null | undefined
  readonly zone?: string | null | undefined
  readonly reads?: boolean | null | undefined
  readonly serverName?: string | null | undefined
}

/**
 * The endpoint that is asked.
 *
 * @since 0.1.0
 * @category models
 */
export interface HttpOptions extends Options {
  /** An http or https URL. Its credentials and its query are never shown; of a `Redacted`, only the origin is. */
  readonly url: string | Redacted.Redacted
  /** Default: the credentials in the URL, if there are any. */
  readonly auth?: Auth | undefined
}

/**
 * The servers that an HTTP endpoint answers to a GET, as JSON: a list of `Server`, or an object with such a list in its
 * field `servers`.
 *
 * ```json
 * { "servers": [{ "host": "db1", "port": 5432, "role": "primary" }, { "host": "db2", "weight": 2, "zone": "eu-1a" }] }
 * ```
 *
 * A status other than 2xx, what is not JSON, is longer than 1 MiB or has another form fails the reading with an error that
 * says what was wrong. Requests whose URL is secret (a query, a `Redacted`) have no span.
 *
 * Fails with a `RouterConfigError` when an option cannot be used.
 *
 * @since 0.1.0
 * @category constructors
 */
export const http = (options: HttpOptions): Effect.Effect<Topology, RouterConfigError, HttpClient> =>
  Effect.flatMap(HttpClientTag.HttpClient, (client) => httpSource.make(client, options))

/**
 * A topology as a layer: it takes the place of the option `topology`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (topology: Topology): Layer.Layer<Topology> => Layer.succeed(Topology, topology)

/**
 * {@link patroni}.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPatroni = (options: PatroniOptions): Layer.Layer<Topology, RouterConfigError, HttpClient> =>
  Layer.effect(Topology, patroni(options))

/**
 * {@link http}.
 *
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Layer } from "effect"
 * import { Topology } from "effect-db-router"
 *
 * const TopologyLive = Topology.layerHttp({ url: "http://registry:8500/postgres" }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerHttp = (options: HttpOptions): Layer.Layer<Topology, RouterConfigError, HttpClient> =>
  Layer.effect(Topology, http(options))
