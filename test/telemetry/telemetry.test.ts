import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Logger, type Scope, Stream } from "effect"
import { DbRouter, Telemetry } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { activity, eventually } from "../support/engine.js"
import { over } from "../support/health.js"
import * as RouterTest from "../support/router.js"
import { allSeries, changesOf, sumOf } from "../support/telemetry.js"

const { duration, hedgedReads, lookups, movedReads, statements } = Telemetry.instruments

const statementsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(changesOf(statements, effect), ([, changes]) => changes)

/** A router of its own, without hedging and with engines of the usual names. */
const routed = <A, E>(
  use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, DbRouter.Services | PgCluster.PgCluster | Scope.Scope>,
  options: Parameters<typeof over>[2] = {},
  replicas = 1
) =>
  Effect.flatMap(PgCluster.PgCluster, (cluster) =>
    Effect.provide(
      Effect.scoped(Effect.flatMap(SqlClient.SqlClient, use)),
      over(cluster.primary, cluster.replicas.slice(0, replicas), options)
    ).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )

const isRunning = (node: PgCluster.Node, text: string) =>
  eventually(activity(node), (all) => all.some(({ query, state }) => state === "active" && query.includes(text)))

layer(RouterTest.cluster, { timeout: "60 seconds", excludeTestServices: true })("a statement is counted", (it) => {
  it.effect("once, where it went and by the rule that sent it there", () =>
    routed((sql) =>
      Effect.gen(function* () {
        yield* sql`CREATE TABLE counted (id int PRIMARY KEY)`
        const changes = yield* statementsOf(
          Effect.gen(function* () {
            yield* sql`SELECT 1`
            yield* Effect.all([sql`SELECT 2`, sql`SELECT 3`], { concurrency: "unbounded" })
            yield* sql`INSERT INTO counted VALUES (1)`
            yield* sql`SET LOCAL work_mem = '5MB'`
            yield* DbRouter.primary(sql`SELECT 1`)
            yield* DbRouter.bindGroup(sql`SELECT 1`, "read")
            yield* sql.withTransaction(Effect.zipRight(sql`SELECT 1`, sql.withTransaction(sql`SELECT 1`)))
            yield* DbRouter.session(Effect.zipRight(sql`INSERT INTO counted VALUES (2)`, sql`SELECT 1`))
            yield* Effect.scoped(Effect.flatMap(sql.reserve, (on) => on.execute("SELECT 1", [], undefined)))
            yield* DbRouter.maxStaleness(sql`SELECT 1`, 0)
            const fiber = yield* Effect.fork(sql`SELECT 1`)
            yield* Fiber.join(fiber)
          })
        )
        assert.deepStrictEqual(changes, {
          "default primary read forced success": 1,
          "default primary read reserved success": 1,
          "default primary read session_wrote success": 1,
          "default primary read stale success": 1,
          "default primary read transaction success": 2,
          "default primary session session success": 1,
          "default primary write write success": 2,
          "read replica1 read bound success": 1,
          "read replica1 read read success": 4
        })
      })
    )
  )

  it.effect("as an error, by its type, and with the server's code", () =>
    routed((sql) =>
      Effect.gen(function* () {
        const failing = Effect.ignore(sql`SELECT 1 / 0`)
        const changes = yield* statementsOf(failing)
        assert.deepStrictEqual(changes, { "read replica1 read read error": 1 })
        const [, durations] = yield* changesOf(duration, failing, ["engine", "errorType", "statusCode"])
        assert.deepStrictEqual(durations, { "replica1 22012 22012": 1 })
        const [[, spans], sent] = yield* changesOf(statements, RouterTest.spansOf(failing))
        assert.deepStrictEqual(sent, changes)
        const span = spans.find(({ name }) => name === "sql.execute")!
        assert.strictEqual(span.attributes.get("error.type"), "22012")
        assert.strictEqual(span.attributes.get("db.response.status_code"), "22012")
        assert.strictEqual(span.attributes.get("db.router.rule"), "read")
      })
    )
  )

  it.effect("as interrupted when its fiber is, and when it runs out of time", () =>
    Effect.flatMap(PgCluster.PgCluster, ({ replicas }) =>
      routed((sql) =>
        Effect.gen(function* () {
          const [, durations] = yield* changesOf(
            duration,
            Effect.gen(function* () {
              const changes = yield* statementsOf(
                Effect.gen(function* () {
                  const fiber = yield* Effect.fork(sql`SELECT pg_sleep(61)`)
                  yield* isRunning(replicas[0]!, "pg_sleep(61)")
                  yield* Fiber.interrupt(fiber)
                })
              )
              assert.deepStrictEqual(changes, { "read replica1 read read interrupted": 1 })
              const late = yield* statementsOf(Effect.timeoutOption(sql`SELECT pg_sleep(62)`, "50 millis"))
              assert.deepStrictEqual(late, changes)
            }),
            ["engine", "errorType"]
          )
          assert.deepStrictEqual(durations, { "replica1 interrupted": 2 })
        })
      )
    )
  )

  it.effect("as an error when a strategy of the user's throws, and as sent nowhere when it is refused", () =>
    routed(
      (sql) =>
        Effect.gen(function* () {
          const unknown = Effect.ignore(DbRouter.bindGroup(sql`SELECT 1`, "unknown"))
          const refused = { "none none none none error": 1 }
          assert.deepStrictEqual(yield* statementsOf(unknown), refused)
          const [, durations] = yield* changesOf(duration, unknown, ["engine", "errorType"])
          assert.deepStrictEqual(durations, { "none UnknownGroup": 1 })
          const exit = yield* Effect.exit(sql`SELECT 1`)
          assert(Exit.isFailure(exit) && Cause.isDie(exit.cause))
          assert.deepStrictEqual(yield* statementsOf(Effect.exit(sql`SELECT 1`)), refused)
        }),
      {
        strategy: {
          name: "thrower",
          make: () => (engines) => {
            if (engines[0]!.name === "primary") return engines[0]!
            throw new TypeError("no choice")
          }
        }
      }
    )
  )

  it.effect("once when it has moved, where it was answered", () =>
    Effect.flatMap(PgCluster.PgCluster, ({ primary, replicas }) =>
      routed((sql) =>
        Effect.gen(function* () {
          yield* primary.query(
            "CREATE SEQUENCE moving; CREATE FUNCTION moves() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''moving''); END'"
          )
          yield* Effect.flatMap(PgCluster.PgCluster, (cluster) => cluster.awaitReplayed)
          yield* Effect.flatMap(DbRouter.DbRouter, ({ runner }) => runner.router.classifier.refresh)
          const [changes, moved] = yield* changesOf(movedReads, statementsOf(sql`SELECT moves()`))
          assert.deepStrictEqual(changes, { "default primary write refused success": 1 })
          assert.deepStrictEqual(moved, { "replica1 refused": 1 })
          // Remembered as a write, it does not move again.
          const [again, none] = yield* changesOf(movedReads, statementsOf(sql`SELECT moves()`))
          assert.deepStrictEqual(again, { "default primary write write success": 1 })
          assert.deepStrictEqual(none, {})

          const [broken, after] = yield* changesOf(
            movedReads,
            statementsOf(
              Effect.gen(function* () {
                const fiber = yield* Effect.fork(sql`SELECT pg_sleep(1), 'terminated'`)
                yield* isRunning(replicas[0]!, "'terminated'")
                yield* replicas[0]!.query(
                  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'effect-db-router' AND query LIKE '%terminated%' AND pid <> pg_backend_pid()"
                )
                yield* Fiber.join(fiber)
              })
            )
          )
          assert.deepStrictEqual(broken, { "default primary read moved success": 1 })
          assert.deepStrictEqual(after, { "replica1 moved": 1 })
        })
      )
    )
  )

  it.effect("once when it was sent to two replicas, where it was answered first", () =>
    routed(
      (sql) =>
        Effect.gen(function* () {
          const slow = sql.unsafe(
            "SELECT pg_sleep(CASE current_setting('cluster_name') WHEN 'replica1' THEN 20 ELSE 0 END)"
          )
          const [changes, hedged] = yield* changesOf(hedgedReads, statementsOf(Effect.zipRight(slow, slow)))
          assert.deepStrictEqual(changes, {
            "read replica2 read hedged success": 1,
            "read replica2 read read success": 1
          })
          assert.deepStrictEqual(hedged, { "replica1 second": 1 })
        }),
      { hedge: { after: "1 second", maxShare: 1 } },
      2
    )
  )

  it.effect("as a stream when that ends: taken whole, in part, failed, or interrupted", () =>
    routed((sql) =>
      Effect.gen(function* () {
        const success = { "read replica1 read read success": 1 }
        const numbers = sql`SELECT generate_series(1, 1000) AS n`.stream
        assert.deepStrictEqual(yield* statementsOf(Stream.runDrain(numbers)), success)
        assert.deepStrictEqual(yield* statementsOf(Stream.runCollect(Stream.take(numbers, 3))), success)
        const broken = sql`SELECT 1 / (500 - n) AS n FROM generate_series(1, 1000) n`.stream
        const failed = yield* statementsOf(Effect.ignore(Stream.runDrain(broken)))
        assert.deepStrictEqual(failed, { "read replica1 read read error": 1 })
        const interrupted = yield* statementsOf(
          Effect.gen(function* () {
            const taken = yield* Effect.makeLatch(false)
            const fiber = yield* Effect.fork(
              Stream.runForEach(numbers, () => Effect.zipRight(taken.open, Effect.never))
            )
            yield* taken.await
            yield* Fiber.interrupt(fiber)
          })
        )
        assert.deepStrictEqual(interrupted, { "read replica1 read read interrupted": 1 })
        const inside = yield* statementsOf(sql.withTransaction(Stream.runDrain(numbers)))
        assert.deepStrictEqual(inside, { "default primary read transaction success": 1 })
        const reserved = Effect.flatMap(sql.reserve, (on) =>
          Stream.runDrain(on.executeStream("SELECT generate_series(1, 3)", [], undefined))
        )
        assert.deepStrictEqual(yield* statementsOf(Effect.scoped(reserved)), {
          "default primary read reserved success": 1
        })
        // A stream that is not run is no statement.
        assert.deepStrictEqual(yield* statementsOf(Effect.sync(() => numbers)), {})
      })
    )
  )

  it.effect("and timed: as many durations as statements, in seconds, in OpenTelemetry's buckets", () =>
    routed((sql) =>
      Effect.gen(function* () {
        yield* Effect.all([sql`SELECT pg_sleep(0.06)`, sql`SELECT 1`])
        const own = (yield* allSeries).filter(
          ({ labels, name }) =>
            name === duration.name && labels["db.router.engine"] === "replica1" && labels["error.type"] === undefined
        )
        const [series] = own
        assert.lengthOf(own, 1)
        const state = series!.state as unknown as { buckets: Array<[number, number]>; max: number; min: number }
        assert.deepStrictEqual(
          state.buckets.map(([boundary]) => boundary),
          [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, Number.POSITIVE_INFINITY]
        )
        assert.isAtLeast(state.max, 0.06)
        assert.isBelow(state.min, 0.06)
        const { "server.address": address, "server.port": port, ...labels } = series!.labels
        assert.strictEqual(`${address}:${port}`, yield* addressOf("replica1"))
        assert.deepStrictEqual(labels, {
          unit: "s",
          "db.system.name": "postgresql",
          "db.namespace": "postgres",
          "db.router.group": "read",
          "db.router.engine": "replica1",
          "db.router.kind": "read"
        })
      })
    )
  )

  it.effect("with the labels of its fiber", () =>
    routed((sql) =>
      Effect.gen(function* () {
        yield* Effect.tagMetrics(sql`SELECT 1`, "tenant", "blue")
        const series = (yield* allSeries).filter(({ labels }) => labels.tenant === "blue")
        assert.deepStrictEqual(series.map(({ name }) => name).sort(), [duration.name, statements.name])
      })
    )
  )

  it.effect("under labels that no text, value, name or message gets into", () =>
    routed((sql) =>
      Effect.gen(function* () {
        const texts = (i: number) => [
          `SELECT ${i} AS a${i}`,
          `SELECT nextval('s${i}')`,
          `SELECT unknown${i}()`,
          `SELECT * FROM missing${i}`,
          `UPDATE missing${i} SET a = 1`,
          `SET search_path = 'a${i}'`,
          `SELECT CAST('x${i}' AS int)`,
          `DO $$BEGIN RAISE EXCEPTION 'message ${i}'; END$$`
        ]
        const run = (from: number, to: number) =>
          Effect.forEach(
            Array.from({ length: to - from }, (_, i) => texts(from + i)).flat(),
            (text) => Effect.ignore(sql.unsafe(text)),
            { concurrency: 8 }
          )
        yield* run(0, 1)
        const keys = Effect.map(allSeries, (all) => all.map(({ labels, name }) => `${name} ${JSON.stringify(labels)}`))
        const before = yield* keys
        const counted = yield* sumOf(statements)
        yield* run(1, 126)
        assert.strictEqual((yield* sumOf(statements)) - counted, 1_000)
        assert.deepStrictEqual(yield* keys, before)
      })
    )
  )

  it.effect("by at most 100 types of errors", () =>
    routed((sql) =>
      Effect.gen(function* () {
        const raise = (i: number) =>
          Effect.ignore(
            sql.unsafe(`DO $$BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'Z${String(i).padStart(4, "0")}'; END$$`)
          )
        const [, types] = yield* changesOf(
          duration,
          Effect.forEach(
            Array.from({ length: 130 }, (_, i) => i),
            raise,
            { concurrency: 8 }
          ),
          ["errorType"]
        )
        assert.lengthOf(Object.keys(types), 101)
        assert.strictEqual(types._OTHER, 30)
      })
    )
  )

  it.effect("not at all with metrics: false", () =>
    routed(
      (sql) =>
        Effect.gen(function* () {
          const all = Effect.map(allSeries, (series) => JSON.stringify(series))
          const before = yield* all
          yield* DbRouter.session(sql`SELECT 1`)
          yield* sql.withTransaction(sql`SELECT 1`)
          yield* Effect.ignore(sql`SELECT 1 / 0`)
          yield* Stream.runDrain(sql`SELECT 1`.stream)
          yield* Effect.scoped(Effect.flatMap(sql.reserve, (on) => on.execute("SELECT 1", [], undefined)))
          assert.strictEqual(yield* all, before)
          // The span says all the same how it has failed.
          const [, spans] = yield* RouterTest.spansOf(Effect.ignore(sql`SELECT 1 / 0`))
          assert.include(
            spans.map(({ attributes }) => attributes.get("error.type")),
            "22012"
          )
        }),
      { metrics: false }
    )
  )

  it.effect("by the classifier when it is asked for its text: a miss, then hits", () =>
    routed((sql) =>
      Effect.gen(function* () {
        const looked = (effect: Effect.Effect<unknown, SqlError.SqlError>) =>
          Effect.map(changesOf(lookups, effect), ([, changes]) => changes)
        const text = sql`SELECT 'never seen before'`
        assert.deepStrictEqual(yield* looked(text), { miss: 1 })
        assert.deepStrictEqual(yield* looked(Effect.zipRight(text, text)), { hit: 2 })
      })
    )
  )
})

const addressOf = (name: string) =>
  Effect.flatMap(DbRouter.DbRouter, ({ status }) =>
    Effect.map(status, (all) => {
      const { host, port } = all.find((engine) => engine.name === name)!
      return `${host}:${port}`
    })
  )
