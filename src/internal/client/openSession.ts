import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as RoutingContext from "../../RoutingContext.js"
import * as Seen from "../context/causalState.js"
import * as rules from "../context/rules.js"
import { type Given, within } from "../session/options.js"
import { Session } from "../session/session.js"
import type { Outside } from "../transaction/hooks.js"
import { Work } from "../transaction/work.js"
import type { Runner } from "./transactionRunner.js"

/** A session that was opened here, and is to be ended here. */
export class Unit {
  readonly work: Work

  constructor(
    readonly session: Session,
    readonly runner: Runner
  ) {
    this.work = new Work(session, undefined, session.hooks, undefined)
  }
}

/** Opens a session. Connects to nothing; where the topology says so, it is read before. */
export const open = (runner: Runner, given: Given): Effect.Effect<Unit> =>
  Effect.zipRight(
    runner.router.beforeSession,
    Effect.withFiberRuntime<Unit>((fiber) => {
      const around = runner.rulesOf(fiber)
      const options = within(given, around)
      const outside = runner.placeOf(fiber)
      const inside = rules.make(options.settings, options.readOnly)
      // What follows its end is outside of it, and yet composed inside it.
      const after: Outside =
        inside === undefined || rules.areSame(inside, around)
          ? outside
          : (effect) => outside(runner.around(inside)(effect))
      return Effect.succeed(new Unit(new Session(runner.router, options, after), runner))
    })
  )

/** Ends a session. The flow that comes after has to know of its writes; it is not the flow inside, which ends here. */
export const end = (unit: Unit, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void, SqlError> =>
  Effect.ensuring(unit.session.end(exit), followed(unit))

/** Tells the flow of this fiber that a session which has ended may have written. */
export const followed = ({ runner, session }: Unit): Effect.Effect<void> =>
  Effect.suspend(() => (session.hasCommittedWrites ? runner.router.config.consistency.afterCommit : Effect.void))

/** The flow inside a session, one cell for all its fibers. It begins as the flow around it is. */
export const sharedFlow: Effect.Effect<RoutingContext.Flow> = Effect.withFiberRuntime((fiber) =>
  Effect.succeed(
    new RoutingContext.Flow({
      shared: true,
      stuck: RoutingContext.unsafeIsStuck(fiber),
      seen: fiber.getFiberRef(RoutingContext.flow).seen
    })
  )
)

/** What a session has seen, the flow around it has seen after its end. */
export const rejoin = (flow: RoutingContext.Flow): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    const { marks, positions } = flow.seen
    if (marks.length > 0 || positions.length > 0) {
      RoutingContext.unsafeChange(fiber, (seen) => Seen.merge(seen, { ...Seen.nothing, marks, positions }))
    }
    return Effect.void
  })

/** Runs an effect in a session of its own, which ends with it. */
export const run = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  runner: Runner,
  options: Given
): Effect.Effect<A, E | SqlError, R> =>
  Effect.flatMap(open(runner, options), (unit) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(sharedFlow, (flow) =>
        Effect.zipLeft(self, unit.session.beforeCommit).pipe(
          runner.provideWork(unit.work, 0),
          Effect.locally(RoutingContext.flow, flow),
          restore,
          Effect.exit,
          Effect.flatMap((exit) => Effect.zipRight(Effect.ensuring(end(unit, exit), rejoin(flow)), exit))
        )
      )
    )
  )
