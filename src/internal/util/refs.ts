/** FiberRefs that hold for one effect, set all at once: an `Effect.locally` for each costs several times as much. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as FiberRef from "effect/FiberRef"
import type * as FiberRefs from "effect/FiberRefs"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

// Every fiber has this; its interface does not show it.
interface SettableFiber extends AnyFiber {
  setFiberRef<A>(ref: FiberRef.FiberRef<A>, value: A): void
}

/** Sets a FiberRef of the running fiber. */
export const set = <A>(fiber: AnyFiber, ref: FiberRef.FiberRef<A>, value: A): void => {
  if (fiber.getFiberRef(ref) !== value) (fiber as SettableFiber).setFiberRef(ref, value)
}

/** Puts back what was set, in the fiber that runs then: another one, where a request of a batch was waited for. */
type Undo = (fiber: AnyFiber) => void

/** Sets a FiberRef of the running fiber, and returns how to put it back. */
export const put = <A>(fiber: AnyFiber, ref: FiberRef.FiberRef<A>, value: A): Undo => {
  const before = fiber.getFiberRef(ref)
  set(fiber, ref, value)
  return (fiber) => set(fiber, ref, before)
}

/** Runs an effect with what was put into its fiber, and puts it back at the end. */
export const locally = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  change: (fiber: AnyFiber) => Undo
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiberRuntime<A, E, R>((fiber) => {
      const undo = change(fiber)
      return Effect.flatMap(Effect.exit(restore(self)), (exit) =>
        Effect.withFiberRuntime((fiber) => {
          undo(fiber)
          return exit
        })
      )
    })
  )

/** Runs a finalizer with the FiberRefs of the fiber that has acquired, which another one may release. */
export const restored = <A, E, R>(
  refs: FiberRefs.FiberRefs,
  finalizer: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.getFiberRefs, (then) =>
    Effect.ensuring(Effect.zipRight(Effect.setFiberRefs(refs), finalizer), Effect.setFiberRefs(then))
  )
