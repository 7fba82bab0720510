import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Pg from "pg"
import * as bounded from "../util/bounded.js"
import * as limits from "../util/limits.js"
import { type Place, Queue } from "../util/linkedQueue.js"
import { requestCancel } from "./cancel.js"
import { Connection } from "./connection.js"
import { ServerLost } from "./failure.js"
import { startOf, startQuery } from "./start.js"

/** The limits of a pool: number and age of its connections, and the wait for one. */
export interface Bounds {
  /** The most connections, those that are being opened and closed included. */
  readonly max: number
  /** Connections that stay open however long they are idle. */
  readonly min: number
  /** The time after which an idle connection is closed. `0`: never. */
  readonly idleMillis: number
  /** The age at which a connection is closed, once it is idle. `0`: never. */
  readonly lifeMillis: number
  /** The longest wait for a connection. `0`: no limit. */
  readonly waitMillis: number
}

export interface Limits extends Bounds {
  /** The same for one that may be fulfilled elsewhere, while there are connections that others use. */
  readonly movableMillis: number
  /** The clock, in milliseconds. */
  readonly now: () => number
  /** Called when a connection has broken that was not closed here: the server may have started anew. */
  readonly onBroken: () => void
  /** Called with the start time of the server of a new connection; `undefined` where it is not needed. */
  readonly met: ((startedAt: number) => void) | undefined
  /** Connections are opened one at a time, each when `turn` calls back. */
  readonly isPaced: () => boolean
  /** Calls back when it is time for a connection, which says whether it was opened. */
  readonly turn: (open: () => boolean) => void
  /** A connection on which a statement may run behind others. */
  readonly share: () => Connection | undefined
}

/** Every connection stayed in use for so long. */
export class AllInUse extends Error {
  override readonly name = "AllInUse"

  constructor(readonly millis: number) {
    super(`All connections were in use for ${millis} ms`)
  }
}

/** A request for a connection. */
export interface Wish {
  /** Another server will do. */
  readonly isMovable?: boolean | undefined
  /** It is for a statement that may run behind others. */
  readonly isShared?: boolean

  /** Ends the waiting. */
  timer?: NodeJS.Timeout | undefined
  /** While it waits. */
  place?: Place<Wish> | undefined
  /** There is one, or why there is none. */
  got(error: Error | undefined, connection: Connection | undefined): void
}

/** The time until the statement of a closed connection is cancelled a second time. */
const cancelAgain = Duration.millis(50)

/**
 * The connections to one server, with a FIFO queue of requests for one. A connection that becomes idle, or opens, goes to the
 * oldest request. (The pool of `pg` never answers waiting requests when it is closed, keeps abandoned ones in its queue, and
 * cannot reach connections that are being opened.)
 */
export class Connections {
  private readonly all = new Set<Connection>()
  /** Idle connections, the longest idle first. */
  private readonly free: Array<Connection> = []
  /** Connections that are being closed. */
  private readonly leaving = new Set<Connection>()
  private readonly waiters = new Queue<Wish>()
  private readonly opening = new Set<Connection>()
  /** What runs first on every connection. */
  private initial: string | undefined
  /** Goes up when connections of before are not to be used again. */
  private generation = 0
  private state: "open" | "closing" | "cut" = "open"
  /** Why it was closed. */
  private reason: Error | undefined
  private timer: NodeJS.Timeout | undefined
  private timerDue = Number.POSITIVE_INFINITY
  /** What waits until there is no connection, and nothing waits for one. */
  private readonly whenEmpty = new Set<() => void>()
  /** When the last connection was taken or opened, one was given back, or a statement has ended on one that others share. */
  movedAt = 0
  /** The same without those that were taken, or begin to open: when something has succeeded or ended. */
  endedAt = 0
  /** Whether it waits for the time to open a connection. */
  private awaitsTurn = false
  /** How many times opening a connection has failed since it last succeeded. */
  private failedInARow = 0
  /** Why the last one has failed; `undefined` once one has succeeded. */
  private lastFailure: Error | undefined

  /** It has the password, which is not to be printed with what reaches it. */
  #config: Pg.ClientConfig

  constructor(
    config: Pg.ClientConfig,
    private limits: Limits
  ) {
    this.#config = config
  }

  /** Opens connections with another configuration from now on. Those that are open stay. */
  renew(config: Pg.ClientConfig, limits: Bounds): void {
    this.#config = config
    this.limits = { ...this.limits, ...limits }
  }

  get total(): number {
    return this.all.size
  }

  get idle(): number {
    return this.free.length
  }

  get waiting(): number {
    return this.waiters.size
  }

  /**
   * Gives a connection: now, if one is free. It comes back by `giveBack`. Until then, `withdraw` takes the wish back. One that
   * `isFirst` is fulfilled before those that wait.
   */
  acquire(wish: Wish, isFirst = false): void {
    if (this.state !== "open") {
      wish.got(this.reason, undefined)
      return
    }
    const connection = this.take() ?? this.shared(wish, isFirst)
    if (connection !== undefined) {
      if (!this.hasRoom) this.movedAt = this.limits.now()
      wish.got(undefined, connection)
      return
    }
    this.limit(wish)
    wish.place = isFirst ? this.waiters.addFirst(wish) : this.waiters.add(wish)
    this.open()
  }

  /**
   * Lends a connection that is free, for what does not count as its use, unless it is the last that there may be: a statement
   * would have to wait for it. It comes back by `restore`.
   */
  lend(): Connection | undefined {
    const isLast = this.free.length < 2 && this.all.size >= this.limits.max
    return this.state !== "open" || isLast ? undefined : this.take()
  }

  /** Takes back what was lent. */
  restore(connection: Connection): void {
    connection.whenReady(() => this.put(connection, false))
  }

  private take(): Connection | undefined {
    for (let connection = this.free.pop(); connection !== undefined; connection = this.free.pop()) {
      if (connection.isUsable) return connection
    }
    return undefined
  }

  /** While a request waits, new statements share no connection: a request for a connection of its own would never get one. */
  private shared({ isShared }: Wish, isFirst: boolean): Connection | undefined {
    if (isShared !== true || this.all.size < this.limits.max) return undefined
    return isFirst || this.waiters.size === 0 ? this.limits.share() : undefined
  }

  private limit(wish: Wish): void {
    const { movableMillis, waitMillis } = this.limits
    const isShort = wish.isMovable === true && (waitMillis === 0 || movableMillis < waitMillis)
    if (!isShort && waitMillis === 0) return
    const millis = isShort ? movableMillis : waitMillis
    wish.timer = setTimeout(() => this.overdue(wish, millis, isShort), millis).unref()
  }

  private overdue(wish: Wish, millis: number, isShort: boolean): void {
    // One that is being opened has its own limit, which says more.
    if (isShort && !this.isConnected) {
      const { waitMillis } = this.limits
      const next = () => (waitMillis === 0 ? this.overdue(wish, millis, true) : this.overdue(wish, waitMillis, false))
      wish.timer = setTimeout(next, waitMillis === 0 ? millis : waitMillis - millis).unref()
      return
    }
    wish.place?.leave()
    this.tellEmpty()
    wish.got(this.whyOverdue(millis), undefined)
  }

  /** Not all were in use while one was still to be opened: why it was not counts. */
  private whyOverdue(millis: number): Error {
    if (this.isConnected && this.established >= this.limits.max) return new AllInUse(millis)
    return this.lastFailure ?? new ServerLost(`It has not taken a connection within ${millis} ms (connectTimeout)`)
  }

  /** Whether the server has taken a connection that is still there. */
  private get isConnected(): boolean {
    return this.established > 0
  }

  private get established(): number {
    return this.all.size - this.opening.size - this.leaving.size
  }

  /** A request would get a connection without waiting for the end of another one. */
  get hasRoom(): boolean {
    return this.free.length > 0 || this.all.size < this.limits.max
  }

  /** Refuses all requests that wait, for this reason. */
  refuseAll(reason: Error): void {
    const { size } = this.waiters
    // Requests that come meanwhile are not refused.
    for (let i = 0; i < size; i++) this.nextWaiter()?.got(reason, undefined)
    this.stopOpening()
  }

  /** Ends the waiting for a connection, without calling back. */
  withdraw(wish: Wish): void {
    if (wish.place?.leave() !== true) return
    clearTimeout(wish.timer)
    if (this.state === "open") return
    this.stopOpening()
    this.tellEmpty()
  }

  /** Takes a connection back, once the server has finished with it. */
  giveBack(connection: Connection): void {
    // A failed statement is reported before the server is ready again; only then is its transaction status known. A text
    // that left a transaction open ("BEGIN; ...") must not hand it to the next user of the connection.
    connection.whenReady(() => {
      if (connection.traces.reset !== undefined && this.mayUse(connection)) {
        connection.reset(this.initial, () => this.put(connection))
      } else this.put(connection)
    })
  }

  private mayUse(connection: Connection): boolean {
    return connection.isUsable && connection.isOutsideTransaction && this.isGood(connection)
  }

  /** Hands a connection to the oldest request, else keeps it idle, or closes it. */
  private put(connection: Connection, wasUsed = true): void {
    if (wasUsed) this.ended(this.limits.now())
    const isGood = this.mayUse(connection)
    const waiter = isGood ? this.nextWaiter() : undefined
    if (waiter !== undefined) {
      waiter.got(undefined, connection)
      this.admit()
    } else if (isGood && this.state === "open") {
      if (wasUsed) connection.idleSince = this.movedAt
      this.free.push(connection)
      this.wakeAt(this.dueOf(connection))
    } else {
      this.dismiss(connection)
    }
  }

  /** Something has ended on a connection. */
  ended(now: number): void {
    this.movedAt = now
    this.endedAt = now
  }

  /** Whether a connection may be used again. */
  isGood(connection: Connection): boolean {
    const expiry = this.expiryOf(connection)
    return (
      connection.generation === this.generation && (expiry === Number.POSITIVE_INFINITY || expiry > this.limits.now())
    )
  }

  /** Lets those who have waited longest share connections, as long as they can. */
  admit(): void {
    for (let waiter = this.waiters.first; waiter !== undefined; waiter = this.waiters.first) {
      const connection = waiter.isShared === true ? this.limits.share() : undefined
      if (connection === undefined) return
      this.withdraw(waiter)
      waiter.got(undefined, connection)
    }
  }

  /**
   * Runs a statement first on every connection from now on, or none. Those that are open are replaced when they are given
   * back.
   */
  beginWith(sql: string | undefined): void {
    this.initial = sql
    this.generation++
    this.closeIdle()
  }

  /** Closes the idle connections. */
  closeIdle(): void {
    for (const connection of this.free.splice(0)) this.dismiss(connection)
  }

  /**
   * Refuses newcomers, waits up to a limit for everything that runs or waits, and closes every connection. What it refuses
   * or ends fails for this reason.
   */
  close(limit: Duration.Duration, reason: Error): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.state = "closing"
      this.reason = reason
      clearTimeout(this.timer)
      this.closeIdle()
      this.stopOpening()
      return this.awaitEmpty(limit).pipe(
        Effect.flatMap((isEmpty) => (isEmpty ? Effect.void : this.cut)),
        Effect.asVoid
      )
    })
  }

  /** Ends what still runs or waits. */
  private readonly cut: Effect.Effect<void> = Effect.suspend(() => {
    this.state = "cut"
    const reason = this.reason!
    for (let waiter = this.nextWaiter(); waiter !== undefined; waiter = this.nextWaiter()) {
      waiter.got(reason, undefined)
    }
    const cancels: Array<Effect.Effect<unknown>> = []
    for (const connection of this.all) {
      if (this.leaving.has(connection)) continue
      // A server notices that its client is gone only when it has something to tell.
      if (connection.isBusy && !connection.mustFinish) {
        const request = requestCancel(connection.cancelTarget)
        // It ignores a cancel that is there before it has begun the statement.
        cancels.push(Effect.zipRight(request, Effect.delay(request, cancelAgain)))
      }
      connection.fail(reason)
    }
    return bounded.run(Effect.all(cancels, { concurrency: "unbounded", discard: true }), limits.cut).pipe(
      Effect.zipRight(this.awaitEmpty(limits.cut)),
      Effect.zipRight(
        Effect.sync(() => {
          for (const connection of this.all) connection.destroy()
        })
      )
    )
  })

  /** Whether nothing waits any more, and every connection is closed, within a limit. */
  private awaitEmpty(limit: Duration.Duration): Effect.Effect<boolean> {
    const empty = Effect.async<void>((resume) => {
      if (this.isEmpty) return resume(Effect.void)
      const tell = () => resume(Effect.void)
      this.whenEmpty.add(tell)
      return Effect.sync(() => this.whenEmpty.delete(tell))
    })
    return Effect.map(bounded.run(empty, limit), ({ state }) => state === "answered")
  }

  /** What waits for the time to open a connection has none yet. */
  private get isEmpty(): boolean {
    return this.all.size === 0 && this.waiters.size === 0
  }

  private tellEmpty(): void {
    if (!this.isEmpty) return
    for (const tell of this.whenEmpty) tell()
    this.whenEmpty.clear()
  }

  /** Opens a connection for everybody who waits and has none on its way, as far as the limit allows. */
  private open(): void {
    while (this.needsMore && !this.isPaced) this.openOne()
    if (this.needsMore) this.openLater()
  }

  private get isPaced(): boolean {
    return this.failedInARow > 0 || this.limits.isPaced()
  }

  private get needsMore(): boolean {
    return this.opening.size < this.waiters.size && this.all.size < this.limits.max
  }

  private openLater(): void {
    if (this.awaitsTurn) return
    this.awaitsTurn = true
    this.limits.turn(() => {
      this.awaitsTurn = false
      if (!this.needsMore) return false
      this.openOne()
      this.open()
      return true
    })
  }

  private openOne(): void {
    let connection: Connection
    try {
      connection = new Connection(this.#config, (ended) => this.forget(ended))
    } catch (error) {
      // The driver refuses a contradiction in the configuration.
      this.nextWaiter()?.got(error as Error, undefined)
      return
    }
    connection.generation = this.generation
    this.movedAt = this.limits.now()
    this.opening.add(connection)
    this.all.add(connection)
    const opened = (error: Error | undefined) => {
      const isWanted = this.opening.delete(connection)
      if (error === undefined) {
        this.failedInARow = 0
        this.lastFailure = undefined
        return this.put(connection)
      }
      // Not every error closes the socket: one that the driver itself finds, such as a missing password, does not.
      connection.destroy()
      const waiter = isWanted ? this.nextWaiter() : undefined
      this.failedInARow++
      this.lastFailure = error
      // This one may still count as one that is there.
      const own = isWanted && this.all.has(connection) ? 1 : 0
      const isDown = this.failedInARow > 1 && this.established === own
      // Before more connections are opened for those that wait.
      const others = isDown ? this.waiters.takeAll() : []
      this.forget(connection)
      waiter?.got(error, undefined)
      for (const other of others) {
        clearTimeout(other.timer)
        other.got(error, undefined)
      }
    }
    connection.connect((error) => {
      connection.openedAt = this.limits.now()
      if (error === undefined) this.prepare(connection, opened)
      else opened(error)
    })
  }

  /** Runs what comes before all others on a new connection. A server may take connections and answer nothing on them. */
  private prepare(connection: Connection, opened: (error: Error | undefined) => void): void {
    const { initial } = this
    const { waitMillis } = this.limits
    const overdue = () => connection.fail(new ServerLost(`No answer on a new connection within ${waitMillis} ms`))
    const timer = waitMillis > 0 ? setTimeout(overdue, waitMillis).unref() : undefined
    const prepared = (error: Error | undefined) => {
      clearTimeout(timer)
      opened(error)
    }
    const met = (error: Error | undefined) => (error === undefined ? this.meet(connection, prepared) : prepared(error))
    if (initial === undefined) met(undefined)
    else connection.query({ text: initial }, (error) => connection.whenReady(() => met(error)))
  }

  /** Asks a new connection for its server, before anything runs there that counts on it. What it does not tell is no error. */
  private meet(connection: Connection, opened: (error: Error | undefined) => void): void {
    const { met } = this.limits
    if (met === undefined) {
      opened(undefined)
      return
    }
    connection.query({ text: startQuery, asArrays: true }, (error, result) =>
      connection.whenReady(() => {
        if (error !== undefined && !connection.isUsable) return opened(error)
        const startedAt = error === undefined ? startOf(result) : undefined
        if (startedAt !== undefined) met(startedAt)
        opened(undefined)
      })
    )
  }

  /** Stops opening more connections than there are requests. */
  private stopOpening(): void {
    for (const connection of this.opening) {
      if (this.opening.size <= this.waiters.size) return
      this.opening.delete(connection)
      this.leaving.add(connection)
      connection.destroy()
    }
  }

  private dismiss(connection: Connection): void {
    // One that broke while it was used is gone already.
    if (!this.all.has(connection)) return
    this.leaving.add(connection)
    connection.end()
  }

  private forget(connection: Connection): void {
    if (!this.all.delete(connection)) return
    if (!this.leaving.delete(connection)) this.limits.onBroken()
    const index = this.free.indexOf(connection)
    if (index >= 0) this.free.splice(index, 1)
    this.open()
    this.tellEmpty()
  }

  private nextWaiter(): Wish | undefined {
    const { first } = this.waiters
    if (first !== undefined) this.withdraw(first)
    return first
  }

  private expiryOf(connection: Connection): number {
    const { lifeMillis } = this.limits
    return lifeMillis > 0 ? connection.openedAt + lifeMillis : Number.POSITIVE_INFINITY
  }

  /** When a free connection is to be closed. */
  private dueOf(connection: Connection): number {
    const { idleMillis, min } = this.limits
    const expiry = this.expiryOf(connection)
    return idleMillis > 0 && this.all.size - this.leaving.size > min
      ? Math.min(expiry, connection.idleSince + idleMillis)
      : expiry
  }

  // One timer for all, and none is set as long as an earlier one is. It does not keep the process alive.
  private wakeAt(due: number): void {
    if (due >= this.timerDue) return
    clearTimeout(this.timer)
    this.timerDue = due
    this.timer = setTimeout(() => this.sweep(), Math.max(0, due - this.limits.now())).unref()
  }

  private sweep(): void {
    this.timerDue = Number.POSITIVE_INFINITY
    const now = this.limits.now()
    for (const connection of [...this.free]) {
      const due = this.dueOf(connection)
      if (due > now) {
        this.wakeAt(due)
      } else {
        this.free.splice(this.free.indexOf(connection), 1)
        this.dismiss(connection)
      }
    }
  }
}
