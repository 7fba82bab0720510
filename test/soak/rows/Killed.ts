/** Replicas that are killed and come back: one of two, or both. */
import { Effect } from "effect"
import * as Failure from "../Failure.js"
import * as Rig from "../Rig.js"
import { type Check, count, none, type Row, seconds } from "../Row.js"
import { all, awaitStatus } from "../Servers.js"
import { isRead } from "../Tally.js"

/** No read outside of transactions has failed. */
export const noFailedRead = ({ load: { tally } }: Rig.Rig): Check => {
  const failed = tally.failuresOf(isRead)
  const reads = tally.done("read") + 3 * tally.done("session of reads")
  return none(`of ${count(reads)} reads failed`, failed.length, Failure.summary(failed))
}

/** Nothing at all has failed. */
export const noFailure = ({ load: { tally } }: Rig.Rig): Check =>
  none("operations failed", tally.failed, Failure.summary(tally.failures))

/** How many probe intervals a server may take to serve again. */
const mostIntervals = 3

/** That a server answers reads again, so soon after the moment given. */
export const back = (
  { machine, pace: { interval } }: Rig.Rig,
  name: string,
  ready: number,
  answered: number,
  most = mostIntervals
): Check => {
  const slack = machine.slack(ready, answered)
  return {
    measured: `${name} answers reads ${seconds(answered - ready)} after it is ready (${((answered - ready) / interval).toFixed(1)} probe intervals)`,
    met: answered - ready <= most * interval + slack,
    evidence: [`at most ${most} probe intervals, and ${seconds(slack)} for a busy machine`]
  }
}

export const one: Row = {
  name: "replica-killed",
  fault: "SIGKILL of a replica, and its restart",
  mustShow: "0 failed reads; it serves again within 3 probe intervals of being ready",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "killed"), (rig) =>
      Effect.gen(function* () {
        const [replica] = cluster.replicas
        const { load, router } = rig
        load.tally.begin("killed")
        yield* replica!.kill
        yield* awaitStatus(router, replica!.name, ({ state }) => state === "down")
        yield* Effect.sleep(pace.away)
        yield* replica!.start
        const ready = performance.now()
        const answered = yield* load.answerFrom(replica!.port)
        yield* Effect.sleep(pace.steady)
        return [noFailedRead(rig), back(rig, replica!.name, ready, answered), writesGoOn(rig)]
      }).pipe(Effect.ensuring(Effect.ignore(cluster.replicas[0]!.start)))
    )
}

/** What happens to replicas is nothing to those that write. */
export const writesGoOn = ({ load }: Rig.Rig): Check => {
  const failed = load.tally.failuresOf((kind) => kind === "write" || kind === "session")
  return none("writes and sessions failed", failed.length, Failure.summary(failed))
}

export const both: Row = {
  name: "replicas-gone",
  fault: "both replicas gone",
  mustShow: "reads go to the primary; 0 failed",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "gone"), (rig) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const { load, router } = rig
        load.tally.begin("gone")
        yield* all(replicas.map((node) => node.kill))
        yield* all(replicas.map(({ name }) => awaitStatus(router, name, ({ state }) => state === "down")))
        const before = load.tally.answersOf(primary.port)
        const reads = load.tally.reads
        yield* Effect.sleep(pace.away)
        const answers = load.tally.answersOf(primary.port) - before
        const asked = load.tally.reads - reads
        yield* all(replicas.map((node) => node.start))
        const ready = performance.now()
        const answered = yield* all(replicas.map(({ port }) => load.answerFrom(port)))
        yield* Effect.sleep(pace.steady)
        return [
          noFailedRead(rig),
          {
            measured: `the primary answered ${count(answers)} of ${count(asked)} reads meanwhile`,
            met: answers > 0 && answers === asked
          },
          writesGoOn(rig),
          ...replicas.map(({ name }, i) => back(rig, name, ready, answered[i]!))
        ]
      }).pipe(Effect.ensuring(all(cluster.replicas.map((node) => Effect.ignore(node.start)))))
    )
}
