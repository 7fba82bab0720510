/**
 * Who was promised what: every write has an id of its own, and what its caller was told is kept until the tables are
 * compared with it.
 */
import { Effect } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import { type Check, count, none } from "./Row.js"

/** What the caller of a write knows. */
export const Told = { nothing: 0, committed: 1, failed: 2, unknown: 3 } as const

export type Told = (typeof Told)[keyof typeof Told]

/** More than a row can write. Bytes that are there from the beginning do not look like a leak. */
const capacity = 1_000_000

// Rows that share a cluster share the table.
let next = 1

export class Ledger {
  private readonly first = next
  private readonly told = new Uint8Array(capacity)

  /** An id for a write. */
  begin(): number {
    if (next - this.first >= capacity) throw new Error("The ledger is full")
    return next++
  }

  /** The caller of a write was told how it ended. */
  end(id: number, told: Told): void {
    this.told[id - this.first] = told
  }

  /** The id that comes next. */
  get upcoming(): number {
    return next
  }

  /** Whether a write of that id, or of a later one, was acknowledged. */
  hasCommitFrom(id: number): boolean {
    return this.told.subarray(id - this.first, next - this.first).includes(Told.committed)
  }

  /** Compares what the callers have been told by now with what a server has. */
  audit(node: Pick<PgCluster.Node, "query">): Effect.Effect<ReadonlyArray<Check>, PgCluster.PgClusterError> {
    return Effect.suspend(() => {
      const told = this.told.slice(0, next - this.first)
      return Effect.map(node.query<There>(everything, [this.first]), ([row]) => this.compare(told, row!))
    })
  }

  private compare(told: Uint8Array, { halves, ids }: There): ReadonlyArray<Check> {
    const there = new Set(ids)
    const toldBut = (what: Told, isThere: boolean) =>
      Array.from(told.keys(), (i) => this.first + i).filter(
        (id) => told[id - this.first] === what && there.has(id) === isThere
      )
    const lost = toldBut(Told.committed, false)
    const ghosts = toldBut(Told.failed, true)
    const committed = told.reduce((sum, one) => (one === Told.committed ? sum + 1 : sum), 0)
    const show = (list: ReadonlyArray<number>) => [`ids ${list.slice(0, 20).join(", ")}`]
    return [
      none(`of ${count(committed)} acknowledged commits missing`, lost.length, show(lost)),
      none("writes there that were reported as not there", ghosts.length, show(ghosts)),
      none("sessions there in part", halves.length, show(halves))
    ]
  }
}

interface There {
  readonly ids: ReadonlyArray<number>
  /** Sessions of which a part is there. */
  readonly halves: ReadonlyArray<number>
}

const everything = `SELECT coalesce(array_agg(id::int), '{}') AS ids,
    coalesce(array_agg(id::int) FILTER (WHERE kind = 'session' AND NOT done), '{}') AS halves
  FROM ledger WHERE id >= $1`
