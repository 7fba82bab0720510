/** A replica that is slow now and then, and reads that do not wait for it. */
import { Effect } from "effect"
import type { RouterConfig } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Proxy from "../../support/proxy.js"
import type { Pace } from "../Pace.js"
import * as Rig from "../Rig.js"
import { type Check, count, type Measured, type Row } from "../Row.js"
import { options } from "../Servers.js"
import { noFailedRead, noFailure } from "./Killed.js"

/** Every so many queries one is answered late, by so many milliseconds. */
const every = 10
const late = 200

/** How long a read waits before it also goes to the other replica, in milliseconds. */
const after = 20

const commandComplete = "C"
const errorResponse = "E"

/** A proxy that counts the queries, and answers some of them late. */
const proxy = (node: PgCluster.Node, isSlow: boolean) =>
  Effect.map(Proxy.make(node), (proxy) => {
    const counted = { proxy, queries: 0, delayed: 0 }
    proxy.onMessage = (type) => {
      if (type !== commandComplete && type !== errorResponse) return undefined
      counted.queries++
      if (!isSlow || type !== commandComplete || counted.queries % every !== 0) return undefined
      counted.delayed++
      return Effect.sleep(late)
    }
    return counted
  })

type Counted = Effect.Effect.Success<ReturnType<typeof proxy>>

interface Figures {
  p50: number
  p99: number
  /** Queries that the replicas got, for each read. */
  queriesEach: number
  delayed: number
  reads: number
}

const measure = (
  cluster: PgCluster.Cluster,
  pace: Pace,
  proxies: ReadonlyMap<string, Counted>,
  hedge: RouterConfig.Options["hedge"]
) => {
  const figures: Figures = { p50: 0, p99: 0, queriesEach: 0, delayed: 0, reads: 0 }
  const total = (of: "queries" | "delayed") => [...proxies.values()].reduce((sum, one) => sum + one[of], 0)
  return Effect.map(
    Rig.run(
      {
        name: hedge === undefined ? "slow" : "hedged",
        pace,
        router: (name) => ({
          ...options(cluster, pace, name, (node) => proxies.get(node.name)?.proxy ?? node),
          ...(hedge === undefined ? {} : { hedge })
        }),
        servers: Effect.succeed({ running: cluster.nodes, primary: cluster.primary })
      },
      (rig) =>
        Effect.gen(function* () {
          const { load } = rig
          const before = { queries: total("queries"), delayed: total("delayed") }
          const phase = load.tally.begin("slow")
          yield* Effect.sleep(pace.fault)
          load.tally.begin("after")
          figures.p50 = phase.percentile(50)
          figures.p99 = phase.percentile(99)
          figures.delayed = total("delayed") - before.delayed
          const { read, stream, "session of reads": sessions } = phase.done
          figures.reads = read + stream + 3 * sessions
          figures.queriesEach = (total("queries") - before.queries) / figures.reads
          return [noFailedRead(rig), noFailure(rig)]
        })
    ),
    (measured) => ({ measured, figures })
  )
}

const compare = (without: Figures, hedged: Figures): ReadonlyArray<Check> => {
  const ratio = hedged.p99 / without.p99
  const more = hedged.queriesEach / without.queriesEach - 1
  return [
    {
      measured: `p99 ${hedged.p99.toFixed(0)} ms with hedging after ${after} ms, ${without.p99.toFixed(0)} ms without: ${ratio.toFixed(2)} x (p50 ${hedged.p50.toFixed(1)} ms, ${without.p50.toFixed(1)} ms)`,
      met: ratio <= 0.3
    },
    {
      measured: `${(100 * more).toFixed(1)}% more queries for each of ${count(hedged.reads)} reads, ${count(hedged.delayed)} of them late`,
      met: more <= 0.12 && hedged.delayed > 0 && without.delayed > 0
    }
  ]
}

const together = (figures: ReadonlyArray<Check>, ...all: ReadonlyArray<Measured>): Measured => ({
  figures: [...figures, ...all.flatMap((one) => one.figures)],
  always: all.flatMap(({ always }) => always)
})

export const row: Row = {
  name: "slow-replica",
  fault: "one of two replicas answers every tenth query 200 ms late, hedging on",
  mustShow: "p99 <= 0.3 x of the same run without hedging; <= 12% more queries",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const [slow, fast] = cluster.replicas
      const proxies = new Map([
        [slow!.name, yield* proxy(slow!, true)],
        [fast!.name, yield* proxy(fast!, false)]
      ])
      const without = yield* measure(cluster, pace, proxies, undefined)
      const hedged = yield* measure(cluster, pace, proxies, { after })
      return together(compare(without.figures, hedged.figures), without.measured, hedged.measured)
    })
}
