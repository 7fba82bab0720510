/** A replica that stands still: connections stay open, and nothing answers. */
import { Effect } from "effect"
import * as Rig from "../Rig.js"
import { type Check, type Row, seconds } from "../Row.js"
import { awaitStatus } from "../Servers.js"
import type { Phase } from "../Tally.js"
import { back, noFailedRead, writesGoOn } from "./Killed.js"
import { cutStreams } from "./Terminated.js"

/** Differences of so many milliseconds are noise, those of the slowest reads too: one that met the server took seconds. */
const noise = { p50: 5, p99: 100 }

const asFast = (before: Phase, after: Phase, busy: { readonly p50: number; readonly p99: number }): Check => {
  const [p50, p99] = [50, 99].map((percent) => [before.percentile(percent), after.percentile(percent)] as const)
  const isMet = ([was, is]: readonly [number, number], factor: number, less: number) =>
    is <= Math.max(factor * was, was + less)
  const say = ([was, is]: readonly [number, number]) => `${is.toFixed(1)} ms (before: ${was.toFixed(1)} ms)`
  return {
    measured: `after detection p50 ${say(p50!)}, p99 ${say(p99!)}`,
    met: after.waits.count > 0 && isMet(p50!, 1.25, noise.p50 + busy.p50) && isMet(p99!, 2, noise.p99 + busy.p99)
  }
}

export const row: Row = {
  name: "replica-frozen",
  fault: "SIGSTOP of a replica for 20 s",
  mustShow:
    "0 failed reads; no read waits longer than the probe timeout plus one statement timeout; after detection reads are as fast as before",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "frozen"), (rig) =>
      Effect.gen(function* () {
        const replica = cluster.replicas[0]!
        const { load, machine, router } = rig
        const before = load.tally.begin("before")
        yield* Effect.sleep(pace.steady)
        load.tally.begin("detecting")
        // What had begun before ends before it, so that its waiting does not count as usual.
        yield* Effect.sleep("100 millis")
        yield* replica.freeze
        const frozen = performance.now()
        const noticed = yield* awaitStatus(router, replica.name, ({ eligible }) => !eligible)
        const after = load.tally.begin("after")
        const since = performance.now()
        const down = yield* awaitStatus(router, replica.name, ({ state }) => state === "down")
        yield* Effect.sleep(Math.max(0, frozen + pace.fault - performance.now()))
        load.tally.begin("thawed")
        yield* replica.thaw
        const ready = performance.now()
        const answered = yield* load.answerFrom(replica.port)
        const limit = pace.timeout + pace.statementTimeout
        const busy = { p50: machine.slowest(since, ready), p99: machine.slack(since, ready) }
        return [
          noFailedRead(rig),
          {
            measured: `the longest read took ${seconds(load.tally.longestWait)} of ${seconds(limit)} (${seconds(pace.timeout)} + ${seconds(pace.statementTimeout)}; out after ${seconds(noticed - frozen)}, down after ${seconds(down - frozen)})`,
            met: load.tally.longestWait <= limit + machine.slack(frozen, ready)
          },
          asFast(before, after, busy),
          back(rig, replica.name, ready, answered),
          cutStreams(rig),
          writesGoOn(rig)
        ]
      }).pipe(Effect.ensuring(Effect.ignore(cluster.replicas[0]!.thaw)))
    )
}
