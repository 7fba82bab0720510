/** Statements that are refused, and by whom. */
import { Effect } from "effect"
import { open, type Scenario, scenario } from "../Site.js"

/** Texts one by one, by both protocols. */
const texts = (title: string, ...sqls: ReadonlyArray<string>): Scenario =>
  scenario(title, ({ primary }) =>
    Effect.flatMap(open(primary), (probe) =>
      Effect.forEach(sqls, (sql) => Effect.all([probe.simple(sql), probe.run(sql)]))
    )
  )

const onStandby = (title: string, ...sqls: ReadonlyArray<string>): Scenario =>
  scenario(title, ({ replica }) => Effect.flatMap(open(replica), (probe) => Effect.forEach(sqls, probe.simple)))

export const errors: ReadonlyArray<Scenario> = [
  texts(
    "texts that do not parse are 42601, and say where",
    "SELEC 1",
    "SELECT FROM WHERE",
    "SELECT 'open",
    "SELECT (1",
    "INSERT INTO entry VALUES ('a', 'f'"
  ),
  texts(
    "tables, columns and functions that there are not",
    "SELECT 1 FROM none",
    "SELECT none FROM register",
    "SELECT register.none FROM register",
    "SELECT other.id FROM register",
    "SELECT id FROM register WHERE none = 1",
    "SELECT id FROM register ORDER BY none",
    "INSERT INTO none VALUES (1)",
    "INSERT INTO register (id, none) VALUES (1, 2)",
    "UPDATE none SET a = 1",
    "UPDATE register SET none = 1",
    "UPDATE register SET writes = none",
    "DELETE FROM none",
    "SELECT none(1)",
    "SELECT none('a', 1, true)",
    "SELECT id = 'x' FROM register",
    "SELECT value = 1 FROM register"
  ),
  texts(
    "values that cannot be computed",
    "SELECT 1 / 0",
    "SELECT 1.5 / 0",
    "SELECT 1::float8 / 0",
    "SELECT 1::int8 / 0",
    "SELECT 1 / writes FROM register",
    "SELECT 2147483647 + 1",
    "SELECT 'x'::int4",
    "SELECT '99999999999'::int4",
    "SELECT 'maybe'::bool",
    "SELECT id FROM register WHERE id = 'x'",
    "INSERT INTO register VALUES ('x', 'a', 0)",
    "INSERT INTO register VALUES (NULL, 'a', 0)",
    "INSERT INTO register (value) VALUES ('a')",
    "UPDATE register SET id = NULL WHERE id = 1"
  ),
  onStandby(
    "a standby refuses to write, with 25006",
    "INSERT INTO entry VALUES ('a', 'f')",
    "UPDATE register SET writes = 1",
    "DELETE FROM register",
    "SELECT id FROM register FOR UPDATE",
    "COPY entry FROM STDIN",
    "LISTEN news",
    "NOTIFY news",
    "SELECT pg_notify('news', 'a')",
    "UNLISTEN *",
    "CREATE TABLE made (id int4)",
    "ALTER TABLE register ADD COLUMN a text",
    "DROP TABLE register",
    "BEGIN READ WRITE",
    "ROLLBACK",
    "BEGIN; SET TRANSACTION READ WRITE",
    "ROLLBACK",
    "BEGIN; INSERT INTO entry VALUES ('a', 'f')",
    "COMMIT"
  ),
  onStandby(
    "a standby says that it is one",
    "SELECT pg_is_in_recovery()",
    "SHOW in_hot_standby",
    "SHOW transaction_read_only",
    "SHOW default_transaction_read_only",
    "SELECT pg_current_wal_insert_lsn()",
    "SELECT pg_current_wal_lsn()",
    "SELECT pg_current_wal_flush_lsn()",
    "SELECT pg_walfile_name('0/3000000')",
    "SELECT pg_last_wal_replay_lsn() IS NOT NULL AS replays",
    "SELECT pg_last_wal_receive_lsn() IS NOT NULL AS receives",
    "SELECT pg_current_xact_id_if_assigned() IS NULL AS none"
  ),
  onStandby(
    "a standby has no serializable transactions",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "SELECT 1",
    "ROLLBACK",
    "SET default_transaction_isolation = 'serializable'",
    "SELECT id FROM register ORDER BY id",
    "SHOW transaction_isolation",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SELECT id FROM register ORDER BY id",
    "COMMIT"
  ),
  onStandby(
    "a standby has transactions, savepoints and settings",
    "BEGIN",
    "SAVEPOINT s",
    "SELECT count(*) FROM register",
    "SELECT 1 / 0",
    "ROLLBACK TO s",
    "RELEASE s",
    "SET LOCAL app.tenant = 'a'",
    "SHOW app.tenant",
    "COMMIT",
    "SELECT set_config('app.tenant', 'b', false)"
  ),
  scenario("the primary says that it is none, and where its log is", ({ primary }) =>
    Effect.flatMap(open(primary), (probe) =>
      Effect.forEach(
        [
          "SELECT pg_is_in_recovery()",
          "SHOW in_hot_standby",
          "SHOW transaction_read_only",
          "SELECT pg_last_wal_replay_lsn()",
          "SELECT pg_last_wal_receive_lsn()",
          "SELECT pg_current_wal_insert_lsn() >= pg_current_wal_lsn() AS is_after",
          "SELECT pg_current_wal_lsn() >= pg_current_wal_flush_lsn() AS is_after",
          "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline",
          "SELECT timeline_id FROM pg_control_checkpoint()",
          "SELECT min_recovery_end_timeline FROM pg_control_recovery()",
          "SELECT system_identifier IS NOT NULL AS has FROM pg_control_system()",
          "SELECT count(*) FROM pg_stat_wal_receiver",
          "SELECT pg_postmaster_start_time() < now() AS is_before",
          "SELECT pg_current_xact_id_if_assigned() IS NULL AS none",
          "SELECT current_database(), current_setting('server_version_num')"
        ],
        probe.simple
      )
    )
  ),
  scenario("servers of one system have its identifier", ({ other, primary, replica }) =>
    Effect.map(
      Effect.forEach([primary, replica, other], (node) =>
        Effect.flatMap(open(node), (probe) => probe.values("SELECT system_identifier FROM pg_control_system()"))
      ),
      (identifiers) => new Set(identifiers.flat()).size
    )
  ),
  texts(
    "columns of expressions have a name and a type",
    "SELECT 1, 'a', true, NULL, 1.5, 1::int8, now() IS NULL, -1, 1 + 1, 'a' || 'b'",
    "SELECT count(*), max(id), min(value), sum(writes), sum(balance) FROM register, account",
    "SELECT coalesce(NULL, 'a'), nullif(1, 1), CASE WHEN true THEN 1 END, 1 IN (1, 2), NULL IS NULL",
    "SELECT id AS key, r.value FROM register AS r ORDER BY 1 DESC LIMIT 2",
    "SELECT * FROM account ORDER BY id",
    "SELECT (SELECT max(id) FROM register) AS most, repeat('a', 3)",
    "SELECT n * 2 AS twice FROM generate_series(1, 3) AS n",
    "SELECT max(id) FROM entry, register WHERE false",
    "SELECT id FROM register WHERE value = ANY ('{initial,other}') ORDER BY id",
    "SELECT id FROM register WHERE id BETWEEN 2 AND 3 ORDER BY id",
    "SELECT NOT (1 = 2) AND NULL::bool IS NULL OR false",
    "SELECT NULL AND false, NULL OR true, NOT NULL::bool, NULL = 1, NULL IN (1), 2 IN (1, NULL)"
  )
]
