/**
 * What a flow of work carries with it: the group that it is bound to, whether it is forced to the primary or to the
 * replicas, and whether it sticks to the primary because it has written. Everything lives in `FiberRef`s, so it follows
 * fibers and needs no requirement in `R`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { dual } from "effect/Function"
import { globalValue } from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/**
 * Keeps the reads of a flow on the primary while `true`. It is yours to set (`Effect.locally`, `FiberRef.set`); the router
 * itself records its writes in a cell of its own, which survives more fiber boundaries than a boolean can, and takes the
 * two together. Default: `false`.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const stickToPrimary: FiberRef.FiberRef<boolean> = globalValue(
  "effect-db-router/RoutingContext/stickToPrimary",
  () => FiberRef.unsafeMake(false, { join: (parent, child) => parent || child })
)

/**
 * Sends every statement outside a bind group to the default group while `true`. Default: `false`.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const forcePrimary: FiberRef.FiberRef<boolean> = globalValue(
  "effect-db-router/RoutingContext/forcePrimary",
  () => FiberRef.unsafeMake(false)
)

/**
 * Sends reads to the replicas while `true`, even after a write of the same flow. Default: `false`.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const preferReplica: FiberRef.FiberRef<boolean> = globalValue(
  "effect-db-router/RoutingContext/preferReplica",
  () => FiberRef.unsafeMake(false)
)

/**
 * The group that all statements go to, reads and writes alike. Default: none.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const bindGroup: FiberRef.FiberRef<Option.Option<string>> = globalValue(
  "effect-db-router/RoutingContext/bindGroup",
  () => FiberRef.unsafeMake<Option.Option<string>>(Option.none())
)

/**
 * What one flow of work has written, as far as reads must know. Mutable, because a write has to be seen by the resolver,
 * the session or the request that it belongs to without an assignment in each of their fibers.
 *
 * @since 0.1.0
 * @category models
 */
export class Flow {
  /** Whether reads stick to the primary. */
  stuck: boolean
  /** The layer build (its memo map) in which the flow began to stick, if it was in one. */
  memo: unknown
  /** The two nearest cells that this one was copied from, for resolvers: they run in daemons which nobody joins. */
  readonly origins: ReadonlyArray<Flow>
  /** Whether all fibers below share the cell (sessions and requests) instead of copying it. */
  readonly shared: boolean
  /** Whether it was planted while the router's own layer was built, and has come by no fork since. */
  readonly root: boolean

  constructor(options?: {
    readonly stuck?: boolean
    readonly memo?: unknown
    readonly origins?: ReadonlyArray<Flow>
    readonly shared?: boolean
    readonly root?: boolean
  }) {
    this.stuck = options?.stuck ?? false
    this.memo = options?.memo
    this.origins = options?.origins ?? []
    this.shared = options?.shared ?? false
    this.root = options?.root ?? false
  }
}

/** The value that no fiber has set yet. Never mutated. */
const noFlow = new Flow()

// A layer build runs in the fiber of the program, and what it sets stays set. Fibers that are forked from it (servers,
// workers) are the program already, so what the build wrote ends there.
const forkFlow = (flow: Flow): Flow => {
  if (flow === noFlow || flow.shared) {
    return flow
  }
  const origins = flow.origins.length === 0 ? [flow] : [flow, flow.origins[0]!]
  return flow.root && flow.memo !== undefined
    ? new Flow({ origins })
    : new Flow({ stuck: flow.stuck, memo: flow.memo, origins })
}

const joinFlow = (parent: Flow, child: Flow): Flow => {
  if (parent === child || child === noFlow || child.shared) {
    return parent
  }
  if (parent === noFlow) {
    return new Flow({ stuck: child.stuck, memo: child.memo, root: child.root })
  }
  if (child.stuck) {
    parent.stuck = true
    parent.memo = child.memo
  }
  return parent
}

/**
 * The cell of the current flow: copied on fork, or-ed on join, shared inside a session. {@link shouldUsePrimary} asks it.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const flow: FiberRef.FiberRef<Flow> = globalValue("effect-db-router/RoutingContext/flow", () =>
  FiberRef.unsafeMake(noFlow, { fork: forkFlow, join: joinFlow })
)

// Effect sets it in the fibers that run a RequestResolver and nowhere else. That is how a resolver's write finds the flow
// that made the requests.
const currentRequestMap = globalValue(Symbol.for("effect/FiberRef/currentRequestMap"), () =>
  FiberRef.unsafeMake<ReadonlyMap<unknown, unknown>>(new Map())
)

const currentMemo = (fiber: Fiber.RuntimeFiber<unknown, unknown>): unknown =>
  fiber.currentContext.unsafeMap.get(Layer.CurrentMemoMap.key)

/**
 * Whether the fiber's flow sticks to the primary: it wrote, or somebody set {@link stickToPrimary}.
 *
 * @since 0.1.0
 * @category unsafe
 */
export const unsafeIsStuck = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean => {
  const cell = fiber.getFiberRef(flow)
  return (
    (cell.stuck && (cell.memo === undefined || cell.memo === currentMemo(fiber))) || fiber.getFiberRef(stickToPrimary)
  )
}

const withCell = (f: (cell: Flow, fiber: Fiber.RuntimeFiber<unknown, unknown>) => void): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    const cell = fiber.getFiberRef(flow)
    if (cell !== noFlow) {
      f(cell, fiber)
      return Effect.void
    }
    const fresh = new Flow()
    f(fresh, fiber)
    return FiberRef.set(flow, fresh)
  })

/**
 * Makes the reads of this flow stick to the primary, as a write does. Ends with the session, or with {@link reset}.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const setStickyPrimary: Effect.Effect<void> = withCell((cell, fiber) => {
  const memo = cell.shared ? undefined : currentMemo(fiber)
  cell.stuck = true
  cell.memo = memo
  if (fiber.getFiberRef(currentRequestMap).size > 0) {
    for (const origin of cell.origins) {
      origin.stuck = true
      origin.memo = memo
    }
  }
})

/**
 * Ends the stickiness that writes of this flow (or {@link setStickyPrimary}) have caused.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const clearStickyPrimary: Effect.Effect<void> = withCell((cell) => {
  cell.stuck = false
  cell.memo = undefined
})

/**
 * Whether reads of this flow go to the primary: it is forced there, or it sticks there. `replica(...)` and bind groups are
 * not asked; the router looks at them first.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const shouldUsePrimary: Effect.Effect<boolean> = Effect.withFiberRuntime((fiber) =>
  Effect.succeed(fiber.getFiberRef(forcePrimary) || unsafeIsStuck(fiber))
)

/**
 * Puts this flow's routing context back to the defaults: not forced, not bound, not sticky.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const reset: Effect.Effect<void> = Effect.all(
  [
    FiberRef.set(stickToPrimary, false),
    FiberRef.set(forcePrimary, false),
    FiberRef.set(preferReplica, false),
    FiberRef.set(bindGroup, Option.none()),
    clearStickyPrimary
  ],
  { discard: true }
)

/**
 * Marks the fiber that builds the router's layer, so that what layers above it write (migrations) does not stick to the
 * program. See {@link flow}.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const plant: Effect.Effect<void> = Effect.withFiberRuntime((fiber) =>
  fiber.getFiberRef(flow) === noFlow ? FiberRef.set(flow, new Flow({ root: true })) : Effect.void
)

/**
 * Where statements of an effect are to go. `primary` and `replica` clear a surrounding bind group: the innermost wins.
 *
 * @since 0.1.0
 * @category models
 */
export type Target =
  | { readonly _tag: "Primary" }
  | { readonly _tag: "Replica" }
  | { readonly _tag: "Group"; readonly name: string }

/**
 * Runs an effect with its statements sent to a target. Writes inside still stick afterwards.
 *
 * @since 0.1.0
 * @category combinators
 */
export const locally: {
  (target: Target): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, target: Target): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, target: Target): Effect.Effect<A, E, R> =>
    self.pipe(
      Effect.locally(forcePrimary, target._tag === "Primary"),
      Effect.locally(preferReplica, target._tag === "Replica"),
      Effect.locally(bindGroup, target._tag === "Group" ? Option.some(target.name) : Option.none())
    )
)

/**
 * The same for a stream. The target holds while the stream's own effects run, and never for what its consumer does between
 * two pulls (as `Stream.locally` variants built on a scope would).
 *
 * @since 0.1.0
 * @category combinators
 */
export const locallyStream: {
  (target: Target): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  <A, E, R>(self: Stream.Stream<A, E, R>, target: Target): Stream.Stream<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Stream.Stream<A, E, R>, target: Target): Stream.Stream<A, E, R> =>
    Stream.fromPull(Effect.map(locally(Stream.toPull(self), target), locally(target)))
)

/**
 * Runs an effect with a clean routing context: not forced, not bound, not sticky. With `shared`, all fibers inside have one
 * cell for what they write.
 *
 * @since 0.1.0
 * @category combinators
 */
export const fresh = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options?: { readonly shared?: boolean }
): Effect.Effect<A, E, R> =>
  Effect.suspend(() =>
    self.pipe(
      Effect.locally(stickToPrimary, false),
      Effect.locally(forcePrimary, false),
      Effect.locally(preferReplica, false),
      Effect.locally(bindGroup, Option.none()),
      Effect.locally(flow, new Flow({ shared: options?.shared ?? false }))
    )
  )
