/** Replicas that receive what the primary writes and do not replay it. */
import { Effect } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import type { Answer } from "../Load.js"
import * as Rig from "../Rig.js"
import { type Check, count, none, type Row, seconds } from "../Row.js"
import { all, awaitStatus } from "../Servers.js"
import { back, noFailedRead } from "./Killed.js"

/** How often the primary notes the time, in milliseconds. */
const beat = 100

/** Notes the time on the primary until the scope closes: what a read sees of it tells how old its data is. */
const heartbeat = (primary: PgCluster.Node) =>
  Effect.forkScoped(
    Effect.forever(
      Effect.delay(
        Effect.ignore(primary.query("UPDATE heartbeat SET at = extract(epoch FROM clock_timestamp()) * 1000")),
        beat
      )
    )
  )

interface Aged extends Answer {
  readonly age: number
}

export const row: Row = {
  name: "replay-paused",
  fault: "replay paused for 20 s on both replicas while writing",
  mustShow: "0 reads older than the lag limit and one probe interval; they return by themselves",
  run: (cluster, pace) => {
    const ages: { readonly all: Array<number>; watched: boolean } = { all: [], watched: false }
    // A probe may come a fifth later than its interval; a beat that is on its way is not missing yet.
    const usual = pace.maxLag + 1.2 * pace.interval + beat
    return Rig.run(
      {
        ...Rig.on(cluster, pace, "lag"),
        read: (sql) =>
          Effect.tap(
            sql<Aged>`SELECT current_setting('port')::int AS port,
                (extract(epoch FROM clock_timestamp()) * 1000 - at)::float8 AS age FROM heartbeat`,
            ([answer]) => {
              if (ages.watched) ages.all.push(answer!.age)
            }
          )
      },
      (rig) =>
        Effect.gen(function* () {
          const { primary, replicas } = cluster
          const { load, machine, router } = rig
          yield* heartbeat(primary)
          yield* Effect.sleep(2 * beat)
          yield* cluster.awaitReplayed
          ages.watched = true
          load.tally.begin("paused")
          yield* all(replicas.map((node) => node.pauseReplay))
          const paused = performance.now()
          yield* all(replicas.map(({ name }) => awaitStatus(router, name, ({ state }) => state === "lagging")))
          const out = performance.now() - paused
          // What a replica had taken before it was out it may still answer.
          yield* Effect.sleep("200 millis")
          const before = replicas.map(({ port }) => load.tally.answersOf(port))
          yield* Effect.sleep(Math.max(pace.steady, paused + pace.fault - performance.now()))
          const stray = replicas.reduce((sum, { port }, i) => sum + load.tally.answersOf(port) - before[i]!, 0)
          yield* all(replicas.map((node) => node.resumeReplay))
          yield* cluster.awaitReplayed
          const ready = performance.now()
          const answered = yield* all(replicas.map(({ port }) => load.answerFrom(port)))
          yield* Effect.sleep(pace.steady)
          const limit = usual + machine.slack(paused, ready)
          const old = ages.all.filter((age) => age > limit).length
          const oldest = ages.all.reduce((a, b) => Math.max(a, b), 0)
          return [
            {
              ...none(`of ${count(ages.all.length)} reads older than ${seconds(limit)}`, old),
              evidence: [`the oldest was ${seconds(oldest)}`]
            },
            {
              measured: `the oldest saw data of ${seconds(oldest)} before, with a limit of ${seconds(pace.maxLag)}; out after ${seconds(out)}`,
              met: oldest > pace.maxLag / 2
            },
            none("reads from a replica that was out", stray),
            noFailedRead(rig),
            ...replicas.map(({ name }, i): Check => back(rig, name, ready, answered[i]!))
          ]
        }).pipe(Effect.ensuring(all(cluster.replicas.map((node) => Effect.ignore(node.resumeReplay)))))
    )
  }
}
