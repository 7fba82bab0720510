/** A replica that answers probes, and no statement. */
import { Effect } from "effect"
import * as Unwell from "../../support/unwell.js"
import * as Rig from "../Rig.js"
import { type Row, seconds } from "../Row.js"
import { awaitStatus, options } from "../Servers.js"
import { back, noFailedRead, writesGoOn } from "./Killed.js"
import { cutStreams } from "./Terminated.js"

/** Nothing has ended for five seconds, the next probe begins a trial statement, and that is given up. */
const silence = 5_000

/** Some of its statements are given up by the server's own limit before, and the trial begins late on a busy machine. */
const slack = 2_000

export const row: Row = {
  name: "replica-unwell",
  fault: "a replica that answers probes, and no statement",
  mustShow: "0 failed reads; it is taken out, tried again in steps, and serves again when it answers",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const replica = cluster.replicas[0]!
      const proxy = yield* Unwell.make(replica)
      const ejectTime = pace.away
      return yield* Rig.run(
        {
          ...Rig.on(cluster, pace, "unwell"),
          router: (name) => {
            const all = options(cluster, pace, name, (node) => (node === replica ? proxy : node))
            return {
              ...all,
              health: { interval: pace.interval, timeout: pace.timeout, maxLag: pace.maxLag, ejectTime }
            }
          },
          // The proxy has sockets too.
          isAlone: false
        },
        (rig) =>
          Effect.gen(function* () {
            const { load, router } = rig
            load.tally.begin("unwell")
            proxy.mode = "silent"
            const began = performance.now()
            const out = yield* awaitStatus(router, replica.name, ({ state }) => state === "ejected")
            const after = load.tally.begin("after")
            yield* Effect.sleep(pace.fault)
            const waited = after.waits.max / 1_000
            proxy.mode = "well"
            const ready = performance.now()
            const answered = yield* load.answerFrom(replica.port)
            const limit = silence + pace.interval * 1.2 + 2 * pace.timeout + slack
            const trials = 1 + Math.ceil(Math.log2(1 + pace.fault / ejectTime))
            return [
              {
                measured: `it is taken out after ${seconds(out - began)} of ${seconds(limit)}`,
                met: out - began <= limit
              },
              {
                measured: `the longest read afterwards took ${seconds(waited)}`,
                met: waited <= pace.timeout + pace.statementTimeout
              },
              back(replica.name, ready, answered, Math.max(pace.interval, ejectTime * 2 ** trials)),
              noFailedRead(rig),
              cutStreams(rig),
              writesGoOn(rig)
            ]
          })
      )
    })
}
