/**
 * Where the servers are, now. A topology lists the servers; which of them is the primary they say themselves, in the probes,
 * so what a topology believes of roles only hastens those.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { EngineConfig } from "./RouterConfig.js"
import type { TopologyError } from "./RouterError.js"

/**
 * One server that a topology knows. What it leaves out (credentials, database, limits of the pool) is taken from the first
 * engine of the default group.
 *
 * @since 0.1.0
 * @category models
 */
export interface Member {
  readonly host: string
  /** Default: that of the first engine of the default group, else `5432`. */
  readonly port?: number | undefined
  /** What the engine is called. Default: `host:port`. A member of the same name is the same engine, wherever it moves. */
  readonly name?: string | undefined
  readonly weight?: number | undefined
  readonly zone?: string | undefined
  /** What the source believes. A change has the server probed at once; the probe decides. */
  readonly role?: "primary" | "replica" | undefined
  /**
   * `false`: no read is sent there while it is a replica (Patroni's tag `noloadbalance`); it may still become the primary,
   * and then takes what a primary takes. Default: `true`.
   */
  readonly reads?: boolean | undefined
  /** The name in the server's certificate, where `host` is an address. Default: `host`. */
  readonly serverName?: string | undefined
  /** Anything else of the connection that differs from the first engine of the default group. */
  readonly settings?: Omit<EngineConfig, "url" | "host" | "port" | "path" | "name" | "weight" | "zone"> | undefined
}

/**
 * A list of servers that may change.
 *
 * @since 0.1.0
 * @category models
 */
export interface Source {
  /** Reads the list. When it fails, the router goes on with the one it has. */
  readonly members: Effect.Effect<ReadonlyArray<Member>, TopologyError>
  /** How often it is read. */
  readonly interval: Duration.Duration
  /** It is also read before a session begins, when it was last read this long ago. `undefined`: it is not. */
  readonly beforeSession: Duration.Duration | undefined
}

/**
 * Where the servers come from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Topology {
  readonly name: string
  /** `undefined`: the engines of the options. */
  readonly source: Source | undefined
}

/**
 * A `Topology` in the context of the router's layer takes the place of the option `topology`.
 *
 * @since 0.1.0
 * @category tags
 */
export const Topology = Context.GenericTag<Topology>("effect-db-router/Topology")

/**
 * The engines of the options, and no others. They may change roles: the primary is the one that says so.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fixed: Topology = { name: "fixed", source: undefined }
