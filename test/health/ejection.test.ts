/** A replica that answers probes but not statements gets no reads. */
import { SqlClient } from "@effect/sql"
import { assert, describe, layer, it as plain } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer, Option } from "effect"
import { Consistency, DbRouter, type RouterConfig, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { Outlier } from "../../src/internal/health/outlier.js"
import * as engines from "../support/engine.js"
import * as health from "../support/health.js"
import * as unwell from "../support/unwell.js"

engines.refuseWarnings()

describe("a server that fails statements", () => {
  const seconds = (count: number) => count * 1_000
  const limits = { ejectShare: 0.5, interval: Duration.seconds(1) }
  const make = () => new Outlier({ ...limits, ejectTime: Duration.seconds(10) })

  plain("is out when enough of them have failed, and as many as have succeeded", () => {
    const outlier = make()
    for (let i = 0; i < 4; i++) assert.isUndefined(outlier.fail(i, 0, true))
    assert.strictEqual(outlier.fail(4, 0, true), "5 of its last 5 statements have failed because of it")
    const busy = make()
    for (let i = 0; i < 9; i++) assert.isUndefined(busy.fail(i, i === 0 ? 0 : 10, true))
    assert.isDefined(busy.fail(10, 10, true))
  })

  plain("is not out for what failed long ago, nor without a time to be out", () => {
    const outlier = make()
    for (let i = 0; i < 20; i++) assert.isUndefined(outlier.fail(seconds(8 * i), 0, true))
    const never = new Outlier({ ...limits, ejectTime: Duration.zero })
    for (let i = 0; i < 20; i++) assert.isUndefined(never.fail(i, 0, true))
  })

  plain("is not out for what breaks all at once, nor the next time", () => {
    const outlier = make()
    for (let i = 0; i < 100; i++) assert.isUndefined(outlier.fail(i, 0, i === 0))
    for (let i = 0; i < 100; i++) assert.isUndefined(outlier.fail(seconds(1) + i, 0, i === 0))
    assert.isDefined(outlier.fail(seconds(2), 0, true))
  })

  plain("is counted for as long as three occasions may take where probes are rare", () => {
    const outlier = new Outlier({ ...limits, interval: Duration.minutes(1), ejectTime: Duration.seconds(10) })
    for (const at of [0, 1, 2, 20]) assert.isUndefined(outlier.fail(seconds(at), 0, at === 0 || at === 20))
    assert.isDefined(outlier.fail(seconds(40), 0, true))
  })

  plain("is tried at once when it was down meanwhile", () => {
    const outlier = make()
    outlier.eject(0)
    assert.isFalse(outlier.mayReturn(seconds(3)))
    outlier.wasDown(seconds(3))
    assert.isTrue(outlier.mayReturn(seconds(3)))
    // What fails there again keeps it out for longer, all the same.
    outlier.eject(seconds(3))
    assert.isFalse(outlier.mayReturn(seconds(22)))
  })

  plain("is tried after a while, and after twice as long each time, at most five minutes", () => {
    const outlier = make()
    let now = 0
    for (const expected of [10, 20, 40, 80, 160, 300, 300]) {
      outlier.eject(now)
      assert.isFalse(outlier.mayReturn(now + seconds(expected) - 1))
      now += seconds(expected)
      assert.isTrue(outlier.mayReturn(now))
    }
  })

  plain("is out at its first failure soon after it came back, and begins anew after long", () => {
    const outlier = make()
    outlier.eject(0)
    outlier.admit()
    assert.isFalse(outlier.isOut)
    assert.isDefined(outlier.fail(seconds(11), 0, true))
    outlier.eject(seconds(11))
    assert.isFalse(outlier.mayReturn(seconds(30)))
    outlier.admit()
    assert.isUndefined(outlier.fail(seconds(500), 0, true))
    outlier.eject(seconds(500))
    assert.isTrue(outlier.mayReturn(seconds(510)))
  })
})

layer(PgCluster.layer({ replicas: 2 }), { excludeTestServices: true, timeout: "3 minutes" })("a replica", (it) => {
  const over = (options: Partial<RouterConfig.Options> = {}) =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const proxy = yield* unwell.make(replicas[0]!)
      const context = yield* Layer.build(
        DbRouter.layer({
          groups: {
            default: [{ url: primary.url, name: "primary" }],
            read: [
              { url: unwell.urlOf(proxy, replicas[0]!.url), name: "unwell" },
              { url: replicas[1]!.url, name: "other" }
            ]
          },
          consistency: Consistency.eventual(),
          shutdownTimeout: "100 millis",
          health: { interval: "200 millis", timeout: "1 second", ejectTime: "2 seconds" },
          ...options
        })
      )
      return { proxy, context: Context.omit(PgCluster.PgCluster)(context) }
    })

  const read = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1 AS n`)

  const readsUntil = (state: string) =>
    Effect.zipRight(
      Effect.repeat(Effect.zipRight(read, Effect.sleep("20 millis")), {
        until: () => Effect.map(health.statusOf("unwell"), (status) => status.state === state)
      }),
      health.statusOf("unwell")
    )

  it.scoped("whose connections break under statements is out, and in again once one succeeds there", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* over()
      yield* Effect.gen(function* () {
        yield* health.becomes("unwell", "up")
        proxy.mode = "broken"
        const status = yield* Effect.timeout(readsUntil("ejected"), "30 seconds")
        assert.match(status.reason ?? "", /answers probes, but \d+ of its last \d+ statements have failed/)
        assert.isFalse(status.eligible)
        // Not because a probe succeeds.
        yield* Effect.sleep("1 second")
        assert.strictEqual((yield* health.statusOf("unwell")).state, "ejected")
        yield* Effect.replicateEffect(read, 20)
        proxy.mode = "well"
        yield* Effect.timeout(readsUntil("up"), "30 seconds")
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped("whose connections end all at once, as in a restart, serves again at its next probe", () =>
    Effect.gen(function* () {
      const { replicas } = yield* PgCluster.PgCluster
      const { context } = yield* over()
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* health.becomes("unwell", "up")
        const events = yield* health.events
        const reads = yield* Effect.forkScoped(
          Effect.replicateEffect(sql`SELECT pg_sleep(4)`, 20, { concurrency: "unbounded", discard: true })
        )
        yield* engines.eventually(
          Effect.map(health.statusOf("unwell"), ({ inFlight }) => inFlight),
          (running) => running >= 8
        )
        yield* replicas[0]!.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'effect-db-router'"
        )
        yield* engines.eventually(
          Effect.sync(() => health.statesOf(events, "unwell")),
          (states) => states.includes("up")
        )
        yield* Fiber.join(reads)
        assert.notInclude(health.statesOf(events, "unwell"), "ejected")
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped("that was down while it was out is tried as soon as it answers", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* over({
        health: { interval: "200 millis", timeout: "1 second", ejectTime: "10 minutes" }
      })
      yield* Effect.gen(function* () {
        yield* health.becomes("unwell", "up")
        proxy.mode = "broken"
        yield* Effect.timeout(readsUntil("ejected"), "30 seconds")
        proxy.mode = "gone"
        yield* health.becomes("unwell", "down")
        proxy.mode = "well"
        yield* health.becomes("unwell", "up")
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped("that leaves statements without an answer is out, and they are answered elsewhere", () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* over()
      yield* Effect.gen(function* () {
        yield* health.becomes("unwell", "up")
        yield* Effect.replicateEffect(read, 10)
        proxy.mode = "silent"
        // Some of them have gone there, without a limit of their time.
        yield* Effect.timeout(
          Effect.all(
            Array.from({ length: 20 }, () => read),
            { concurrency: "unbounded" }
          ),
          "30 seconds"
        )
        const status = yield* health.statusOf("unwell")
        assert.strictEqual(status.state, "ejected")
        assert.match(status.reason ?? "", /A statement had no answer within 1000 ms/)
        yield* engines.eventually(
          Effect.map(health.statusOf("unwell"), ({ inFlight, pool }) => [
            inFlight,
            pool.waiting,
            pool.total - pool.idle
          ]),
          (all) => all.every((count) => count === 0)
        )
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped("that is slow stays in: a statement of the router's own is answered", () =>
    Effect.gen(function* () {
      const { context } = yield* over()
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* health.becomes("unwell", "up")
        const slow = Array.from({ length: 4 }, () => sql`SELECT current_setting('cluster_name'), pg_sleep(8)`)
        yield* Effect.all(slow, { concurrency: "unbounded" })
        assert.strictEqual((yield* health.statusOf("unwell")).state, "up")
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped('that is the last one stays in where reads need one (onNoReplica: "fail")', () =>
    Effect.gen(function* () {
      const { context, proxy } = yield* over({ onNoReplica: "fail" })
      yield* Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        yield* health.becomes("unwell", "up")
        yield* router.drain("other")
        proxy.mode = "broken"
        for (let i = 0; i < 15; i++) {
          const error = yield* Effect.flip(read)
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("NoEngineAvailable"))
          yield* Effect.sleep("100 millis")
        }
        assert.notStrictEqual((yield* health.statusOf("unwell")).state, "ejected")
      }).pipe(Effect.provide(context))
    })
  )

  it.scoped("that answers nothing on new connections does not keep the pool from others for ever", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      const proxy = yield* unwell.make(primary)
      const url = unwell.urlOf(proxy, primary.url)
      const context = yield* Layer.build(
        DbRouter.layer({
          groups: { default: [{ url, name: "primary", maxConnections: 2, connectTimeout: "500 millis" }] },
          health: false,
          shutdownTimeout: "100 millis"
        })
      )
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { status } = yield* DbRouter.DbRouter
        // No connection is left of before.
        proxy.mode = "broken"
        yield* Effect.flip(Effect.repeat(sql`SELECT 1`, { times: 10 }))
        yield* engines.eventually(status, ([{ pool }]) => pool.total === 0)
        proxy.mode = "silent"
        const writes = Array.from({ length: 6 }, () => Effect.flip(sql`CREATE TABLE never (id int)`))
        yield* Effect.timeout(Effect.all(writes, { concurrency: "unbounded" }), "20 seconds")
        yield* engines.eventually(status, ([{ pool }]) => pool.total === 0)
        proxy.mode = "well"
        yield* Effect.timeout(sql`SELECT 1`, "20 seconds")
      }).pipe(Effect.provide(context))
    })
  )
})
