/**
 * The context of a flow of work: the group that it is bound to, a forced role (primary or replicas), and the stickiness to
 * the primary after a write. Everything lives in `FiberRef`s, so it follows
 * fibers and needs no requirement in `R`.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import { dual } from "effect/Function"
import { globalValue } from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Request from "effect/Request"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Seen from "./internal/context/causalState.js"
import * as refs from "./internal/util/refs.js"

/**
 * Keeps the reads of a flow on the primary while `true`. It is yours to set (`Effect.locally`, `FiberRef.set`); the router
 * notes its writes in {@link flow}, and takes the two together: ask {@link shouldUsePrimary}. Default: `false`.
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
 * The greatest age of the data of a replica that reads may go to, in milliseconds: see `DbRouter.maxStaleness`. Default: any age.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const maxStaleness: FiberRef.FiberRef<number> = globalValue("effect-db-router/RoutingContext/maxStaleness", () =>
  FiberRef.unsafeMake(Number.POSITIVE_INFINITY)
)

/**
 * The writes and reads of one flow of work, as far as its reads must know. A value: fibers take it along when they are
 * forked, and give back what is new when they are joined. Only what a session or a request shares with all its fibers changes
 * in place, and what a fiber has read in a flow that it has made itself.
 *
 * @since 0.1.0
 * @category models
 */
export class Flow {
  /** The state that all fibers of a session or a request share instead. */
  readonly shared: { seen: Seen.Seen } | undefined
  /** The number of the fiber that has made it, of what it had before, if that is known. */
  readonly owner: number | undefined
  private own: Seen.Seen

  constructor(options?: {
    /** If `true`, it sticks to the primary from its start. Default: as `seen` says. */
    readonly stuck?: boolean
    /** If `true`, the fibers below share it instead of copying it. Default: `false`. */
    readonly shared?: boolean
    /** The writes and reads that it has seen at its start. Default: none. */
    readonly seen?: Seen.Seen
    /** The number of the fiber that makes it, if that is known. */
    readonly owner?: number | undefined
  }) {
    const { owner, seen = Seen.nothing, shared = false, stuck = seen.stuck } = options ?? {}
    this.owner = owner
    this.own = Seen.withStuck(seen, stuck)
    this.shared = shared ? { seen: this.own } : undefined
  }

  /** Its writes and reads. */
  get seen(): Seen.Seen {
    return this.shared === undefined ? this.own : this.shared.seen
  }

  /** Reads stick to the primary. */
  get isStuck(): boolean {
    return this.seen.stuck
  }

  /** The flow after a write, or after a reset. */
  with(stuck: boolean): Flow {
    return this.to(stuck ? Seen.withStuck(this.seen, true) : Seen.nothing)
  }

  /** The flow after it has seen something, in the fiber of that number, if it is known. */
  to(seen: Seen.Seen, owner?: number): Flow {
    // A new one even if it is no change: a join passes over what a child has left as it was.
    if (this.shared === undefined) return new Flow({ seen, owner })
    this.unsafeSet(seen)
    return this
  }

  /**
   * Changes it in place, for all fibers that have it. For what is no news, and for what was only read: to see that too early
   * costs nothing but a choice of replicas.
   */
  unsafeSet(seen: Seen.Seen): void {
    if (this.shared === undefined) this.own = seen
    else this.shared.seen = seen
  }

  /** The flow once it has seen that too. */
  absorb(seen: Seen.Seen): Flow {
    return this.to(Seen.merge(this.seen, seen))
  }
}

/**
 * The current flow: copied on fork, merged on join, shared inside a session. {@link shouldUsePrimary} asks it.
 *
 * @since 0.1.0
 * @category fiber refs
 */
export const flow: FiberRef.FiberRef<Flow> = globalValue("effect-db-router/RoutingContext/flow", () =>
  FiberRef.unsafeMake(new Flow(), {
    join: (parent, child) => (child === parent || child.seen === parent.seen ? parent : parent.absorb(child.seen))
  })
)

// Effect sets it in the fibers that run a RequestResolver, and nowhere else: the requests that are being answered.
const currentRequestMap = globalValue(Symbol.for("effect/FiberRef/currentRequestMap"), () =>
  FiberRef.unsafeMake<ReadonlyMap<unknown, Request.Entry<unknown>>>(new Map())
)

const told = globalValue("effect-db-router/RoutingContext/told", () => new WeakMap<object, { seen: Seen.Seen }>())

type Change = (seen: Seen.Seen) => Seen.Seen

// A resolver runs in a daemon that is never joined. The fiber that made the request removes itself from the request's
// listeners when it has the answer: that is a moment inside the fiber that the change has to reach.
const tellRequesters = (fiber: Fiber.RuntimeFiber<unknown, unknown>, change: Change): void => {
  const requests = fiber.getFiberRef(currentRequestMap)
  if (requests.size === 0) return
  const before = told.get(requests)
  if (before !== undefined) {
    before.seen = change(before.seen)
    return
  }
  const news = { seen: change(Seen.nothing) }
  told.set(requests, news)
  for (const { listeners, state } of requests.values()) {
    if (state.completed) continue
    const observer = (count: number) => {
      if (count === 0 && state.completed) listeners.removeObserver(observer)
      Option.map(Fiber.getCurrentFiber(), (requester) => unsafeChange(requester, (seen) => Seen.merge(seen, news.seen)))
    }
    listeners.addObserver(observer)
  }
}

/**
 * Changes what the flow of a running fiber has seen. In a `RequestResolver` it is also for the flows whose requests it answers,
 * from their answers on.
 *
 * @since 0.1.0
 * @category unsafe
 */
export const unsafeChange = (fiber: Fiber.RuntimeFiber<unknown, unknown>, change: Change): void => {
  tellRequesters(fiber, change)
  const now = fiber.getFiberRef(flow)
  const next = now.to(change(now.seen), fiber.id().id)
  refs.set(fiber, flow, next)
}

/**
 * The fiber need not note again what it has already seen: no request waits to be told, and a fiber that joins this one hears of
 * it. Of what this fiber has only inherited a joining fiber hears nothing. For code that has the fiber at hand.
 *
 * @since 0.1.0
 * @category flow
 */
export const unsafeIsNoted = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean => {
  const { owner, shared } = fiber.getFiberRef(flow)
  return (shared !== undefined || owner === fiber.id().id) && fiber.getFiberRef(currentRequestMap).size === 0
}

/**
 * The same as {@link unsafeChange} for what a fiber has only read, which costs less where {@link unsafeIsNoted}: fibers that it
 * has forked since then, and that have noted nothing themselves, see it too.
 *
 * @since 0.1.0
 * @category unsafe
 */
export const unsafeNoteRead = (fiber: Fiber.RuntimeFiber<unknown, unknown>, change: Change): void => {
  if (!unsafeIsNoted(fiber)) {
    unsafeChange(fiber, change)
    return
  }
  const now = fiber.getFiberRef(flow)
  now.unsafeSet(change(now.seen))
}

/**
 * The fiber's flow sticks to the primary: it wrote, or {@link stickToPrimary} is set.
 *
 * @since 0.1.0
 * @category unsafe
 */
export const unsafeIsStuck = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean =>
  fiber.getFiberRef(flow).isStuck || fiber.getFiberRef(stickToPrimary)

/**
 * Makes the reads of this flow stick to the primary, as a write does. Ends with the session, or with {@link reset}. In a
 * `RequestResolver` it is also for the flows whose requests it answers, from their answers on.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { RoutingContext } from "effect-db-router"
 *
 * declare const callServiceThatWrites: Effect.Effect<void>
 *
 * // Another process has written what this flow reads next.
 * const synced = Effect.zipRight(callServiceThatWrites, RoutingContext.setStickyPrimary)
 * ```
 *
 * @since 0.1.0
 * @category stickiness
 */
export const setStickyPrimary: Effect.Effect<void> = Effect.withFiberRuntime((fiber) => {
  unsafeChange(fiber, stick)
  return Effect.void
})

const stick: Change = (seen) => Seen.withStuck(seen, true)

/**
 * Forgets what this flow has written and read: ends the stickiness that its writes (or {@link setStickyPrimary}) have caused,
 * and its next read need not see them.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const clearStickyPrimary: Effect.Effect<void> = FiberRef.update(flow, (flow) => flow.with(false))

/**
 * Returns `true` if reads go to the primary here because they are forced there, or because this flow has written. Not inside
 * `replica(...)` and not inside a bind group, where neither counts. What the options say (`enabled`, `reads`) is for
 * `explain` of the router.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const shouldUsePrimary: Effect.Effect<boolean> = Effect.withFiberRuntime((fiber) => {
  if (fiber.getFiberRef(bindGroup)._tag === "Some") return Effect.succeed(false)
  if (fiber.getFiberRef(forcePrimary)) return Effect.succeed(true)
  return Effect.succeed(!fiber.getFiberRef(preferReplica) && unsafeIsStuck(fiber))
})

/**
 * Puts this flow's routing context back to the defaults: not forced, not bound, not sticky. Inside `primary(...)` and the
 * like it holds until their end.
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
    FiberRef.set(maxStaleness, Number.POSITIVE_INFINITY),
    clearStickyPrimary
  ],
  { discard: true }
)

// What Effect's own memo map has; its interface does not show it.
interface Memoizing extends Layer.MemoMap {
  getOrElseMemoize?: (
    layer: Layer.Layer<unknown, unknown, unknown>,
    scope: Scope.Scope
  ) => Effect.Effect<Context.Context<unknown>, unknown, unknown>
}

const separated = globalValue("effect-db-router/RoutingContext/separated", () => new WeakSet<Layer.MemoMap>())

/**
 * Makes every layer of a build a flow of its own, so that what it writes while it is built (a migration) does not stick to the
 * program, which may run in the same fiber, nor to the servers and workers of other layers. Run it while the router's own
 * layer is built: this is about the layers that are built after it, in the same build.
 *
 * @since 0.1.0
 * @category stickiness
 */
export const separateLayers: Effect.Effect<void> = Effect.withFiberRuntime((fiber) => {
  const memoMap: Memoizing | undefined = fiber.currentContext.unsafeMap.get(Layer.CurrentMemoMap.key)
  const memoize = memoMap?.getOrElseMemoize
  if (memoMap === undefined || memoize === undefined || separated.has(memoMap)) return Effect.void
  separated.add(memoMap)
  // Every layer that uses the router is built through this after it. Nothing else tells a fiber that builds layers from
  // the same fiber when it runs the program: services may keep the context in which they were built.
  memoMap.getOrElseMemoize = (layer, scope) => separate(memoize.call(memoMap, layer, scope))
  return Effect.void
})

const separate = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.getFiberRefs, (fiberRefs) =>
    // Nothing may be left where nothing was: a runtime that the build makes would put it over the flow of the effect that it
    // is provided to.
    Effect.ensuring(
      self,
      Option.match(FiberRefs.get(fiberRefs, flow), {
        onNone: () => FiberRef.delete(flow),
        onSome: (around) => FiberRef.set(flow, around)
      })
    )
  )

/**
 * The target of an effect's statements. `primary` and `replica` clear a surrounding bind group: the innermost wins.
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
 * The same for a stream. The target holds for what the stream itself does, its finalizers included, and never for what its
 * consumer does between two pulls (as it would with `Effect.locallyScoped`).
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
 * Runs an effect with a bound of how old the data of a replica may be, in milliseconds. The innermost bound holds.
 *
 * @since 0.1.0
 * @category combinators
 */
export const locallyMaxStaleness: {
  (millis: number): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, millis: number): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, millis: number) => Effect.locally(self, maxStaleness, millis))

/**
 * The same for a stream, as {@link locallyStream} does it.
 *
 * @since 0.1.0
 * @category combinators
 */
export const locallyMaxStalenessStream: {
  (millis: number): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  <A, E, R>(self: Stream.Stream<A, E, R>, millis: number): Stream.Stream<A, E, R>
} = dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, millis: number) =>
  Stream.fromPull(Effect.map(locallyMaxStaleness(Stream.toPull(self), millis), locallyMaxStaleness(millis)))
)

/**
 * Runs an effect with a clean routing context: not forced, not bound, not sticky. With `shared`, all fibers inside have one
 * cell for what they write; `flow` is one that was made before.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { RoutingContext } from "effect-db-router"
 *
 * declare const job: Effect.Effect<void>
 *
 * // Whatever the flow around has written, the job begins clean, and its fibers share what it writes.
 * const isolated = RoutingContext.fresh(job, { shared: true })
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const fresh = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options?: { readonly shared?: boolean; readonly flow?: Flow }
): Effect.Effect<A, E, R> =>
  refs.locally(self, (fiber) => {
    const flowBack = refs.put(fiber, flow, options?.flow ?? new Flow({ shared: options?.shared ?? false }))
    const stuckBack = refs.put(fiber, stickToPrimary, false)
    const forcedBack = refs.put(fiber, forcePrimary, false)
    const preferredBack = refs.put(fiber, preferReplica, false)
    const boundBack = refs.put(fiber, bindGroup, Option.none())
    const stalenessBack = refs.put(fiber, maxStaleness, Number.POSITIVE_INFINITY)
    return (fiber) => {
      flowBack(fiber)
      stuckBack(fiber)
      forcedBack(fiber)
      preferredBack(fiber)
      boundBack(fiber)
      stalenessBack(fiber)
    }
  })
