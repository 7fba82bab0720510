/** A replica that is slow now and then, and reads that do not wait for it. */
import { Effect } from "effect"
import { Consistency, type RouterConfig } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Proxy from "../../support/proxy.js"
import type { Pace } from "../Pace.js"
import * as Rig from "../Rig.js"
import { type Check, count, type Row } from "../Row.js"
import { options } from "../Servers.js"
import { noFailedRead, noFailure } from "./Killed.js"

/** Of so many queries one is answered late. */
const every = 10

const commandComplete = "C"
const errorResponse = "E"

/** A proxy that counts the queries, and answers some of them late. */
const proxy = (node: PgCluster.Node, late: number) =>
  Effect.map(Proxy.make(node), (proxy) => {
    const counted = { proxy, queries: 0, delayed: 0 }
    proxy.onMessage = (type) => {
      if (type !== commandComplete && type !== errorResponse) return undefined
      counted.queries++
      if (late === 0 || type !== commandComplete || counted.queries % every !== 0) return undefined
      counted.delayed++
      return Effect.sleep(late)
    }
    return counted
  })

/** What a router has done in one turn. */
interface Turn {
  readonly p50: number
  readonly p99: number
  readonly reads: number
  readonly queries: number
}

/** How long one of the two runs before it is the other's turn, in milliseconds. */
const turnMillis = 2_000

/** Runs one of the two loads for a while. */
const turn = ({ load, pace }: Rig.Rig, queries: () => number): Effect.Effect<Turn> =>
  Effect.gen(function* () {
    const before = queries()
    const phase = load.tally.begin("turn")
    yield* load.resume
    yield* Effect.sleep(Math.min(turnMillis, pace.fault / 3))
    yield* load.pause(5_000)
    const { read, stream, "session of reads": sessions } = phase.done
    return {
      p50: phase.percentile(50),
      p99: phase.percentile(99),
      reads: read + stream + 3 * sessions,
      queries: queries() - before
    }
  })

const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

const sum = (turns: ReadonlyArray<Turn>, of: "reads" | "queries") => turns.reduce((all, one) => all + one[of], 0)

/** What the machine does meanwhile happens to both: only what was measured in one round is compared. */
const compare = (
  without: ReadonlyArray<Turn>,
  hedged: ReadonlyArray<Turn>,
  delayed: number,
  { hedgeAfter }: Pace
): ReadonlyArray<Check> => {
  const ratios = hedged.map(({ p99 }, round) => p99 / without[round]!.p99)
  const [ratio, p99, p99Without, p50, p50Without] = [
    ratios,
    hedged.map((one) => one.p99),
    without.map((one) => one.p99),
    hedged.map((one) => one.p50),
    without.map((one) => one.p50)
  ].map(median)
  const more = sum(hedged, "queries") / sum(hedged, "reads") / (sum(without, "queries") / sum(without, "reads")) - 1
  return [
    {
      measured: `p99 ${p99!.toFixed(0)} ms with hedging after ${hedgeAfter} ms, ${p99Without!.toFixed(0)} ms without: ${ratio!.toFixed(2)} x, the median of ${ratios.length} rounds (p50 ${p50!.toFixed(1)} ms, ${p50Without!.toFixed(1)} ms)`,
      met: ratio! <= 0.3,
      evidence: [`rounds: ${ratios.map((one) => one.toFixed(2)).join(", ")}`]
    },
    {
      measured: `${(100 * more).toFixed(1)}% more queries, ${count(delayed)} late answers to ${count(sum(hedged, "reads") + sum(without, "reads"))} reads`,
      met: more <= 0.12 && delayed > 0
    }
  ]
}

export const row: Row = {
  name: "slow-replica",
  fault: "one of two replicas answers every tenth query 200 ms late, hedging on",
  mustShow: "p99 <= 0.3 x of the same run without hedging; <= 12% more queries",
  run: (cluster, { rest, ...times }) =>
    Effect.gen(function* () {
      // Every message passes this process twice more than elsewhere: busier, it would measure itself.
      const pace = { ...times, rest: Math.max(100, rest) }
      const [slow, fast] = cluster.replicas
      const proxies = new Map([
        [slow!.name, yield* proxy(slow!, pace.late)],
        [fast!.name, yield* proxy(fast!, 0)]
      ])
      const total = (of: "queries" | "delayed") => [...proxies.values()].reduce((all, one) => all + one[of], 0)
      const queries = () => total("queries")
      const rig = <E>(hedge: RouterConfig.Options["hedge"], body: Parameters<typeof Rig.run<E>>[1]) =>
        Rig.run(
          {
            ...Rig.on(cluster, pace, hedge === undefined ? "slow" : "hedged"),
            // The other one has sockets too.
            isAlone: hedge === undefined,
            router: (name) => ({
              ...options(cluster, pace, name, (node) => proxies.get(node.name)?.proxy ?? node),
              // The questions for positions that go along with reads would count as queries.
              consistency: Consistency.eventual(),
              ...(hedge === undefined ? {} : { hedge })
            })
          },
          body
        )
      return yield* rig(undefined, (without) =>
        Effect.gen(function* () {
          yield* without.load.pause(5_000)
          const measured = yield* rig(pace.hedgeAfter, (hedged) =>
            Effect.gen(function* () {
              yield* hedged.load.pause(5_000)
              const before = total("delayed")
              const turns: { readonly without: Array<Turn>; readonly hedged: Array<Turn> } = { without: [], hedged: [] }
              for (let round = 0; round < rounds(pace); round++) {
                turns.without.push(yield* turn(without, queries))
                turns.hedged.push(yield* turn(hedged, queries))
              }
              yield* hedged.load.resume
              return [
                ...compare(turns.without, turns.hedged, total("delayed") - before, pace),
                noFailedRead(hedged),
                noFailure(hedged)
              ]
            })
          )
          yield* without.load.resume
          return [...measured.figures, ...measured.always.filter(({ met }) => !met), noFailure(without)]
        })
      )
    })
}

const rounds = ({ fault }: Pace) => Math.max(3, Math.round(fault / turnMillis))
