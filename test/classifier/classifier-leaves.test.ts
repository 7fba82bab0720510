import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"

/** What a text leaves behind, in one word: how long, then what more there is to it. */
const leavesOf = ({ leaves }: SqlClassifier.Classification): string =>
  leaves === undefined
    ? "nothing"
    : [
        leaves.until,
        ...(leaves.sets ? ["sets"] : []),
        ...(leaves.controls ? ["controls"] : []),
        ...(leaves.prepares ? ["prepares"] : [])
      ].join(" ")

const texts: Readonly<Record<string, ReadonlyArray<string>>> = {
  nothing: [
    "SELECT 1",
    "SHOW work_mem",
    "INSERT INTO t VALUES (now())",
    "UPDATE t SET i = 1 WHERE pg_notify('a', 'b') IS NULL",
    "SELECT nextval('s')",
    "CREATE TABLE t (i int)",
    "VACUUM t"
  ],
  transaction: [
    "LOCK TABLE t",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "DECLARE c CURSOR FOR SELECT 1",
    "FETCH c",
    "SET CONSTRAINTS ALL DEFERRED",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "SELECT * FROM pg_stat_activity",
    "SELECT pg_export_snapshot()"
  ],
  "transaction sets": [
    "SET LOCAL ROLE low",
    "SET LOCAL search_path = a",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET TRANSACTION SNAPSHOT 'a'",
    "SELECT set_config('app.tenant', $1, true)",
    "INSERT INTO t SELECT set_config('app.tenant', 'a', true)",
    "SELECT 1; SET LOCAL app.tenant = 'a'"
  ],
  connection: [
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "INSERT INTO t SELECT 1 WHERE pg_advisory_unlock(1)",
    "LISTEN a",
    "UNLISTEN *",
    "LOAD 'a'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "SELECT setseed(0.5)"
  ],
  "connection sets": [
    "SET ROLE low",
    "SET SESSION AUTHORIZATION low",
    "SET TIME ZONE 'UTC'",
    "RESET ALL",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SELECT set_config('a.b', 'c', false)",
    "SELECT set_config($1, $2, $3)",
    "SELECT pg_catalog.set_config('a.b', 'c', false)",
    "WITH a AS (SELECT set_config('a.b', 'c', false)) INSERT INTO t SELECT 1 FROM a",
    "CREATE TEMP TABLE t (i int)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "SELECT 1 INTO TEMP t",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TABLE pg_temp.t (i int)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "INSERT INTO t VALUES (1); SET ROLE low",
    `INSERT INTO t SELECT set_config('a.b', 'c', false) FROM (VALUES ${"(1), ".repeat(1_000)} (1)) v`
  ],
  "connection prepares": ["PREPARE a AS SELECT 1", "DEALLOCATE a"],
  "connection sets prepares": ["DISCARD ALL"],
  "connection controls": ["BEGIN", "START TRANSACTION READ ONLY", "BEGIN; INSERT INTO t VALUES (1)"],
  "transaction controls": ["COMMIT", "END", "ROLLBACK", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'a'"],
  unknown: [
    "DO $$ BEGIN NULL; END $$",
    "CALL p()",
    "EXECUTE a",
    "SELECT f()",
    "INSERT INTO t VALUES (f())",
    "does not parse"
  ]
}

describe("what a text leaves behind on its connection", () => {
  for (const [expected, all] of Object.entries(texts)) {
    it.effect(expected, () =>
      Effect.map(SqlClassifier.make, ({ classify }) => {
        const found = Object.fromEntries(all.map((text) => [text, leavesOf(classify(text))]))
        assert.deepStrictEqual(found, Object.fromEntries(all.map((text) => [text, expected])))
      })
    )
  }
})
