/**
 * What really happened, as the servers know it, and what has to hold of it. Everything that the workload learns is compared
 * with this.
 */
import type { Backend, Observer, Transaction } from "./Backend.js"
import type { Cluster, Commit } from "./Cluster.js"
import { type LogRecord, logStart } from "./Store.js"
import type { World } from "./World.js"

/** The invariants, as the tables name them. */
export const invariants = [
  "own writes",
  "one snapshot",
  "no foreign rows",
  "run once",
  "outcome",
  "atomic",
  "hooks",
  "settings",
  "no foreign cancel",
  "no strange error",
  "connections",
  "no storm",
  "ends",
  "heals",
  "newest timeline",
  "listens",
  "no crash"
] as const

export type Invariant = (typeof invariants)[number]

export interface Violation {
  readonly invariant: Invariant
  readonly message: string
}

/** What a statement of an operation has to find on its connection. */
export interface Expectation {
  readonly tenant: string | undefined
  readonly mark: string | undefined
}

/** The value that every register of a system has at first. */
export const initialOf = (system: string): string => `initial of ${system}`

/** Until when faults go on that may keep a router from noticing which server takes the writes. */
export class Noise {
  private end = 0

  until(moment: number): void {
    this.end = Math.max(this.end, moment)
  }

  /** For how long it has been calm. */
  calmFor(now: number): number {
    return now - this.end
  }
}

const isOp = (text: unknown): text is string => typeof text === "string" && /^f\d+\.\d+$/.test(text)

export class Truth {
  readonly violations: Array<Violation> = []
  readonly commits = new Map<string, Commit>()
  readonly expected = new Map<string, Expectation>()
  /** How often each invariant was looked at. */
  readonly checks: Partial<Record<Invariant, number>> = {}
  statements = 0
  private readonly never = new Map<string, string>()
  private readonly together: Array<{ readonly name: string; readonly ops: ReadonlyArray<string> }> = []
  readonly noise = new Noise()
  /** How long a router may take to notice a promotion while it is calm, in milliseconds. */
  noticesWithin = Number.POSITIVE_INFINITY
  private readonly clusters = new Map<string, Cluster>()
  /** Statements that each server has run since it was last asked. */
  readonly served = new Map<string, number>()

  constructor(readonly world: World) {}

  /** Servers whose commits are known from now on, and what their registers are at first. */
  add(cluster: Cluster, initial: string): void {
    for (const { host } of cluster.servers) this.clusters.set(host, cluster)
    this.commits.set(initial, { cluster, timeline: 1, end: logStart + 1000, xid: 1 })
    cluster.onCrash = (timeline, at) => this.crashed(cluster, timeline, at)
  }

  violate(invariant: Invariant, message: string): void {
    this.violations.push({ invariant, message })
    this.world.tell(`VIOLATION of "${invariant}": ${message}`)
  }

  check(invariant: Invariant, holds: boolean, message: () => string): void {
    this.checks[invariant] = (this.checks[invariant] ?? 0) + 1
    if (!holds) this.violate(invariant, message())
  }

  readonly observer: Observer = {
    began: (backend, sql) => {
      const [op] = backend.params
      if (!isOp(op)) {
        this.world.tell(`${backend.server.host}: session ${backend.pid} runs ${sql.slice(0, 60)}`)
        return
      }
      this.statements++
      const { host } = backend.server
      this.served.set(host, (this.served.get(host) ?? 0) + 1)
      this.world.tell(`${host}: session ${backend.pid} runs ${op}`)
      this.checkSettings(op, backend)
      if (backend.transaction?.isBlock !== true) this.checkTimeline(op, backend)
    },
    ran: () => {},
    failed: (backend, error) => {
      this.world.tell(`${backend.server.host}: session ${backend.pid} fails with ${error.code} ${error.message}`)
    },
    logged: (backend, transaction, record) => this.logged(backend, transaction, record),
    ended: (backend, transaction, position) => {
      if (transaction.changes.length > 0 || position !== undefined) {
        this.world.tell(
          `${backend.server.host}: session ${backend.pid} ${position === undefined ? "rolled back" : `committed at ${position.end} on timeline ${position.timeline}`}`
        )
      }
    }
  }

  private checkSettings(op: string, backend: Backend): void {
    const expected = this.expected.get(op)
    if (expected === undefined) return
    const { mark, tenant } = expected
    const found = backend.setting("app.tenant") ?? ""
    this.check(
      "settings",
      found === (tenant ?? ""),
      () => `${op} ran on ${backend.server.host} for tenant "${found}", not "${tenant ?? ""}"`
    )
    if (mark === undefined) return
    const set = backend.setting("app.mark") ?? ""
    this.check(
      "settings",
      set === mark,
      () => `${op} ran on ${backend.server.host} where app.mark is "${set}", not "${mark}"`
    )
  }

  /** Nothing begins on a server that has not followed the promotion of another one. */
  private checkTimeline(op: string, { server: { host } }: Backend): void {
    const { now } = this.world
    const cluster = this.clusters.get(host)!
    const fork = cluster.forks[cluster.forks.length - 1]
    if (fork === undefined || now - fork.since < this.noticesWithin || cluster.isAway(fork.timeline)) return
    if (this.noise.calmFor(now) < this.noticesWithin) return
    const followed = cluster.servers.find((server) => server.host === host)?.lastTimeline ?? 0
    this.check(
      "newest timeline",
      followed >= fork.timeline,
      () =>
        `${op} runs on ${host}, which is on timeline ${followed}, ${now - fork.since} ms after timeline ${fork.timeline} began`
    )
  }

  private logged(backend: Backend, { changes }: Transaction, record: LogRecord): void {
    const { end, timeline, xid } = record
    const cluster = this.clusters.get(backend.server.host)!
    cluster.wrote(backend.client, timeline)
    for (const { row, table } of changes) {
      const op = table === "register" ? row?.value : table === "entry" ? row?.op : undefined
      if (typeof op !== "string" || !isOp(op)) continue
      const before = this.commits.get(op)
      this.check(
        "run once",
        before === undefined || before.xid === xid,
        () => `${op} was committed twice: in transactions ${before?.xid} and ${xid} (${backend.server.host})`
      )
      this.commits.set(op, { cluster, end, timeline, xid })
    }
  }

  /** Of a server that has crashed: commits that were in its memory alone are lost. */
  private crashed(cluster: Cluster, timeline: number, at: number): void {
    for (const commit of this.commits.values()) {
      if (commit.cluster === cluster && commit.timeline === timeline && commit.end > at) cluster.lose(commit.xid)
    }
  }

  /** The caller was told that an operation was not done. */
  notDone(op: string, how: string): void {
    this.never.set(op, how)
  }

  /** Operations that are committed together or not at all. */
  atomic(name: string, ops: ReadonlyArray<string>): void {
    if (ops.length > 0) this.together.push({ name, ops })
  }

  /** The caller was told that an operation was done. */
  done(op: string, how: string): void {
    this.check("outcome", this.commits.has(op), () => `${op} was reported as done (${how}), and was never committed`)
  }

  /** When everything has come to rest. */
  conclude(): void {
    for (const [op, how] of this.never) {
      this.check("outcome", !this.commits.has(op), () => `${op} was reported as not done (${how}), and is committed`)
    }
    for (const { name, ops } of this.together) {
      const xids = new Set(ops.map((op) => this.commits.get(op)?.xid))
      this.check(
        "atomic",
        xids.size === 1,
        () =>
          `${name} is committed in part: ${ops.map((op) => `${op} ${this.commits.get(op)?.xid ?? "not"}`).join(", ")}`
      )
    }
  }
}

/** What a flow has seen of each register of each system. */
export class Seen {
  private readonly commits = new Map<string, ReadonlyArray<Commit>>()

  copy(): Seen {
    const copy = new Seen()
    for (const [register, commits] of this.commits) copy.commits.set(register, commits)
    return copy
  }

  /** What a token of a system says. */
  of({ name }: Cluster): Seen {
    const of = new Seen()
    for (const [key, commits] of this.commits) if (key.startsWith(`${name} `)) of.commits.set(key, commits)
    return of
  }

  absorb(other: Seen): void {
    for (const [key, commits] of other.commits) for (const commit of commits) this.note(key, commit)
  }

  add(register: number, commit: Commit): void {
    this.note(`${commit.cluster.name} ${register}`, commit)
  }

  private note(key: string, commit: Commit): void {
    const { cluster } = commit
    const before = this.commits.get(key) ?? []
    if (before.some((one) => one.xid === commit.xid)) return
    this.commits.set(key, [...before.filter((one) => !cluster.includes(commit, one)), commit])
  }

  /** What a read of a router that shows a commit has to show, and does not. */
  missing(register: number, shown: Commit, client: string): Commit | undefined {
    const { cluster } = shown
    return (this.commits.get(`${cluster.name} ${register}`) ?? []).find(
      (seen) => !cluster.isLost(seen, client) && !cluster.includes(shown, seen)
    )
  }
}
