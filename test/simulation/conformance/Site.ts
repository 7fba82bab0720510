/** What a scenario has: a cluster that is real or simulated, and does not show which. */

import type { Duplex } from "node:stream"
import type { Reactivity } from "@effect/experimental"
import { Duration, Effect, Redacted, type Scope } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import type { Change } from "../Store.js"
import { type Address, Probe } from "./Probe.js"

export interface Node {
  /** `n1` is the first primary. */
  readonly name: string
  /** How the role `app` reaches it. */
  readonly address: Address
  readonly pauseReplay: Effect.Effect<void>
  readonly resumeReplay: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  readonly stop: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  /** Stops, and will take a moment to be there again when it is started. */
  readonly stopToStartSlowly: Effect.Effect<void>
  readonly promote: Effect.Effect<void>
  readonly rejoin: (upstream: Node) => Effect.Effect<void>
  /** Transactions are read-only unless they say otherwise. */
  readonly setReadOnly: (isReadOnly: boolean) => Effect.Effect<void>
}

export interface Site {
  readonly primary: Node
  readonly replica: Node
  readonly other: Node
  /** Every standby that runs has replayed all that the primary has written. */
  readonly settled: Effect.Effect<void>
  /** So many standbys have to have a commit before it is answered. */
  readonly setSynchronous: (standbys: number) => Effect.Effect<void>
  /** The primary removes rows that queries on standbys may still need. */
  readonly vacuum: Effect.Effect<void>
}

export type Run = (site: Site) => Effect.Effect<unknown, unknown, Scope.Scope | Reactivity.Reactivity>

export interface Scenario {
  /** Reads alone. */
  readonly title: string
  /** Whether it changes servers for good, and needs a cluster of its own. */
  readonly isLast: boolean
  readonly run: Run
}

export const scenario = (title: string, run: Run): Scenario => ({ title, isLast: false, run })

/** One that promotes or crashes servers. */
export const lastScenario = (title: string, run: Run): Scenario => ({ title, isLast: true, run })

export const password = "secret"
export const maxConnections = 30

/** What the tables hold when a scenario begins. */
export const rows: ReadonlyArray<Change> = [
  ...[1, 2, 3].map((id) => ({ table: "register", key: String(id), row: { id, value: "initial", writes: 0 } })),
  ...[1, 2].map((id) => ({ table: "account", key: String(id), row: { id, balance: 100 } }))
]

/** A connection below the library. */
export const open = (node: Node, config: Partial<Address> = {}): Effect.Effect<Probe, unknown, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({ try: () => Probe.connect({ ...node.address, ...config }), catch: (error) => error }),
    (probe) => Effect.sync(() => probe.close())
  )

/** Asks again and again until the answer is right. */
export const until = <A, E, R>(ask: Effect.Effect<A, E, R>, isRight: (answer: A) => boolean): Effect.Effect<A, E, R> =>
  Effect.flatMap(ask, (answer) =>
    isRight(answer) ? Effect.succeed(answer) : Effect.delay(until(ask, isRight), "10 millis")
  )

/** Waits until the statement of a session waits: for a lock, for a time, for another process. */
export const untilItWaits = (node: Node, { pid }: Probe, what: "Lock" | "Timeout" | "IPC") =>
  Effect.scoped(
    Effect.flatMap(open(node), (watcher) =>
      until(
        watcher.values(`SELECT wait_event_type FROM pg_stat_activity WHERE pid = ${pid}`),
        ([type]) => type === what
      )
    )
  )

const engineOf = ({ address, name }: Node, config: Partial<RouterConfig.EngineConfig>): RouterConfig.EngineConfig => ({
  host: address.host,
  port: address.port,
  database: address.database,
  username: address.user,
  password: Redacted.make(address.password),
  ...(address.stream === undefined ? {} : { stream: address.stream as () => Duplex }),
  ...config,
  name
})

export interface RouterOptions extends Partial<RouterConfig.Options> {
  readonly engine?: Partial<RouterConfig.EngineConfig>
}

/** A router over the three servers. */
export const routerOver = ({ other, primary, replica }: Site, { engine = {}, ...options }: RouterOptions = {}) =>
  DbRouter.make({
    groups: { default: [engineOf(primary, engine)], read: [engineOf(replica, engine), engineOf(other, engine)] },
    health: { interval: 100, timeout: 5000 },
    shutdownTimeout: Duration.seconds(1),
    ...options
  })
