/**
 * How long reads take that must see what their flow has seen, one after the other. Everybody writes, and waits until the
 * replica has replayed it, so that only what the router does about it differs.
 */
import { Effect } from "effect"
import { Consistency, DbRouter } from "effect-db-router"
import { type Contestant, compare, type Pace, perRound, stopwatch, summary } from "./Measure.js"
import { each, type Row } from "./Row.js"
import { select } from "./Select.js"
import { type Pair, router } from "./Servers.js"

/** The median of what single operations take, each after something that does not count. */
const latencies =
  <E, R>(prepare: Effect.Effect<unknown, E, R>, operation: () => Effect.Effect<unknown, E, R>): Contestant<E, R> =>
  (millis) =>
    Effect.gen(function* () {
      const all: Array<number> = []
      const passed = stopwatch("passed")
      // A slice with one sample has no median.
      while (all.length < 5 || passed() < millis * 1000) {
        yield* prepare
        const micros = stopwatch("passed")
        yield* operation()
        all.push(micros())
      }
      return summary(all).median
    })

const replayed = ({ plainPrimary, plainReplica }: Pair) =>
  Effect.gen(function* () {
    const [written] = yield* plainPrimary<{ readonly lsn: string }>`SELECT pg_current_wal_flush_lsn()::text AS lsn`
    const isThere = Effect.map(
      plainReplica<{ readonly there: boolean }>`SELECT pg_last_wal_replay_lsn() >= ${written!.lsn}::pg_lsn AS there`,
      ([row]) => row!.there
    )
    yield* Effect.repeat(isThere, { until: (there) => there })
  })

interface Case {
  readonly what: string
  /** After a write that the replica has. */
  readonly writes?: boolean
  /** So long after that, in milliseconds. */
  readonly later?: number
  /** After another read. */
  readonly afterAnother?: boolean
}

const cases: ReadonlyArray<Case> = [
  { what: "the first causal read after a write, at once when the replica has it", writes: true },
  { what: "the first causal read after a write, 5 ms later", writes: true, later: 5 },
  { what: "the next causal read after a write, replica caught up", writes: true, afterAnother: true },
  { what: "a causal read without a write before" }
]

/**
 * How often everybody gets new connections: where the kernel runs the server's process behind one stays the same for long, and
 * decides more than what is compared.
 */
const turns = 4

export const run = (servers: Pair, pace: Pace) =>
  Effect.gen(function* () {
    const rows: Array<Row> = []
    const turn = { ...pace, rounds: Math.ceil(pace.rounds / turns), warmUpMillis: pace.warmUpMillis / 2 }
    for (const { afterAnother = false, later = 0, what, writes = false } of cases) {
      const contestant = (consistency: Consistency.Consistency) =>
        Effect.map(router(servers, servers.replicas, { consistency }), ({ client: sql }) => {
          const read = select(sql)
          const write = Effect.zipRight(
            sql`UPDATE account SET balance = balance + 1 WHERE id = ${1}`,
            replayed(servers)
          )
          const written = later === 0 ? write : Effect.zipRight(write, Effect.sleep(later))
          const prepare = Effect.zipRight(DbRouter.reset, writes ? written : Effect.void)
          return latencies(Effect.zipRight(prepare, afterAnother ? Effect.suspend(read) : Effect.void), read)
        })
      const all = yield* Effect.replicateEffect(
        Effect.scoped(
          Effect.flatMap(Effect.forEach([Consistency.eventual(), Consistency.causal()], contestant), (both) =>
            compare(both, turn)
          )
        ),
        turns
      )
      const [eventual, causal] = [0, 1].map((i) => all.flatMap((costs) => costs[i]!))
      rows.push({
        section: "causal",
        what,
        against: "an eventual read, p50",
        reach: { atMost: 1.1 },
        unit: "x",
        measured: perRound(eventual!, causal!, (a, b) => b / a),
        detail: each(causal!, eventual!)
      })
    }
    yield* DbRouter.reset
    return rows
  })
