/** A schema that the primary has and the replicas do not have yet. */
import { SqlClient, type SqlError } from "@effect/sql"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Failure from "../Failure.js"
import * as Rig from "../Rig.js"
import { count, type Row } from "../Row.js"
import { all, awaitStatus } from "../Servers.js"
import { noFailedRead, noFailure } from "./Killed.js"

interface Results {
  done: number
  readonly failures: Array<Failure.Failure>
}

/** Runs a read again and again until the scope closes. */
const again = (rig: Rig.Rig, results: Results, read: Effect.Effect<unknown, SqlError.SqlError, SqlClient.SqlClient>) =>
  Effect.forkScoped(
    rig.use(
      Effect.forever(
        Effect.zipRight(
          // Others than those who migrate: they have not seen it.
          Effect.delay(DbRouter.reset, rig.pace.rest),
          Effect.matchCause(read, {
            onFailure: (cause) => {
              results.failures.push(Failure.of("read", cause, 0, 0))
            },
            onSuccess: () => {
              results.done++
            }
          })
        )
      )
    )
  )

let migrations = 0

export const row: Row = {
  name: "migration",
  fault: "a migration on the primary while replicas lag: reads of the new column and table",
  mustShow: "0 failed",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "migration"), (rig) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const { load, router } = rig
        const n = ++migrations
        const results: Results = { done: 0, failures: [] }
        load.tally.begin("migration")
        yield* all(replicas.map((node) => node.pauseReplay))
        // One half is migrated through the router, the other one past it, so the router has not heard of that.
        yield* rig.use(
          DbRouter.session(
            Effect.flatMap(SqlClient.SqlClient, (sql) =>
              Effect.zipRight(
                sql.unsafe(`ALTER TABLE item ADD COLUMN colour${n} text NOT NULL DEFAULT 'red'`),
                sql.unsafe(`CREATE TABLE fresh${n} AS SELECT 1 AS id`)
              )
            )
          )
        )
        yield* primary.query(`ALTER TABLE item ADD COLUMN size${n} int NOT NULL DEFAULT 1`)
        yield* primary.query(`CREATE TABLE other${n} AS SELECT 1 AS id`)
        for (const text of [
          `SELECT colour${n} FROM item WHERE id = 1`,
          `SELECT size${n} FROM item WHERE id = 2`,
          `SELECT id FROM fresh${n}`,
          `SELECT id FROM other${n}`
        ]) {
          yield* again(
            rig,
            results,
            Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
          )
        }
        yield* Effect.sleep(pace.maxLag / 2)
        yield* Effect.sleep(pace.maxLag)
        yield* all(replicas.map((node) => node.resumeReplay))
        yield* cluster.awaitReplayed
        yield* all(replicas.map(({ name }) => awaitStatus(router, name, ({ state }) => state === "up")))
        yield* Effect.sleep(pace.steady)
        const refused = yield* refusals(cluster)
        return [
          {
            measured: `${results.failures.length} of ${count(results.done)} reads of what is new failed; replicas without it had refused ${count(refused)} of them`,
            met: results.failures.length === 0 && results.done > 0 && refused > 0,
            evidence: Failure.summary(results.failures)
          },
          noFailedRead(rig),
          noFailure(rig)
        ]
      }).pipe(Effect.ensuring(all(cluster.replicas.map((node) => Effect.ignore(node.resumeReplay)))))
    )
}

/** Reads that replicas have refused because they did not know a table or a column: by their own word, their logs. */
const refusals = ({ replicas }: PgCluster.Cluster) =>
  Effect.map(
    Effect.forEach(replicas, (node) => node.log),
    (logs) => logs.flatMap((log) => log.match(/ERROR: .* does not exist/g) ?? []).length
  )
