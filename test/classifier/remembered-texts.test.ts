/**
 * What the router remembers of a text, and that a stranger who sends the same text with values of their own cannot steer by it
 * where the statements of others go. The list is in docs/semantics.md.
 */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { DbRouter, type RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { eventually, stateOf } from "../support/engine.js"
import { over, statusOf } from "../support/health.js"

const Cluster = PgCluster.layer({ replicas: 1 })

const silent = Logger.replace(Logger.defaultLogger, Logger.none)

const setup = `
CREATE TABLE bucketed AS SELECT now() AS at;
CREATE SEQUENCE counted;
CREATE FUNCTION picky(state text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN IF state <> '' THEN RAISE EXCEPTION 'cannot make new WAL entries' USING ERRCODE = state; END IF; RETURN 1; END $$;
CREATE FUNCTION standby_only(state text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN IF state <> '' AND pg_is_in_recovery() THEN RAISE EXCEPTION 'no' USING ERRCODE = state; END IF; RETURN 1; END $$;
CREATE FUNCTION counting(really bool) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
BEGIN IF really THEN RETURN nextval('counted'); END IF; RETURN 0; END $$`

/** Each run begins with a router that knows nothing yet. */
const routed = <A, E>(
  effect: Effect.Effect<A, E, SqlClient.SqlClient | DbRouter.DbRouter>,
  options: Partial<RouterConfig.Options> = {}
) =>
  Effect.gen(function* () {
    const cluster = yield* PgCluster.PgCluster
    yield* cluster.primary.query(setup).pipe(Effect.ignore)
    yield* cluster.awaitReplayed
    return yield* Effect.provide(effect, over(cluster.primary, cluster.replicas, options))
  }).pipe(Effect.provide(silent))

/** Runs a text in a flow of its own, as another request would: the server that has answered, or the SQLSTATE. */
const ask = (text: string, values: ReadonlyArray<unknown>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const fiber = yield* Effect.forkDaemon(Effect.either(sql.unsafe<{ server: string }>(text, values as Array<string>)))
    const answer = yield* fiber
    return answer._tag === "Right" ? answer.right[0]!.server : stateOf(answer.left)
  })

const server = "current_setting('cluster_name') AS server"

layer(Cluster, { timeout: "60 seconds", excludeTestServices: true })("a stranger with the same text", (it) => {
  for (const [what, text, theirs, mine, state] of [
    ["a unit that there is not", `SELECT date_trunc($1, at) AS t, ${server} FROM bucketed`, "timezone", "day", "0A000"],
    [
      "an interval with months",
      `SELECT date_bin($1::interval, at, '2001-01-01') AS t, ${server} FROM bucketed`,
      "1 month",
      "1 day",
      "0A000"
    ],
    ...["25006", "55000", "0A000", "XX000"].map(
      (state) => [`an error ${state} of a function`, `SELECT picky($1), ${server}`, state, "", state] as const
    ),
    ...["25006", "55000", "0A000", "XX000"].map(
      (state) =>
        [
          `an error ${state} that only a standby raises`,
          `SELECT standby_only($1), ${server}`,
          state,
          "",
          "primary"
        ] as const
    ),
    ["a text that is no number", `SELECT $1::text::int AS n, ${server}`, "x", "1", "22P02"],
    ["a division by zero", `SELECT 1 / $1::int AS n, ${server}`, "0", "1", "22012"],
    ["a long statement", `SELECT pg_sleep($1::float8), ${server}`, "0.3", "0", "replica1"]
  ] as const) {
    it.scoped(`who sends ${what} does not move the others`, () =>
      routed(
        Effect.gen(function* () {
          const { explain } = yield* DbRouter.DbRouter
          yield* eventually(ask(text, [mine]), (it) => it === "replica1")
          for (let i = 0; i < 5; i++) {
            assert.strictEqual(yield* ask(text, [theirs]), state)
            assert.strictEqual((yield* explain(text)).kind, "read")
            // A server is looked at after some errors, and in again once it has answered.
            yield* eventually(ask(text, [mine]), (it) => it === "replica1")
            assert.strictEqual(yield* ask(text, [mine]), "replica1")
            const inside = yield* Effect.either(
              Effect.flatMap(SqlClient.SqlClient, (sql) => DbRouter.readOnly(sql.unsafe(text, [mine])))
            )
            assert.strictEqual(inside._tag, "Right")
          }
          assert.strictEqual((yield* statusOf("replica1")).state, "up")
        })
      )
    )
  }

  it.scoped(
    "who makes it write sends it to the primary until the catalog changes, and never out of a read-only section",
    () =>
      routed(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const { explain } = yield* DbRouter.DbRouter
          const text = `SELECT counting($1), ${server}`
          yield* eventually(ask(text, [false]), (it) => it === "replica1")
          assert.strictEqual(yield* ask(text, [true]), "primary")
          assert.deepInclude(yield* explain(text), { kind: "write", reason: "a standby refused it (25006)" })
          assert.strictEqual(yield* ask(text, [false]), "primary")
          const guarded = yield* DbRouter.readOnly(sql.unsafe<{ server: string }>(text, [false]))
          assert.strictEqual(guarded[0]!.server, "primary")
          assert.strictEqual(stateOf(yield* Effect.flip(DbRouter.readOnly(sql.unsafe(text, [true])))), "25006")
          yield* sql`CREATE TABLE IF NOT EXISTS ${sql(`changed_${Date.now()}`)} (n int)`
          yield* eventually(ask(text, [false]), (it) => it === "replica1")
        })
      )
  )

  it.scoped("who varies it does not change what is known of other texts", () =>
    routed(
      Effect.gen(function* () {
        const { explain } = yield* DbRouter.DbRouter
        const texts = [`SELECT ${server}`, "SELECT nextval('counted')", "SELECT pg_backend_pid()"]
        const before = yield* Effect.forEach(texts, (text) =>
          Effect.map(explain(text), ({ kind, reason }) => [kind, reason])
        )
        for (let i = 0; i < 500; i++) {
          yield* explain(`SELECT 'search ${i}'`)
          yield* explain(`SELECT * FROM unknown_${i}`)
          yield* explain(`SELECT ${"(".repeat(400)}${i}${")".repeat(400)}`)
          yield* explain(`-- it's\nSELECT ${"- ".repeat(5_000)}${i}`)
        }
        assert.deepStrictEqual(
          yield* Effect.forEach(texts, (text) => Effect.map(explain(text), ({ kind, reason }) => [kind, reason])),
          before
        )
      }),
      { classifier: { cacheSize: 64 } }
    )
  )
})
