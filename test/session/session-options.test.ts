import { SqlClient, SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Stream } from "effect"
import { DbRouter, RouterError, type Session } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

const cluster = RouterTest.PgCluster.PgCluster

const schema = [
  // Writes, though it says that it does not: only a standby finds out.
  "CREATE FUNCTION write_note() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO note VALUES (1000) RETURNING id'",
  "CREATE FUNCTION hidden() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN write_note(); END'"
]

/** What a setting is in the transaction that answers. */
const shown = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ value: string }>`SELECT current_setting(${name}, true) AS value`, (rows) => rows[0]!.value)
  )

/** How many rows a read sees. */
const counted = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql`SELECT id FROM note`, (rows) => rows.length)
)

/** Another connection writes, and the replicas have it. */
const elsewhere = (id: number) =>
  Effect.zipRight(
    Sessions.onPrimary("INSERT INTO note VALUES ($1)", [id]),
    Effect.flatMap(cluster, ({ awaitReplayed }) => awaitReplayed)
  )

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "options of a session",
  (it) => {
    it.effect("isolation", () =>
      Effect.gen(function* () {
        const levels = ["read uncommitted", "read committed", "repeatable read", "serializable"] as const
        for (const isolation of levels) {
          const shownLevel = yield* DbRouter.session(DbRouter.primary(shown("transaction_isolation")), { isolation })
          assert.strictEqual(shownLevel, isolation)
          const inSavepoint = Effect.flatMap(SqlClient.SqlClient, (sql) =>
            sql.withTransaction(shown("transaction_isolation"))
          )
          assert.strictEqual(yield* DbRouter.newSession(inSavepoint, { isolation }), isolation)
        }
        assert.strictEqual(yield* DbRouter.session(DbRouter.primary(shown("transaction_isolation"))), "read committed")
      })
    )

    it.effect("serializable sessions read on the primary, in their transaction", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const [, statements] = yield* RouterTest.traced(
          DbRouter.session(Effect.zipRight(sql`SELECT id FROM note`, DbRouter.replica(sql`SELECT id FROM note`)), {
            isolation: "serializable"
          })
        )
        assert.deepStrictEqual(
          statements.map(({ engine, reason }) => [engine, reason]),
          [
            ["primary", "standbys have no serializable isolation"],
            ["primary", "standbys have no serializable isolation"]
          ]
        )
      })
    )

    it.effect("readOnly refuses what may write, and tells the server", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            const error = yield* Sessions.routerErrorOf(insert(1))
            assert.strictEqual(error.reason, "ReadOnlyViolation")
            assert.include(error.message, "INSERT")
            assert.strictEqual(yield* Sessions.reasonOf(sql.withTransaction(insert(2))), "ReadOnlyViolation")
            assert.strictEqual(
              yield* Sessions.reasonOf(Stream.runDrain(sql`DELETE FROM note`.stream)),
              "ReadOnlyViolation"
            )
            assert.strictEqual(yield* DbRouter.primary(shown("transaction_read_only")), "on")
            const engines = yield* RouterTest.enginesOf(Effect.repeatN(sql`SELECT id FROM note`, 1))
            assert.deepStrictEqual(engines.toSorted(), ["replica1", "replica2"])
            assert.strictEqual(yield* Sessions.reasonOf(DbRouter.detached(insert(3))), "ReadOnlyViolation")
            yield* DbRouter.detached(insert(3), { readOnly: false })
          }),
          { readOnly: true }
        )
        assert.deepStrictEqual(yield* stored, [3])
      }).pipe(Effect.provide(Sessions.router()))
    )

    it.effect("deferrable", () =>
      Effect.gen(function* () {
        const options = { isolation: "serializable", readOnly: true, deferrable: true } as const
        assert.strictEqual(yield* DbRouter.session(shown("transaction_deferrable"), options), "on")
        assert.strictEqual(yield* DbRouter.session(DbRouter.primary(shown("transaction_deferrable"))), "off")
      })
    )

    it.effect("statementTimeout bounds every statement, on replicas too", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const options = { statementTimeout: "100 millis" } as const
        const slow = sql`SELECT pg_sleep(20)`
        const [took] = yield* Effect.timed(
          DbRouter.session(
            Effect.gen(function* () {
              assert.strictEqual(yield* Sessions.codeOf(slow), "57014")
              yield* sql`SELECT id FROM note`
              yield* insert(1)
            }),
            options
          )
        )
        assert.isBelow(Duration.toSeconds(took), 10)
        assert.strictEqual(yield* Sessions.codeOf(DbRouter.session(DbRouter.primary(slow), options)), "57014")
        assert.strictEqual(yield* DbRouter.session(DbRouter.primary(shown("statement_timeout")), options), "100ms")
        assert.strictEqual(yield* DbRouter.primary(shown("statement_timeout")), "0")
        assert.deepStrictEqual(yield* stored, [1])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("idleTimeout is the server's, and ends with the transaction", () =>
      Effect.gen(function* () {
        const name = "idle_in_transaction_session_timeout"
        assert.strictEqual(yield* DbRouter.session(DbRouter.primary(shown(name)), { idleTimeout: "90 seconds" }), "90s")
        assert.strictEqual(yield* DbRouter.primary(shown(name)), "0")
      })
    )

    it.effect("reads: snapshot is one state of the data on one replica, while others write", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const seen = yield* DbRouter.session(
          Effect.gen(function* () {
            const before = yield* counted
            yield* elsewhere(1)
            const after = yield* counted
            const many = yield* Effect.all(
              Array.from({ length: 10 }, () => counted),
              { concurrency: "unbounded" }
            )
            const engines = yield* RouterTest.enginesOf(Effect.repeatN(sql`SELECT id FROM note`, 3))
            const streamed = yield* Stream.runCount(sql`SELECT id FROM note`.stream)
            assert.lengthOf(new Set(engines), 1)
            assert.include(["replica1", "replica2"], engines[0])
            const level = yield* shown("transaction_isolation")
            yield* DbRouter.commit
            return { before, after, many: new Set(many), streamed, level, anew: yield* counted }
          }),
          { reads: "snapshot" }
        )
        assert.deepStrictEqual(seen, {
          before: 0,
          after: 0,
          many: new Set([0]),
          streamed: 0,
          level: "repeatable read",
          anew: 1
        })
        yield* Sessions.assertQuiet
      })
    )

    it.effect("reads: snapshot sees the session's own writes", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        yield* DbRouter.session(
          Effect.gen(function* () {
            assert.strictEqual(yield* counted, 0)
            yield* insert(1)
            assert.strictEqual(yield* counted, 1)
            yield* elsewhere(2)
            assert.strictEqual(yield* counted, 1)
          }),
          { reads: "snapshot" }
        )
        assert.deepStrictEqual(yield* stored, [1, 2])
        yield* Sessions.assertQuiet
      })
    )

    for (const place of ["a replica", "the primary"]) {
      it.effect(`readOnly(...) is one state of the data on ${place}, whatever joins it`, () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const seen = yield* DbRouter.readOnly(
            Effect.gen(function* () {
              const before = yield* counted
              yield* elsewhere(1)
              const nested = yield* sql.withTransaction(sql.withTransaction(counted))
              const joined = yield* DbRouter.session(counted)
              assert.strictEqual(yield* Sessions.reasonOf(insert(2)), "ReadOnlyViolation")
              return [before, yield* counted, nested, joined]
            })
          )
          assert.deepStrictEqual(seen, [0, 0, 0, 0])
          assert.strictEqual(yield* counted, 1)
          yield* Sessions.assertQuiet
        }).pipe(Effect.provide(Sessions.router(place === "a replica" ? {} : { enabled: false })))
      )
    }

    it.effect("settings hold for every transaction of the session, and for no statement after it", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const settings = { "app.user": "it's me", "app.empty": "", work_mem: "5MB" }
        const seen = yield* DbRouter.session(
          Effect.gen(function* () {
            const read = yield* Effect.all([shown("app.user"), shown("app.empty"), shown("work_mem")])
            const engines = yield* RouterTest.enginesOf(shown("app.user"))
            assert.include(["replica1", "replica2"], engines[0])
            yield* insert(1)
            const written = yield* Effect.all([shown("app.user"), sql.withTransaction(shown("work_mem"))])
            yield* DbRouter.commit
            const again = yield* DbRouter.primary(shown("app.user"))
            const bound = yield* DbRouter.bindGroup(shown("app.user"), "analytics")
            return {
              read,
              written,
              again,
              bound
            }
          }),
          { settings }
        )
        assert.deepStrictEqual(seen, {
          read: ["it's me", "", "5MB"],
          written: ["it's me", "5MB"],
          again: "it's me",
          bound: "it's me"
        })
        for (const where of [DbRouter.primary, DbRouter.replica, DbRouter.bindGroup("analytics")]) {
          assert.include([null, ""], yield* where(shown("app.user")))
          assert.notStrictEqual(yield* where(shown("work_mem")), "5MB")
        }
        yield* Sessions.assertQuiet
      }).pipe(Effect.provide(Sessions.router({ engine: { maxConnections: 1 } })))
    )

    it.effect("a setting that the server does not know fails the first statement, and costs no connection", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const session = DbRouter.session(insert(1), { settings: { no_such_setting: "1" } })
        assert.strictEqual(yield* Sessions.codeOf(session), "42704")
        assert.strictEqual(
          yield* Sessions.codeOf(DbRouter.session(counted, { settings: { work_mem: "much" } })),
          "22023"
        )
        yield* Sessions.assertQuiet
        yield* DbRouter.session(insert(2))
        assert.deepStrictEqual(yield* stored, [2])
      })
    )

    it.effect(
      "with settings, a session that waits for the primary holds no replica's connection that it can do without",
      () =>
        Effect.gen(function* () {
          const sql = yield* Sessions.setUp
          const options = { settings: { "app.user": "1" } }
          const holding = yield* Sessions.gate
          const [, seen] = yield* Effect.all(
            [
              DbRouter.session(Effect.all([counted, holding.wait, insert(1)]), options),
              DbRouter.session(
                Effect.gen(function* () {
                  yield* DbRouter.primary(sql`SELECT id FROM note`)
                  yield* holding.open
                  yield* Effect.sleep("50 millis")
                  return yield* Effect.all([counted, counted])
                }),
                options
              )
            ],
            { concurrency: "unbounded" }
          ).pipe(Effect.timeout("20 seconds"))
          assert.deepStrictEqual(seen, [0, 0])
          assert.deepStrictEqual(yield* stored, [1])
          const streamed = yield* DbRouter.session(
            sql`SELECT id FROM note`.stream.pipe(
              Stream.mapEffect(() => Effect.as(insert(2), 1)),
              Stream.runCollect
            ),
            options
          )
          assert.lengthOf(streamed, 1)
          assert.deepStrictEqual(yield* stored, [1, 2])
          yield* Sessions.assertQuiet
        }).pipe(
          Effect.provide(
            Layer.unwrapEffect(
              Effect.map(cluster, ({ primary, replicas }) =>
                Sessions.router({
                  groups: {
                    default: [{ url: primary.url, name: "primary", maxConnections: 1 }],
                    read: [{ url: replicas[0]!.url, name: "replica1", maxConnections: 1 }]
                  }
                })
              )
            )
          )
        )
    )

    it.effect("with settings, a read on a replica that fails or is interrupted harms no other read", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        yield* Sessions.onPrimary("INSERT INTO note VALUES (0)")
        yield* RouterTest.settle
        yield* DbRouter.session(
          Effect.gen(function* () {
            const divide = sql`SELECT 1 / id FROM note`
            const interrupted = Effect.timeout(sql`SELECT pg_sleep(20)`, "20 millis")
            const all = yield* Effect.forEach(
              [counted, divide, counted, interrupted, counted, divide, counted],
              (effect) => Effect.either<unknown, unknown, DbRouter.Services>(effect),
              { concurrency: "unbounded" }
            )
            assert.deepStrictEqual(
              all.map((either) => (either._tag === "Right" ? either.right : "failed")),
              [1, "failed", 1, "failed", 1, "failed", 1]
            )
            yield* insert(1)
          }),
          { settings: { "app.user": "1" } }
        )
        assert.deepStrictEqual(yield* stored, [0, 1])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("with settings, what a standby refuses runs in the session's transaction on the primary", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const refused = sql<{ n: number }>`SELECT hidden() AS n`
        const run = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          DbRouter.session(Effect.zipRight(effect, Effect.zip(counted, shown("app.user"))), {
            settings: { "app.user": "1" }
          })
        assert.deepStrictEqual(yield* run(refused), [1, "1"])
        assert.deepStrictEqual(yield* stored, [1000])
        yield* Sessions.onPrimary("TRUNCATE note")
        yield* RouterTest.settle
        assert.deepStrictEqual(yield* run(Stream.runDrain(sql`SELECT hidden() AS m`.stream)), [1, "1"])
        assert.deepStrictEqual(yield* stored, [1000])
        yield* Sessions.assertQuiet
      })
    )

    it.effect("those that cannot be used are a typed error, which names them", () =>
      Effect.gen(function* () {
        const wrong: ReadonlyArray<readonly [field: string, options: unknown]> = [
          ["session.isolation", { isolation: "chaos" }],
          ["session.readOnly", { readOnly: "yes" }],
          ["session.deferrable", { deferrable: 1 }],
          ["session.statementTimeout", { statementTimeout: "soon" }],
          ["session.statementTimeout", { statementTimeout: 0 }],
          ["session.idleTimeout", { idleTimeout: -1 }],
          ["session.reads", { reads: "primary" }],
          ["session.settings", { settings: "app.user=1" }],
          ["session.settings.app.user", { settings: { "app.user": 42 } }],
          ["session.isolationLevel", { isolationLevel: "serializable" }]
        ]
        for (const [field, options] of wrong) {
          const given = options as Session.Options
          const ways = [
            DbRouter.session(Effect.void, given),
            Effect.void.pipe(DbRouter.session(given)),
            DbRouter.newSession(Effect.void, given)
          ]
          for (const way of ways) {
            const error = yield* Effect.flip(way)
            assert.instanceOf(error, SqlError.SqlError)
            assert.instanceOf(error.cause, RouterError.RouterConfigError)
            assert.strictEqual((error.cause as RouterError.RouterConfigError).field, field)
          }
        }
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(DbRouter.session(Effect.void, {}))))
      })
    )
  }
)
