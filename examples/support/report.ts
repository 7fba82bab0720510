import { Console, Effect } from "effect"

/** Says what was seen, and lets the program end with exit code 1 if that is not what should have been. */
export const report = (what: string, seen: unknown, holds: boolean): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.sync(() => {
      if (!holds) process.exitCode = 1
    }),
    Console.log(
      `${holds ? "" : "NOT AS IT SHOULD BE: "}${what}: ${typeof seen === "string" ? seen : JSON.stringify(seen)}`
    )
  )
