import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"

const schema = `
create sequence s;
create table t (i int, v text);
create table log (i int);
create unlogged table scratch (i int);
create function w(int) returns int language plpgsql volatile as 'begin insert into log values ($1); return $1; end';
create function w2(t) returns int language plpgsql volatile as 'begin insert into log values (1); return 1; end';
create function "Odd name"(int) returns int language plpgsql volatile as 'begin return 1; end';
create function pure(int) returns int language plpgsql immutable as 'begin return 1; end';
create domain checked as int check (w(value) > 0);
create operator ### (leftarg = int, rightarg = int, function = int4pl);
create view noisy as select w(i) from t;
create view quiet as select i from t`

/** SQL functions that say that they are STABLE or IMMUTABLE, and are not: what their bodies hold. */
const lies: Readonly<Record<string, string>> = {
  "a call": "select w(1)",
  "a call in capitals": "SELECT W (1)",
  "a call with a schema": "select public.w(1)",
  "a call of one with an odd name": `select "Odd name"(1)`,
  "a quoted call": `select "w"(1)`,
  "a comment behind the name": "select w /* of (1) */ (1)",
  "a line comment behind the name": "select w -- of\n (1)",
  "a comment in a literal before the call": "select length('--') + w(1)",
  "a comment's beginning in a literal": "select length('/*') + w(1) + length('*/')",
  "a call by its attribute": "select t.w2 from t",
  "a function of PostgreSQL": "select nextval('s')::int",
  "a call in a subquery": "select i from t where exists (select w(i))",
  "a call of such a function": "select lie_0()",
  "a view": "select i from (select 1 as i from noisy) n",
  "a domain": "select 5::checked::int",
  "a domain, by CAST": "select cast('5' as public.checked)::int",
  "an array of a domain": "select ('{5}'::checked[])[1]::int",
  "an unlogged table": "select i from scratch",
  "a sequence": "select last_value::int from s",
  "a table of the server's own": "select count(*)::int from pg_stat_activity"
}

/** Those that are what they say. */
const honest: Readonly<Record<string, string>> = {
  "a row": "select i from t where i = 1",
  "a view": "select i from quiet",
  "a pure function": "select pure(1)",
  "a column with the name of a function": "select w from (select i as w from t) x",
  "a literal with the name of a function": "select length('w')",
  "built-in functions": "select length(upper(v)) + extract(epoch from now())::int from t",
  "random numbers": "select (random() * 10)::int",
  "a setting": "select nullif(current_setting('app.tenant', true), '')::int"
}

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true })(
  "a SQL function that is declared STABLE",
  (it) => {
    const classifier = Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      return yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog((sql) => primary.query(sql)) })
    })

    it.scoped("is as its body is", () =>
      Effect.gen(function* () {
        const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
        const define = (name: string, body: string, i: number) =>
          primary.query(
            `create function ${name}_${i}() returns int language sql ${i % 2 === 0 ? "stable" : "immutable"} as ${quote(body)}`
          )
        yield* primary.query(schema)
        for (const [i, body] of Object.values(lies).entries()) yield* define("lie", body, i)
        for (const [i, body] of Object.values(honest).entries()) yield* define("honest", body, i)
        yield* primary.query(`
        create function custom(int, int) returns int language plpgsql volatile as 'begin insert into log values (1); return 1; end';
        create operator @@@ (leftarg = int, rightarg = int, function = custom);
        create function by_operator() returns int language sql stable as 'select 1 @@@ 2';
        create function by_pure_operator() returns int language sql stable as 'select 1 ### 2'`)
        yield* awaitReplayed
        const { classify } = yield* classifier
        for (const [i, what] of Object.keys(lies).entries()) {
          assert.notStrictEqual(classify(`select lie_${i}()`).kind, "read", what)
          assert.notStrictEqual(classify(`select * from lie_${i}()`).kind, "read", what)
        }
        assert.strictEqual(classify("select by_operator()").kind, "write")
        for (const name of ["by_pure_operator", ...Object.keys(honest).map((_, i) => `honest_${i}`)]) {
          // One that reads a setting is a read like the others, and has no name.
          const { foldsSettings: _, ...found } = classify(`select ${name}()`)
          assert.deepStrictEqual(found, classify("select 1"), name)
          yield* replicas[0]!.query(`select ${name}()`)
        }
        assert.strictEqual(classify("select lie_0()").reason, "calls lie_0, which calls w")
      })
    )

    it.scoped("is what an extension declares it to be", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* primary.query(`
        create extension citext;
        create function of_extension() returns int language sql stable as 'select w(1)';
        alter extension citext add function of_extension()`)
        const { classify } = yield* classifier
        assert.strictEqual(classify("select of_extension()").kind, "read")
      })
    )
  }
)
