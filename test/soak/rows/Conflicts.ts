/** Reads on standbys that are in the way of replay, which ends them. */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import * as Failure from "../Failure.js"
import * as Rig from "../Rig.js"
import { count, type Row } from "../Row.js"
import { noFailedRead } from "./Killed.js"
import { cutStreams } from "./Terminated.js"

/** How many fibers read slowly what the primary changes. */
const readers = 6

/** A read that keeps its snapshot, and its lock on the table, for a while. */
const slowReads = (rig: Rig.Rig, results: { done: number; readonly failures: Array<Failure.Failure> }) =>
  Effect.forkScoped(
    Effect.replicateEffect(
      Effect.forever(
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT count(*), pg_sleep(0.1) FROM churn`).pipe(
          Effect.matchCause({
            onFailure: (cause) => {
              results.failures.push(Failure.of("slow read", cause, 0, 0))
            },
            onSuccess: () => {
              results.done++
            }
          })
        )
      ),
      readers,
      { concurrency: "unbounded" }
    ).pipe(rig.use)
  )

/** Removes row versions that a standby's reads still see, and takes locks that they hold. */
const disturb = (primary: PgCluster.Node) =>
  Effect.gen(function* () {
    yield* primary.query("UPDATE churn SET n = n + 1")
    yield* primary.query("VACUUM churn")
    yield* Effect.sleep("150 millis")
    yield* primary.query("ALTER TABLE churn SET (fillfactor = 70)")
    yield* primary.query("BEGIN; LOCK TABLE churn IN ACCESS EXCLUSIVE MODE; COMMIT")
    yield* Effect.sleep("150 millis")
  })

const conflicts = (node: PgCluster.Node) =>
  Effect.map(
    node.query<{ snapshot: number; lock: number }>(
      `SELECT confl_snapshot::int AS snapshot, confl_lock::int AS lock FROM pg_stat_database_conflicts
       WHERE datname = current_database()`
    ),
    ([row]) => row!
  )

const settings = ["hot_standby_feedback = off", "max_standby_streaming_delay = 0"]

const impatient = (node: PgCluster.Node) =>
  Effect.acquireRelease(
    Effect.forEach([...settings.map((line) => `ALTER SYSTEM SET ${line}`), reload], (sql) => node.query(sql)),
    () => Effect.ignore(Effect.forEach(["ALTER SYSTEM RESET ALL", reload], (sql) => node.query(sql)))
  )

const reload = "SELECT pg_reload_conf()"

export const row: Row = {
  name: "conflicts",
  fault: "recovery conflicts forced (snapshot and lock conflicts)",
  mustShow: "0 visible; pg_stat_database_conflicts has grown",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const { primary, replicas } = cluster
      for (const sql of [
        "CREATE TABLE IF NOT EXISTS churn (id int PRIMARY KEY, n int NOT NULL) WITH (autovacuum_enabled = off)",
        "INSERT INTO churn SELECT n, 0 FROM generate_series(1, 200) n ON CONFLICT DO NOTHING"
      ]) {
        yield* primary.query(sql)
      }
      yield* Effect.forEach(replicas, impatient)
      yield* cluster.awaitReplayed
      return yield* Rig.run(Rig.on(cluster, pace, "conflicts"), (rig) =>
        Effect.gen(function* () {
          const { load } = rig
          const before = yield* Effect.forEach(replicas, conflicts)
          const slow: Parameters<typeof slowReads>[1] = { done: 0, failures: [] }
          load.tally.begin("conflicts")
          yield* slowReads(rig, slow)
          const disturbed = Effect.gen(function* () {
            const end = performance.now() + pace.fault
            while (performance.now() < end) yield* disturb(primary)
            // The servers tell their statistics late.
            yield* Effect.sleep("1500 millis")
            const after = yield* Effect.forEach(replicas, conflicts)
            return (what: "snapshot" | "lock") => after.reduce((sum, one, i) => sum + one[what] - before[i]![what], 0)
          })
          // On a busy machine a slow read is seldom on a replica when its rows go.
          const grown = yield* Effect.repeat(disturbed, {
            times: 4,
            until: (grown) => grown("snapshot") > 0 && grown("lock") > 0
          })
          return [
            {
              measured: `${grown("snapshot")} snapshot and ${grown("lock")} lock conflicts`,
              met: grown("snapshot") > 0 && grown("lock") > 0
            },
            noFailedRead(rig),
            {
              measured: `${slow.failures.length} of ${count(slow.done)} slow reads failed`,
              met: slow.failures.length === 0 && slow.done > 0,
              evidence: Failure.summary(slow.failures)
            },
            cutStreams(rig)
          ]
        })
      )
    })
}
