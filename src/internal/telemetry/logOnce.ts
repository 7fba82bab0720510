import * as Effect from "effect/Effect"
import { attributes } from "../../Telemetry.js"
import * as Log from "../validation/log.js"
import { printable } from "../validation/printValue.js"

/** Warnings of what lasts, and is found again and again: each is logged once, until it is over. */
export class Complaints {
  private readonly made = new Map<string, string>()

  /** Something is wrong with a thing: a warning where that is news, else a line for debugging. */
  of(thing: string, message: string, ...cause: ReadonlyArray<unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const isKnown = this.made.get(thing) === message
      this.made.set(thing, message)
      const write = isKnown ? Log.debug(message, ...cause) : Log.warning(message, ...cause)
      return annotated(write, "complaint", thing)
    })
  }

  /** Nothing is wrong with it any more. */
  over(thing: string, message: string): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.made.delete(thing) ? annotated(Log.info(message), "complaint_over", thing) : Effect.void
    )
  }
}

const annotated = (write: Effect.Effect<void>, event: string, thing: string): Effect.Effect<void> =>
  Effect.annotateLogs(write, { [attributes.event]: event, [attributes.thing]: printable(thing) })
