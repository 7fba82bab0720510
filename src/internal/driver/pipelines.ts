import type { Connection, Member } from "./connection.js"

/** The most reads on one connection. What is behind them waits for whichever connection is free first. */
const maxDepth = 16

/** A read that runs as long as this, in milliseconds, or twice as long at most, is too long for others to wait behind. */
const checkMillis = 5

/**
 * Short reads that share connections while no connection is free: they are sent one behind the other, and the server answers
 * them in that order.
 *
 * That must harm none of them. A cancel hits whatever the server works on, so none is sent while anybody waits for anything
 * on the connection: the result is thrown away. Behind a read that turns out to be long nobody stays. And whatever needs a
 * connection of its own comes first: newcomers share none while somebody waits.
 */
export class Pipelines {
  private readonly open = new Set<Connection>()
  private timer: NodeJS.Timeout | undefined
  private heads = new Map<Connection, Member>()

  constructor(
    private readonly options: {
      /** Whether a connection may still be used. */
      readonly isGood: (connection: Connection) => boolean
      /** Hears that nobody waits for anything on a connection any more, while the server works on it. */
      readonly onDeserted: (connection: Connection) => void
    }
  ) {}

  /** Whether reads share any connection. */
  get isEmpty(): boolean {
    return this.open.size === 0
  }

  /** A connection for a read that is prepared under that name, behind others. */
  find(name: string): Connection | undefined {
    let best: Connection | undefined
    let depth = maxDepth
    for (const connection of this.open) {
      const { length } = connection.pipeline
      if (length < depth && connection.takesBehind(name) && this.options.isGood(connection)) {
        best = connection
        depth = length
      }
    }
    return best
  }

  /** Others may share a connection from now on. */
  add(connection: Connection): void {
    this.open.add(connection)
    if (connection.pipeline.length > 1) this.watch()
  }

  /** Nobody more shares it. */
  close(connection: Connection): void {
    this.open.delete(connection)
  }

  private watch(): void {
    this.timer ??= setTimeout(() => {
      // An answer may be there that has not been read yet.
      setImmediate(() => this.check())
    }, checkMillis).unref()
  }

  private check(): void {
    this.timer = undefined
    const before = this.heads
    this.heads = new Map()
    for (const connection of [...this.open]) {
      const { pipeline } = connection
      const [head] = pipeline
      if (head === undefined || pipeline.length < 2) continue
      if (before.get(connection) === head) this.leave(connection, head)
      else this.heads.set(connection, head)
    }
    if (this.heads.size > 0) this.watch()
  }

  /** Everybody but the first leaves a connection. */
  private leave(connection: Connection, head: Member): void {
    this.close(connection)
    head.wasLong()
    for (const member of [...connection.pipeline]) {
      if (member === head || !member.isWanted) continue
      member.isWanted = false
      member.move?.()
    }
    if (!head.isWanted) this.options.onDeserted(connection)
  }
}
