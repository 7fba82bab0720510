/**
 * How much of unfinished results the process holds. A server may send rows without an end, by mistake too: the rows of a
 * statement that is not a stream are kept until the last has come, and the process would die of them.
 */
import { getHeapStatistics } from "node:v8"

/** What a message costs beside its bytes: an object, and its place in the result. */
const overhead = 64

/** What part of the heap may be used so. Rows take about as much of it as their bytes. */
const share = 0.5

/** Results hold more than the process can. The server is not to blame: the statement may be. */
export class ResultTooLarge extends Error {
  override readonly name = "ResultTooLarge"

  constructor(limit: number) {
    super(
      `The results that are being read hold more than ${Math.round(limit / 1e6)} MB, half of the memory that this process may ` +
        "use: read a large result as a stream, or give the process more (--max-old-space-size)"
    )
  }
}

/** What several connections hold together. */
export class Budget {
  total = 0
  /** How many of them hold something. */
  holders = 0

  constructor(readonly limit: number) {}
}

/** That of all connections of the process. */
export const ofProcess = new Budget(share * getHeapStatistics().heap_size_limit)

/** What one connection holds. */
export class Held {
  private bytes = 0

  constructor(private readonly budget: Budget) {}

  /** One message more of a result. Throws where that is too much, and this connection holds no small part of it. */
  add(length: number): void {
    const { budget } = this
    const more = length + overhead
    if (this.bytes === 0) budget.holders++
    this.bytes += more
    budget.total += more
    if (budget.total > budget.limit && this.bytes * budget.holders * 2 > budget.total) {
      throw new ResultTooLarge(budget.limit)
    }
  }

  /** The result is whole, and its user's. Or the connection is no more. */
  clear(): void {
    if (this.bytes === 0) return
    this.budget.holders--
    this.budget.total -= this.bytes
    this.bytes = 0
  }
}
