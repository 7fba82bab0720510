/**
 * When a router opens connections to servers that have just failed, or have just become the primary: one after the other, at
 * most ten a second, each at a time that chance has a part in. A fleet hears of a failure in one moment, and must not connect in
 * one. (PgBouncer logs in with one connection at a time for each pool, HikariCP adds connections one at a time; the chance is
 * from "Exponential Backoff And Jitter" of the AWS Architecture Blog, 2015.)
 */
import { type Place, Queue } from "../util/linkedQueue.js"

/** How long after one that has its turn the next one may have its own, in milliseconds; half as long again at most. */
const spacing = 100

/** For how long a server that has failed, or has become the primary, gets its connections so, in milliseconds. */
export const unsettledMillis = 10_000

/** Uses its turn, and says whether it had a use for it. */
type Turn = () => boolean

/** The turns of all connections of one router. */
export class Pace {
  private readonly probes = new Queue<Turn>()
  private readonly others = new Queue<Turn>()
  private timer: NodeJS.Timeout | undefined
  private lastAt = Number.NEGATIVE_INFINITY
  private wasProbe = false

  constructor(
    private readonly now: () => number,
    private readonly random: () => number
  ) {}

  /**
   * Calls back when it is time; those of probes come first, but for every other turn: probes of a server that stays away would
   * take all of them. What it returns takes that back.
   */
  await(turn: Turn, isProbe = false): () => void {
    const place: Place<Turn> = (isProbe ? this.probes : this.others).add(turn)
    this.schedule()
    return () => {
      place.leave()
      if (this.next !== undefined) return
      clearTimeout(this.timer)
      this.timer = undefined
    }
  }

  private get next(): Queue<Turn> | undefined {
    const order = this.wasProbe ? [this.others, this.probes] : [this.probes, this.others]
    return order.find(({ size }) => size > 0)
  }

  private schedule(): void {
    if (this.timer !== undefined || this.next === undefined) return
    const now = this.now()
    const due = Math.max(now + this.random() * spacing, this.lastAt + spacing * (1 + this.random() / 2))
    this.timer = setTimeout(() => {
      // Until then one that asks for the next turn is not to have it now.
      this.pass()
      this.timer = undefined
      this.schedule()
    }, due - now)
  }

  private pass(): void {
    for (let queue = this.next; queue !== undefined; queue = this.next) {
      const turn = queue.takeFirst()!
      if (!turn()) continue
      this.lastAt = this.now()
      this.wasProbe = queue === this.probes
      return
    }
  }
}
