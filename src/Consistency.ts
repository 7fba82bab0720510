/**
 * The visibility of a flow's own writes. A policy is told of every write and commit, and is asked before every read; it knows
 * nothing of servers and pools.
 *
 * Inside a transaction that has written, and has not ended, reads always use that transaction: no policy is asked. Nor is one
 * inside a bind group, whose servers may be of another system.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import * as Seen from "./internal/context/causalState.js"
import * as tokens from "./internal/tokens/tokens.js"
import { clockOf, elapsedOf } from "./internal/util/clock.js"
import * as RoutingContext from "./RoutingContext.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

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
  /** Runs in the writing fiber when such a statement has ended, however it has. Must not fail. Default: nothing. */
  readonly afterWriteEnded?: Effect.Effect<void> | undefined
  /** Runs in the fiber around a transaction, after it has written and its COMMIT succeeded. Must not fail. */
  readonly afterCommit: Effect.Effect<void>
  /**
   * Runs in the fiber around a transaction that may have written, after it was rolled back: what the primary has shown in it
   * replicas may not have yet. Must not fail. Default: nothing.
   */
  readonly afterRollback?: Effect.Effect<void> | undefined
  /** Returns `true` if the reads of this fiber go to the primary now. Called once per read, synchronously. */
  readonly readsFromPrimary: (fiber: AnyFiber) => boolean
  /** The choice of a read's replicas by positions in the write-ahead log. Default: none. */
  readonly positions?: Positions | undefined
}

/**
 * The choice of a read's replicas by positions in the write-ahead log.
 *
 * @since 0.1.0
 * @category models
 */
export interface Positions {
  /** The longest wait of a read for a replica that may soon have what the flow has seen. */
  readonly wait: Duration.Duration
  /** The writes that a read has to see: those of its flow, or those of all flows of the process. */
  readonly scope: "flow" | "process"
  /** For how long after a write reads go to the primary where servers do not tell their positions. */
  readonly window: Duration.Duration
}

/**
 * Reads go to the primary after a write: after a write outside a transaction until `DbRouter.reset` (or the end of the
 * request or session around it), after a write inside one until that transaction ends. This is Advanced Alchemy's
 * `sticky_after_write`.
 *
 * `resetOnCommit` (default `true`) is its `reset_stickiness_on_commit`: with `false`, reads stay on the primary after the
 * commit too.
 *
 * @example
 * ```ts
 * import { Consistency, DbRouter, type RouterConfig } from "effect-db-router"
 *
 * declare const groups: RouterConfig.Groups
 *
 * const RouterLive = DbRouter.layer({ groups, consistency: Consistency.sticky() })
 * ```
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

/** Notes the time of a write. */
const noteTime: Effect.Effect<void> = Effect.withFiberRuntime((fiber) => {
  const now = elapsedOf(clockOf(fiber))
  RoutingContext.unsafeChange(fiber, (seen) => Seen.withWrite(seen, now))
  return Effect.void
})

/**
 * Reads go to the primary for a while after each write of the flow: a write outside a transaction, or the COMMIT of one that
 * has written. After that they go to any replica, whether it has the write or not: the while has to be longer than replicas
 * are behind.
 *
 * @example
 * ```ts
 * import { Consistency, DbRouter, type RouterConfig } from "effect-db-router"
 *
 * declare const groups: RouterConfig.Groups
 *
 * const RouterLive = DbRouter.layer({ groups, consistency: Consistency.window("2 seconds") })
 * ```
 *
 * @since 0.1.0
 * @category policies
 */
export const window = (duration: Duration.DurationInput): Consistency => {
  const millis = Duration.toMillis(duration)
  return {
    name: "window",
    afterWrite: noteTime,
    afterWriteEnded: noteTime,
    afterCommit: noteTime,
    afterRollback: noteTime,
    readsFromPrimary: (fiber) => {
      if (RoutingContext.unsafeIsStuck(fiber)) return true
      const { writtenAt } = fiber.getFiberRef(RoutingContext.flow).seen
      return writtenAt > Number.NEGATIVE_INFINITY && elapsedOf(clockOf(fiber)) - writtenAt < millis
    }
  }
}

/**
 * Options of {@link causal}.
 *
 * @since 0.1.0
 * @category models
 */
export interface CausalOptions {
  /**
   * The longest wait of a read for a replica to have what the flow has seen, before it goes to the primary. After a read has
   * waited in vain, the others of the next second (or of ten times `wait`) do not wait, and only ask. `0` never waits and
   * never asks. Default: `"50 millis"`.
   */
  readonly wait?: Duration.DurationInput | undefined
  /**
   * `process`: a read sees the writes of all flows that use this router in this process, not just its own. What the flows have
   * read does not bind each other. Default: `"flow"`.
   */
  readonly scope?: "flow" | "process" | undefined
  /**
   * The time after a write in which reads go to the primary, as with {@link window}, where the servers' LSNs are unknown:
   * managed servers may not tell them, and with `health: false` no probe has read the system identifier that an LSN belongs
   * to. Default: `"2 seconds"`.
   */
  readonly window?: Duration.DurationInput | undefined
}

/**
 * Reads go to replicas as soon as, and only when, those have what the flow has written; and never back in time: a read sees
 * at least what the reads of the flow before it have seen. While no replica has it, they go to the primary.
 *
 * A flow knows positions in the write-ahead log: after a write and after each COMMIT that of the primary
 * (`pg_current_wal_insert_lsn()`, asked in the same packet), after a read one that the server had then or later. Positions of
 * other timelines do not compare, so after a promotion the next read is the primary's. Inside `DbRouter.replica` reads go to
 * replicas even if none has the flow's writes.
 *
 * After a write, the router polls the replicas' replay positions in the background, over idle connections, so that most reads
 * wait for nothing. `wait: 0` turns that off, too.
 *
 * @example
 * ```ts
 * import { Consistency, DbRouter, type RouterConfig } from "effect-db-router"
 *
 * declare const groups: RouterConfig.Groups
 *
 * const RouterLive = DbRouter.layer({ groups, consistency: Consistency.causal({ wait: "20 millis", scope: "process" }) })
 * ```
 *
 * @since 0.1.0
 * @category policies
 */
export const causal = (options?: CausalOptions): Consistency => ({
  name: "causal",
  afterWrite: noteTime,
  afterWriteEnded: noteTime,
  afterCommit: noteTime,
  afterRollback: noteTime,
  readsFromPrimary: RoutingContext.unsafeIsStuck,
  positions: {
    wait: Duration.decode(options?.wait ?? "50 millis"),
    scope: options?.scope ?? "flow",
    window: Duration.decode(options?.window ?? "2 seconds")
  }
})

/**
 * Reads go to any replica, also to one without this flow's writes, unless the flow was sent to the primary with
 * `RoutingContext.setStickyPrimary` or `stickToPrimary`.
 *
 * @example
 * ```ts
 * import { Consistency, DbRouter, type RouterConfig } from "effect-db-router"
 *
 * declare const groups: RouterConfig.Groups
 *
 * const RouterLive = DbRouter.layer({ groups, consistency: Consistency.eventual() })
 * ```
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

/**
 * The position of this flow's writes and reads as a text ({@link Token}, signed with the option `tokens.keys` of the router), for
 * another process, a job of a queue, a call to another service: {@link withToken} makes a flow there go on from here. Take it
 * after the COMMIT. It is good for `tokens.lifetime`. None where this flow has seen nothing, where the policy keeps no positions
 * (all but {@link causal}), and where there is no router in the context.
 *
 * The position of a write may have to be asked for first. When the primary does not tell it in time, the token makes its
 * readers read from the primary.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Consistency, DbRouter } from "effect-db-router"
 *
 * declare const write: Effect.Effect<void>
 * declare const publish: (message: object) => Effect.Effect<void>
 *
 * const produce = DbRouter.session(write).pipe(
 *   Effect.zipRight(Consistency.currentToken), // after the COMMIT
 *   Effect.flatMap((token) => publish({ token }))
 * )
 * ```
 *
 * @since 0.1.0
 * @category tokens
 */
export const currentToken: Effect.Effect<Option.Option<string>> = tokens.current

/**
 * Runs an effect in a flow that has seen what a token says: its reads see at least what the flow had seen that made the token,
 * from whichever replica has it. Afterwards the flow is as before, but for what the effect has written and read itself; inside
 * a session or request scope, whose fibers share one flow, it has seen it from then on.
 *
 * A token that is not to be believed is ignored, and counted in the metric `db.router.rejected_tokens` by its reason (those of
 * `Token.Rejection`; `unavailable` where there is no router in the context): the effect runs as it would without. One from before
 * a promotion makes reads go to the primary.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Consistency } from "effect-db-router"
 *
 * declare const job: Effect.Effect<void>
 *
 * // Sees at least what the producer of the token had seen.
 * const consume = (message: { readonly token: string }) => job.pipe(Consistency.withToken(message.token))
 * ```
 *
 * @since 0.1.0
 * @category tokens
 */
export const withToken: {
  (token: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, token: string): Effect.Effect<A, E, R>
} = dual(2, tokens.using)
