import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { DbRouter } from "effect-db-router"
import * as Sessions from "../support/session.js"

/** What triggers do, by the name of the table that has one. */
const bodies: Readonly<Record<string, string>> = {
  set_config: "PERFORM set_config('app.tenant', 'a', false)",
  set_config_nested: "PERFORM set_config('app.tenant', coalesce(lower('A'), current_setting('x', true)), NOT true)",
  setting: "SET app.tenant = 'a'",
  setting_after_comment: "NULL; -- what follows; says it\n /* ; */ SET app.tenant TO 'a'",
  role: "SET ROLE low",
  view_of_settings: "UPDATE pg_settings SET setting = '1min' WHERE name = 'statement_timeout'",
  executed: "EXECUTE 'SET app.tenant = ''a'''",
  executed_dollar: "EXECUTE $q$SET app.tenant = 'a'$q$",
  executed_parts: "EXECUTE 'SE' || 'T app.tenant = ''a'''",
  executed_format: "EXECUTE format('SELECT %I(%L, %L, false)', 'set_' || 'config', 'app.tenant', 'a')",
  locks: "PERFORM pg_advisory_lock(99)",
  listens: "LISTEN somewhere",
  temporary: "CREATE TEMP TABLE note (i int)",
  prepares: "EXECUTE 'PREPARE mine AS SELECT 1'",
  hidden_sql: "PERFORM query_to_xml('SELECT set_' || 'config(''app.tenant'', ''a'', false)', true, true, '')",
  nested: "PERFORM be_tenant('a')",
  writes: "INSERT INTO on_set_config VALUES (1)"
}

const schema = [
  "CREATE ROLE low",
  "GRANT SELECT ON note TO low",
  `CREATE FUNCTION be_tenant(t text) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN RETURN set_config('app.tenant', t, false); END $f$`,
  `CREATE FUNCTION stable_tenant(t text) RETURNS text LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN set_config('app.tenant', t, false); END $f$`,
  `CREATE FUNCTION stable_caller(t text) RETURNS text LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN stable_tenant(t); END $f$`,
  `CREATE FUNCTION stable_xml() RETURNS xml LANGUAGE plpgsql STABLE AS
     $f$ BEGIN RETURN query_to_xml('SELECT set_' || 'config(''app.tenant'', ''a'', false)', true, true, ''); END $f$`,
  `CREATE FUNCTION atomic_tenant() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT set_config('app.tenant', 'a', false); END`,
  `CREATE FUNCTION prepare_mine() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; RETURN 1; END $f$`,
  `CREATE PROCEDURE prepare_mine_too() LANGUAGE plpgsql AS $f$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $f$`,
  ...Object.entries(bodies).flatMap(([name, body]) => [
    `CREATE TABLE on_${name} (i int)`,
    `CREATE FUNCTION trigger_${name}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN ${body}; RETURN NEW; END $f$`,
    `CREATE TRIGGER t BEFORE INSERT ON on_${name} FOR EACH ROW EXECUTE FUNCTION trigger_${name}()`
  ]),
  "CREATE TABLE by_default (i int, t text DEFAULT set_config('app.tenant', 'a', false))",
  "CREATE TABLE by_default_call (i int, t text DEFAULT be_tenant('a'))",
  `CREATE FUNCTION immutable_tenant(i int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
     $f$ BEGIN RETURN set_config('app.tenant', 'a', false); END $f$`,
  "CREATE TABLE by_generated (i int, t text GENERATED ALWAYS AS (immutable_tenant(i)) STORED)",
  "CREATE TABLE by_check (i int CHECK (stable_tenant('a') IS NOT NULL))",
  "CREATE DOMAIN checked AS int CHECK (stable_tenant('a') IS NOT NULL)",
  "CREATE TABLE by_domain (i checked)",
  "CREATE VIEW by_view AS SELECT stable_tenant('a') AS t",
  "CREATE VIEW by_views AS SELECT * FROM by_view",
  "CREATE TABLE by_policy (i int)",
  "ALTER TABLE by_policy ENABLE ROW LEVEL SECURITY",
  "ALTER TABLE by_policy FORCE ROW LEVEL SECURITY",
  "CREATE POLICY p ON by_policy USING (true) WITH CHECK (stable_tenant('a') IS NOT NULL)",
  "CREATE TABLE by_rule (i int)",
  "CREATE RULE r AS ON INSERT TO by_rule DO ALSO INSERT INTO on_set_config VALUES (1)",
  "CREATE VIEW updatable AS SELECT * FROM on_set_config",
  "CREATE TABLE parent (i int PRIMARY KEY)",
  "CREATE TABLE child (i int REFERENCES parent ON DELETE CASCADE)",
  `CREATE FUNCTION trigger_child() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM be_tenant('a'); RETURN OLD; END $f$`,
  "CREATE TRIGGER t AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION trigger_child()",
  "CREATE TABLE parts (i int) PARTITION BY LIST (i)",
  "CREATE TABLE part PARTITION OF parts DEFAULT",
  "CREATE TRIGGER t BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION trigger_set_config()",
  "CREATE FUNCTION concat_tenant(text, text) RETURNS text LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN stable_tenant('a'); END $f$",
  "CREATE OPERATOR ### (LEFTARG = text, RIGHTARG = text, FUNCTION = concat_tenant)",
  "CREATE TABLE fine (i int PRIMARY KEY, t text DEFAULT 'set_config')",
  `CREATE FUNCTION trigger_fine() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
     UPDATE fine SET t = 'x' WHERE i = 0;
     INSERT INTO "fine" VALUES (0) ON CONFLICT (i) DO UPDATE SET t = 'y';
     EXECUTE format('UPDATE %I SET t = $1 WHERE i < 0', 'fine') USING NEW.t;
     RETURN NEW; END $f$`,
  "CREATE TRIGGER t BEFORE UPDATE ON fine FOR EACH ROW WHEN (pg_trigger_depth() < 1) EXECUTE FUNCTION trigger_fine()",
  `CREATE FUNCTION reads_it() RETURNS bigint LANGUAGE plpgsql STABLE AS $f$ BEGIN RETURN (SELECT count(*) FROM on_set_config); END $f$`,
  "CREATE TABLE local (i int)",
  `CREATE FUNCTION trigger_local() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
     PERFORM set_config('app.tenant', coalesce('a', format('%s', 1)), true); RETURN NEW; END $f$`,
  "CREATE TRIGGER t BEFORE INSERT ON local FOR EACH ROW EXECUTE FUNCTION trigger_local()"
]

/** One connection for everybody. */
const router = Sessions.router({ engine: { maxConnections: 1 } })

/** What the next user of the connection to the primary finds that is not as it was. */
const found = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<Record<string, unknown>>`SELECT current_user = session_user AS "user",
      coalesce(current_setting('app.tenant', true), '') = '' AS tenant,
      current_setting('statement_timeout') = '0' AS timeout,
      (SELECT count(*) FROM pg_class WHERE relname = 'note') = 1 AS tables,
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') = 0 AS locks,
      (SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine') = 0 AS prepared,
      (SELECT count(*) FROM pg_listening_channels()) = 0 AS channels`
).pipe(
  DbRouter.primary,
  Effect.map(([row]) => Object.entries(row!).flatMap(([name, isAsBefore]) => (isAsBefore === true ? [] : [name])))
)

/** Each leaves something on its connection, in some way that its text does not show. */
const texts = [
  ...Object.keys(bodies).map((name) => `INSERT INTO on_${name} VALUES (1)`),
  "INSERT INTO by_default (i) VALUES (1)",
  "INSERT INTO by_default_call (i) VALUES (1)",
  "INSERT INTO by_generated (i) VALUES (1)",
  "INSERT INTO by_check VALUES (1)",
  "INSERT INTO by_domain VALUES (1)",
  "INSERT INTO by_policy VALUES (1)",
  "INSERT INTO by_rule VALUES (1)",
  "INSERT INTO updatable VALUES (1)",
  "INSERT INTO parts VALUES (1)",
  "WITH new AS (INSERT INTO on_set_config VALUES (1) RETURNING *) SELECT * FROM new",
  `INSERT INTO on_set_config VALUES ${Array.from({ length: 2_000 }, () => "(1)").join(",")}`,
  "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1); DELETE FROM parent",
  "SELECT stable_tenant('a')",
  "SELECT stable_caller('a')",
  "SELECT * FROM by_view",
  "SELECT * FROM by_views",
  "SELECT 1::checked",
  "SELECT 'a'::text ### 'b'::text",
  "SELECT atomic_tenant()",
  "SELECT stable_xml()",
  "SELECT query_to_xml('SELECT set_config(''app.tenant'', ''a'', false)', true, true, '')",
  "SELECT prepare_mine()",
  "CALL prepare_mine_too()",
  "DO $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $$",
  "DECLARE c CURSOR WITH HOLD FOR SELECT be_tenant('a')"
]

layer(Sessions.layerWith(...schema), { excludeTestServices: true, timeout: "2 minutes" })(
  "what a statement leaves on a connection without saying so",
  (it) => {
    for (const [way, run] of Object.entries(Sessions.ways)) {
      it.effect(`is not there for its next user: ${way}`, () =>
        Effect.gen(function* () {
          yield* Sessions.setUp
          for (const text of texts) {
            if (way === "a stream" && text.includes("; ")) continue
            if (text.startsWith("DECLARE") && way !== "a session" && way !== "a transaction") continue
            yield* run(text)
            assert.deepStrictEqual(yield* found, [], text.slice(0, 200))
          }
          yield* Sessions.assertQuiet
        }).pipe(Effect.provide(router))
      )
    }

    it.effect("binds what follows in its session, asked of a replica or not", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const tenant = Effect.map(
          sql<{
            t: string | null
            standby: boolean
          }>`SELECT current_setting('app.tenant', true) AS t, pg_is_in_recovery() AS standby`,
          ([row]) => row
        )
        for (const text of [
          "INSERT INTO local VALUES (1)",
          "INSERT INTO on_set_config VALUES (1)",
          "SELECT stable_tenant('a')"
        ]) {
          const seen = yield* DbRouter.session(Effect.zipRight(sql.unsafe(text), DbRouter.replica(tenant)))
          assert.deepStrictEqual(seen, { t: "a", standby: false }, text)
        }
      }).pipe(Effect.provide(router))
    )

    it.effect("is set for the reads of a read-only session", () =>
      Effect.gen(function* () {
        const sql = yield* Sessions.setUp
        const rows = yield* DbRouter.readOnly(
          Effect.zipRight(sql`SELECT stable_tenant('a')`, sql`SELECT current_setting('app.tenant', true) AS t`)
        )
        assert.deepStrictEqual(rows, [{ t: "a" }])
        assert.deepStrictEqual(yield* found, [])
      }).pipe(Effect.provide(router))
    )

    it.effect("moves nothing that does not reach it", () =>
      Effect.gen(function* () {
        yield* Sessions.setUp
        const { explain } = yield* DbRouter.DbRouter
        for (const text of [
          "SELECT * FROM on_set_config",
          "SELECT * FROM updatable",
          "SELECT * FROM by_default WHERE t = 'stable_tenant'",
          "SELECT * FROM parts JOIN parent USING (i)",
          "SELECT reads_it()"
        ]) {
          assert.strictEqual((yield* explain(text)).group, "read", text)
        }
      }).pipe(Effect.provide(router))
    )
  }
)
