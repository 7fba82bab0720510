import * as Effect from "effect/Effect"
import type { Position } from "../Position.js"
import * as RoutingContext from "../RoutingContext.js"
import * as bounded from "./bounded.js"
import { Inquiry } from "./inquiry.js"
import * as limits from "./limits.js"
import type { Router } from "./router.js"
import { type Source, Tokens } from "./tokens.js"

/** Asks the primary where it is, if it is one that says so. The limit does not wait for the cancel of the question. */
const ask = (router: Router): Effect.Effect<Position | undefined> =>
  Effect.suspend(() => {
    const engine = router.primary
    if (!engine.positions.isTelling) return Effect.succeed(undefined)
    const inquiry = new Inquiry(engine)
    // That it fails is not the business of what brings a token.
    return Effect.map(bounded.run(engine.query(inquiry.request), limits.position), (answer) => {
      if (answer.state !== "answered") return undefined
      const heard = inquiry.hear(answer.exit.value)
      return heard === undefined || heard.answer.isStandby ? undefined : heard.position
    })
  }).pipe(Effect.catchAllCause(() => Effect.succeed(undefined)))

const sourceOf = (router: Router): Source => {
  const { causal, config } = router
  const isCausal = config.consistency.positions !== undefined
  return {
    known: () => {
      const { isPrimary, known } = router.primary.positions
      return isPrimary ? known : undefined
    },
    system: () => router.primary.health?.report?.system,
    ask: isCausal ? ask(router) : Effect.succeed(undefined),
    look: isCausal ? router.look : Effect.void,
    settled: (fiber) =>
      causal === undefined
        ? Effect.sync(() => {
            const { positions, writtenAt } = fiber.getFiberRef(RoutingContext.flow).seen
            // Without replicas of its own, nobody notes positions here; others may have replicas.
            return { positions, isOpen: isCausal && writtenAt > Number.NEGATIVE_INFINITY }
          })
        : Effect.suspend(() => {
            const seen = causal.needs(fiber)
            const settled = seen.marks.length === 0 ? Effect.succeed(seen) : causal.settled(fiber)
            return Effect.map(settled, ({ marks, positions }) => ({
              positions,
              // What still runs has promised nothing.
              isOpen: marks.some((mark) => mark.hasEnded)
            }))
          })
  }
}

/** The tokens of a router. */
export const make = (router: Router): Tokens => new Tokens(router.config.tokens, sourceOf(router))
