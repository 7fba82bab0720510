/** Reads that wait in the server, through pools that are the bottleneck: every replica is to add its share. */
import { Effect } from "effect"
import { type Costs, compare, effects, type Pace, perRound, summary } from "./Measure.js"
import { digits, type Row } from "./Row.js"
import { cluster, router } from "./Servers.js"

const connections = 5

/** Fibers for each connection: more than one, so that requests always wait at a pool. */
const fibersEach = 3

const counts = [1, 2, 4]

/**
 * How many times as long as others these take their turns, and so many times as rarely. All reads of a turn begin in the same
 * moment, and stay in step for some 150 ms, in which one replica makes 1,000 a second and four 910 each; afterwards it is 950
 * and 940. When a turn ends the rest of them runs out on each replica at a time of its own.
 */
const longer = 12

export const run = (pace: Pace) =>
  Effect.gen(function* () {
    const servers = yield* cluster(Math.max(...counts))
    const contestants = yield* Effect.forEach(counts, (count) =>
      Effect.map(
        router(servers, servers.replicas.slice(0, count), { maxConnections: connections }),
        ({ client: sql }) => effects(count * connections * fibersEach, () => sql`SELECT pg_sleep(${0.005})`)
      )
    )
    const [one, ...more] = yield* compare(contestants, {
      ...pace,
      rounds: Math.max(3, Math.round((pace.rounds * 2) / longer)),
      sliceMillis: pace.sliceMillis * longer
    })
    const rate = (costs: Costs) => digits(1_000_000 / summary(costs).median)
    return more.map((costs, i): Row => {
      const count = counts[i + 1]!
      return {
        section: "replicas",
        what: `reads on ${count} replicas, pools of ${connections}, 5 ms in the server`,
        against: `${count} times 1 replica`,
        reach: { atLeast: 0.95 },
        unit: "x",
        measured: perRound(one!, costs, (a, b) => a / b / count),
        detail: `${rate(costs)} reads a second; on 1 replica ${rate(one!)}`
      }
    })
  })
