import * as Effect from "effect/Effect"
import { cancel } from "./cancel.js"
import type { Connection, Member } from "./connection.js"
import type { Connections } from "./connections.js"

/** The most reads on one connection. What is behind them waits for whichever connection is free first. */
const maxDepth = 16

/** A read that runs as long as this, in milliseconds, or twice as long at most, is too long for others to wait behind. */
const checkMillis = 5

/**
 * Short reads that share connections while no connection is free: they are sent one behind the other, and the server answers
 * them in that order.
 *
 * That must harm none of them. A cancel hits whatever the server works on, so none is sent while a statement on the connection
 * is wanted: the unwanted result is thrown away. Reads behind one that turns out to be long move to other connections. And a
 * request for a connection of its own comes first: while one waits, new statements share none.
 */
export class Pipelines {
  private readonly open: Array<Connection> = []
  private timer: NodeJS.Timeout | undefined
  private heads = new Map<Connection, Member>()

  constructor(
    private readonly connections: Connections,
    private readonly now: () => number,
    /** Hears of a connection on which everything was cancelled. */
    private readonly cancelled: (connection: Connection) => void
  ) {}

  /** A connection for a read, behind others. */
  find(): Connection | undefined {
    let best: Connection | undefined
    let depth = maxDepth
    for (const connection of this.open) {
      const { length } = connection.pipeline
      if (length < depth && connection.takesBehind && this.connections.isGood(connection)) {
        best = connection
        depth = length
      }
    }
    return best
  }

  /** A statement begins on a connection. */
  join(connection: Connection, member: Member): void {
    const { pipeline } = connection
    // Behind others it takes as long as they do.
    if (pipeline.length === 0) member.began = this.now()
    pipeline.push(member)
    if (!member.isShared) return
    if (!this.open.includes(connection)) this.open.push(connection)
    if (pipeline.length > 1) this.watch()
  }

  /** Removes a statement that has ended. The last one releases the connection. */
  leave(connection: Connection, member: Member): void {
    const { pipeline } = connection
    const index = pipeline.indexOf(member)
    // It was cancelled with all others, and the connection may be checked out again by now.
    if (index < 0) return
    pipeline.splice(index, 1)
    const now = this.now()
    this.connections.ended(now)
    member.text?.ran(member.began && now - member.began)
    if (connection.isCancelling) return
    if (pipeline.length > 0) {
      this.connections.admit()
    } else {
      this.shut(connection)
      this.connections.giveBack(connection)
    }
  }

  /** Cancels the running statement after one is no longer wanted. While another one there is wanted, it ends by itself instead. */
  abandon(connection: Connection): Effect.Effect<void> {
    if (connection.pipeline.some(({ isWanted }) => isWanted)) return Effect.void
    this.shut(connection)
    connection.isCancelling = true
    return Effect.ensuring(
      cancel(connection),
      Effect.sync(() => {
        connection.isCancelling = false
        connection.pipeline.length = 0
        this.cancelled(connection)
        this.connections.giveBack(connection)
      })
    )
  }

  /** Lets no more statements join there. */
  private shut(connection: Connection): void {
    const index = this.open.indexOf(connection)
    if (index >= 0) this.open.splice(index, 1)
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
      // Statements on a broken connection fail in the next moment. They are not to wait for another connection before.
      if (head === undefined || pipeline.length < 2 || !connection.isUsable) continue
      if (before.get(connection) === head) this.disband(connection, head)
      else this.heads.set(connection, head)
    }
    if (this.heads.size > 0) this.watch()
  }

  /** Everybody but the first goes to another connection. */
  private disband(connection: Connection, head: Member): void {
    this.shut(connection)
    head.text?.wasLong()
    for (const member of [...connection.pipeline]) {
      if (member === head || !member.isWanted) continue
      member.isWanted = false
      member.move()
    }
    if (!head.isWanted) Effect.runFork(this.abandon(connection))
  }
}
