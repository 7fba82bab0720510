import { Data } from "effect"

/** An error that keeps the demo from running, with a message for the person who started it. */
export class DemoError extends Data.TaggedError("DemoError")<{ readonly message: string }> {}
