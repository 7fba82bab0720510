/**
 * Conversions that a text does not show, each compared with what a real server does: what has written there is no read. The
 * same texts are reads once nothing behind them writes.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { connect, writes } from "../support/writes.js"

const setup = `
create extension hstore;
create table log (x text);
create function vol(i int) returns boolean language plpgsql volatile as $$ begin insert into log values ('vol'); return true; end $$;
create function volt(i text) returns boolean language plpgsql volatile as $$ begin insert into log values ('volt'); return true; end $$;
create domain evil as int check (vol(value));
create domain evilt as text check (volt(value));
create domain nested as evil;
create domain arrays as evil[];
create domain outer1 as int check ((value)::evil is not null);
create type comp as (a evil, b int);
create type deep as (c comp);
create type evr as range (subtype = evil);
create table t (id int, d evil, dt evilt, arr evil[], c comp, n nested, j jsonb, h hstore);
insert into t values (1, 1, 'x', '{1}', '(1,2)', 1, '{"d": 7}', 'd=>7');
create table ranges (r evr); insert into ranges values ('[1,5)');
create table child () inherits (t);
create table parted (id int, d evil) partition by list (id); create table parted1 partition of parted for values in (1);
insert into parted values (1, 1);
create function fret() returns evil language sql stable as 'select 5';
create function fout(out e evil) language plpgsql stable as 'begin e := 5; end';
create function fouts(out e evil, out f int) language plpgsql stable as 'begin e := 5; end';
create function ftable() returns table (a evil) language plpgsql stable as 'begin a := 5; return next; end';
create function fsetof() returns setof comp language sql stable as 'select 1::int, 2';
create function frow() returns t language plpgsql stable as $$ declare r t; begin r.d := 4; return r; end $$;
create function fbody() returns int language sql stable begin atomic select 5::evil::int; end;
create function fpoly(x anyelement, y anyelement) returns anyelement language sql immutable as 'select $2';
create function tr(evil, int) returns evil language sql stable as 'select $2';
create aggregate agg_stype (int) (sfunc = tr, stype = evil, initcond = '0');
create operator ### (leftarg = anyelement, rightarg = anyelement, function = fpoly);
create view v_cast as select id::evil::int as x from t;
create view v_xml as select a::int from xmltable('/r' passing xml '<r><a>1</a></r>' columns a evil path 'a');
create view v_record as select a::int from json_to_record('{"a":1}') as x(a evil);
create view v_records as select a::int from jsonb_to_recordset('[{"a":1}]') as x(a evil);
create view v_populate as select (jsonb_populate_record(null::comp, '{"a":1}')).b as b;
create view v_array as select (array[b]::evil[])::int[] as x from (values (1)) v(b);
create view v_hstore as select (populate_record(null::comp, 'a=>1')).b as b;
create view v_function as select fret()::int as x;
create view v_union as select 1 as x union all select x from v_cast;
create view v_cte as with w as (select b::evil::int as x from (values (1)) v(b)) select x from w;
create view v_window as select lag(b::evil, 1) over ()::int as x from (values (1), (2)) v(b);
`

/** From PostgreSQL 17 on. */
const setup17 = `
create view v_json_table as select a::int from json_table(jsonb '[{"a":1}]', '$[*]' columns (a evil path '$.a'));
create view v_json_value as select json_value(jsonb '{"a":1}', '$.a' returning evil)::int a;
create view v_json_query as select json_query(jsonb '[1]', '$' returning evil[])::int[] a;
`

const texts = `
select 5::evil
select cast('5' as nested)
select '{5}'::evil[]
select '{5}'::arrays
select '(5,1)'::comp
select row(5, 1)::comp
select row(row(5, 1))::deep
select '[1,2]'::evr
select 5::outer1
select evil(5)
select (5).evil
select evil '5'
select array[5]::evil[]
select g.evil from generate_series(1, 2) g
select (jsonb_populate_record(t, j)).d from t
select json_populate_record(t, '{"d": 9}') from t
select (jsonb_populate_recordset(t, '[{"d":9}]')).d from t
select jsonb_populate_record(null::comp, '{"a":1}')
select jsonb_populate_record(null::deep, '{"c":{"a":1}}')
select jsonb_populate_record(c, '{"a":1}') from t
select (x.r).d from (select jsonb_populate_record(t, j) r from t) x
select jsonb_populate_record(x, '{"d": 4}') from (select d from t) x
select * from json_to_record('{"a":1}') as x(a evil)
select * from jsonb_to_recordset('[{"a":[1]}]') as x(a evil[])
select * from rows from (json_to_record('{"a":1}') as (a evil))
select populate_record(t, 'd=>5') from t
select t #= 'd=>5'::hstore from t
select t #= h from t
select lag(d, 1, '5') over () from t
select lead(d, 1, $1) over () from t ## 5
select array_append(arr, '5') from t
select array_prepend('5', arr) from t
select array_position(arr, '5') from t
select array_replace(arr, '1', '9') from t
select array_remove(arr, $1) from t ## 5
select arr || '{5}' from t
select arr || $1 from t ## {5}
select arr = '{5}' from t
select arr @> '{5}' from t
select * from t where arr && $1 ## {5}
select coalesce(arr, '{5}') from t where false or id = 1 and coalesce(arr, '{5}') is not null
select nullif(arr, '{5}') from t
select case when id = 2 then arr else '{5}' end from t
select array[arr, '{5}'] from t
select arr from t union all select '{5}'
select greatest(arr, '{5}') from t
select coalesce(c, '(5,1)') from t where c is null or coalesce(c, '(5,1)') is not null
select case when id = 2 then c else '(5,1)' end from t
select coalesce(t, $1) from (select null::t as t) x ## (1,2,x,{1},"(1,2)",1,{},)
select array_agg(d) || '{5}' from t
select array_agg(d) || $1 from t ## {5}
select array[d] || '{5}' from t
select array(select d from t) || '{5}'
select array_append(array_agg(d), '5') from t
select '[2,3]' <@ r from ranges
select r && '[1,2]' from ranges
select * from ranges where r = $1 ## [1,2]
select fpoly(d, '5') from t
select d ### '5' from t
select agg_stype(id) from t
select fret()
select fout()
select * from fouts()
select * from ftable()
select * from fsetof()
select * from frow()
select fbody()
select * from v_cast
select * from v_xml
select * from v_record
select * from v_records
select * from v_populate
select * from v_array
select * from v_hstore
select * from v_function
select * from v_union
select * from v_cte
select * from v_window
select * from xmltable('/r' passing xml '<r><a>1</a></r>' columns a evil path 'a')
select xmlserialize(content '<a/>'::xml as evilt)
select record_in('(5,1)', 'comp'::regtype, -1)
select (with w as (select array_append(arr, '5') as x from t) select count(x) from w)
select * from t, lateral (select array_append(t.arr, '5')) x
select jsonb_populate_record(parted, '{"d": 2}') from parted
select jsonb_populate_record(child, '{"d": 2}') from (select * from t) child
`
  .trim()
  .split("\n")

const texts17 = `
select * from v_json_table
select * from v_json_value
select * from v_json_query
select a from json_table(jsonb '[{"a":1}]', '$[*]' columns (a evil path '$.a'))
select json_value(jsonb '{"a":1}', '$.a' returning evil)
select json_query(jsonb '[1]', '$' returning evil[])
select pg_input_is_valid('5', 'evil')
select json_object('a': 1 returning evilt)
`
  .trim()
  .split("\n")

/** What a superuser may put between PostgreSQL's own types, each in a schema of its own. */
const superuser: ReadonlyArray<readonly [name: string, ddl: string, undo: string, sql: string]> = [
  [
    "an implicit cast",
    `create function i2u(int) returns uuid language plpgsql volatile as $$ begin insert into log values (1); return gen_random_uuid(); end $$;
     create cast (int4 as uuid) with function i2u(int) as implicit`,
    "drop function i2u cascade",
    "select uuid_send(5)"
  ],
  [
    "a default operator class",
    `create table js (j json); insert into js values ('1'), ('2');
     create function jcmp(json, json) returns int language plpgsql volatile as $$ begin insert into log values (1); return 1; end $$;
     create function jlt(json, json) returns boolean language sql immutable as 'select true';
     create operator <~ (leftarg = json, rightarg = json, function = jlt);
     create operator <=~ (leftarg = json, rightarg = json, function = jlt);
     create operator =~ (leftarg = json, rightarg = json, function = jlt);
     create operator >=~ (leftarg = json, rightarg = json, function = jlt);
     create operator >~ (leftarg = json, rightarg = json, function = jlt);
     create operator class json_own default for type json using btree as operator 1 <~, operator 2 <=~, operator 3 =~,
       operator 4 >=~, operator 5 >~, function 1 jcmp(json, json)`,
    "drop operator family json_own using btree cascade",
    "select distinct j from js"
  ],
  [
    "an index with an operator class of another sort",
    `create table indexed (id int); insert into indexed select generate_series(1, 2000);
     create function icmp(int, int) returns int language plpgsql immutable as $$ begin return btint4cmp($1, $2); end $$;
     create operator class int_own for type int using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=,
       operator 5 >, function 1 icmp(int, int);
     create index on indexed (id int_own); analyze indexed;
     create or replace function icmp(int, int) returns int language plpgsql volatile as
       $$ begin insert into public.log values (1); return btint4cmp($1, $2); end $$`,
    "drop operator family int_own using btree cascade",
    "select * from indexed where id = 5"
  ],
  [
    "a range with an operator class of another sort",
    `create function rcmp(int, int) returns int language plpgsql immutable as $$ begin return btint4cmp($1, $2); end $$;
     create operator class range_own for type int using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=,
       operator 5 >, function 1 rcmp(int, int);
     create type own_range as range (subtype = int, subtype_opclass = range_own);
     create table own_ranges (r own_range); insert into own_ranges values ('[1,2]');
     create or replace function rcmp(int, int) returns int language plpgsql volatile as
       $$ begin insert into public.log values (1); return btint4cmp($1, $2); end $$`,
    "drop type own_range cascade",
    "select r @> 1 from own_ranges"
  ]
]

describe("a conversion that the text does not show", () => {
  layer(PgCluster.layer({ replicas: 0 }), { timeout: "2 minutes" })((it) => {
    it.scoped("is no read where a CHECK writes, and one where none does", () =>
      Effect.gen(function* () {
        const client = yield* connect
        const query = (sql: string) => Effect.promise(async () => (await client.query<object>(sql)).rows)
        yield* query(setup)
        const [{ version } = { version: 0 }] = (yield* query(
          "select current_setting('server_version_num')::int as version"
        )) as ReadonlyArray<{ version: number }>
        if (version >= 170_000) yield* query(setup17)
        const all = version >= 170_000 ? [...texts, ...texts17] : texts
        const classifier = yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog(query) })
        const isRead = (line: string) => classifier.classify(line.split(" ## ")[0]!).kind === "read"
        const truth = yield* Effect.forEach(all, (line) =>
          Effect.map(writes(client, line), (wrote) => ({ line, wrote }))
        )
        assert.deepStrictEqual(
          truth.filter(({ wrote }) => wrote !== true),
          [],
          "each is there because it writes"
        )
        assert.deepStrictEqual(all.filter(isRead), [])

        yield* query("alter function vol immutable; alter function volt immutable")
        yield* classifier.refresh
        assert.deepStrictEqual(
          all.filter((line) => !isRead(line)),
          ["select record_in('(5,1)', 'comp'::regtype, -1)"]
        )
        yield* query("alter function vol volatile; alter function volt volatile")
      })
    )

    it.scoped("is no read where a superuser has put it between types of PostgreSQL", () =>
      Effect.gen(function* () {
        const client = yield* connect
        const query = (sql: string) => Effect.promise(async () => (await client.query<object>(sql)).rows)
        const classifier = yield* SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog(query) })
        for (const [name, ddl, undo, sql] of superuser) {
          yield* query(ddl)
          yield* query("set enable_seqscan = off")
          yield* classifier.refresh
          assert.strictEqual(yield* writes(client, sql), true, name)
          assert.strictEqual(classifier.classify(sql).kind, "write", name)
          yield* query(undo)
          yield* classifier.refresh
          assert.strictEqual(classifier.classify("select 1").kind, "read", name)
        }
      })
    )
  })
})
