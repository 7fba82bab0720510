/** Questions that many wait for: asked once for all of them, and not too often. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import { elapsed } from "./clock.js"
import { Lock } from "./lock.js"

/** How long after a look the next one may begin, in milliseconds: tokens of another cluster with the same key must not make it one long look. */
const betweenLooks = 100

export const seldom = (look: Effect.Effect<void>): Effect.Effect<void> => {
  let last = Number.NEGATIVE_INFINITY
  return Effect.flatMap(elapsed, (now) =>
    Effect.zipRight(
      Effect.sleep(Math.max(0, last + betweenLooks - now)),
      Effect.zipRight(
        Effect.map(elapsed, (now) => {
          last = now
        }),
        look
      )
    )
  )
}

/** An answer to a question that is asked later, once for all who wait for it. */
export class Later<A> {
  private asking: Deferred.Deferred<A> | undefined
  private readonly turn = new Lock()

  constructor(private readonly ask: Effect.Effect<A>) {}

  get get(): Effect.Effect<A> {
    // An interruption between the two steps would leave a question that is never asked, and all who wait for it.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.suspend(() => (this.asking === undefined ? this.askAnew : Effect.succeed(this.asking))),
        (asking) => restore(Deferred.await(asking))
      )
    )
  }

  private get askAnew(): Effect.Effect<Deferred.Deferred<A>> {
    const asking = Deferred.unsafeMake<A>(FiberId.none)
    this.asking = asking
    const ask = Effect.suspend(() => {
      // A caller from here on needs the answer to a later question.
      this.asking = undefined
      return this.ask
    })
    // Not of who asked first: that one may leave, and others wait.
    const asked = Effect.interruptible(Deferred.complete(asking, this.turn.run(ask)))
    return Effect.as(Effect.forkDaemon(asked), asking)
  }
}
