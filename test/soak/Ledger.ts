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

  /** The ids that were given out since the one, that one included. */
  since(id: number): ReadonlyArray<number> {
    return Array.from({ length: Math.max(0, next - id) }, (_, i) => id + i)
  }

  /** The id that comes next. */
  get upcoming(): number {
    return next
  }

  /** How many commits were acknowledged. */
  get committed(): number {
    return this.told.reduce((sum, told) => (told === Told.committed ? sum + 1 : sum), 0)
  }

  /** Compares what the callers were told with what a server has. */
  audit(node: Pick<PgCluster.Node, "query">): Effect.Effect<ReadonlyArray<Check>, PgCluster.PgClusterError> {
    return Effect.map(
      node.query<{ ids: ReadonlyArray<number> }>(
        "SELECT coalesce(array_agg(id::int), '{}') AS ids FROM ledger WHERE id >= $1",
        [this.first]
      ),
      ([row]) => {
        const there = new Set(row!.ids)
        const all = this.since(this.first)
        const toldBut = (told: Told, isThere: boolean) =>
          all.filter((id) => this.told[id - this.first] === told && there.has(id) === isThere)
        const lost = toldBut(Told.committed, false)
        const ghosts = toldBut(Told.failed, true)
        const ids = (list: ReadonlyArray<number>) => [`ids ${list.slice(0, 20).join(", ")}`]
        return [
          { ...none(`of ${count(this.committed)} acknowledged commits missing`, lost.length, ids(lost)) },
          none("writes there that were reported as not there", ghosts.length, ids(ghosts))
        ]
      }
    )
  }
}
