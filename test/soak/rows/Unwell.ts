/** A replica that answers probes alone: statements break there, or have no answer. */
import { Effect } from "effect"
import * as Unwell from "../../support/unwell.js"
import * as Rig from "../Rig.js"
import { type Row, seconds } from "../Row.js"
import { awaitStatus, health, options, statusOf } from "../Servers.js"
import { noFailedRead, writesGoOn } from "./Killed.js"
import { cutStreams } from "./Terminated.js"

const ways = {
  broken: {
    name: "statements-break",
    what: "breaks the connection of every statement",
    reason: /answers probes, but \d+ of its last \d+ statements have failed/
  },
  silent: {
    name: "statements-unanswered",
    what: "answers no statement",
    reason: /answers probes, but a statement fails there: A statement had no answer/
  }
} as const

const row = (mode: keyof typeof ways): Row => {
  const { name, reason, what } = ways[mode]
  return {
    name,
    fault: `a replica that answers probes, and ${what}`,
    mustShow: "0 failed reads; it is taken out, tried again in steps, and serves again when statements succeed there",
    run: (cluster, pace) =>
      Effect.gen(function* () {
        const replica = cluster.replicas[0]!
        const proxy = yield* Unwell.make(replica)
        const ejectTime = pace.away
        return yield* Rig.run(
          {
            ...Rig.on(cluster, pace, name),
            router: (applicationName) => ({
              ...options(cluster, pace, applicationName, (node) => (node === replica ? proxy : node)),
              health: { ...health(pace), ejectTime }
            }),
            // The proxy has sockets too.
            isAlone: false
          },
          (rig) =>
            Effect.gen(function* () {
              const { load, machine, router } = rig
              load.tally.begin(mode)
              proxy.mode = mode
              const began = performance.now()
              const out = yield* awaitStatus(router, replica.name, ({ state }) => state === "ejected")
              const { reason: told } = yield* statusOf(router, replica.name)
              load.tally.begin("out")
              const before = load.tally.answersOf(replica.port)
              yield* Effect.sleep(3 * ejectTime)
              const stray = load.tally.answersOf(replica.port) - before
              proxy.mode = "well"
              const well = performance.now()
              const answered = yield* load.answerFrom(replica.port)
              // Each time out is twice as long as the one before: the last as long as all before it, and the first once more.
              const most = well - out + ejectTime + 3 * pace.interval + machine.slack(well, answered)
              yield* Effect.sleep(pace.steady)
              return [
                { measured: `out after ${seconds(out - began)}: ${told}`, met: reason.test(told ?? "") },
                { measured: `${stray} reads from it meanwhile`, met: stray === 0 },
                {
                  measured: `${replica.name} answers reads ${seconds(answered - well)} after it is well; it was out for ${seconds(well - out)}`,
                  met: answered - well <= most,
                  evidence: [`at most ${seconds(most)}`]
                },
                noFailedRead(rig),
                cutStreams(rig),
                writesGoOn(rig)
              ]
            })
        )
      })
  }
}

export const breaks = row("broken")

export const silent = row("silent")
