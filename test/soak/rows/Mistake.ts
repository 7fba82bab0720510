/** A replica that is promoted by mistake while the primary runs, and rebuilt from it. */
import { Effect } from "effect"
import * as Rig from "../Rig.js"
import { none, type Row } from "../Row.js"
import { awaitStatus } from "../Servers.js"
import { back, noFailedRead } from "./Killed.js"
import { nextWrite, recovered } from "./Promotion.js"
import { cutStreams } from "./Terminated.js"

/** How long what runs may take to end while nothing new begins, in milliseconds. */
const pauseLimit = 20_000

export const row: Row = {
  name: "mistaken-promotion",
  fault: "a replica promoted by mistake while the primary runs, then rebuilt from it",
  mustShow: "once it is rebuilt, writes succeed on the primary again within 3 s, and it serves again; no restart",
  run: (cluster, pace) =>
    Rig.run(Rig.on(cluster, pace, "mistaken"), (rig) =>
      Effect.gen(function* () {
        const { primary, replicas } = cluster
        const [mistaken] = replicas
        const { load, router } = rig
        load.tally.begin("mistaken")
        // What is written on it meanwhile is lost with it, so nothing is.
        const hanging = yield* load.pause(pauseLimit)
        yield* mistaken!.promote
        yield* awaitStatus(router, primary.name, ({ state }) => state === "foreign")
        yield* mistaken!.rejoin(primary)
        const rebuilt = performance.now()
        yield* load.resume
        const written = yield* nextWrite(load)
        const answered = yield* load.answerFrom(mistaken!.port)
        yield* Effect.sleep(pace.steady)
        return [
          none("statements without an end", hanging),
          recovered(rig, written, rebuilt),
          back(rig, mistaken!.name, rebuilt, answered),
          noFailedRead(rig),
          cutStreams(rig)
        ]
      })
    )
}
