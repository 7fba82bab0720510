/**
 * What a server says of one statement: conflicts with replay, limits, damage, and what only a primary can do. Each error is
 * provoked on a real standby.
 */
import { rmSync, writeFileSync } from "node:fs"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted, Stream } from "effect"
import { DbRouter, RouterError } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as engines from "../support/engine.js"
import * as Failures from "../support/failures.js"
import { becomes } from "../support/health.js"

const { failuresOf, refusalOf, routed, sleeping, whileReading } = Failures

// Conflicts need standbys that cancel at once, and say nothing to the primary.
const Cluster = PgCluster.layer({
  replicas: 1,
  replicaSettings: { hot_standby_feedback: "off", max_standby_streaming_delay: "0" }
})

/** What an administrator does on the primary, and the replica has too. */
const done = (...statements: ReadonlyArray<string>) =>
  Effect.flatMap(PgCluster.PgCluster, ({ awaitReplayed, primary }) =>
    Effect.zipRight(
      Effect.forEach(statements, (statement) => primary.query(statement), { discard: true }),
      awaitReplayed
    )
  )

const conflicts = Effect.flatMap(PgCluster.PgCluster, ({ replicas }) =>
  Effect.map(
    replicas[0]!.query<{ n: number }>("SELECT sum(conflicts)::int AS n FROM pg_stat_database"),
    (rows) => rows[0]!.n
  )
)

/** Checks that replay has ended something on the replica. */
const conflicting = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* conflicts
    const value = yield* effect
    // A backend reports it when it ends.
    yield* engines.eventually(conflicts, (now) => now > before)
    return value
  })

/** A router whose replica, and primary, have a setting. */
const withSetting = (setting: string) =>
  Effect.map(PgCluster.PgCluster, ({ primary, replicas }) => {
    const at = (node: PgCluster.Node) => ({
      url: Redacted.make(`${Redacted.value(node.url)}?options=${encodeURIComponent(`-c ${setting}`)}`),
      name: node.name
    })
    return { groups: { default: [at(primary)], read: [at(replicas[0]!)] } }
  })

/** The file of a relation on a server. */
const fileOf = (node: PgCluster.Node, relation: string) =>
  Effect.map(
    node.query<{ path: string }>(
      "SELECT current_setting('data_directory') || '/' || pg_relation_filepath($1::regclass) AS path",
      [relation]
    ),
    (rows) => rows[0]!.path
  )

/** A spelling of `pg_advisory_xact_lock` that the catalog does not recognize in a body: else what calls the function is no read. */
const advisoryLock = 'U&"pg_adv\\0069sory_xact_lock"'

engines.refuseWarnings()

layer(Cluster, { timeout: "60 seconds", excludeTestServices: true })("a statement that fails on a replica", (it) => {
  it.scoped("XX000, 53200, 57P01, 08006 as an answer to values: once on each server, then the caller's", () =>
    Effect.gen(function* () {
      yield* done(
        `CREATE FUNCTION answering(code text, mark text) RETURNS int STABLE LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION USING ERRCODE = code, MESSAGE = mark; END $$`
      )
      yield* routed((replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const { primary } = yield* PgCluster.PgCluster
          const runs = (node: PgCluster.Node, mark: string) =>
            Effect.map(node.log, (log) => log.split(`ERROR:  ${mark}`).length - 1)
          for (const code of ["XX000", "53200", "57P01", "08006"]) {
            const mark = `answered-${code}`
            const [state] = yield* refusalOf(sql`SELECT answering(${code}, ${mark})`)
            assert.strictEqual(state, code)
            assert.deepStrictEqual([yield* runs(primary, mark), yield* runs(replica, mark)], [1, 1], code)
            yield* becomes("replica1", "up")
            // The primary alone, asked by name.
            const forced = `forced-${code}`
            yield* refusalOf(DbRouter.primary(sql`SELECT answering(${code}, ${forced})`))
            assert.deepStrictEqual([yield* runs(primary, forced), yield* runs(replica, forced)], [1, 0], code)
            yield* becomes("primary", "up")
          }
        })
      )
    })
  )

  it.scoped("40001 FATAL, a conflict with replay in a subtransaction: elsewhere, and the replica stays in", () =>
    Effect.gen(function* () {
      yield* done(
        "CREATE TABLE contested AS SELECT 1 AS n",
        `CREATE FUNCTION trying() RETURNS int STABLE LANGUAGE plpgsql AS $$
         DECLARE found int;
         BEGIN
           SELECT n INTO found FROM contested;
           BEGIN PERFORM ${sleeping}; EXCEPTION WHEN division_by_zero THEN NULL; END;
           RETURN found;
         END $$`
      )
      yield* routed((replica, { primary }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const failures = yield* conflicting(
            Effect.gen(function* () {
              const reading = yield* Effect.fork(failuresOf(sql`SELECT trying()`))
              yield* Failures.backendOf(replica, "trying")
              yield* primary.query("ALTER TABLE contested ADD more int")
              return yield* Fiber.join(reading)
            })
          )
          assert.deepStrictEqual(failures, ["replica1: 40001 -> primary"])
          yield* Failures.stays
        })
      )
    })
  )

  it.scoped("40001 FATAL, a conflict with replay between two statements of a session: it fails typed", () =>
    Effect.gen(function* () {
      yield* done("CREATE TABLE seen AS SELECT 1 AS n")
      yield* routed((_, { awaitReplayed, primary }) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const body = Effect.gen(function* () {
            yield* sql`SELECT n FROM seen`
            yield* conflicting(
              Effect.zipRight(Effect.orDie(primary.query("ALTER TABLE seen ADD more int")), Effect.orDie(awaitReplayed))
            )
            return yield* sql`SELECT n FROM seen`
          })
          const error = yield* Effect.flip(DbRouter.session(body, { reads: "snapshot", readOnly: true }))
          assert.strictEqual(engines.stateOf(error), "40001")
          assert.strictEqual(RouterError.outcomeOf(error), "not done")
          yield* Failures.stays
          assert.deepStrictEqual(yield* failuresOf(sql`SELECT n FROM seen`), [])
        })
      )
    })
  )

  it.scoped("40P01, a deadlock on the standby: elsewhere", () =>
    Effect.gen(function* () {
      // Of what locks there, only advisory locks can deadlock two reads, behind a function that claims to be one.
      yield* done(
        `CREATE FUNCTION entangled(a int, b int) RETURNS int STABLE LANGUAGE plpgsql AS $$
         BEGIN
           IF NOT pg_is_in_recovery() THEN RETURN 0; END IF;
           PERFORM ${advisoryLock}(a); PERFORM pg_sleep(0.3); PERFORM ${advisoryLock}(b);
           RETURN 1;
         END $$`
      )
      yield* routed(() =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const failures = yield* failuresOf(
            Effect.all([sql`SELECT entangled(1, 2)`, sql`SELECT entangled(2, 1)`], { concurrency: "unbounded" })
          )
          assert.deepStrictEqual(failures, ["replica1: 40P01 -> primary"])
          yield* Failures.stays
        })
      )
    })
  )

  for (const [what, state, body] of [
    ["the end of the log", "55000", "PERFORM pg_current_wal_insert_lsn();"],
    ["an unlogged table", "0A000", "PERFORM * FROM volatile_rows;"],
    ["a message in the log", "XX000", "PERFORM pg_logical_emit_message(false, 'a', 'b');"],
    ["a message of a transaction in the log", "XX000", "PERFORM pg_logical_emit_message(true, 'a', 'b');"],
    ["a sequence", "25006", "PERFORM nextval('numbers');"]
  ] as const) {
    it.scoped(`${state}, ${what} behind a function that claims to read: the primary, and remembered`, () =>
      Effect.gen(function* () {
        yield* done(
          "CREATE UNLOGGED TABLE IF NOT EXISTS volatile_rows (n int)",
          "CREATE SEQUENCE IF NOT EXISTS numbers",
          // What the primary says to a write in a function that claims to read is another matter.
          `CREATE OR REPLACE FUNCTION claims() RETURNS int STABLE LANGUAGE plpgsql AS
           $$ BEGIN IF pg_is_in_recovery() THEN ${body} END IF; RETURN 1; END $$`
        )
        yield* routed(() =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const router = yield* DbRouter.DbRouter
            for (const [text, read] of [
              ["SELECT claims()", Effect.asVoid(sql`SELECT claims()`)],
              ["SELECT claims() AS streamed", Stream.runDrain(sql`SELECT claims() AS streamed`.stream)]
            ] as const) {
              assert.strictEqual((yield* router.explain(text)).kind, "read")
              assert.deepStrictEqual(yield* failuresOf(read), [`replica1: ${state} -> primary`])
              assert.strictEqual((yield* router.explain(text)).kind, "write")
              yield* DbRouter.reset
            }
            yield* Failures.stays
          })
        )
      })
    )
  }

  it.scoped("25P04, the time limit of transactions: the caller's, of a write unknown", () =>
    Effect.flatMap(withSetting("transaction_timeout=500ms"), (options) =>
      routed(
        () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            assert.deepStrictEqual(yield* refusalOf(sql`SELECT pg_sleep(5)`), ["25P04", []])
            yield* Failures.stays
            const error = yield* Effect.flip(sql`CREATE TABLE slow AS SELECT 1 AS n FROM pg_sleep(5)`)
            assert.strictEqual(RouterError.outcomeOf(error), "unknown")
            assert.strictEqual((yield* DbRouter.primary(sql`SELECT to_regclass('slow') AS it`))[0]!.it, null)
          }),
        options
      )
    )
  )

  it.scoped("25P03, the time limit of idle transactions: the caller's, and nothing of it is there", () =>
    routed(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE left_idle (n int)`
        const idle = Effect.all([
          sql`INSERT INTO left_idle VALUES (1)`,
          Effect.sleep("600 millis"),
          sql`INSERT INTO left_idle VALUES (2)`
        ])
        const error = yield* Effect.flip(DbRouter.session(idle, { idleTimeout: "200 millis" }))
        assert.strictEqual(engines.stateOf(error), "25P03")
        assert.strictEqual(RouterError.outcomeOf(error), "not done")
        assert.deepStrictEqual(yield* DbRouter.primary(sql`SELECT * FROM left_idle`), [])
        const read = Effect.zipRight(sql`SELECT 1`, Effect.zipRight(Effect.sleep("600 millis"), sql`SELECT 2`))
        const ended = yield* Effect.flip(DbRouter.session(read, { idleTimeout: "200 millis", reads: "snapshot" }))
        assert.strictEqual(engines.stateOf(ended), "25P03")
        yield* Failures.stays
      })
    )
  )

  it.scoped("55P03, the time limit of locks: the caller's", () =>
    Effect.gen(function* () {
      yield* done("CREATE TABLE locked AS SELECT 1 AS n")
      const options = yield* withSetting("lock_timeout=200ms")
      yield* routed(
        (_, { primary }) =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const holder = yield* Failures.client(primary)
            yield* Effect.promise(() => holder.query("BEGIN; LOCK TABLE locked"))
            // The standby has the lock once it is replayed, and the log is sent with the next commit.
            yield* primary.query("CREATE TABLE sent ()")
            yield* engines.eventually(
              Effect.either(refusalOf(sql`SELECT n FROM locked`)),
              (refused) => refused._tag === "Right" && refused.right[0] === "55P03" && refused.right[1].length === 0
            )
            yield* Failures.stays
            yield* Effect.promise(() => holder.query("ROLLBACK"))
          }),
        options
      )
    })
  )

  it.scoped("53200, no memory for a lock: elsewhere, and the replica is suspect until it answers", () =>
    Effect.gen(function* () {
      yield* done(
        `CREATE FUNCTION locking() RETURNS int STABLE LANGUAGE plpgsql AS
         $$ BEGIN IF pg_is_in_recovery() THEN PERFORM ${advisoryLock}(-1); END IF; RETURN 1; END $$`
      )
      yield* routed((replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          // Locks of a session stay when the statement fails that could not take one more.
          const hog = yield* Failures.client(replica)
          const full = yield* Effect.promise(() =>
            hog.query("SELECT pg_advisory_lock(i) FROM generate_series(1, 1000000) AS i").catch((error) => error.code)
          )
          assert.strictEqual(full, "53200")
          assert.deepStrictEqual(yield* failuresOf(sql`SELECT locking()`), ["replica1: 53200 -> primary"])
          yield* Effect.promise(() => hog.end())
          yield* becomes("replica1", "up")
        })
      )
    })
  )

  it.scoped("58P01, a file that is missing: elsewhere; XX001, one that is damaged: elsewhere", () =>
    Effect.gen(function* () {
      yield* done("CREATE TABLE missing AS SELECT 1 AS n", "CREATE TABLE damaged AS SELECT 1 AS n", "CHECKPOINT")
      yield* routed((replica) =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          // So that it keeps nothing of them in memory.
          yield* replica.restart
          rmSync(yield* fileOf(replica, "missing"))
          writeFileSync(yield* fileOf(replica, "damaged"), Buffer.alloc(8192, 7), { flag: "r+" })
          yield* becomes("replica1", "up")
          // The first read that finds out that it has started anew runs elsewhere.
          yield* Effect.repeat(failuresOf(sql`SELECT 1`), { until: (failures) => failures.length === 0 })
          assert.deepStrictEqual(yield* failuresOf(sql`SELECT n FROM missing`), ["replica1: 58P01 -> primary"])
          yield* becomes("replica1", "up")
          assert.deepStrictEqual(yield* failuresOf(sql`SELECT n FROM damaged`), ["replica1: XX001 -> primary"])
          yield* becomes("replica1", "up")
        })
      )
    })
  )

  it.scoped("57014, the time limit of statements in a session: the caller's", () =>
    routed(() =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const slow = DbRouter.session(sql`SELECT pg_sleep(5)`, { statementTimeout: "200 millis", reads: "snapshot" })
        assert.deepStrictEqual(yield* refusalOf(slow), ["57014", []])
        yield* Failures.stays
        assert.deepStrictEqual(
          yield* whileReading("ended", (pid) =>
            Effect.flatMap(PgCluster.PgCluster, ({ replicas }) =>
              replicas[0]!.query("SELECT pg_terminate_backend($1)", [pid])
            )
          ),
          ["replica1: 57P01 -> primary"]
        )
      })
    )
  )
})
