import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Ref, Stream } from "effect"
import { Consistency, DbRouter, RouterError } from "effect-db-router"
import * as RouterTest from "../support/router.js"
import * as Sessions from "../support/session.js"

const { insert, stored } = Sessions

/** What follows the end of a unit, as it happens. */
const follow = Effect.map(Ref.make<ReadonlyArray<string>>([]), (seen) => {
  const note = (what: string) => Ref.update(seen, (all) => [...all, what])
  return {
    seen: Ref.get(seen),
    ask: Effect.zipRight(DbRouter.afterCommit(note("commit")), DbRouter.afterRollback(note("rollback")))
  }
})

const text = (sql: string) => Effect.flatMap(SqlClient.SqlClient, (client) => client.unsafe(sql))

const streamed = (sql: string) => Effect.map(SqlClient.SqlClient, (client) => client.unsafe(sql).stream)

const tenant = DbRouter.primary(text("SELECT current_setting('app.tenant', true) AS tenant"))

/** A unit of work of each kind: a transaction that begins with its first statement, with a savepoint, or without. */
const units = {
  "DbRouter.session": <A, E, R>(effect: Effect.Effect<A, E, R>) => DbRouter.session(effect),
  "sql.withTransaction": <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect)),
  "a session's DbRouter.atomic": <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    DbRouter.session(DbRouter.atomic(effect, { current: "savepoint" }))
}

const whole = [
  "COMMIT",
  "END",
  "COMMIT AND CHAIN",
  "SELECT 1; COMMIT",
  "COMMIT; BEGIN",
  "BEGIN; COMMIT",
  "COMMIT/**/WORK"
]

const undone = [
  "ROLLBACK",
  "ABORT",
  "ROLLBACK AND CHAIN",
  "ROLLBACK AND /* ; */ CHAIN",
  "SELECT 1; ROLLBACK",
  "ROLLBACK WORK"
]

/** A part is committed, or may be. */
const partly = [
  "COMMIT; INSERT INTO note VALUES (2); ROLLBACK",
  "ROLLBACK; INSERT INTO note VALUES (2)",
  "COMMIT; SELECT 1/0",
  "COMMIT; BEGIN; SELECT 1/0",
  "COMMIT; BEGIN; INSERT INTO note VALUES (2)",
  "ROLLBACK; BEGIN",
  "PREPARE TRANSACTION 'text'; BEGIN"
]

/** A text for each way in which PostgreSQL may open another transaction in place of one. */
const replacing = [
  "COMMIT AND CHAIN",
  "COMMIT/* ; */AND/* ; */CHAIN",
  "ROLLBACK AND CHAIN",
  "ROLLBACK AND -- ;\n CHAIN",
  "abort work and chain",
  "END AND CHAIN; SELECT 1",
  "ROLLBACK AND /* ; */ CHAIN; SELECT 1",
  "COMMIT; BEGIN READ WRITE",
  "ROLLBACK; START TRANSACTION",
  "PREPARE TRANSACTION 'text'; BEGIN",
  "SELECT 1; PREPARE TRANSACTION 'text'; START TRANSACTION; SELECT 2",
  "SAVEPOINT a; ROLLBACK TO a; ROLLBACK; BEGIN; SAVEPOINT b; ROLLBACK TO b",
  "COMMIT; BEGIN; SAVEPOINT a; SELECT 1/0"
]

const prepared = ["PREPARE TRANSACTION 'text'", "SELECT 1; PREPARE TRANSACTION 'text'"]

/** What leaves the transaction as it was. */
const harmless = [
  "BEGIN",
  "START TRANSACTION",
  "SAVEPOINT mine",
  "SAVEPOINT chain; ROLLBACK TO chain",
  "SAVEPOINT a; ROLLBACK TO a /* AND CHAIN */; BEGIN",
  "PREPARE begin AS SELECT 1; BEGIN; DEALLOCATE begin",
  "SAVEPOINT mine; INSERT INTO note VALUES (2); ROLLBACK TO SAVEPOINT mine",
  "SAVEPOINT mine; SAVEPOINT other; RELEASE mine",
  "CALL silent()",
  "DO $$ BEGIN BEGIN PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"
]

const schema = [
  "CREATE PROCEDURE silent() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$",
  "CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO note VALUES (2); COMMIT; END $$",
  "CREATE PROCEDURE rolling_back() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO note VALUES (2); ROLLBACK; END $$",
  "CREATE TABLE entry (note int REFERENCES note DEFERRABLE INITIALLY DEFERRED)"
]

const clusterWithPrepared = RouterTest.PgCluster.layer({
  replicas: 1,
  settings: { max_prepared_transactions: "5" }
})

/** Until a statement sleeps on the primary: what comes before it in its text has run. */
const asleep = Effect.repeat(
  Sessions.onPrimary<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
  { until: ([row]) => row!.n > 0 }
)

const setUp = Effect.zipRight(
  Effect.catchAll(Sessions.onPrimary("ROLLBACK PREPARED 'text'"), () => Effect.void),
  Sessions.setUp
)

layer(
  Sessions.router({ consistency: Consistency.causal() }).pipe(
    Layer.provideMerge(
      Layer.effectDiscard(
        Effect.gen(function* () {
          yield* Sessions.onPrimary("CREATE TABLE note (id int PRIMARY KEY, v text)")
          yield* Effect.forEach(schema, (sql) => Sessions.onPrimary(sql))
          yield* RouterTest.settle
        })
      )
    ),
    Layer.provideMerge(clusterWithPrepared)
  ),
  { excludeTestServices: true, timeout: "2 minutes" }
)("transaction control that is sent as text", (it) => {
  for (const [name, unit] of Object.entries(units)) {
    for (const sql of [...whole, ...undone, ...partly, ...prepared]) {
      it.effect(`ends ${name}: what comes after it is refused: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const late = yield* Ref.make<unknown>(undefined)
          const error = yield* Effect.flip(
            unit(
              Effect.gen(function* () {
                yield* ask
                yield* insert(1)
                yield* Effect.ignore(text(sql))
                yield* Effect.tapError(insert(9), (error) => Ref.set(late, error))
              })
            )
          )
          const isUndone = undone.includes(sql)
          const reason = isUndone ? "CommitRolledBack" : "OutcomeUnknown"
          assert.deepStrictEqual(RouterError.reasonOf(error), Option.some(reason))
          assert.strictEqual(RouterError.outcomeOf(error), isUndone ? "not done" : "unknown")
          assert.strictEqual(yield* Ref.get(late), error)
          assert.notInclude(yield* stored, 9)
          assert.deepStrictEqual(yield* seen, isUndone ? ["rollback"] : [])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of whole) {
      it.effect(`that commits all of ${name} is its end: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          yield* unit(Effect.all([ask, insert(1), text(sql)]))
          assert.deepStrictEqual(yield* stored, [1])
          assert.deepStrictEqual(yield* seen, ["commit"])
          const read = yield* text("SELECT id FROM note")
          assert.deepStrictEqual(read, [{ id: 1 }])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of undone) {
      it.effect(`that rolls ${name} back fails it: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const error = yield* Sessions.routerErrorOf(unit(Effect.all([ask, insert(1), text(sql)])))
          assert.deepInclude(error, { reason: "CommitRolledBack", group: "default", engine: "primary" })
          assert.include(error.message, "as text")
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(yield* seen, ["rollback"])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of partly) {
      it.effect(`that commits a part of ${name}, or may, fails it: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const error = yield* Sessions.routerErrorOf(unit(Effect.all([ask, insert(1), Effect.ignore(text(sql))])))
          assert.deepInclude(error, { reason: "OutcomeUnknown", group: "default", engine: "primary" })
          assert.deepStrictEqual(yield* seen, [])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of ["COMMIT; SELECT 1/0", "COMMIT; BEGIN; SELECT 1/0"]) {
      it.effect(`that commits ${name} and fails does not tell that nothing is there: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const error = yield* Effect.flip(unit(Effect.all([ask, insert(1), text(sql)])))
          assert.strictEqual(RouterError.outcomeOf(error), "unknown")
          assert.deepStrictEqual(yield* stored, [1])
          assert.deepStrictEqual(yield* seen, [])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of prepared) {
      it.effect(`that prepares ${name} is its end, and nothing is committed yet: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          yield* unit(Effect.all([ask, insert(1), text(sql)]))
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(yield* seen, [])
          yield* text("COMMIT PREPARED 'text'")
          assert.deepStrictEqual(yield* text("SELECT id FROM note"), [{ id: 1 }])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of ["COMMIT", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'text'"]) {
      it.effect(`that ends ${name}, which a statement has failed in: it is rolled back: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const failing = Effect.all([ask, insert(1), Effect.ignore(insert(1)), text(sql)])
          assert.strictEqual(yield* Sessions.reasonOf(unit(failing)), "CommitRolledBack")
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(yield* seen, ["rollback"])
          yield* Sessions.assertQuiet
        })
      )
    }

    it.effect(`that commits ${name}, which fails then: neither hook follows`, () =>
      Effect.gen(function* () {
        yield* setUp
        const { ask, seen } = yield* follow
        const exit = yield* Effect.exit(unit(Effect.all([ask, insert(1), text("COMMIT"), Effect.fail("no")])))
        assert.deepStrictEqual(exit, Exit.fail("no"))
        assert.deepStrictEqual(yield* stored, [1])
        assert.deepStrictEqual(yield* seen, [])
        // The flow sees what it has written.
        assert.deepStrictEqual(yield* text("SELECT id FROM note"), [{ id: 1 }])
        yield* Sessions.assertQuiet
      })
    )

    it.effect(`that a deferred constraint refuses: ${name} was rolled back`, () =>
      Effect.gen(function* () {
        yield* setUp
        const { ask, seen } = yield* follow
        const dangling = text("INSERT INTO entry VALUES (99)")
        const caught = Effect.all([ask, insert(1), dangling, Effect.ignore(text("COMMIT"))])
        assert.strictEqual(yield* Sessions.reasonOf(unit(caught)), "CommitRolledBack")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )

    for (const sql of harmless) {
      it.effect(`that leaves the transaction of ${name} as it was: it commits: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          yield* unit(Effect.all([ask, insert(1), text(sql), insert(3)]))
          assert.deepStrictEqual(yield* stored, [1, 3])
          assert.deepStrictEqual(yield* seen, ["commit"])
          yield* Sessions.assertQuiet
        })
      )

      it.effect(`that leaves the transaction of ${name} as it was: it rolls back: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const failing = unit(Effect.all([ask, insert(1), text(sql), insert(3), Effect.fail("no")]))
          assert.deepStrictEqual(yield* Effect.exit(failing), Exit.fail("no"))
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(yield* seen, ["rollback"])
          yield* Sessions.assertQuiet
        })
      )
    }

    for (const sql of [
      "CALL committing()",
      "CALL rolling_back()",
      "DO $$ BEGIN COMMIT; END $$",
      "SELECT 1/0; COMMIT"
    ]) {
      it.effect(`that PostgreSQL refuses fails ${name}, and nothing is there: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const { ask, seen } = yield* follow
          const caught = unit(Effect.all([ask, insert(1), Effect.ignore(text(sql))]))
          assert.strictEqual(yield* Sessions.reasonOf(caught), "CommitRolledBack")
          assert.deepStrictEqual(yield* stored, [])
          assert.deepStrictEqual(yield* seen, ["rollback"])
          yield* Sessions.assertQuiet
        })
      )
    }

    it.effect(`that recovers ${name} from an error, to a savepoint of its own`, () =>
      Effect.gen(function* () {
        yield* setUp
        const recovering = Effect.all([
          insert(1),
          text("SAVEPOINT mine"),
          Effect.ignore(insert(1)),
          text("ROLLBACK TO mine"),
          insert(2)
        ])
        yield* unit(recovering)
        assert.deepStrictEqual(yield* stored, [1, 2])
        yield* Sessions.assertQuiet
      })
    )
  }

  it.effect("in a session refuses its reads too, those of children and streams, until DbRouter.commit", () =>
    Effect.gen(function* () {
      yield* setUp
      yield* DbRouter.session(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* insert(1)
          yield* text("COMMIT")
          yield* DbRouter.commit
          yield* insert(2)
          yield* text("ROLLBACK")
          const ways = [
            sql`SELECT 1`,
            DbRouter.replica(sql`SELECT 1`),
            Effect.flatMap(Effect.fork(sql`SELECT 1`), (fiber) => fiber),
            Stream.runDrain(sql`SELECT 1`.stream),
            sql.withTransaction(sql`SELECT 1`)
          ]
          for (const way of ways) assert.strictEqual(yield* Sessions.reasonOf(way), "CommitRolledBack")
          yield* DbRouter.rollback
          yield* insert(3)
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 3])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("as a stream ends the unit too", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { ask, seen } = yield* follow
      const late = sql.withTransaction(
        Effect.all([ask, insert(1), Stream.runDrain(sql.unsafe("COMMIT").stream), insert(2)])
      )
      assert.strictEqual(yield* Sessions.reasonOf(late), "OutcomeUnknown")
      assert.deepStrictEqual(yield* stored, [1])
      assert.deepStrictEqual(yield* seen, [])
      yield* Sessions.assertQuiet
    })
  )

  const isSeveral = /;\s*[a-z]/i
  // What runs without them has the privileges of the login role.
  for (const sql of [...replacing, ...harmless]) {
    const ways: Record<string, Effect.Effect<unknown, SqlError.SqlError, SqlClient.SqlClient>> = {
      text: text(sql),
      stream: Effect.flatMap(streamed(sql), Stream.runDrain)
    }
    for (const [way, run] of Object.entries(ways)) {
      // The protocol of streams takes one statement.
      if (way === "stream" && isSeveral.test(sql)) continue
      // It is not even sent.
      const isRefused = replacing.includes(sql) && /; *[a-z]/i.test(sql)
      it.effect(`never lets a statement run without the settings of its session, sent as ${way}: ${sql}`, () =>
        Effect.gen(function* () {
          yield* setUp
          const seen = yield* Ref.make<unknown>(undefined)
          const error = yield* Effect.option(
            Effect.flip(
              DbRouter.session({ settings: { "app.tenant": "a" } })(
                Effect.gen(function* () {
                  yield* insert(1)
                  yield* Effect.ignore(run)
                  if (!isRefused) yield* Effect.ignore(text("ROLLBACK TO a"))
                  yield* Effect.flatMap(tenant, (rows) => Ref.set(seen, rows))
                })
              )
            )
          )
          if (isRefused) {
            assert.isTrue(Option.isNone(error))
            assert.deepStrictEqual(yield* Ref.get(seen), [{ tenant: "a" }])
          } else if (replacing.includes(sql)) {
            const reason = Option.flatMap(error, RouterError.reasonOf)
            assert.include(["CommitRolledBack", "OutcomeUnknown"], Option.getOrUndefined(reason))
            assert.strictEqual(yield* Ref.get(seen), undefined)
          } else if (Option.isNone(error)) {
            assert.deepStrictEqual(yield* Ref.get(seen), [{ tenant: "a" }])
          }
          yield* Sessions.assertQuiet
        })
      )
    }
  }

  /** Writes, and sends a text whose connection ends behind its COMMIT. */
  const cutBehindCommit = Effect.gen(function* () {
    yield* insert(1)
    const pid = yield* Sessions.pid
    yield* Effect.fork(Effect.zipRight(asleep, Sessions.terminate(pid)))
    yield* text("COMMIT; SELECT pg_sleep(20)")
  })

  it.effect("whose answer is lost leaves the outcome unknown", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { ask, seen } = yield* follow
      const broken = Effect.zipRight(ask, Effect.ignore(cutBehindCommit))
      assert.strictEqual(yield* Sessions.reasonOf(sql.withTransaction(broken)), "OutcomeUnknown")
      assert.deepStrictEqual(yield* stored, [1])
      assert.deepStrictEqual(yield* seen, [])
    })
  )

  it.effect("whose answer is lost, with its unit: neither hook follows", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const { ask, seen } = yield* follow
      const broken = Effect.zipRight(ask, cutBehindCommit)
      const error = yield* Effect.flip(sql.withTransaction(broken))
      assert.strictEqual(RouterError.outcomeOf(error), "unknown")
      assert.deepStrictEqual(yield* stored, [1])
      assert.deepStrictEqual(yield* seen, [])
    })
  )

  for (const before of [
    "COMMIT",
    "SELECT 1; COMMIT AND CHAIN",
    "COMMIT; BEGIN",
    "PREPARE TRANSACTION 'text'; BEGIN",
    "PREPARE TRANSACTION 'text'"
  ]) {
    it.effect(`that is interrupted leaves the outcome unknown: ${before}`, () =>
      Effect.gen(function* () {
        const sql = yield* setUp
        const { ask, seen } = yield* follow
        const cut = Effect.raceFirst(text(`${before}; SELECT pg_sleep(20)`), asleep)
        const late = yield* Ref.make(Option.none<string>())
        const after = Effect.catchAll(text("SELECT 1"), (error) => Ref.set(late, RouterError.reasonOf(error)))
        const error = yield* Effect.flip(sql.withTransaction(Effect.all([ask, insert(1), cut, after])))
        assert.deepStrictEqual(RouterError.reasonOf(error), Option.some("OutcomeUnknown"))
        assert.strictEqual(RouterError.outcomeOf(error), "unknown")
        assert.deepStrictEqual(yield* Ref.get(late), Option.some("OutcomeUnknown"))
        assert.deepStrictEqual(yield* stored, before.startsWith("PREPARE") ? [] : [1])
        assert.deepStrictEqual(yield* seen, [])
        yield* Sessions.assertQuiet
      })
    )
  }

  it.effect("is not what only looks like it: an interruption of that can be undone", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      const looks = text("SELECT CASE WHEN true THEN pg_sleep(20) END AS commit /* ; ROLLBACK AND CHAIN */")
      yield* sql.withTransaction(
        Effect.all([
          insert(1),
          text("SAVEPOINT mine"),
          Effect.raceFirst(looks, asleep),
          text("ROLLBACK TO mine"),
          insert(2)
        ])
      )
      assert.deepStrictEqual(yield* stored, [1, 2])
      yield* Sessions.assertQuiet
    })
  )

  it.effect("is the program's own on a connection of its own", () =>
    Effect.gen(function* () {
      const sql = yield* setUp
      yield* Effect.scoped(
        Effect.gen(function* () {
          const own = yield* sql.reserve
          const run = (text: string) => own.executeUnprepared(text, [], undefined)
          yield* run("BEGIN")
          yield* run("INSERT INTO note VALUES (1)")
          yield* run("COMMIT AND CHAIN")
          yield* run("INSERT INTO note VALUES (2)")
          yield* run("ROLLBACK")
          yield* run("INSERT INTO note VALUES (3)")
        })
      )
      assert.deepStrictEqual(yield* stored, [1, 3])
      yield* Sessions.assertQuiet
    })
  )

  for (const sql of ["RELEASE SAVEPOINT edr_1", "ROLLBACK TO outer_one", "RELEASE outer_one"]) {
    it.effect(`that takes the savepoint of a nested unit away fails the unit, and nothing is there: ${sql}`, () =>
      Effect.gen(function* () {
        const client = yield* setUp
        const { ask, seen } = yield* follow
        const unit = client.withTransaction(
          Effect.all([
            ask,
            insert(1),
            text("SAVEPOINT outer_one"),
            Effect.ignore(client.withTransaction(Effect.all([insert(2), text(sql), insert(3)])))
          ])
        )
        const error = yield* Effect.flip(unit)
        assert.strictEqual(RouterError.outcomeOf(error), "not done")
        assert.deepStrictEqual(yield* stored, [])
        assert.deepStrictEqual(yield* seen, ["rollback"])
        yield* Sessions.assertQuiet
      })
    )
  }
})
