/**
 * What a flow of work sees of its own writes. A policy is told of every write and commit, and is asked before every read;
 * it knows nothing of servers and pools.
 *
 * Inside a transaction that has written, and has not ended, reads always use that transaction: no policy is asked.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as RoutingContext from "./RoutingContext.js"

/**
 * A consistency policy.
 *
 * @since 0.1.0
 * @category models
 */
export interface Consistency {
  /** The policy's name, as it appears in reasons and in the environment variable `DB_ROUTER_CONSISTENCY`. */
  readonly name: string
  /** Runs in the writing fiber after a statement outside a transaction was sent that may have written. Must not fail. */
  readonly afterWrite: Effect.Effect<void>
  /** Runs in the fiber around a transaction, after it has written and its COMMIT succeeded. Must not fail. */
  readonly afterCommit: Effect.Effect<void>
  /** Whether the reads of this fiber go to the primary now. Called once per read, synchronously. */
  readonly readsFromPrimary: (fiber: Fiber.RuntimeFiber<unknown, unknown>) => boolean
}

/**
 * Reads go to the primary after a write: after a write outside a transaction until `DbRouter.reset` (or the end of the
 * request or session around it), after a write inside one until that transaction ends. This is Advanced Alchemy's
 * `sticky_after_write`.
 *
 * `resetOnCommit` (default `true`) is its `reset_stickiness_on_commit`: with `false`, reads stay on the primary after the
 * commit too.
 *
 * @since 0.1.0
 * @category policies
 */
export const sticky = (options?: { readonly resetOnCommit?: boolean | undefined }): Consistency => ({
  name: "sticky",
  afterWrite: RoutingContext.setStickyPrimary,
  afterCommit: options?.resetOnCommit === false ? RoutingContext.setStickyPrimary : Effect.void,
  readsFromPrimary: RoutingContext.unsafeIsStuck
})

/**
 * Reads go to any replica, whether it has this flow's writes or not, unless somebody asked for the primary with
 * `RoutingContext.setStickyPrimary` or `stickToPrimary`.
 *
 * @since 0.1.0
 * @category policies
 */
export const eventual = (): Consistency => ({
  name: "eventual",
  afterWrite: Effect.void,
  afterCommit: Effect.void,
  readsFromPrimary: RoutingContext.unsafeIsStuck
})
