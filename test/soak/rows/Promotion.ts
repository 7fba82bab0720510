/** A primary that dies, and a standby that takes its place. */
import { Effect } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import * as Failure from "../Failure.js"
import type { Load } from "../Load.js"
import * as Rig from "../Rig.js"
import { type Check, count, none, type Row, seconds } from "../Row.js"
import { isRead } from "../Tally.js"
import { back, noFailedRead } from "./Killed.js"
import { typed } from "./Terminated.js"

/** How long after the death of a server this process may still send something to it: its sockets tell that late. */
const notYetKnown = 100

/** Writes succeed again so many milliseconds after the promotion. */
const limit = 3_000

/** Makes every commit wait until the standby has it. */
export const synchronous = (primary: PgCluster.Node, standby: string) =>
  Effect.gen(function* () {
    yield* primary.query(`ALTER SYSTEM SET synchronous_standby_names = '"${standby}"'`)
    yield* primary.query("SELECT pg_reload_conf()")
    yield* Effect.repeat(
      Effect.delay(
        primary.query("SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND sync_state = 'sync'", [
          standby
        ]),
        "20 millis"
      ),
      { until: (rows) => rows.length === 1 }
    )
  })

/** Waits until a write is acknowledged that began from now on; tells when. */
export const nextWrite = (load: Load): Effect.Effect<number> =>
  Effect.suspend(() => {
    const first = load.ledger.upcoming
    return Effect.repeat(Effect.sleep("2 millis"), { until: () => load.ledger.hasCommitFrom(first) })
  }).pipe(Effect.map(() => performance.now()))

/**
 * Whatever failed, of the failures from a place in their list on, was on its way when the primary died, and says what became
 * of it.
 */
export const onlyInFlight = (rig: Rig.Rig, died: number, from = 0): ReadonlyArray<Check> => {
  const failed = rig.load.tally.failures.slice(from).filter(({ kind }) => !isRead(kind))
  const later = failed.filter(({ began }) => began > died + notYetKnown)
  return [
    none(`of ${count(failed.length)} failed statements were not in flight`, later.length, Failure.summary(later)),
    typed(failed, "in flight")
  ]
}

/** Writes succeed again soon after the promotion. */
export const recovered = ({ machine }: Rig.Rig, written: number, promoted: number): Check => {
  const slack = machine.slack(promoted, written)
  return {
    measured: `writes succeed ${seconds(Math.max(0, written - promoted))} after the promotion`,
    met: written - promoted <= limit + slack,
    evidence: [`at most ${seconds(limit)}, and ${seconds(slack)} for a busy machine`]
  }
}

/** What was written on a server from an id on. */
const writtenFrom = (node: PgCluster.Node, id: number) =>
  Effect.map(node.query<{ n: number }>("SELECT count(*)::int AS n FROM ledger WHERE id >= $1", [id]), ([row]) => row!.n)

export const row: Row = {
  name: "promotion",
  fault: "primary killed, standby promoted, old primary rejoined",
  mustShow:
    "only statements in flight fail, each with an error that says whether its outcome is known; writes succeed again within 3 s of the promotion; 0 acknowledged commits missing when the standby was synchronous; 0 writes on the old primary afterwards",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const { primary: old, replicas } = cluster
      const [heir, other] = replicas
      yield* synchronous(old, heir!.name)
      return yield* Rig.run(
        {
          ...Rig.on(cluster, pace, "promotion"),
          servers: Effect.map(cluster.currentPrimary, (primary) => ({ running: cluster.nodes, primary }))
        },
        (rig) =>
          Effect.gen(function* () {
            const { load } = rig
            load.tally.begin("dead")
            yield* old.kill
            const killed = performance.now()
            yield* Effect.sleep(2 * pace.interval)
            yield* heir!.promote
            const promoted = performance.now()
            const written = yield* nextWrite(load)
            load.tally.begin("promoted")
            yield* other!.follow(heir!)
            const followed = performance.now()
            const reading = yield* load.answerFrom(other!.port)
            const lost = yield* load.ledger.audit(heir!)
            const returned = yield* oldReturns(rig, old)
            yield* old.rejoin(heir!)
            const rejoined = performance.now()
            const answered = yield* load.answerFrom(old.port)
            yield* Effect.sleep(pace.steady)
            return [
              ...onlyInFlight(rig, killed),
              noFailedRead(rig),
              recovered(rig, written, promoted),
              ...lost,
              ...returned,
              back(rig, `${other!.name}, which follows the new primary,`, followed, reading),
              back(rig, `${old.name}, rejoined,`, rejoined, answered)
            ]
          })
      )
    })
}

/** The old primary comes back without synchronous standbys: a second primary, on the older timeline. */
const oldReturns = (rig: Rig.Rig, old: PgCluster.Node) =>
  Effect.gen(function* () {
    const { load, pace } = rig
    const first = load.ledger.upcoming
    const answers = load.tally.answersOf(old.port)
    yield* old.start
    yield* old.query("ALTER SYSTEM RESET synchronous_standby_names")
    yield* old.query("SELECT pg_reload_conf()")
    const written = load.ledger.upcoming
    yield* Effect.sleep(Math.max(pace.steady, 4 * pace.interval))
    const tried = load.ledger.upcoming - written
    const strays = yield* writtenFrom(old, first)
    return [
      {
        ...none(`of ${count(tried)} writes on the old primary, which is back as a primary`, strays),
        met: strays === 0 && tried > 0
      },
      none("reads from it", load.tally.answersOf(old.port) - answers)
    ]
  })
