/**
 * Functions that a statement calls and does not name, each compared with what a real server does: what has written there is no
 * read. The same texts are reads once none of the functions is volatile.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { connect, writes } from "../support/writes.js"

const writer = (name: string, args: string, result: string, value: string) =>
  `create function ${name}(${args}) returns ${result} language plpgsql volatile as
    $$ begin insert into log values ('${name}'); return ${value}; end $$;`

/** In PL/pgSQL, so that the planner does not put its body in the place of the call. */
const plain = (name: string, args: string, result: string, value: string) =>
  `create function ${name}(${args}) returns ${result} language plpgsql immutable as $$ begin return ${value}; end $$;`

const setup = `
create table log (x text);
create table t (id int); insert into t values (1), (2), (3);

${writer("differs", "int, int", "boolean", "$1 <> $2")}
${plain("same", "int, int", "boolean", "$1 = $2")}
create operator !### (leftarg = int, rightarg = int, function = differs);
create operator ### (leftarg = int, rightarg = int, function = same, negator = !###);
create view v_negated as select id from t where not (id ### 5);
create table guarded (id int); insert into guarded values (1);
alter table guarded enable row level security; alter table guarded force row level security;
create policy own on guarded using (not (id ### 5));

${writer("compares", "int, int", "int", "btint4cmp($1, $2)")}
${writer("hashes", "int", "int", "$1")}
${writer("hashes_more", "int, bigint", "bigint", "$1")}
${plain("lt", "int, int", "boolean", "$1 < $2")}
${plain("le", "int, int", "boolean", "$1 <= $2")}
${plain("eq", "int, int", "boolean", "$1 = $2")}
${plain("ge", "int, int", "boolean", "$1 >= $2")}
${plain("gt", "int, int", "boolean", "$1 > $2")}
create operator <<<< (leftarg = int, rightarg = int, function = lt, commutator = >>>>);
create operator <<<= (leftarg = int, rightarg = int, function = le);
create operator ==== (leftarg = int, rightarg = int, function = eq, commutator = ====, hashes, merges);
create operator >>>= (leftarg = int, rightarg = int, function = ge);
create operator >>>> (leftarg = int, rightarg = int, function = gt, commutator = <<<<);
create operator class ordered for type int using btree as operator 1 <<<<, operator 2 <<<=, operator 3 ====,
  operator 4 >>>=, operator 5 >>>>, function 1 compares(int, int);
create operator class hashed for type int using hash as operator 1 ====, function 1 hashes(int),
  function 2 hashes_more(int, bigint);
create view v_sorted as select id from t order by id using <<<<;
create table parts (id int) partition by hash (id hashed);

create table a (id int); insert into a values (1);
create table b (id int); insert into b values (1);
create table c (id int); insert into c values (1), (2);
create table d (id int); insert into d values (1);
create table e (id int); insert into e values (1);
${writer("to_number", "a", "int", "1")}
${writer("to_words", "b", "text", "'x'")}
create cast (a as int) with function to_number(a) as implicit;
create cast (b as text) with function to_words(b);
create view v_row as select a + 1 as x from a;
${writer("compares_rows", "c, c", "int", "0")}
${plain("never", "c, c", "boolean", "false")}
${plain("always", "c, c", "boolean", "true")}
create operator <~~ (leftarg = c, rightarg = c, function = never);
create operator <=~~ (leftarg = c, rightarg = c, function = always);
create operator =~~ (leftarg = c, rightarg = c, function = always);
create operator >=~~ (leftarg = c, rightarg = c, function = always);
create operator >~~ (leftarg = c, rightarg = c, function = never);
create operator class rows default for type c using btree as operator 1 <~~, operator 2 <=~~, operator 3 =~~,
  operator 4 >=~~, operator 5 >~~, function 1 compares_rows(c, c);

${writer("all_of", "variadic d[]", "int", "1")}
${plain("code", "e", "int", "1")}
create cast (e as int) with function code(e) as implicit;
${writer("doubled", "int", "int", "2 * $1")}

${writer("is_fine", "text", "boolean", "true")}
${writer("is_positive", "int", "boolean", "true")}
create domain area as int check (is_positive(value));
create domain age as text check (is_fine(value));
create domain email as text check (is_fine(value));
${plain("email", "int", "text", "$1::text")}
`

const texts = `
select not (id ### any (array[1, 2])) from t
select id from t where not (id ### 5)
select * from v_negated
select * from guarded
select id from t order by id using <<<<
select id from t order by id using operator(public.>>>>)
select (id, 1) <<<< (2, 3) from t
select array_agg(id order by id using >>>>) from t
select row_number() over (order by id using <<<<) from t
select * from v_sorted
select * from t where id ==== any (array[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
select satisfies_hash_partition('parts'::regclass, 2, 0, 5)
select a + 1 from a
select abs(a) from a
select a::int from a
select cast(b as text) from b
select * from v_row
select (select x from a x) + 1
select c from c order by c
select distinct c from c
select count(distinct c) from c
select c from c union select c from c
select d.all_of from d
select e.doubled from e
select area(5)
select area('5')
select age('5')
select age('5'::text)
select email('x')
select email($1::text) ## x
`

const lines = (text: string) => text.trim().split("\n")

/** Functions of users that are syntax in PostgreSQL 18, and how they are called. */
const constructors = {
  json: "select json(1)",
  json_array: "select json_array(1)",
  json_arrayagg: "select json_arrayagg(id) from t",
  json_exists: "select json_exists('{}'::jsonb, 'a')",
  json_query: "select json_query('{}'::jsonb, 'a')",
  json_scalar: "select json_scalar(1)",
  json_serialize: "select json_serialize(1)",
  json_value: "select json_value('{}'::jsonb, 'a')"
}

describe("a function that is called and not named", () => {
  layer(PgCluster.layer({ replicas: 0 }), { timeout: "2 minutes" })((it) => {
    it.scoped("makes a statement no read where it is volatile, and leaves it one where it is not", () =>
      Effect.gen(function* () {
        const client = yield* connect
        const query = (sql: string) => Effect.promise(async () => (await client.query<object>(sql)).rows)
        yield* query(setup)
        yield* query("create role reader; grant pg_read_all_data, pg_write_all_data to reader")
        const classifier = yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog(query) })
        const isRead = (line: string) => classifier.classify(line.split(" ## ")[0]!).kind === "read"
        const truth = yield* Effect.forEach(lines(texts), (line) =>
          // Policies hold for a role that is no superuser.
          Effect.map(writes(client, line, "reader"), (wrote) => ({ line, wrote }))
        )
        assert.deepStrictEqual(
          truth.filter(({ wrote }) => wrote !== true),
          [],
          "each is there because it writes"
        )
        assert.deepStrictEqual(lines(texts).filter(isRead), [])
        assert.strictEqual(
          classifier.classify("select not (id ### any (array[1, 2])) from t").reason,
          "uses operator ###, whose negator calls differs"
        )

        yield* query(`do $$ declare f regprocedure; begin
          for f in select oid from pg_proc where pronamespace = 'public'::regnamespace and provolatile = 'v' loop
            execute format('alter function %s immutable', f);
          end loop; end $$`)
        yield* classifier.refresh
        assert.deepStrictEqual(
          lines(texts).filter((line) => !isRead(line)),
          ["select satisfies_hash_partition('parts'::regclass, 2, 0, 5)"]
        )
      })
    )

    it.scoped("makes a constructor of JSON no read, which older servers take for a call", () =>
      Effect.gen(function* () {
        const client = yield* connect
        const query = (sql: string) => Effect.promise(async () => (await client.query<object>(sql)).rows)
        yield* query("create table if not exists log (x text); create table if not exists t (id int)")
        const classifier = yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog(query) })
        for (const sql of Object.values(constructors)) assert.strictEqual(classifier.classify(sql).kind, "read", sql)
        for (const name of Object.keys(constructors)) {
          yield* query(writer(`"${name}"`, "int", "int", "1") + writer(`"${name}"`, "jsonb, text", "int", "1"))
        }
        yield* classifier.refresh
        for (const [name, sql] of Object.entries(constructors)) {
          assert.strictEqual(classifier.classify(sql).reason, `calls ${name}`)
        }
      })
    )

    it.scoped("isn_weak sets the connection", () =>
      Effect.gen(function* () {
        const client = yield* connect
        const query = (sql: string) => Effect.promise(async () => (await client.query<object>(sql)).rows)
        yield* query("create extension isn; alter function isn_weak(boolean) immutable")
        const { classify } = yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog(query) })
        assert.strictEqual(classify("select isn_weak(true)").reason, "calls isn_weak")
        assert.strictEqual(classify("select isbn('0-306-40615-2')").kind, "read")
      })
    )
  })
})

describe("a text that nests too deeply to analyse", () => {
  it.effect("is analysed once", () =>
    Effect.gen(function* () {
      const { classify } = yield* SqlClassifier.make
      const sql = `select 1${"-1".repeat(4_000)}`
      assert.strictEqual(classify(sql).reason, "nested too deeply to analyse")
      // Of a text that is remembered it is the same object.
      assert.strictEqual(classify(sql), classify(sql))
      assert.strictEqual(classify("select 1").kind, "read")
    })
  )
})
