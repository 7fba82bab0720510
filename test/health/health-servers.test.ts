import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, Option } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { activity, eventually } from "../support/engine.js"
import { becomes, events, load, over, readPort, readPorts, statesOf, statusOf } from "../support/health.js"

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

layer(PgCluster.layer({ replicas: 2 }), { timeout: "60 seconds", excludeTestServices: true })(
  "servers that fail",
  (it) => {
    it.scoped("a replica is killed, and comes back: no read fails, and it gets reads again", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* Effect.gen(function* () {
          const seen = yield* events
          const reads = yield* load()
          yield* reads.more(100)
          yield* replicas[0]!.kill
          yield* becomes("replica1", "down")
          yield* reads.more(100)
          assert.deepStrictEqual([...(yield* readPorts())], [replicas[1]!.port])
          yield* replicas[0]!.start
          yield* becomes("replica1", "up")
          yield* reads.more(100)
          // Few at first.
          yield* eventually(readPorts(), (ports) => ports.has(replicas[0]!.port))
          assert.deepStrictEqual(yield* reads.failures, [])
          assert.deepStrictEqual(statesOf(seen, "replica1"), ["suspect", "down", "up"])
          assert.deepStrictEqual(statesOf(seen, "replica2"), [])
        }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
      })
    )

    it.scoped("a replica is frozen: reads that wait for it are answered by others, and none fails", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* Effect.gen(function* () {
          const reads = yield* load(16)
          yield* reads.more(100)
          yield* replicas[0]!.freeze
          yield* becomes("replica1", "down")
          // While it is frozen still.
          yield* eventually(
            Effect.map(statusOf("replica1"), ({ inFlight, pool }) => inFlight + pool.waiting),
            (n) => n === 0
          )
          yield* reads.more(100)
          yield* replicas[0]!.thaw
          yield* becomes("replica1", "up")
          // Not at once: what it has is asked for anew, and until then a flow stays where it has read.
          yield* eventually(readPorts(), (ports) => ports.has(replicas[0]!.port))
          assert.deepStrictEqual(yield* reads.failures, [])
        }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
      }).pipe(Effect.ensuring(Effect.flatMap(PgCluster.PgCluster, ({ replicas }) => Effect.ignore(replicas[0]!.thaw))))
    )

    it.scoped("both replicas are gone: the primary serves, and none fails; or they fail and say why", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        const strict = yield* Layer.build(over(primary, replicas, { onNoReplica: "fail" })).pipe(Effect.provide(silent))
        yield* Effect.gen(function* () {
          const reads = yield* load()
          yield* reads.more(50)
          yield* Effect.all(
            replicas.map((node) => node.kill),
            { concurrency: "unbounded" }
          )
          yield* reads.more(100)
          yield* becomes("replica1", "down")
          yield* becomes("replica2", "down")
          assert.deepStrictEqual([...(yield* readPorts())], [primary.port])
          assert.deepStrictEqual(yield* reads.failures, [])
          yield* becomes("replica1", "down").pipe(Effect.zipRight(becomes("replica2", "down")), Effect.provide(strict))
          const error = yield* Effect.flip(readPort.pipe(Effect.provide(strict)))
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
          assert.include(error.message, "replica1: down, its probe failed")
          assert.include(error.message, "replica2: down")
        }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
      }).pipe(
        Effect.ensuring(
          Effect.flatMap(PgCluster.PgCluster, ({ replicas }) =>
            Effect.orDie(
              Effect.all(
                replicas.map((node) => node.start),
                { concurrency: "unbounded" }
              )
            )
          )
        )
      )
    )

    it.scoped("a replica is down at the start: the layer builds, and it gets reads once it is there", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* replicas[0]!.stop
        yield* Effect.gen(function* () {
          assert.strictEqual((yield* statusOf("replica1")).state, "down")
          assert.deepStrictEqual([...(yield* readPorts())], [replicas[1]!.port])
          yield* replicas[0]!.start
          yield* becomes("replica1", "up")
          assert.include([...(yield* readPorts())], replicas[0]!.port)
        }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
      })
    )

    it.scoped("the primary is down at the start: the layer fails with its error", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        const error = yield* Effect.flip(
          Effect.void.pipe(
            Effect.provide(
              over(primary, replicas, {
                groups: { default: [{ host: "127.0.0.1", port: 1 }], read: [{ url: replicas[0]!.url }] }
              })
            )
          )
        )
        assert.strictEqual(error._tag, "SqlError")
        assert.include(String((error as { cause?: unknown }).cause), "ECONNREFUSED")
      })
    )

    it.scoped("a group that was bound to uses what answers, also what is no replica of this primary", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        const at = (node: PgCluster.Node, name: string) => ({ url: node.url, name })
        yield* replicas[0]!.kill
        const live = over(primary, [], {
          groups: {
            default: [at(primary, "writer")],
            analytics: [at(replicas[0]!, "dead"), at(replicas[1]!, "alive")],
            gone: [at(replicas[0]!, "gone1")]
          }
        })
        yield* Effect.gen(function* () {
          const ports = yield* DbRouter.bindGroup(readPorts(), "analytics")
          assert.deepStrictEqual([...ports], [replicas[1]!.port])
          const error = yield* Effect.flip(DbRouter.bindGroup(readPort, "gone"))
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
          assert.include(error.message, "gone1: down")
        }).pipe(Effect.provide(live), Effect.provide(silent))
        yield* replicas[0]!.start
      })
    )

    it.scoped(
      "a router keeps one connection to each server for its probes and one reader, and none when it is closed",
      () =>
        Effect.gen(function* () {
          const { nodes, primary, replicas } = yield* PgCluster.PgCluster
          const sessionsOf = (application: string) =>
            Effect.forEach(nodes, (node) => Effect.map(activity(node, application), (rows) => rows.length))
          const sessions = sessionsOf("probed%")
          const named = (node: PgCluster.Node) => ({ url: node.url, name: node.name, applicationName: "probed" })
          const groups = { default: [named(primary)], read: replicas.map(named) }
          yield* Effect.gen(function* () {
            yield* readPorts(4)
            // For some time: probes go on meanwhile.
            const looks = Effect.replicateEffect(Effect.delay(sessions, "60 millis"), 10)
            yield* eventually(looks, (all) => all.every((each) => String(each) === "1,1,1"))
          }).pipe(Effect.provide(over(primary, replicas, { groups })))
          yield* eventually(sessions, (all) => all.every((n) => n === 0))
          const unchecked = over(primary, replicas, { groups, health: false })
          yield* Effect.gen(function* () {
            yield* readPort
            assert.deepStrictEqual(yield* sessionsOf("probed health"), [0, 0, 0])
            assert.strictEqual((yield* statusOf("replica1")).state, "unchecked")
          }).pipe(Effect.provide(unchecked))
        })
    )

    it.scoped("drained and undrained: told once each, and shown", () =>
      Effect.gen(function* () {
        const { primary, replicas } = yield* PgCluster.PgCluster
        yield* Effect.gen(function* () {
          const router = yield* DbRouter.DbRouter
          const seen = yield* events
          yield* router.drain("replica1")
          yield* router.drain("replica1")
          const status = yield* statusOf("replica1")
          assert.deepStrictEqual([status.state, status.eligible], ["draining", false])
          assert.deepStrictEqual([...(yield* readPorts())], [replicas[1]!.port])
          yield* router.undrain("replica1")
          assert.strictEqual((yield* statusOf("replica1")).state, "up")
          assert.include([...(yield* readPorts())], replicas[0]!.port)
          assert.deepStrictEqual(
            seen.map(({ _tag, engine }) => [_tag, engine]),
            [
              ["Drained", "replica1"],
              ["Undrained", "replica1"]
            ]
          )
        }).pipe(Effect.provide(over(primary, replicas)), Effect.provide(silent))
      })
    )
  }
)
