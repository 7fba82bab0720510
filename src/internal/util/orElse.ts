import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** `Effect.catchAll`, for what hardly ever fails: a success takes no step more. */
export const orElse = <A, E, R, B, E2, R2>(
  self: Effect.Effect<A, E, R>,
  recover: (error: E) => Effect.Effect<B, E2, R2>
): Effect.Effect<A | B, E2, R | R2> =>
  Effect.catchAllCause(self, (cause) => {
    const found = Cause.failureOrCause(cause)
    return found._tag === "Left" ? recover(found.left) : Effect.failCause(found.right)
  })
