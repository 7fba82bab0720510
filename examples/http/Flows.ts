/**
 * What each flow answers, and what is in the table afterwards.
 */
export interface Flow {
  readonly path: string
  readonly status: number
  readonly body?: unknown
  readonly notes: ReadonlyArray<string>
}

const atomic = (current: string, block: "succeeds" | "fails", notes: ReadonlyArray<string>, status = 409): Flow => ({
  path: `/atomic/${current}/${block}`,
  status,
  notes
})

export const flows: ReadonlyArray<Flow> = [
  { path: "/simple", status: 201, notes: ["one", "two"] },
  { path: "/read-your-writes", status: 200, body: ["mine"], notes: ["mine"] },
  { path: "/rollback-by-status", status: 409, notes: [] },
  { path: "/rollback-by-exception", status: 500, notes: [] },
  { path: "/early-commit", status: 409, notes: ["kept"] },
  { path: "/early-rollback", status: 201, notes: ["kept"] },
  { path: "/early-close", status: 201, notes: ["there were 0"] },
  { path: "/atomic", status: 409, notes: ["kept"] },
  atomic("commit", "succeeds", ["before", "inside"]),
  atomic("commit", "fails", ["before"]),
  atomic("rollback", "succeeds", ["inside"]),
  atomic("rollback", "fails", []),
  atomic("append", "succeeds", ["before", "inside"]),
  atomic("append", "fails", []),
  atomic("savepoint", "succeeds", []),
  atomic("savepoint", "fails", []),
  // It refuses before the block begins: a `SqlError`.
  atomic("fail", "succeeds", [], 500),
  { path: "/concurrent/joined", status: 201, notes: ["a", "b", "c"] },
  { path: "/concurrent/new-sessions", status: 409, notes: ["a", "b"] },
  { path: "/concurrent/new-sessions-by-hand", status: 409, notes: ["a", "b"] },
  { path: "/concurrent/detached", status: 409, notes: ["a", "b"] },
  { path: "/concurrent/detached-by-hand", status: 409, notes: ["a", "b"] },
  { path: "/concurrent/one-fails", status: 200, body: ["Right", "Left", "Right"], notes: ["a", "c"] },
  { path: "/after-commit/accepted", status: 201, notes: ["order", "receipt"] },
  { path: "/after-commit/refused", status: 409, notes: [] },
  { path: "/background-job", status: 202, notes: ["order", "shipped"] }
]
