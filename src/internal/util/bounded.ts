/**
 * Waits at the end of a resource: for the answer to a ROLLBACK or a COMMIT, for a cancel, for a socket to close.
 *
 * `Effect.timeoutOption(Effect.interruptible(wait))` does not wait there: an interruption of the caller is handed on to the
 * fibers that the timeout forks, even where the caller is uninterruptible, and ends the wait at once. Here the wait runs in
 * a daemon, which no interruption of the caller reaches.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"

/** How a wait has ended: with a value, with an error (a defect and an interruption of the wait itself too), or not in time. */
export type Answer<A, E> =
  | { readonly state: "answered"; readonly exit: Exit.Success<A, E> }
  | { readonly state: "failed"; readonly exit: Exit.Failure<A, E> }
  | Late

export interface Late {
  readonly state: "late"
}

const late: Late = { state: "late" }

const answer = <A, E>(exit: Exit.Exit<A, E>): Answer<A, E> =>
  Exit.isSuccess(exit) ? { state: "answered", exit } : { state: "failed", exit }

/** What becomes of a wait that is late: it is interrupted, in the background, or it goes on. */
export type WhenLate = "interrupt" | "continue"

/**
 * Waits for a fiber, at most `limit`. Neither fails nor ends early, however often the caller is interrupted. The fiber has
 * to be a daemon, or an interruption of the caller ends it.
 */
export const fiber = <A, E>(
  running: Fiber.RuntimeFiber<A, E>,
  limit: Duration.DurationInput,
  whenLate: WhenLate = "interrupt"
): Effect.Effect<Answer<A, E>> => Effect.uninterruptible(awaiting(running, Effect.sleep(limit), whenLate))

const awaiting = <A, E>(
  running: Fiber.RuntimeFiber<A, E>,
  limit: Effect.Effect<void>,
  whenLate: WhenLate
): Effect.Effect<Answer<A, E>> =>
  Effect.suspend(() => {
    const exit = running.unsafePoll()
    if (exit !== null) return Effect.succeed(answer(exit))
    return Effect.flatMap(Effect.forkDaemon(Effect.interruptible(limit)), (clock) =>
      Effect.async<Answer<A, E>>((resume) => {
        // The first of the two resumes; what the other one says is dropped.
        running.addObserver((exit) => {
          resume(Effect.succeed(answer(exit)))
          clock.unsafeInterruptAsFork(FiberId.none)
        })
        clock.addObserver(() => {
          resume(Effect.succeed(late))
          if (whenLate === "interrupt") running.unsafeInterruptAsFork(FiberId.none)
        })
      })
    )
  })

/**
 * Waits for what goes on by itself and can be waited for again: without a limit until the caller is interrupted, then at most
 * `limit`.
 */
export const sinceInterruption = <A, R>(
  wait: Effect.Effect<A, never, R>,
  limit: Duration.DurationInput
): Effect.Effect<Answer<A, never>, never, R> =>
  Effect.uninterruptible(
    Effect.matchCauseEffect(Effect.interruptible(wait), {
      onSuccess: (value) => Effect.succeed(answer(Exit.succeed(value))),
      onFailure: () => run(wait, limit)
    })
  )

/** Runs an effect, and waits for it at most `limit`. Neither fails nor ends early, however often the caller is interrupted. */
export const run = <A, E, R>(
  wait: Effect.Effect<A, E, R>,
  limit: Duration.DurationInput,
  whenLate: WhenLate = "interrupt"
): Effect.Effect<Answer<A, E>, never, R> =>
  Effect.uninterruptible(
    Effect.flatMap(Effect.forkDaemon(Effect.interruptible(wait)), (running) => fiber(running, limit, whenLate))
  )

/**
 * The same for a wait that is not at the end of anything: an interruption of the caller ends it at once, where the caller can be
 * interrupted; and where not, which `Effect.timeout` of what is disconnected would take for no limit, it lasts as long at most.
 */
export const within = <A, E, R>(
  wait: Effect.Effect<A, E, R>,
  limit: Duration.DurationInput
): Effect.Effect<Answer<A, E>, never, R> => until(wait, Effect.sleep(limit))

/** The same, for as long as something else has not ended: then it is late. */
export const until = <A, E, R>(
  wait: Effect.Effect<A, E, R>,
  end: Effect.Effect<void>
): Effect.Effect<Answer<A, E>, never, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDaemon(Effect.interruptible(wait)), (running) =>
      Effect.onInterrupt(restore(awaiting(running, end, "interrupt")), () =>
        Effect.sync(() => running.unsafeInterruptAsFork(FiberId.none))
      )
    )
  )
