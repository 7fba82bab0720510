/** Connections that servers end while they are in use. */
import { Cause, Effect, Exit } from "effect"
import { DbRouter } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Failure from "../Failure.js"
import { Told } from "../Ledger.js"
import * as Rig from "../Rig.js"
import { type Check, count, none, type Row } from "../Row.js"
import { noFailedRead } from "./Killed.js"

/** Ends a fifth of the backends that carry the name on a server; tells how many. */
const terminate = (node: PgCluster.Node, applicationName: string) =>
  Effect.map(
    node.query<{ n: number }>(
      `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))::int AS n FROM (
         SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 || '%' ORDER BY random()
         LIMIT (SELECT ceil(count(*) * 0.2) FROM pg_stat_activity WHERE application_name LIKE $1 || '%')) AS fifth`,
      [applicationName]
    ),
    ([row]) => row!.n
  )

/** Whatever failed did so with a `SqlError`, of which `RouterError.outcomeOf` tells whether its work is there. */
export const typed = (failed: ReadonlyArray<Failure.Failure>, what: string): Check => {
  const untyped = failed.filter((failure) => !failure.typed)
  const unknown = failed.filter(({ told }) => told === Told.unknown).length
  return {
    measured: `${count(failed.length)} ${what} failed: ${count(failed.length - unknown)} with nothing of it there, ${unknown} with an unknown outcome, ${untyped.length} untyped`,
    met: untyped.length === 0,
    evidence: Failure.summary(untyped)
  }
}

/** Fills every pool at once: each has as many connections as it may have, and all of them work. */
const fill = ({ load, router, use }: Rig.Rig) =>
  Effect.gen(function* () {
    yield* load.pause(5_000)
    const sql = router.client
    const engines = yield* router.status
    const each = 2 * Math.max(...engines.map(({ pool }) => pool.max))
    const many = (times: number) =>
      Effect.replicateEffect(sql`SELECT pg_sleep(0.2)`, times, { concurrency: "unbounded", discard: true })
    const exit = yield* Effect.exit(
      use(Effect.zip(many(each * (engines.length - 1)), DbRouter.primary(many(each)), { concurrent: true }))
    )
    const status = yield* router.status
    yield* load.resume
    const broken = status.filter(({ pool, state }) => state !== "up" || pool.total !== pool.max)
    const evidence = broken.map(({ name, pool, state }) => `${name}: ${state}, ${JSON.stringify(pool)}`)
    return Exit.isSuccess(exit)
      ? none("pools that cannot be filled", broken.length, evidence)
      : { measured: "statements on full pools failed", met: false, evidence: [Cause.pretty(exit.cause), ...evidence] }
  })

/** For ten seconds after a server has failed, connections to it are opened one at a time, in milliseconds. */
const settles = 11_000

export const row: Row = {
  name: "terminated",
  fault: "20% of backends terminated every second for 30 s",
  mustShow: "0 failed reads outside transactions; sessions fail typed; pools whole afterwards",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "terminated"), (rig) =>
      Effect.gen(function* () {
        const { load } = rig
        load.tally.begin("terminated")
        const rounds = Math.max(4, Math.round((1.5 * pace.fault) / 1_000))
        let ended = 0
        for (let round = 0; round < rounds; round++) {
          const each = yield* Effect.forEach(cluster.nodes, (node) => terminate(node, rig.applicationName))
          ended += each.reduce((sum, n) => sum + n, 0)
          yield* Effect.sleep("1 second")
        }
        load.tally.begin("afterwards")
        yield* Effect.sleep(Math.max(pace.steady, 2 * pace.interval, settles))
        const filled = yield* fill(rig)
        return [
          { measured: `${ended} backends terminated in ${rounds} s`, met: ended >= rounds },
          noFailedRead(rig),
          typed(
            load.tally.failuresOf((kind) => kind === "session"),
            "sessions"
          ),
          typed(
            load.tally.failuresOf((kind) => kind === "write"),
            "autocommitted writes"
          ),
          cutStreams(rig),
          filled
        ]
      })
    )
}

/** A stream that has given rows cannot run again: it fails, typed. One that has not never fails. */
export const cutStreams = (rig: Rig.Rig): Check => {
  const { load } = rig
  const failed = load.tally.failuresOf((kind) => kind === "stream")
  return {
    measured: `${load.cutStreams} of ${count(load.tally.done("stream") + failed.length)} streams cut after rows had gone out, ${failed.length - load.cutStreams} before`,
    met: failed.length === load.cutStreams && failed.every((failure) => failure.typed),
    evidence: Failure.summary(failed)
  }
}
