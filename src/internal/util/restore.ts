import type * as Effect from "effect/Effect"

/** What `Effect.uninterruptibleMask` gives: makes an effect as interruptible as what is around the mask. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
