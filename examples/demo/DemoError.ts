import { Data } from "effect"

/** What keeps the demo from running, said to the person who started it. */
export class DemoError extends Data.TaggedError("DemoError")<{ readonly message: string }> {}
