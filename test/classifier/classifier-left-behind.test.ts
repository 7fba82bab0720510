import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

const trigger = (name: string, body: string) => `
  CREATE TABLE ${name} (i int PRIMARY KEY, v text);
  CREATE FUNCTION trigger_${name}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN ${body}; RETURN NEW; END $f$;
  CREATE TRIGGER t BEFORE INSERT OR UPDATE ON ${name} FOR EACH ROW EXECUTE FUNCTION trigger_${name}();`

/** Bodies that look as if they set something, and do not. */
const harmless: Readonly<Record<string, string>> = {
  updates: `UPDATE "plain" SET v = 'set x'; UPDATE plain AS "p" SET v = 'x'`,
  upserts: "INSERT INTO plain VALUES (1) ON CONFLICT (i) DO UPDATE SET v = 'listen, reset'",
  formats: "EXECUTE format('INSERT INTO %I VALUES ($1.*)', 'plain') USING NEW",
  literals: "EXECUTE 'UPDATE plain SET v = ''x'' WHERE i = 1'",
  alters: "ALTER TABLE plain ALTER v SET DEFAULT 'x'",
  temporaries: "INSERT INTO plain VALUES ((SELECT count(*) FROM generate_series(1, 2) temp), 'temp table_of')",
  reads: "PERFORM count(*) FROM sets"
}

const catalogOf = Effect.flatMap(PgCluster.PgCluster, ({ primary }) =>
  SqlClassifier.readCatalog((sql) => primary.query(sql))
)

layer(PgCluster.layer({ replicas: 0 }), { excludeTestServices: true })(
  "what bodies of functions leave behind",
  (it) => {
    it.scoped("is nothing for a catalog without such functions, nor for writes that reach none", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query(`CREATE TABLE plain (i int PRIMARY KEY, v text DEFAULT 'set_config');
        CREATE VIEW plain_view AS SELECT * FROM plain;
        CREATE EXTENSION citext; CREATE EXTENSION hstore`)
        assert.isNull((yield* catalogOf).leaves)
        yield* primary.query(trigger("sets", "PERFORM set_config('app.tenant', 'a', false)"))
        for (const [name, body] of Object.entries(harmless)) yield* primary.query(trigger(name, body))
        const catalog = yield* catalogOf
        assert.deepStrictEqual(catalog.leaves, {
          names: {},
          read: {},
          written: { sets: { until: "unknown", sets: true }, reads: { until: "unknown", sets: true } },
          schemaChange: null
        })
        const { classify } = yield* SqlClassifier.fromCatalog({ load: Effect.succeed(catalog) })
        for (const name of ["plain", "plain_view", ...Object.keys(harmless).filter((name) => name !== "reads")]) {
          assert.isUndefined(classify(`INSERT INTO ${name} VALUES (1, 'sets')`).leaves, name)
        }
        for (const text of [
          "INSERT INTO sets VALUES (1)",
          `INSERT INTO sets VALUES (1, '${"long".repeat(2_000)}')`,
          "MERGE INTO sets s USING plain p ON s.i = p.i WHEN MATCHED THEN UPDATE SET v = p.v",
          "COPY sets FROM STDIN",
          "TRUNCATE plain CASCADE",
          "EXPLAIN ANALYZE INSERT INTO public.sets VALUES (1)"
        ]) {
          assert.strictEqual(classify(text).leaves?.until, "unknown", text.slice(0, 100))
        }
        assert.strictEqual(classify("SELECT * FROM sets").kind, "read")
      })
    )

    it.scoped("is what an extension's functions do not do", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query(`${trigger("of_extension", "PERFORM set_config('app.tenant', 'a', false)")}
        ALTER EXTENSION citext ADD FUNCTION trigger_of_extension()`)
        const { leaves } = yield* catalogOf
        assert.notProperty(leaves!.written, "of_extension")
      })
    )

    it.scoped("counts for changes of the schema where an event trigger does", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query(`CREATE FUNCTION on_change() RETURNS event_trigger LANGUAGE plpgsql AS
        $f$ BEGIN PERFORM set_config('app.tenant', 'a', false); END $f$;
        CREATE EVENT TRIGGER on_change ON ddl_command_start EXECUTE FUNCTION on_change()`)
        const { classify } = yield* SqlClassifier.fromCatalog({ load: Effect.succeed(yield* catalogOf) })
        yield* primary.query("DROP EVENT TRIGGER on_change")
        assert.strictEqual(classify("CREATE TABLE t (i int)").leaves?.until, "unknown")
        assert.isUndefined(classify("INSERT INTO plain VALUES (1)").leaves)
      })
    )

    it.scoped("is nothing in a snapshot that does not say", () =>
      Effect.gen(function* () {
        const { leaves, ...old } = yield* catalogOf
        assert.isNotNull(leaves)
        const { classify } = yield* SqlClassifier.fromCatalog({ load: Effect.succeed(old) })
        assert.isUndefined(classify("INSERT INTO sets VALUES (1)").leaves)
      })
    )
  }
)
