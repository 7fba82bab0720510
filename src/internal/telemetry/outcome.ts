/** What became of a transaction. */
export type Outcome = "committed" | "rolled back" | "unknown"
