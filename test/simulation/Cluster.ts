/** Servers of one system, and what became of every commit. */

import type { Observer } from "./Backend.js"
import type { Network } from "./Network.js"
import { Server } from "./Server.js"
import { type Change, type LogRecord, logStart } from "./Store.js"
import type { World } from "./World.js"

/** A commit of an operation of the workload. */
export interface Commit {
  readonly cluster: Cluster
  readonly timeline: number
  readonly end: number
  readonly xid: number
}

type Point = Omit<Commit, "cluster">

export interface ClusterOptions {
  readonly replicas: number
  readonly synchronous: number
  readonly isAsynchronous: boolean
  readonly isPrivileged: boolean
  readonly maxConnections: number
  /** Rows that are there from the start. */
  readonly rows: ReadonlyArray<Change>
}

interface Fork {
  readonly timeline: number
  readonly parent: number
  readonly at: number
  /** When it was. */
  readonly since: number
}

export class Cluster {
  readonly servers: ReadonlyArray<Server>
  /** How many standbys have to have a commit before it is answered, from now on. */
  readonly setSynchronous: (standbys: number) => void
  readonly forks: Array<Fork> = []
  /** Commits that a crash has lost, by their transaction. */
  private readonly lost = new Set<number>()

  constructor(
    readonly world: World,
    readonly network: Network,
    readonly name: string,
    options: ClusterOptions,
    observer: Observer
  ) {
    const servers: Array<Server> = []
    const shared = {
      world,
      network,
      observer,
      system: `76${[...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7)}00000000`,
      synchronous: options.synchronous,
      isAsynchronous: options.isAsynchronous,
      isPrivileged: options.isPrivileged,
      maxConnections: options.maxConnections,
      serverOf: (host: string) => servers.find((server) => server.host === host),
      counter: { xid: 1000, timeline: 1, key: 0 },
      forked: (timeline: number, parent: number, at: number) => {
        world.tell(
          timeline === parent
            ? `${name}: lost what was past ${at} on timeline ${parent}`
            : `${name}: timeline ${timeline} forks off ${parent} at ${at}`
        )
        if (timeline !== parent) this.forks.push({ timeline, parent, at, since: world.now })
        else this.onCrash(timeline, at)
      }
    }
    this.setSynchronous = (standbys) => {
      shared.synchronous = standbys
      for (const server of servers) server.confirm()
    }
    const first: LogRecord = { kind: "commit", xid: 1, changes: options.rows, timeline: 1, at: 0, end: logStart + 1000 }
    for (let i = 0; i <= options.replicas; i++) {
      const server = new Server(shared, `${name}${i + 1}`, i === 0 ? undefined : `${name}1`)
      server.log.push(first)
      server.flushed = first.end
      server.store.apply(first)
      server.replayedCount = 1
      servers.push(server)
    }
    this.servers = servers
  }

  /** Called after a crash that has lost the unwritten end of a server's WAL, with the commits in it. Set by `Truth`. */
  onCrash: (timeline: number, at: number) => void = () => {}

  lose(xid: number): void {
    this.lost.add(xid)
  }

  /** After how long without an answer a router may go back to an older timeline, and until when it notices an answer, in milliseconds. */
  ignoresAfter = Number.POSITIVE_INFINITY
  noticesWithin = 0

  /** Whether all servers on a timeline, or a later one, are away for so long that an older one may be used. */
  isAway(timeline: number): boolean {
    return this.servers.every(
      (server) => server.lastTimeline < timeline || server.wasAway(this.ignoresAfter, this.noticesWithin)
    )
  }

  /** The newest timeline that each router has written on. */
  private readonly writtenOn = new Map<string, number>()

  wrote(client: string, timeline: number): void {
    this.writtenOn.set(client, Math.max(timeline, this.writtenOn.get(client) ?? 0))
  }

  /**
   * Whether a router need not know of a timeline: it reaches no server on it, or not yet for as long as it takes to notice; and
   * that began before it has noticed, or lasts for so long that it may go back to an older one.
   */
  isHiddenFrom(client: string, timeline: number): boolean {
    const fork = this.forks.find((fork) => fork.timeline === timeline)
    if (fork === undefined) return false
    const { now } = this.world
    const noticed = (this.writtenOn.get(client) ?? 0) >= timeline ? fork.since : fork.since + this.noticesWithin
    return this.servers.every(({ host, lastTimeline }) => {
      if (lastTimeline < timeline) return true
      const { since, until } = this.lastCut(client, host)
      return now - until < this.noticesWithin && (since < noticed || Math.min(now, until) - since >= this.ignoresAfter)
    })
  }

  /** The last time that a router could not reach a server, with those before it that were over for less than it takes to notice. */
  private lastCut(client: string, host: string): { readonly since: number; readonly until: number } {
    const { cuts } = this.network.link(client, host)
    let i = cuts.length - 1
    if (i < 0) return { since: Number.POSITIVE_INFINITY, until: Number.NEGATIVE_INFINITY }
    const { until } = cuts[i]!
    while (i > 0 && cuts[i]!.since - cuts[i - 1]!.until < this.noticesWithin) i--
    return { since: cuts[i]!.since, until }
  }

  /** The server that the newest timeline is on. */
  get primary(): Server | undefined {
    return this.servers
      .filter((server) => !server.isStandby)
      .reduce<Server | undefined>(
        (best, server) => (best === undefined || server.timeline > best.timeline ? server : best),
        undefined
      )
  }

  /** Whether a commit is not part of the newest timeline that a router may know: a crash or a promotion has lost it. */
  isLost(commit: Point, client: string): boolean {
    const newest = this.forks[this.forks.length - 1]?.timeline ?? 1
    return (
      this.lost.has(commit.xid) ||
      this.isAway(commit.timeline) ||
      this.isHiddenFrom(client, commit.timeline) ||
      !this.includes({ timeline: newest, end: Number.POSITIVE_INFINITY, xid: 0 }, commit)
    )
  }

  /** Whether a server's rows that show one commit have to show another one too. */
  includes(later: Point, earlier: Point): boolean {
    if (earlier.xid === later.xid) return true
    let { timeline } = later
    let limit = later.end
    while (timeline !== earlier.timeline) {
      const fork = this.forks.find((fork) => fork.timeline === timeline)
      if (fork === undefined) return false
      timeline = fork.parent
      limit = Math.min(limit, fork.at)
    }
    return earlier.end <= limit
  }
}
