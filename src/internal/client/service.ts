import type { SqlError } from "@effect/sql/SqlError"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Engine, PoolStatus } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import * as Health from "../../Health.js"
import type { EngineInput } from "../../RouterConfig.js"
import type * as RouterError from "../../RouterError.js"
import type { StatementKind } from "../../SqlClassifier.js"
import type { Runner } from "./transactionRunner.js"

/**
 * Where a statement would go, and why.
 *
 * @since 0.1.0
 * @category models
 */
export interface Explanation {
  readonly group: string
  readonly engine: string
  readonly kind: StatementKind
  /** What decided: the classifier's reason, a combinator, the consistency policy, an option. */
  readonly reason: string
  /** With `reads: "observe"`: where it would have gone otherwise. */
  readonly observed: { readonly group: string; readonly engine: string } | undefined
}

/**
 * How an engine does now.
 *
 * @since 0.1.0
 * @category models
 */
export interface EngineStatus {
  readonly name: string
  readonly group: string
  readonly host: string | undefined
  readonly port: number | undefined
  /** Whether statements of its group may be sent to it. */
  readonly eligible: boolean
  /** How it is: see `Health.State`. `draining` after `drain`, `unchecked` with `health: false`. */
  readonly state: Health.Shown
  /** Why it is not `up`. */
  readonly reason: string | undefined
  /** Since when it is in this state, in milliseconds of the clock; `undefined` with `health: false`. */
  readonly since: number | undefined
  /** What its last answer to a probe was; `undefined` before the first, and with `health: false`. */
  readonly role: Health.Report["role"] | undefined
  /** How far it was behind at its last answer; `undefined` for the primary, and where that cannot be said. */
  readonly lag: Health.Lag | undefined
  /** Statements that run on it now. */
  readonly inFlight: number
  /** A decaying average of the time that its reads take, in milliseconds. `0` while it is unknown. */
  readonly latency: number
  readonly pool: PoolStatus
}

export const statusOf = (group: EngineGroup, engine: Engine): EngineStatus => {
  const { health } = engine
  return {
    name: engine.name,
    group: group.name,
    host: engine.address.host,
    port: engine.address.port,
    eligible: group.isEligible(engine),
    state: Health.shown(health, engine.isDrained),
    reason: health?.reason,
    since: health?.since,
    role: health?.report?.role,
    lag: health?.lag,
    inFlight: engine.inFlight,
    latency: engine.latency,
    pool: engine.poolStatus
  }
}

/**
 * The service.
 *
 * @since 0.1.0
 * @category models
 */
export interface DbRouter {
  /** What sessions are made from. Not for use outside this package. */
  readonly runner: Runner
  /** The routed client, which the layers provide as `SqlClient` and `PgClient` too. */
  readonly client: PgClient.PgClient
  /** The same client with every statement sent to the primary: see `layerPrimary`. */
  readonly primaryClient: PgClient.PgClient
  /**
   * Says where a statement would go if it ran here, in this flow, and why. Runs nothing, and takes no engine's turn. Fails
   * when the statement would.
   */
  readonly explain: (sql: string) => Effect.Effect<Explanation, RouterError.RouterError>
  /** How every engine does now. */
  readonly status: Effect.Effect<ReadonlyArray<EngineStatus>>
  /**
   * What happens to the engines, from the moment that the stream runs: each change of state once. A reader that is more
   * than 1024 events behind misses the oldest. Ends with the router.
   */
  readonly events: Stream.Stream<Health.Event>
  /** Takes an engine out of the choice: no new statements, what runs there goes on. Fails for a name there is not. */
  readonly drain: (engine: string) => Effect.Effect<void, RouterError.RouterError>
  /**
   * Moves an engine to another server while statements run: the new server has to answer first, then new statements go there,
   * and what runs on the old one gets up to `shutdownTimeout` to end. Streams of `listen` fail where it was the primary. With the
   * same host, port, database and user (another password or certificate) only new connections use the new configuration, once one
   * of them has answered, and nothing is cut. The configuration may be an Effect, as in the options. Weight and zone stay.
   *
   * Fails, and changes nothing, when the configuration is wrong or the new server does not answer.
   */
  readonly rebind: (
    engine: string,
    config: EngineInput
  ) => Effect.Effect<void, RouterError.RouterError | RouterError.RouterConfigError | SqlError>
  /** Puts a drained engine back. */
  readonly undrain: (engine: string) => Effect.Effect<void, RouterError.RouterError>
}

/**
 * @since 0.1.0
 * @category tags
 */
export const DbRouter = Context.GenericTag<DbRouter>("effect-db-router/DbRouter")
