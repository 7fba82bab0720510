import { reads } from "./corpus/reads.js"
import { sessions } from "./corpus/sessions.js"
import { writes } from "./corpus/writes.js"

export type { Entry, Kind } from "./corpus/entry.js"
export { schema } from "./corpus/schema.js"

export const corpus = [...reads, ...writes, ...sessions]
