/** Servers that are not there when the router starts. */
import { Effect, Exit, Layer, Scope } from "effect"
import { DbRouter } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as Machine from "../Machine.js"
import type { Pace } from "../Pace.js"
import * as Rig from "../Rig.js"
import { type Check, type Row, seconds } from "../Row.js"
import { all, options } from "../Servers.js"
import { back, noFailedRead, noFailure } from "./Killed.js"

/** One replica down: the router builds, and uses it when it is there. */
const replicaDown = (cluster: PgCluster.Cluster, pace: Pace) =>
  Effect.gen(function* () {
    const replica = cluster.replicas[0]!
    yield* replica.kill
    return yield* Rig.run(Rig.on(cluster, pace, "replica-down"), (one) =>
      Effect.gen(function* () {
        const { load } = one
        const before = load.tally.operations
        yield* replica.start
        const ready = performance.now()
        const answered = yield* load.answerFrom(replica.port)
        return [
          { measured: `a replica down: it builds, and ${before} operations end well`, met: before > 0 },
          back(one, replica.name, ready, answered),
          noFailedRead(one),
          noFailure(one)
        ]
      })
    )
  }).pipe(Effect.ensuring(Effect.ignore(cluster.replicas[0]!.start)))

/** Tries to build a router where no server answers. */
const refusal = (cluster: PgCluster.Cluster, pace: Pace, what: string) =>
  Effect.gen(function* () {
    const machine = yield* Machine.watch
    const began = performance.now()
    const scope = yield* Scope.make()
    const exit = yield* Effect.exit(Layer.buildWithScope(DbRouter.layer(options(cluster, pace, "all-down")), scope))
    const took = performance.now() - began
    yield* Scope.close(scope, Exit.void)
    const error = Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined
    const text = error === undefined ? "no error" : `${error.message} (${String("cause" in error ? error.cause : "")})`
    const check: Check = {
      measured: `all ${what}: ${text} after ${seconds(took)} of ${seconds(pace.connectTimeout)}`,
      // A timer of so many milliseconds may be late by a tenth.
      met: error !== undefined && took <= 1.1 * pace.connectTimeout + machine.slack(began, began + took)
    }
    return check
  }).pipe(Effect.scoped)

const allDown = (cluster: PgCluster.Cluster, pace: Pace) =>
  Effect.gen(function* () {
    yield* all(cluster.nodes.map((node) => node.freeze))
    const frozen = yield* refusal(cluster, pace, "frozen")
    yield* all(cluster.nodes.map((node) => node.kill))
    return [yield* refusal(cluster, pace, "down"), frozen]
  }).pipe(
    Effect.ensuring(
      Effect.zipRight(
        all(cluster.nodes.map((node) => Effect.ignore(node.thaw))),
        all(cluster.nodes.map((node) => Effect.ignore(node.start)))
      )
    )
  )

/** The primary down, and a router that waits for it. */
const primaryDown = (cluster: PgCluster.Cluster, pace: Pace) =>
  Effect.gen(function* () {
    const { primary } = cluster
    const machine = yield* Machine.watch
    yield* primary.kill
    const times = { ready: 0, built: 0 }
    yield* Effect.forkScoped(
      Effect.delay(primary.start, pace.away).pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            times.ready = performance.now()
          })
        )
      )
    )
    return yield* Rig.run(
      {
        ...Rig.on(cluster, pace, "primary-down"),
        router: (name) => ({ ...options(cluster, pace, name), waitForPrimary: { atStart: "1 minute" } }),
        layer: (given) =>
          Layer.tap(DbRouter.layer(given), () =>
            Effect.sync(() => {
              times.built = performance.now()
            })
          )
      },
      (one) =>
        Effect.sync(() => {
          const slack = machine.slack(times.ready, times.built)
          return [
            {
              measured: `the primary down, waiting: it builds ${seconds(times.built - times.ready)} after the primary is ready`,
              met: times.ready > 0 && times.built - times.ready <= 3 * pace.interval + slack
            },
            noFailure(one)
          ]
        })
    )
  }).pipe(Effect.ensuring(Effect.ignore(cluster.primary.start)))

export const row: Row = {
  name: "start",
  fault: "a replica down at start; all down at start; the primary down at start with waiting configured",
  mustShow: "builds; clear error within the connect timeout; comes up when the primary does",
  run: (cluster, pace) =>
    Effect.gen(function* () {
      const one = yield* Effect.scoped(replicaDown(cluster, pace))
      const refused = yield* allDown(cluster, pace)
      yield* cluster.awaitReplayed
      const waiting = yield* Effect.scoped(primaryDown(cluster, pace))
      yield* cluster.awaitReplayed
      return {
        figures: [...one.figures, ...refused, ...waiting.figures],
        always: [...one.always, ...waiting.always]
      }
    })
}
