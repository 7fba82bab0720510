import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RouterError from "../../RouterError.js"
import { acquireFailed, isOfStatement, isPoolBusy, judge } from "../driver/failure.js"
import type { Monitor } from "../health/monitor.js"
import type { Servers } from "../health/serverSet.js"
import { elapsedOf } from "../util/clock.js"
import type { Restore } from "../util/restore.js"

/** Until when something may be tried again, in milliseconds of the clock that never goes back. `undefined`: it has not failed yet. */
export type Deadline = number | undefined

/** Between two attempts that have failed, in milliseconds. */
const pause = 50

/**
 * Waits, while there is no server that takes the writes, with what needs one and was not sent. A read may be sent again, and
 * what a server has refused because it is a standby now, and what was to begin a transaction that has not begun; nothing else is.
 */
export class Patience {
  private readonly millis: number
  /** The last wait that was in vain: from when, until when. */
  private vain: { readonly since: number; readonly until: number } | undefined

  constructor(
    private readonly servers: Servers,
    private readonly monitor: Pick<Monitor, "awaitWriter" | "check">,
    limit: Duration.Duration
  ) {
    this.millis = Duration.toMillis(limit)
  }

  /**
   * Runs an attempt, and `next` each time that there is another primary to try it on. `restore` makes the waiting interruptible
   * where the attempts are not.
   */
  around<A>(
    attempt: () => Effect.Effect<A, SqlError>,
    restore: Restore,
    deadline?: Deadline,
    next = attempt
  ): Effect.Effect<A, SqlError> {
    if (this.millis === 0) return attempt()
    return Effect.catchAll(Effect.suspend(attempt), (error) =>
      Effect.flatMap(restore(this.after(error, deadline)), (deadline) => this.around(next, restore, deadline))
    )
  }

  /**
   * Ends when there is a primary to try again on what has failed with this error, and says until when. Fails with the error
   * when it is not to be tried again. `isRead`: it has changed nothing, even if it was sent.
   */
  after(error: SqlError, deadline: Deadline, isRead = false): Effect.Effect<number, SqlError> {
    return Effect.suspend(() => {
      if (this.millis === 0) return Effect.fail(error)
      if (isRefused(error)) {
        const { lastWriter } = this.servers
        return Effect.zipRight(
          this.monitor.check(lastWriter),
          // A primary that refuses writes has been told to.
          Effect.suspend(() => (this.servers.writer === lastWriter ? Effect.fail(error) : this.wait(error, deadline)))
        )
      }
      return this.wasNotSent(error) || (isRead && isLost(error)) ? this.wait(error, deadline) : Effect.fail(error)
    })
  }

  /**
   * Until when what has waited for its turn may wait, where those before it have waited for a primary all the while: one after the
   * other, each would wait for the limits of all before it.
   */
  deadlineOf(waitedSince: number | undefined): Deadline {
    return waitedSince !== undefined && this.vain !== undefined && waitedSince <= this.vain.since
      ? this.vain.until
      : undefined
  }

  private wait(error: SqlError, deadline: Deadline): Effect.Effect<number, SqlError> {
    return Effect.clockWith((clock) => {
      const now = elapsedOf(clock)
      const until = deadline ?? now + this.millis
      const left = until - now
      const there = left <= 0 ? Effect.succeed(false) : this.monitor.awaitWriter(Duration.millis(left))
      return Effect.filterOrFail(
        // The monitor may still take the server for well that fails.
        deadline === undefined ? there : Effect.delay(there, Math.min(pause, Math.max(0, left))),
        (isThere) => isThere,
        () => {
          this.vain = { since: until - this.millis, until }
          return error
        }
      ).pipe(Effect.as(until))
    })
  }

  private wasNotSent(error: SqlError): boolean {
    const { cause, message } = error
    if (RouterError.isRouterError(cause)) {
      return cause.reason === "NoEngineAvailable" && cause.group === this.servers.writing.name
    }
    return message === acquireFailed && isLost(error)
  }
}

/** Whether it was the server that failed. What it has answered to a statement, values may have provoked: it is there. */
const isLost = (error: SqlError): boolean =>
  !isPoolBusy(error) && !isOfStatement(error) && judge(error, "primary").action === "elsewhere"

/** Whether a server has said that it takes no writes, so that it has done nothing. */
const isRefused = (error: SqlError): boolean => judge(error, "replica").why === "25006"
