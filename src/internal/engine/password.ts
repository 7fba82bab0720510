/** A password that is asked for anew for each connection, such as a token of a cloud's identity service. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Redacted from "effect/Redacted"
import * as bounded from "../util/bounded.js"

/** There is none. Says what kind of failure it was, and nothing that was in it: that may be a secret. */
export class PasswordError extends Error {
  override readonly name = "PasswordError"
}

const kindOf = (cause: Cause.Cause<unknown>): string => {
  const failure = Cause.squash(cause)
  if (typeof failure !== "object" || failure === null) return "it failed"
  if ("_tag" in failure && typeof failure._tag === "string") return failure._tag
  return failure instanceof Error ? failure.name : "it failed"
}

const failed = (why: string) => new PasswordError(`The password for a new connection could not be obtained: ${why}`)

const checked = (value: unknown): Effect.Effect<string, PasswordError> => {
  const text = Redacted.isRedacted(value) ? Redacted.value(value) : undefined
  return typeof text === "string" ? Effect.succeed(text) : Effect.fail(failed("it is not a Redacted text"))
}

/** Runs the effect, for at most so long. */
export const obtain = (password: Effect.Effect<unknown, unknown>, limit: Duration.Duration): Promise<string> =>
  bounded
    .run(password, limit)
    .pipe(
      Effect.flatMap((answer) => {
        if (answer.state === "answered") return checked(answer.exit.value)
        return Effect.fail(
          failed(
            answer.state === "late" ? `no answer within ${Duration.toMillis(limit)} ms` : kindOf(answer.exit.cause)
          )
        )
      }),
      Effect.either,
      Effect.runPromise
    )
    .then(Either.getOrThrowWith(identity))
