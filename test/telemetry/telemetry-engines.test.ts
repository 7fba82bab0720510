import { SqlClient } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FiberRef, HashMap, Logger, LogLevel } from "effect"
import { DbRouter, type Health, Telemetry } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually } from "../support/engine.js"
import { becomes, events, over, statusOf } from "../support/health.js"
import { sumOf } from "../support/telemetry.js"

const { connections, engineState, engineWriter, lagDuration, lagSize, connectionLimit, pendingRequests } =
  Telemetry.instruments

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
}

/** Runs an effect and tells what it logs of the servers. */
const logged = <A, E, R>(use: (lines: ReadonlyArray<Line>) => Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const lines: Array<Line> = []
    const logger = Logger.make<unknown, void>(({ annotations, logLevel, message }) => {
      const all = Object.fromEntries(HashMap.toEntries(annotations))
      if ("db.router.event" in all) {
        lines.push({ level: logLevel.label, message: (message as ReadonlyArray<unknown>).join(" "), annotations: all })
      }
    })
    return use(lines).pipe(
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Effect.locally(FiberRef.currentMinimumLogLevel, LogLevel.Debug)
    )
  })

const onCluster = <A, E>(use: (cluster: PgCluster.Cluster) => Effect.Effect<A, E, PgCluster.PgCluster>) =>
  Effect.flatMap(PgCluster.PgCluster, use).pipe(Effect.provide(PgCluster.layer({ replicas: 2 })))

/** What the log says of an event, and what there should be. */
const expected = (event: Health.Event): Readonly<Record<string, unknown>> => {
  const of = { "db.router.engine": event.engine ?? "none", "db.router.group": event.group }
  switch (event._tag) {
    case "StateChanged":
      return {
        ...of,
        "db.router.event": "state_changed",
        "db.router.state": event.to,
        "db.router.previous.state": event.from
      }
    case "PrimaryChanged":
      return { ...of, "db.router.event": "primary_changed", "db.router.previous.engine": event.from }
    case "PrimaryDisputed":
      return { ...of, "db.router.event": "primary_disputed", "db.router.rivals": event.rivals.join(", ") }
    case "Drained":
      return { ...of, "db.router.event": "drained" }
    case "Undrained":
      return { ...of, "db.router.event": "undrained" }
    case "EngineAdded":
      return { ...of, "db.router.event": "engine_added" }
    case "EngineRemoved":
      return { ...of, "db.router.event": "engine_removed" }
  }
}

/** The state of an engine by its gauges, of which exactly one is set. */
const stateOf = (engine: string) =>
  Effect.gen(function* () {
    const states = ["starting", "up", "lagging", "foreign", "suspect", "down", "draining", "unchecked"]
    const set: Array<string> = []
    for (const state of states) {
      const value = yield* sumOf(engineState, { engine, state })
      assert.include([0, 1], value)
      if (value === 1) set.push(state)
    }
    return set.join(" and ")
  })

const becomesBy = <A>(read: Effect.Effect<A>, value: A) => eventually(read, (now) => now === value)

describe("telemetry of the engines", { timeout: 60_000 }, () => {
  it.live("every change of them is logged once, with what it was, and their gauges follow", () =>
    onCluster(({ primary, replicas }) =>
      logged((lines) =>
        Effect.gen(function* () {
          const [first, second] = [replicas[0]!, replicas[1]!]
          yield* Effect.gen(function* () {
            const router = yield* DbRouter.DbRouter
            const seen = yield* events
            const before = lines.length
            assert.strictEqual(yield* stateOf("replica1"), "up")
            assert.strictEqual(yield* sumOf(engineWriter, { engine: "primary" }), 1)
            assert.strictEqual(yield* sumOf(engineWriter), 1)

            yield* router.drain("replica2")
            yield* router.drain("replica2")
            assert.strictEqual(yield* stateOf("replica2"), "draining")
            yield* router.undrain("replica2")
            assert.strictEqual(yield* stateOf("replica2"), "up")

            yield* second.kill
            yield* becomes("replica2", "down")
            assert.strictEqual(yield* stateOf("replica2"), "down")
            yield* second.start
            yield* becomes("replica2", "up")
            assert.strictEqual(yield* stateOf("replica2"), "up")

            yield* router.rebind("replica2", { url: first.url })
            yield* becomes("replica2", "up")
            // Else it might be the first one to say that this server is the primary.
            yield* router.rebind("replica2", { url: second.url })
            yield* becomes("replica2", "up")

            yield* primary.kill
            yield* first.promote
            yield* eventually(statusOf("replica1"), ({ group }) => group === "default")
            yield* becomesBy(sumOf(engineWriter, { engine: "replica1" }), 1)
            assert.strictEqual(yield* sumOf(engineWriter), 1)

            yield* eventually(
              Effect.sync(() => lines.length - before),
              (count) => count >= seen.length + 1
            )
            const annotations = lines.slice(before).map(({ annotations }) => annotations)
            const isRebound = (line: Readonly<Record<string, unknown>>) => line["db.router.event"] === "rebound"
            assert.deepStrictEqual(
              annotations.filter((line) => !isRebound(line)),
              seen.map(expected)
            )
            assert.deepStrictEqual(
              annotations.filter(isRebound),
              [first, second].map(({ port }) => ({
                "db.router.event": "rebound",
                "db.router.engine": "replica2",
                "db.router.group": "read",
                "server.address": "127.0.0.1",
                "server.port": port
              }))
            )
            const tags = new Set(seen.map(({ _tag }) => _tag))
            for (const tag of ["StateChanged", "Drained", "Undrained", "PrimaryChanged"] as const) {
              assert.isTrue(tags.has(tag), tag)
            }
          }).pipe(Effect.scoped, Effect.provide(over(primary, [first, second])))
          // Nothing is left of a router that is closed.
          assert.strictEqual(yield* sumOf(engineState), 0)
          assert.strictEqual(yield* sumOf(engineWriter), 0)
        })
      )
    )
  )

  it.live("their pools are shown as they were at the last probe, and their lag as it was at the last answer", () =>
    onCluster(({ awaitReplayed, primary, replicas }) =>
      Effect.gen(function* () {
        yield* primary.query("CREATE TABLE big (text text)")
        yield* awaitReplayed
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const pool = (state: "used" | "idle") => sumOf(connections, { poolName: "replica1", connectionState: state })
          assert.strictEqual(yield* sumOf(connectionLimit, { poolName: "replica1" }), 10)
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.forEach([1, 2], () => DbRouter.bindGroup(sql.reserve, "read"))
              yield* becomesBy(pool("used"), 2)
              assert.strictEqual(yield* pool("idle"), 0)
              const busy = Effect.all(
                Array.from({ length: 10 }, () =>
                  Effect.scoped(DbRouter.bindGroup(Effect.zipRight(sql.reserve, Effect.never), "read"))
                ),
                { concurrency: "unbounded" }
              )
              yield* Effect.forkScoped(busy)
              yield* becomesBy(sumOf(pendingRequests, { poolName: "replica1" }), 2)
            })
          )
          yield* becomesBy(pool("used"), 0)
          assert.isAbove(yield* pool("idle"), 0)

          yield* replicas[0]!.pauseReplay
          yield* primary.query("INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
          yield* eventually(sumOf(lagSize, { engine: "replica1" }), (bytes) => bytes > 1_000_000)
          yield* eventually(sumOf(lagDuration, { engine: "replica1" }), (seconds) => seconds > 0.3)
          assert.isBelow(yield* sumOf(lagDuration, { engine: "replica1" }), 60)
          assert.strictEqual(yield* sumOf(lagSize, { engine: "primary" }), 0)
          yield* replicas[0]!.resumeReplay
          yield* becomesBy(sumOf(lagSize, { engine: "replica1" }), 0)
        }).pipe(Effect.provide(over(primary, [replicas[0]!])))
        assert.strictEqual(yield* sumOf(connectionLimit), 0)
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
    )
  )

  it.live("are shown with health: false too, and not at all with metrics: false", () =>
    onCluster(({ primary, replicas }) =>
      Effect.gen(function* () {
        const shown = (options: Parameters<typeof over>[2]) =>
          Effect.zip(becomesShown, stateOf("replica1")).pipe(
            Effect.map(([count]) => count),
            Effect.provide(over(primary, [replicas[0]!], { health: false, ...options }))
          )
        const becomesShown = eventually(sumOf(engineState, { state: "unchecked" }), (count) => count === 2)
        assert.strictEqual(yield* shown({}), 2)
        const none = Effect.provide(sumOf(engineState), over(primary, [replicas[0]!], { metrics: false }))
        assert.strictEqual(yield* none, 0)
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
    )
  )
})
