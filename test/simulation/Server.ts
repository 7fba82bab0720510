/**
 * One PostgreSQL server: its log, its rows, its sessions; as a primary, what it ships to standbys; as a standby, what it
 * receives and replays.
 */
import { Backend, type Host, type Observer } from "./Backend.js"
import type { Chance } from "./Chance.js"
import type { Activity, Facts } from "./Expression.js"
import type { Network, ServerEnd } from "./Network.js"
import { PgError } from "./PgError.js"
import { schema } from "./Schema.js"
import { type Catalog, type Change, endOf, Locks, type LogRecord, logStart, pastHeader, Store } from "./Store.js"
import type { World } from "./World.js"

/** What the servers of a cluster share. */
export interface Shared {
  readonly world: World
  readonly network: Network
  readonly observer: Observer
  readonly system: string
  /** How many standbys have to have a commit before it is answered. */
  synchronous: number
  /** A commit does not wait for the disk. */
  readonly isAsynchronous: boolean
  /** The role may see what `pg_stat_wal_receiver` says. */
  readonly isPrivileged: boolean
  readonly maxConnections: number
  readonly serverOf: (host: string) => Server | undefined
  /** Numbers that are never given twice. */
  readonly counter: { xid: number; timeline: number; key: number }
  /** A timeline has begun: what was on its parent past that position is lost. */
  readonly forked: (timeline: number, parent: number, at: number) => void
}

/** How long a shutdown waits for standbys, in milliseconds. */
const patience = 5000

/** How often a standby without a sender looks for one, in milliseconds. */
const retryInterval = 400

export class Server implements Facts, Host {
  state: "up" | "starting" | "stopping" | "down" = "up"
  isStandby: boolean
  timeline = 1
  log: Array<LogRecord> = []
  flushed = logStart
  store = new Store(schema)
  locks = new Locks()
  startedAt: number
  isReadOnly = false
  /** Breaks connections around their commits, by this chance. */
  losesAnswers: Chance | undefined
  isReplayPaused = false
  /** What a statement costs, times this. */
  slowness = 1
  /** How long a record waits before it is replayed, in milliseconds. */
  replayDelay = 0
  readonly deadlockTimeout = 200
  readonly backends = new Set<Backend>()
  /** How many of the log's records are replayed. */
  replayedCount = 0
  minRecoveryEndTimeline = 1
  checkpointTimeline = 1
  /** The host that it follows. */
  upstream: string | undefined
  private readonly chance: Chance
  private receiver: { readonly from: Server; readonly timeline: number; isOver: boolean } | undefined
  /** Of each standby that follows: what was sent, and what it has confirmed. */
  private readonly feeds = new Map<Server, { sent: number; confirmed: number; last: number }>()
  private confirmations: Array<{ readonly position: number; readonly wake: () => void }> = []
  private pids = 100
  private isFrozen = false
  private queue: Array<() => void> = []
  /** Goes up with every start: what was planned before it is void. */
  private life = 0
  private replayScheduled = false

  constructor(
    readonly shared: Shared,
    readonly host: string,
    upstream: string | undefined
  ) {
    this.chance = shared.world.chance.fork(`server ${host}`)
    this.isStandby = upstream !== undefined
    this.upstream = upstream
    this.startedAt = this.world.date - this.chance.between(10_000, 20_000)
    shared.network.listen(host, {
      state: () => (this.state === "down" ? (this.isVanished ? "silent" : "refusing") : "open"),
      accept: (end) => this.accept(end)
    })
    this.later(15_000, () => this.background())
    if (this.isStandby) this.later(1, () => this.receive())
  }

  /** It is to be started as soon as it has stopped. */
  private isWanted = false
  /** The host itself is gone. */
  private isVanished = false
  private readonly ends = new Map<Backend, ServerEnd>()

  get world(): World {
    return this.shared.world
  }

  get observer(): Observer {
    return this.shared.observer
  }

  get isAsynchronous(): boolean {
    return this.shared.isAsynchronous
  }

  // ---- What it says of itself

  facts(_user: string): Facts {
    return this
  }

  get isInRecovery(): boolean {
    return this.isStandby
  }

  get replayed(): number {
    return this.log[this.replayedCount - 1]?.end ?? logStart
  }

  get received(): number {
    return this.end
  }

  /** Where replay was when this server was promoted, which it goes on to say until it is started again. */
  private promotedAt: number | undefined

  get lastReplayed(): number | undefined {
    return this.isStandby ? this.replayed : this.promotedAt
  }

  get lastReceived(): number | undefined {
    return this.isStandby ? this.received : this.promotedAt
  }

  /** Where the log ends. */
  get end(): number {
    return this.log[this.log.length - 1]?.end ?? logStart
  }

  /** The timeline that its log has come to. */
  get lastTimeline(): number {
    return this.log[this.log.length - 1]?.timeline ?? 1
  }

  get inserted(): number {
    return pastHeader(this.end)
  }

  get written(): number {
    return this.flushed
  }

  get hasReceiver(): boolean {
    return this.receiver !== undefined
  }

  get receivedTimeline(): number | undefined {
    return this.shared.isPrivileged ? this.receiver?.timeline : undefined
  }

  get system(): string {
    return this.shared.system
  }

  get activity(): ReadonlyArray<Activity> {
    return [...this.backends].map((backend) => backend.activity)
  }

  get now(): number {
    return this.world.date
  }

  // ---- Sessions

  private accept(end: ServerEnd): void {
    const backend: Backend = new Backend(this, ++this.pids, end, this.chance.fork(`backend ${end.id}`))
    this.backends.add(backend)
    this.ends.set(backend, end)
  }

  forget(backend: Backend): void {
    this.backends.delete(backend)
    this.ends.delete(backend)
  }

  /** The error of a new connection now; `undefined` while it accepts connections. */
  get refusal(): PgError | undefined {
    if (this.state === "up") return undefined
    const what = this.state === "starting" ? "starting up" : "shutting down"
    return new PgError("57P03", `the database system is ${what}`, "BackendInitialize", "FATAL")
  }

  refusalOf(_backend: Backend): PgError | undefined {
    return this.backends.size > this.shared.maxConnections
      ? new PgError("53300", "sorry, too many clients already", "InitProcess", "FATAL")
      : undefined
  }

  cancel(pid: number, key: number): void {
    for (const backend of this.backends) {
      if (backend.pid === pid && backend.key === key) {
        const hit = backend.cancel()
        this.world.tell(`${this.host}: cancel of session ${pid}${hit ? "" : ", which runs nothing"}`)
      }
    }
  }

  signal(pid: number, how: "cancel" | "terminate"): boolean {
    const backend = [...this.backends].find((backend) => backend.pid === pid)
    if (backend === undefined) return false
    if (how === "cancel") backend.cancel()
    else backend.terminate(shutDown)
    return true
  }

  /** Ends every session, or some of them, with an error. */
  disconnect(error: PgError, isMeant: (backend: Backend) => boolean = () => true): void {
    for (const backend of [...this.backends]) if (isMeant(backend)) backend.terminate(error)
  }

  /** The connections that listen to a channel, by their number. */
  listeningTo(channel: string): ReadonlyArray<number> {
    return [...this.ends].filter(([backend]) => backend.listensTo(channel)).map(([, { id }]) => id)
  }

  notify(pid: number, channel: string, payload: string): void {
    for (const backend of this.backends) backend.notified(pid, channel, payload)
  }

  /** Runs a step of a session, when the process may run. */
  step(run: () => void): void {
    if (this.isFrozen) this.queue.push(run)
    else run()
  }

  cost(chance: Chance): number {
    return chance.between(0.03, 0.35) * this.slowness
  }

  flushCost(chance: Chance): number {
    return chance.between(0.2, 1.5) * this.slowness
  }

  committing(backend: Backend): void {
    const { losesAnswers } = this
    if (losesAnswers?.is(0.4) !== true) return
    const end = this.ends.get(backend)
    this.world.after(losesAnswers.between(0, 2.5), () => {
      this.world.tell(`${this.host}: session ${backend.pid} loses its connection around its commit`)
      end?.reset()
    })
  }

  nextXid(): number {
    return ++this.shared.counter.xid
  }

  nextKey(): string {
    return String(++this.shared.counter.key)
  }

  // ---- The log

  private append(
    kind: LogRecord["kind"],
    xid: number,
    changes: ReadonlyArray<Change>,
    bytes: number,
    catalog?: Catalog
  ): LogRecord {
    const record = {
      kind,
      xid,
      changes,
      catalog,
      timeline: this.timeline,
      at: this.world.now,
      end: endOf(this.end, bytes)
    }
    this.log.push(record)
    // The writer of the log comes by every 200 ms, for what nothing waits for.
    this.later(this.chance.between(5, 200), () => this.flush(record.end))
    return record
  }

  logData(xid: number): void {
    this.append("data", xid, [], 60 + this.chance.below(300))
  }

  logCommit(xid: number, changes: ReadonlyArray<Change>, catalog: Catalog | undefined): LogRecord {
    return this.append("commit", xid, changes, 34 + this.chance.below(60), catalog)
  }

  /** A record of its own that standbys may have to end queries for. */
  vacuum(): void {
    if (!this.isStandby && this.state === "up") this.flush(this.append("vacuum", 0, [], 200).end)
  }

  flush(position: number): void {
    if (position <= this.flushed || this.isStandby) return
    this.flushed = position
    this.ship()
  }

  private background(): void {
    if (this.state === "up" && !this.isStandby && !this.isFrozen) this.flush(this.append("running", 0, [], 50).end)
    if (this.state === "up" && this.isStandby) {
      this.minRecoveryEndTimeline = this.log[this.replayedCount - 1]?.timeline ?? 1
    } else this.checkpointTimeline = this.timeline
    this.later(15_000, () => this.background())
  }

  /** Later, in this life of the server. */
  private later(millis: number, run: () => void): void {
    const { life } = this
    this.world.after(millis, () => {
      if (this.life === life) this.step(run)
    })
  }

  // ---- Replication

  private linkTo(other: Server) {
    return this.shared.network.link(this.host, other.host)
  }

  private ship(): void {
    for (const [standby, feed] of this.feeds) {
      const from = feed.sent
      let to = from
      while (to < this.log.length && this.log[to]!.end <= this.flushed) to++
      if (to === from) continue
      const records = this.log.slice(from, to)
      feed.sent = to
      const link = this.linkTo(standby)
      const at = Math.max(this.world.now + link.latency + this.chance.next() * link.jitter, feed.last + 1e-6)
      feed.last = at
      this.world.at(at, () => {
        if (this.feeds.get(standby) !== feed) return
        if (link.state !== "up") standby.loseReceiver(this)
        else standby.step(() => standby.arrive(this, from, records))
      })
    }
  }

  /** A standby asks for the log from where its own ends. */
  private receive(): void {
    if (!this.isStandby || this.receiver !== undefined) return
    this.later(retryInterval * this.chance.between(0.8, 1.2), () => this.receive())
    const from = this.upstream === undefined ? undefined : this.shared.serverOf(this.upstream)
    if (
      this.state === "down" ||
      from === undefined ||
      from === this ||
      from.isStandby ||
      from.state !== "up" ||
      from.isFrozen
    )
      return
    if (this.linkTo(from).state !== "up") return
    const last = this.log[this.log.length - 1]
    // "new timeline forked off current database system timeline before current recovery point", and it tries for ever.
    if (last !== undefined && from.log[this.log.length - 1] !== last) return
    this.receiver = { from, timeline: from.timeline, isOver: false }
    from.feeds.set(this, { sent: this.log.length, confirmed: this.end, last: 0 })
    from.ship()
    from.later(1, () => from.confirm())
  }

  loseReceiver(from: Server): void {
    if (this.receiver?.from !== from) return
    from.feeds.delete(this)
    this.receiver = undefined
    this.later(retryInterval, () => this.receive())
  }

  private arrive(from: Server, index: number, records: ReadonlyArray<LogRecord>): void {
    if (this.receiver?.from !== from || this.state === "down" || this.log.length !== index) return
    this.log.push(...records)
    this.flushed = this.end
    const position = this.end
    const link = this.linkTo(from)
    this.world.after(link.latency + this.chance.next() * link.jitter, () => {
      const feed = from.feeds.get(this)
      if (feed === undefined || link.state !== "up") return
      feed.confirmed = Math.max(feed.confirmed, position)
      from.step(() => from.confirm())
    })
    this.replay()
  }

  needsStandbys(position: number): boolean {
    const confirmed = [...this.feeds.values()].filter((feed) => feed.confirmed >= position).length
    return confirmed < this.shared.synchronous
  }

  onConfirmed(position: number, wake: () => void): () => void {
    const waiting = { position, wake }
    this.confirmations.push(waiting)
    return () => {
      this.confirmations = this.confirmations.filter((one) => one !== waiting)
    }
  }

  /** Wakes those whose commit enough standbys have. */
  confirm(): void {
    for (const waiting of [...this.confirmations]) {
      if (this.needsStandbys(waiting.position)) continue
      this.confirmations = this.confirmations.filter((one) => one !== waiting)
      waiting.wake()
    }
  }

  // ---- Replay

  replay(): void {
    if (this.replayScheduled || this.isReplayPaused || !this.isStandby || this.state !== "up") return
    const next = this.log[this.replayedCount]
    if (next === undefined) return
    this.replayScheduled = true
    const pace = this.replayedCount < this.redone ? this.redoPace : 0
    const due = Math.max(this.world.now + pace + this.chance.between(0.02, 0.4), next.at + this.replayDelay)
    this.later(due - this.world.now, () => {
      this.replayScheduled = false
      if (this.isReplayPaused || !this.isStandby) return
      this.applyNext()
      this.replay()
    })
  }

  private applyNext(): void {
    const record = this.log[this.replayedCount++]!
    this.store.apply(record)
    this.timeline = record.timeline
    if (record.kind === "vacuum") this.conflict()
  }

  /** Ends what is in the way of the replay. */
  conflict(): void {
    for (const backend of [...this.backends]) {
      const detail = "User query might have needed to see row versions that must be removed."
      if (backend.state === "active") {
        const message = "canceling statement due to conflict with recovery"
        backend.cancel(new PgError("40001", message, "ProcessRecoveryConflictInterrupt", "ERROR", { detail }))
      } else if (backend.transaction?.snapshot !== undefined) {
        backend.terminate(
          new PgError(
            "40001",
            "terminating connection due to conflict with recovery",
            "ProcessRecoveryConflictInterrupt",
            "FATAL",
            {
              detail,
              hint: "In a moment you should be able to reconnect to the database and repeat your command."
            }
          )
        )
      }
    }
  }

  /** How many records it had replayed before it was started, and how long each takes again, in milliseconds. */
  private redone = 0
  private redoPace = 0

  setReplayPaused(isPaused: boolean): void {
    this.isReplayPaused = isPaused
    this.replay()
  }

  // ---- What happens to it

  freeze(): void {
    this.leave()
    this.isFrozen = true
  }

  thaw(): void {
    if (this.state === "up") this.comeBack()
    this.isFrozen = false
    const waiting = this.queue
    this.queue = []
    for (const run of waiting) this.step(run)
  }

  /** Since when it has not answered, and when it has again. */
  private awaySince = Number.NEGATIVE_INFINITY
  private awayUntil = Number.NEGATIVE_INFINITY

  private leave(): void {
    if (this.awayUntil === Number.POSITIVE_INFINITY) return
    this.awaySince = this.world.now
    this.awayUntil = Number.POSITIVE_INFINITY
  }

  private comeBack(): void {
    this.awayUntil = Math.min(this.awayUntil, this.world.now)
  }

  /** Whether it has not answered for so long, and again for less than that, in milliseconds. */
  wasAway(millis: number, within: number): boolean {
    const { now } = this.world
    return now - this.awayUntil < within && Math.min(now, this.awayUntil) - this.awaySince >= millis
  }

  /** Stops at once. `host`: and with it its host, so that nothing is said to the clients. */
  crash(what: "process" | "host"): void {
    if (this.state === "down") return
    this.leave()
    this.life++
    this.state = "down"
    this.isVanished = what === "host"
    this.isFrozen = false
    this.queue = []
    for (const [backend, end] of [...this.ends]) {
      backend.kill()
      if (what === "host") end.vanish()
      else end.reset()
    }
    this.dropReplication()
    this.confirmations = []
    if (!this.isStandby) {
      const before = this.end
      this.log = this.log.filter(({ end }) => end <= this.flushed)
      if (this.end < before) this.shared.forked(this.timeline, this.timeline, this.end)
    }
  }

  private dropReplication(): void {
    this.receiver?.from.feeds.delete(this)
    this.receiver = undefined
    for (const standby of [...this.feeds.keys()]) standby.loseReceiver(this)
  }

  /** A standby comes back with a copy of its data from so long ago, in milliseconds, and needs some time to replay the rest. */
  restore(age: number, millis: number): void {
    if (this.state !== "down" || !this.isStandby) return
    const since = this.world.now - age
    while (this.replayedCount > 1 && this.log[this.replayedCount - 1]!.at > since) this.replayedCount--
    this.minRecoveryEndTimeline = this.log[this.replayedCount - 1]!.timeline
    this.start(200)
    this.isReplayPaused = true
    this.later(millis, () => this.setReplayPaused(false))
  }

  /**
   * Starts what is down. It is up after so many milliseconds at most. A standby with a fresh copy is up only after it has
   * replayed what there was at the copy's end.
   */
  start(within = 1500, isCopy = false): void {
    this.isWanted = this.state === "stopping"
    if (this.state !== "down") return
    this.life++
    this.state = "starting"
    this.isVanished = false
    this.startedAt = this.world.date
    this.store = new Store(schema)
    this.locks = new Locks()
    this.replayScheduled = false
    this.isReplayPaused = false
    this.promotedAt = undefined
    // What a standby had replayed, it may have to replay again.
    const again = this.isStandby ? this.chance.below(20) : 0
    const count = this.isStandby ? Math.max(1, this.replayedCount - (isCopy ? 0 : again)) : this.log.length
    this.redone = this.replayedCount
    this.redoPace = this.chance.is(0.4) ? this.chance.between(10, 200) : 0
    this.replayedCount = 0
    while (this.replayedCount < count) {
      const record = this.log[this.replayedCount++]!
      this.store.apply(record)
      this.timeline = record.timeline
    }
    this.later(this.chance.between(50, within), () => {
      this.state = "up"
      this.comeBack()
      this.later(15_000, () => this.background())
      this.replay()
      this.receive()
    })
  }

  /** A shutdown that says so to every client, and gives the standbys what they do not have yet. */
  stop(): void {
    if (this.state !== "up") return
    this.state = "stopping"
    this.flush(this.end)
    for (const backend of [...this.backends]) backend.terminate(shutDown)
    this.awaitFeeds(this.world.now + patience)
  }

  private awaitFeeds(until: number): void {
    this.later(5, () => {
      const isDone = [...this.feeds.values()].every(({ confirmed }) => confirmed >= this.flushed)
      if (!isDone && this.world.now < until) return this.awaitFeeds(until)
      this.crash("process")
      if (this.isWanted) this.start()
    })
  }

  promote(): void {
    if (!this.isStandby || this.state !== "up") return
    this.isReplayPaused = false
    while (this.replayedCount < this.log.length) this.applyNext()
    this.receiver?.from.feeds.delete(this)
    this.receiver = undefined
    this.isStandby = false
    this.upstream = undefined
    const parent = this.timeline
    const at = this.end
    this.promotedAt = at
    this.timeline = ++this.shared.counter.timeline
    this.shared.forked(this.timeline, parent, at)
    this.flushed = this.end
    this.flush(this.append("running", 0, [], 50).end)
  }

  /** Follows another one from now on. */
  follow(host: string): void {
    if (!this.isStandby) return
    this.upstream = host
    if (this.receiver !== undefined) this.loseReceiver(this.receiver.from)
    else this.later(1, () => this.receive())
  }

  /** A new standby with a copy of another server's data. */
  clone(from: Server): void {
    if (this.state !== "down") return
    this.isStandby = true
    this.upstream = from.host
    this.log = from.log.filter(({ end }) => end <= from.flushed)
    this.replayedCount = this.log.length
    this.flushed = this.end
    this.minRecoveryEndTimeline = from.timeline
    this.start(undefined, true)
  }
}

const shutDown = new PgError(
  "57P01",
  "terminating connection due to administrator command",
  "ProcessInterrupts",
  "FATAL"
)
