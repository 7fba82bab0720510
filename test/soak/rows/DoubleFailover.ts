/** A primary that dies soon after it has taken the place of another one. */
import { Effect } from "effect"
import * as Rig from "../Rig.js"
import { none, type Row } from "../Row.js"
import { awaitStatus, cluster } from "../Servers.js"
import { back, noFailedRead } from "./Killed.js"
import { nextWrite, onlyInFlight, recovered, synchronous } from "./Promotion.js"

export const row: Row = {
  name: "double-failover",
  fault: "primary killed, standby promoted, killed as well before the other standby has made a restartpoint",
  mustShow:
    "the last standby answers every read while there is no primary; writes succeed again within 3 s of its promotion",
  run: (_, pace) =>
    Effect.gen(function* () {
      const own = yield* cluster
      const { nodes, primary: old, replicas } = own
      const [heir, last] = replicas
      return yield* Rig.run(
        {
          ...Rig.on(own, pace, "double"),
          isAlone: false,
          servers: Effect.succeed({ running: nodes, primary: last! })
        },
        (rig) =>
          Effect.gen(function* () {
            const { load, router } = rig
            load.tally.begin("first")
            yield* old.kill
            yield* heir!.promote
            yield* last!.follow(heir!)
            yield* nextWrite(load)
            yield* load.answerFrom(last!.port)
            yield* synchronous(heir!, last!.name)
            yield* nextWrite(load)
            load.tally.begin("second")
            const before = load.tally.failures.length
            yield* heir!.kill
            const killed = performance.now()
            yield* awaitStatus(router, heir!.name, ({ state }) => state === "down")
            const out = yield* Effect.map(router.status, (all) =>
              all.filter(({ name, state }) => name === last!.name && state !== "up")
            )
            const answered = yield* load.answerFrom(last!.port)
            yield* Effect.sleep(2 * pace.interval)
            yield* last!.promote
            const promoted = performance.now()
            const written = yield* nextWrite(load)
            yield* Effect.all([old.rejoin(last!), heir!.rejoin(last!)], { discard: true })
            yield* Effect.sleep(pace.steady)
            return [
              none(
                "intact standbys out of use",
                out.length,
                out.map(({ reason }) => String(reason))
              ),
              back(rig, last!.name, killed, answered, 6),
              ...onlyInFlight(rig, killed, before),
              noFailedRead(rig),
              recovered(rig, written, promoted)
            ]
          })
      )
    })
}
