import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { Consistency, DbRouter, RouterError, RoutingContext } from "effect-db-router"
import * as RouterTest from "../support/router.js"

const prepare = Effect.flatMap(RouterTest.PgCluster.PgCluster, ({ awaitReplayed, primary }) =>
  Effect.zipRight(
    primary.query("CREATE TABLE IF NOT EXISTS item (id int); CREATE SEQUENCE IF NOT EXISTS ids"),
    awaitReplayed
  )
)

/** Runs an effect on a router of its own over the cluster in the context. */
const on = <A, E, R>(options: RouterTest.Options, effect: Effect.Effect<A, E, R | DbRouter.Services>) =>
  Effect.zipRight(prepare, Effect.provide(effect, RouterTest.router(options)))

const read = "SELECT id FROM item"
const write = "UPDATE item SET id = id"

/** Runs a statement, asserts that `explain` said beforehand where it went, and returns that. */
const went = (text: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const router = yield* DbRouter.DbRouter
    const { engine: explained, ...explanation } = yield* router.explain(text)
    const [, statements] = yield* RouterTest.traced(sql.unsafe(text))
    assert.lengthOf(statements, 1)
    const [{ engine, group, kind, observed, reason }] = statements as [RouterTest.Executed]
    assert.deepStrictEqual<unknown>(
      { ...explanation, observed: explanation.observed?.group },
      { group, kind, reason, observed: observed?.group }
    )
    if (group !== "read") assert.strictEqual(explained, engine)
    return { engine, group, kind, reason, observed }
  })

const groupsOf = (...texts: ReadonlyArray<string>) =>
  Effect.forEach(texts, (text) => Effect.map(went(text), ({ group }) => group))

const reasonOf = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert.deepInclude(error, { _tag: "SqlError" })
    return Option.getOrThrow(RouterError.fromSqlError(error))
  })

layer(RouterTest.cluster, { excludeTestServices: true, timeout: "2 minutes" })("options of the router", (it) => {
  it.effect("automatic: reads to replicas, the rest to the primary", () =>
    on(
      {},
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* groupsOf(read, "LISTEN c", read, write, read), [
          "read",
          "default",
          "read",
          "default",
          "default"
        ])
        yield* DbRouter.reset
        assert.deepStrictEqual(yield* groupsOf(read), ["read"])
        assert.deepStrictEqual(yield* DbRouter.primary(groupsOf(read)), ["default"])
        assert.deepStrictEqual(yield* DbRouter.bindGroup(groupsOf(read), "analytics"), ["analytics"])
        assert.strictEqual((yield* DbRouter.primary(went(read))).reason, "forced to the primary")
        assert.strictEqual((yield* DbRouter.bindGroup(went(write), "archive")).reason, "bound to the group archive")
      })
    )
  )

  it.effect("reads: explicit keeps reads on the primary outside replica(...)", () =>
    on(
      { reads: "explicit" },
      Effect.gen(function* () {
        assert.deepInclude(yield* went(read), { group: "default", kind: "read", reason: "reads are explicit" })
        assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "read", reason: "plain SELECT" })
        assert.deepInclude(yield* DbRouter.replica(went(write)), { group: "default", kind: "write" })
        assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "read" })
      })
    )
  )

  it.effect("reads: observe runs everything on the primary, and says where it would have gone", () =>
    on(
      { reads: "observe" },
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        const first = yield* went(`${read} /* observed */`)
        assert.deepInclude(first, { group: "default", engine: "primary", kind: "read", reason: "reads are observed" })
        assert.strictEqual(first.observed?.group, "read")
        assert.oneOf(first.observed?.engine, ["replica1", "replica2"])
        assert.strictEqual((yield* router.explain(read)).observed?.group, "read")
        assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "default" })
        assert.strictEqual((yield* DbRouter.replica(went(read))).observed?.group, "read")
        const sql = yield* SqlClient.SqlClient
        const [, [streamed]] = yield* RouterTest.traced(Stream.runDrain(sql`SELECT id FROM item /* observed */`.stream))
        assert.deepInclude(streamed, { group: "default", reason: "reads are observed" })
        assert.strictEqual(streamed?.observed?.group, "read")
        assert.deepStrictEqual(yield* RouterTest.ranOn("/* observed */"), ["primary", "primary"])
        assert.strictEqual((yield* went(write)).observed, undefined)
        assert.deepInclude(yield* went(read), { reason: "sticky after a write", observed: undefined })
      })
    )
  )

  it.effect("enabled: false sends everything but bind groups to the primary", () =>
    on(
      { enabled: false },
      Effect.gen(function* () {
        assert.deepInclude(yield* went(read), { group: "default", kind: "read", reason: "routing is disabled" })
        assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "default" })
        assert.deepInclude(yield* went(write), { group: "default", kind: "write" })
        assert.deepInclude(yield* DbRouter.bindGroup(went(read), "analytics"), { group: "analytics" })
      })
    )
  )

  it.effect("drain takes an engine out, undrain puts it back; what runs there goes on", () =>
    on(
      {},
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const eligible = Effect.map(router.status, (engines) =>
          engines.filter((engine) => !engine.eligible).map((engine) => engine.name)
        )
        const running = yield* Effect.fork(
          RouterTest.enginesOf(Effect.all([sql`SELECT pg_sleep(0.3)`, sql`SELECT pg_sleep(0.3)`], { concurrency: 2 }))
        )
        yield* Effect.sleep("5 millis").pipe(
          Effect.zipRight(router.status),
          Effect.repeat({ until: (engines) => engines.reduce((sum, engine) => sum + engine.inFlight, 0) === 2 }),
          Effect.timeout("10 seconds")
        )
        yield* router.drain("replica1")
        assert.deepStrictEqual(yield* eligible, ["replica1"])
        const engines = yield* Effect.forEach(Array.from({ length: 6 }), () =>
          Effect.map(went(read), (to) => to.engine)
        )
        assert.deepStrictEqual(new Set(engines), new Set(["replica2"]))
        assert.sameMembers([...(yield* running)], ["replica1", "replica2"])
        yield* router.undrain("replica1")
        assert.deepStrictEqual(yield* eligible, [])
        const again = yield* Effect.forEach(Array.from({ length: 4 }), () => Effect.map(went(read), (to) => to.engine))
        assert.deepStrictEqual(new Set(again), new Set(["replica1", "replica2"]))
        const error = yield* Effect.flip(router.drain("replica9"))
        assert.strictEqual(error.reason, "UnknownEngine")
        assert.include(error.message, '"replica1"')
      })
    )
  )

  it.effect("onNoReplica: primary uses the default group, and says why", () =>
    on(
      {},
      Effect.gen(function* () {
        const router = yield* DbRouter.DbRouter
        yield* Effect.all([router.drain("replica1"), router.drain("replica2")])
        assert.deepInclude(yield* went(read), { group: "default", reason: "no replica is available" })
        assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "default" })
      })
    )
  )

  it.effect("onNoReplica: fail fails reads, and nothing else", () =>
    on(
      { onNoReplica: "fail" },
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        yield* Effect.all([router.drain("replica1"), router.drain("replica2")])
        for (const effect of [sql.unsafe(read), sql.unsafe(read).raw, Stream.runDrain(sql.unsafe(read).stream)]) {
          const error = yield* reasonOf(effect)
          assert.deepInclude({ ...error }, { reason: "NoEngineAvailable", group: "read" })
        }
        assert.strictEqual((yield* Effect.flip(router.explain(read))).reason, "NoEngineAvailable")
        assert.deepInclude(yield* went(write), { group: "default" })
        assert.deepInclude(yield* went(read), { group: "default", reason: "sticky after a write" })
      })
    )
  )

  it.effect("an unknown group is an error that lists the groups, for all that could use one", () =>
    on(
      {},
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const effects: ReadonlyArray<Effect.Effect<unknown, unknown, never>> = [
          sql.unsafe(read),
          sql.unsafe(write),
          Stream.runDrain(sql.unsafe(read).stream),
          sql.withTransaction(sql.unsafe(read)),
          Effect.scoped(sql.reserve)
        ]
        for (const effect of effects) {
          const error = yield* reasonOf(DbRouter.bindGroup(effect, "analytic"))
          assert.strictEqual(error.reason, "UnknownGroup")
          assert.deepStrictEqual(error.groups, ["default", "read", "analytics", "archive"])
          assert.include(error.message, '"analytics"')
        }
        const error = yield* Effect.flip(DbRouter.bindGroup(router.explain(read), "analytic"))
        assert.strictEqual(error.reason, "UnknownGroup")
        yield* sql.withTransaction(
          Effect.gen(function* () {
            assert.strictEqual(
              (yield* reasonOf(DbRouter.bindGroup(sql.unsafe(read), "analytic"))).reason,
              "UnknownGroup"
            )
            yield* sql.unsafe(write)
          })
        )
      })
    )
  )

  it.effect("without replicas it is a plain client", () =>
    Effect.gen(function* () {
      const { primary } = yield* RouterTest.PgCluster.PgCluster
      for (const groups of [{ default: [{ url: primary.url }] }, { default: [{ url: primary.url }], read: [] }]) {
        yield* on(
          { groups },
          Effect.gen(function* () {
            assert.deepInclude(yield* went(read), { group: "default", kind: "read" })
            assert.deepInclude(yield* DbRouter.replica(went(read)), { group: "default" })
            assert.deepInclude(yield* went(write), { group: "default" })
          })
        )
      }
    })
  )

  it.effect("consistency: eventual reads from replicas after a write, unless the flow is sent to the primary", () =>
    on(
      { consistency: Consistency.eventual() },
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* groupsOf(write, read), ["default", "read"])
        assert.deepStrictEqual(yield* Effect.locally(groupsOf(read), RoutingContext.stickToPrimary, true), ["default"])
      })
    )
  )

  it.effect("explain runs nothing, and takes no engine's turn", () =>
    on(
      {},
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const router = yield* DbRouter.DbRouter
        const { nodes } = yield* RouterTest.PgCluster.PgCluster
        const logged = Effect.map(
          Effect.forEach(nodes, (node) => node.log),
          (logs) =>
            logs
              .join("")
              .split("\n")
              .filter((line) => line.includes("statement:") || line.includes("execute")).length
        )
        const turns = RouterTest.enginesOf(Effect.all([sql.unsafe(read), sql.unsafe(read)]))
        const order = yield* turns
        const before = yield* logged
        const texts = [read, write, "SELECT nextval('ids')", "DROP TABLE item", "not sql at all", ""]
        for (const text of texts) {
          yield* router.explain(text)
          yield* DbRouter.bindGroup(router.explain(text), "analytics")
        }
        // An odd number of reads in all.
        yield* Effect.all([router.explain(read), router.explain(read)])
        assert.strictEqual(yield* logged, before)
        assert.deepStrictEqual(yield* turns, order)
        // It does not count as a write either.
        yield* router.explain(write)
        assert.strictEqual((yield* router.explain(read)).group, "read")
        yield* sql.withTransaction(
          Effect.gen(function* () {
            assert.deepInclude(yield* router.explain(read), { group: "default", reason: "inside a transaction" })
            assert.deepInclude(yield* went(read), { group: "default", reason: "inside a transaction" })
          })
        )
      })
    )
  )
})
