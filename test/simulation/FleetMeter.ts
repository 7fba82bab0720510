/** What a fleet costs its servers, counted where the servers and the network see it. */
import type { Backend, Observer } from "./Backend.js"
import type { World } from "./World.js"

/** What a statement is for. */
export type Purpose = "work" | "probe" | "question" | "other"

interface Attempt {
  readonly at: number
  readonly client: string
}

/** How many connections a server has. */
export interface Connections {
  /** The most on any server, and of all servers together, on average. */
  readonly most: number
  readonly all: number
  /** Of those, what probes have for themselves. */
  readonly probes: number
}

/** How often something begins. */
export interface Peak {
  readonly all: number
  /** From the router that has the most. */
  readonly one: number
}

const purposeOf = (sql: string): Purpose => {
  if (sql.includes("register") || sql.includes("account")) return "work"
  if (sql.includes("pg_control_system")) return "probe"
  return sql.includes("pg_last_wal_replay_lsn") ? "question" : "other"
}

/** The texts of a run are few. */
const purposes = new Map<string, Purpose>()

const purposeOnce = (sql: string): Purpose => {
  let purpose = purposes.get(sql)
  if (purpose === undefined) {
    purpose = purposeOf(sql)
    purposes.set(sql, purpose)
  }
  return purpose
}

interface Second {
  readonly statements: Record<Purpose, number>
  /** Reads of the workload, by server. */
  readonly reads: Map<string, number>
}

const nothing = { work: 0, probe: 0, question: 0, other: 0 }

export class Meter {
  private readonly attempts: Array<Attempt> = []
  private readonly seconds = new Map<number, Second>()
  private readonly samples: Array<{ readonly at: number; readonly of: ReadonlyArray<Connections> }> = []
  /** When each router has first written on a server that has become the primary. */
  readonly wroteOn = new Map<string, Map<string, number>>()

  constructor(private readonly world: World) {}

  readonly observer: Observer = {
    began: (backend, sql) => {
      const purpose = purposeOnce(sql)
      const second = this.second()
      second.statements[purpose]++
      if (purpose !== "work" || sql.startsWith("UPDATE")) return
      const { host } = backend.server
      second.reads.set(host, (second.reads.get(host) ?? 0) + 1)
    },
    ran: () => {},
    failed: () => {},
    logged: (backend, _, record) => {
      const { host } = backend.server
      const of = this.wroteOn.get(host) ?? new Map<string, number>()
      this.wroteOn.set(host, of)
      const { application } = backend
      if (record.kind === "commit" && !of.has(application)) of.set(application, this.world.now)
    },
    ended: () => {}
  }

  /** A router connects to a server, for whatever it does there. */
  connects(client: string): void {
    this.attempts.push({ at: this.world.now, client })
  }

  /** Looks at the connections of every server. */
  sample(servers: ReadonlyArray<{ readonly backends: ReadonlySet<Backend> }>): void {
    const of = servers.map(({ backends }) => {
      let probes = 0
      for (const { application } of backends) if (application.endsWith(" health")) probes++
      return { most: backends.size, all: backends.size, probes }
    })
    this.samples.push({ at: this.world.now, of })
  }

  private second(): Second {
    const number = Math.floor(this.world.now / 1000)
    let second = this.seconds.get(number)
    if (second === undefined) {
      second = { statements: { ...nothing }, reads: new Map() }
      this.seconds.set(number, second)
    }
    return second
  }

  /** Statements a second, by what they were for. */
  statements(from: number, to: number): Readonly<Record<Purpose, number>> {
    const sum = { ...nothing }
    // Whole seconds alone: others hold what comes before and after.
    const [first, end] = [Math.ceil(from / 1000), Math.floor(to / 1000)]
    for (const [number, { statements }] of this.seconds) {
      if (number < first || number >= end) continue
      for (const purpose of Object.keys(sum) as ReadonlyArray<Purpose>) sum[purpose] += statements[purpose]
    }
    const seconds = end - first
    return {
      work: sum.work / seconds,
      probe: sum.probe / seconds,
      question: sum.question / seconds,
      other: sum.other / seconds
    }
  }

  connections(from: number, to: number): Connections {
    const samples = this.samples.filter(({ at }) => at >= from && at < to)
    const sumOf = (field: "all" | "probes") =>
      samples.reduce((sum, { of }) => sum + of.reduce((sum, one) => sum + one[field], 0), 0) / samples.length
    return {
      most: Math.max(...samples.flatMap(({ of }) => of.map(({ most }) => most))),
      all: sumOf("all"),
      probes: sumOf("probes")
    }
  }

  /** The most attempts to connect within any time as long as that. */
  peak(from: number, to: number, millis: number): Peak {
    const within = this.attempts.filter(({ at }) => at >= from && at < to)
    const most = (all: ReadonlyArray<Attempt>): number => {
      let first = 0
      let best = 0
      for (let last = 0; last < all.length; last++) {
        while (all[last]!.at - all[first]!.at >= millis) first++
        best = Math.max(best, last - first + 1)
      }
      return best
    }
    const each = new Map<string, Array<Attempt>>()
    for (const attempt of within) {
      const own = each.get(attempt.client)
      if (own === undefined) each.set(attempt.client, [attempt])
      else own.push(attempt)
    }
    return { all: most(within), one: Math.max(0, ...[...each.values()].map(most)) }
  }

  /** The share of the reads that run on one server, for each second. */
  shares(host: string, from: number, to: number): ReadonlyArray<number> {
    const shares: Array<number> = []
    for (let number = Math.floor(from / 1000); number < Math.floor(to / 1000); number++) {
      const reads = this.seconds.get(number)?.reads ?? new Map<string, number>()
      const all = [...reads.values()].reduce((sum, one) => sum + one, 0)
      shares.push(all === 0 ? 0 : (reads.get(host) ?? 0) / all)
    }
    return shares
  }

  /** How long after a moment so many of the routers have written on a server. `undefined`: not that many have. */
  wroteWithin(host: string, since: number, routers: number, share: number): number | undefined {
    const times = [...(this.wroteOn.get(host)?.values() ?? [])].sort((a, b) => a - b)
    const last = times[Math.ceil(routers * share) - 1]
    return last === undefined ? undefined : last - since
  }
}
