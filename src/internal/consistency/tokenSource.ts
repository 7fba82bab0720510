import * as Effect from "effect/Effect"
import type { Consistency } from "../../Consistency.js"
import type { Engine } from "../../Engine.js"
import type { Position } from "../../Position.js"
import * as RoutingContext from "../../RoutingContext.js"
import type * as Token from "../../Token.js"
import { type Source, Tokens } from "../tokens/tokens.js"
import * as bounded from "../util/bounded.js"
import * as limits from "../util/limits.js"
import type { Causal } from "./causal.js"
import { Inquiry } from "./inquiry.js"

/** What tokens are made from and checked with. */
interface Servers {
  readonly primary: Engine
  readonly config: { readonly consistency: Consistency; readonly tokens: Token.Resolved }
  readonly causal: Causal | undefined
  /** Looks for the primary of a later timeline. */
  readonly look: Effect.Effect<void>
}

/** Asks the primary where it is, if it is one that says so. The limit does not wait for the cancel of the question. */
const ask = (servers: Servers): Effect.Effect<Position | undefined> =>
  Effect.suspend(() => {
    const engine = servers.primary
    if (!engine.positions.isTelling) return Effect.succeed(undefined)
    const inquiry = new Inquiry(engine)
    // That it fails is not the business of what brings a token.
    return Effect.map(bounded.run(engine.query(inquiry.request), limits.position), (answer) => {
      if (answer.state !== "answered") return undefined
      const heard = inquiry.hear(answer.exit.value)
      return heard === undefined || heard.answer.isStandby ? undefined : heard.position
    })
  }).pipe(Effect.catchAllCause(() => Effect.succeed(undefined)))

const sourceOf = (servers: Servers): Source => {
  const { causal, config } = servers
  const isCausal = config.consistency.positions !== undefined
  return {
    known: () => {
      const { isPrimary, known } = servers.primary.positions
      return isPrimary ? known : undefined
    },
    system: () => servers.primary.health?.report?.system,
    ask: isCausal ? ask(servers) : Effect.succeed(undefined),
    look: isCausal ? servers.look : Effect.void,
    settled: (fiber) =>
      causal === undefined
        ? Effect.sync(() => {
            const { positions, writtenAt } = fiber.getFiberRef(RoutingContext.flow).seen
            // A router without replicas notes no positions; the holder of the token may have replicas.
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
export const make = (servers: Servers): Tokens => new Tokens(servers.config.tokens, sourceOf(servers))
