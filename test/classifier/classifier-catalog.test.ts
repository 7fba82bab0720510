import { assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import pg from "pg"

const load = Effect.gen(function* () {
  const { primary } = yield* PgCluster.PgCluster
  return yield* SqlClassifier.readCatalog((sql) => primary.query(sql))
})

/** A classifier on a new schema, and how to change and ask both. */
const inSchema = (schema: string, statements: string) =>
  Effect.gen(function* () {
    const { primary } = yield* PgCluster.PgCluster
    yield* Effect.addFinalizer(() => Effect.orDie(primary.query(`drop schema ${schema} cascade`)))
    const run = (sql: string) => primary.query(`set search_path = ${schema}; ${sql}`)
    yield* primary.query(`create schema ${schema}`)
    yield* run(statements)
    const query = (sql: string) => primary.query(sql)
    const classifier = yield* SqlClassifier.fromCatalog({
      load: SqlClassifier.readCatalog(query),
      refreshInterval: Duration.infinity
    })
    return {
      classifier,
      kind: (sql: string) => classifier.classify(sql).kind,
      reason: (sql: string) => classifier.classify(sql).reason,
      /** Runs it, and reads the catalog again. */
      change: (sql: string) => Effect.zipRight(run(sql), classifier.refresh)
    }
  })

describe("a classifier follows the catalog", () => {
  layer(PgCluster.layer({ replicas: 1 }), { timeout: "2 minutes" })((it) => {
    it.scoped("through the making, altering and dropping of tables", () =>
      Effect.gen(function* () {
        const { change, kind, reason } = yield* inSchema("tables", "create table t (a int)")
        assert.strictEqual(kind("select * from t"), "read")
        yield* change("alter table t set unlogged")
        assert.strictEqual(reason("select * from t"), "reads unlogged table t")
        yield* change("alter table t set logged")
        assert.strictEqual(kind("select * from t"), "read")
        yield* change("alter table t rename to u")
        assert.strictEqual(reason("select * from t"), "names t, a relation unknown to the catalog")
        assert.strictEqual(kind("select * from u"), "read")
        yield* change("drop table u")
        assert.strictEqual(kind("select * from u"), "write")
        yield* change("create unlogged sequence s")
        assert.strictEqual(reason("select * from s"), "reads sequence s")
      })
    )

    it.scoped("through the volatility of functions, and of what is built on them", () =>
      Effect.gen(function* () {
        const { change, kind, reason } = yield* inSchema(
          "functions",
          `create table t (a int);
           create function f(int) returns int language sql stable as 'select $1';
           create view v as select f(a) as b from t;
           create view w as select b from v where b > 0;
           create function g(int, int) returns int language sql immutable as 'select $1';
           create aggregate agg (int) (sfunc = g, stype = int, initcond = '0');
           create operator |/| (leftarg = int, rightarg = int, procedure = g);
           alter table t enable row level security;
           create policy p on t using (f(a) > 0)`
        )
        const all = [
          ...["select f(1)", "table t", "table v", "table w"],
          ...["select g(1, 2)", "select agg(a) from (values (1)) x (a)", "select 1 |/| 2"]
        ]
        const kinds = () => all.map(kind)
        assert.deepStrictEqual(new Set(kinds()), new Set(["read"]))

        yield* change("alter function f volatile")
        assert.deepStrictEqual(kinds(), ["write", "write", "write", "write", "read", "read", "read"])
        assert.deepStrictEqual(all.slice(0, 4).map(reason), [
          "calls f",
          "reads t, whose policy calls f",
          "reads v, which calls f",
          "reads w, which calls f"
        ])

        yield* change("alter function f stable; alter function g volatile")
        assert.deepStrictEqual(kinds(), ["read", "read", "read", "read", "write", "write", "write"])
        assert.deepStrictEqual(all.slice(4).map(reason), [
          "calls g",
          "calls agg, which calls g",
          "uses operator |/|, which calls g"
        ])

        yield* change("alter function g immutable; create function f(text) returns int language sql as 'select 1'")
        assert.strictEqual(reason("select f(1)"), "calls f")
        assert.strictEqual(kind("table t"), "read", "the policy uses the other one")
      })
    )

    it.scoped("through policies, casts and domains", () =>
      Effect.gen(function* () {
        const { change, kind, reason } = yield* inSchema(
          "others",
          `create table t (a int);
           create table read_by_policy (a int);
           create type colour as enum ('red');
           create domain small as int check (value < 10);
           create table coloured (c colour, many colour[]);
           create function to_colour(int) returns colour language sql as 'select ''red''::others.colour';
           create function is_small(int) returns bool language sql as 'select true'`
        )
        assert.strictEqual(kind("table t"), "read")
        yield* change("create policy p on t using (is_small(a))")
        assert.strictEqual(kind("table t"), "read", "row level security is off")
        yield* change("alter table t enable row level security")
        assert.strictEqual(reason("table t"), "reads t, whose policy calls is_small")
        yield* change("create view v as table t; alter policy p on t using (a > 0)")
        assert.strictEqual(kind("table v"), "read")
        yield* change(
          "alter table read_by_policy set unlogged; alter policy p on t using (a in (table read_by_policy))"
        )
        assert.strictEqual(reason("table v"), "reads v, which reads unlogged table read_by_policy")

        assert.deepStrictEqual([kind("select 1::colour"), kind("table coloured")], ["read", "read"])
        yield* change("create cast (int as colour) with function to_colour(int)")
        assert.deepStrictEqual([kind("select 1::colour"), kind("table coloured")], ["write", "read"])
        yield* change("drop cast (int as colour); create cast (int as colour) with function to_colour(int) as implicit")
        assert.deepStrictEqual([kind("select 1::colour"), kind("table coloured")], ["write", "write"])

        assert.strictEqual(kind("select 1::small"), "read")
        yield* change("alter domain small add check (is_small(value))")
        assert.strictEqual(reason("select 1::small"), "converts to small, which calls is_small")
        yield* change("create domain smaller as small; create type holder as (x smaller[])")
        assert.deepStrictEqual([kind("select 1::smaller"), kind("select null::holder")], ["write", "write"])
      })
    )

    it.scoped("through operators, also where they are not written", () =>
      Effect.gen(function* () {
        const { change, kind } = yield* inSchema(
          "operators",
          `create table t (a int, b text);
           create function f(int, text) returns bool language sql stable as 'select true'`
        )
        const uses = {
          "=": [
            "select a = 1 from t",
            "select a in (1, 2) from t",
            "select a in (select 1) from t",
            "select * from t where a = any (array[1])",
            "select nullif(a, 1), a is distinct from 1 from t",
            "select case a when 1 then 2 end from t",
            "select * from t join t u using (a)",
            "select * from t natural join t u",
            "select (a, b) = (1, 'x') from t"
          ],
          ">=": [
            "select a >= 1 from t",
            "select a between 1 and 2 from t",
            "select a between symmetric 2 and 1 from t"
          ],
          ">": ["select a > 1 from t", "select * from t order by a using >", "select a not between 1 and 2 from t"],
          "~~": ["select b like 'x%' from t", "select a operator(operators.~~) b from t"]
        }
        const kinds = () => Object.values(uses).map((sqls) => [...new Set(sqls.map(kind))])
        for (const name of Object.keys(uses)) {
          yield* change(`create operator ${name} (leftarg = int, rightarg = text, procedure = f)`)
        }
        assert.deepStrictEqual(kinds(), [["read"], ["read"], ["read"], ["read"]])
        yield* change("alter function f volatile")
        assert.deepStrictEqual(kinds(), [["write"], ["write"], ["write"], ["write"]])
        assert.strictEqual(kind("select a + 1, b || 'x', not true from t"), "read")
      })
    )

    it.scoped("through parents of tables, and what extensions bring", () =>
      Effect.gen(function* () {
        const { change, kind, reason } = yield* inSchema(
          "parents",
          `create table t (a int, k int) partition by list (k);
           create table t1 partition of t for values in (1)`
        )
        assert.deepStrictEqual([kind("table t"), kind("table t1")], ["read", "read"])
        yield* change("create table base (a int); create unlogged table child () inherits (base)")
        assert.strictEqual(reason("table base"), "reads base, which reads unlogged table child")
        yield* change("create extension pgcrypto; create extension tablefunc; create extension tsm_system_rows")
        assert.deepStrictEqual(
          [
            "select gen_random_bytes(8)",
            "select gen_salt('bf')",
            "select digest('a', 'md5')",
            "select * from t tablesample system_rows (1)",
            "select * from crosstab('select 1, 2, 3') as x (a int, b int)"
          ].map(kind),
          ["read", "read", "read", "read", "write"]
        )
      })
    )

    it.scoped(
      "but not where a function lies: there the standby refuses, and the text is remembered until the catalog changes",
      () =>
        Effect.gen(function* () {
          const { awaitReplayed, replicas } = yield* PgCluster.PgCluster
          const { change, classifier, kind } = yield* inSchema(
            "lies",
            `create sequence s;
           create function lying() returns bigint language plpgsql stable as 'begin return nextval(''lies.s''); end'`
          )
          const sql = "select lies.lying()"
          assert.strictEqual(kind(sql), "read")
          yield* awaitReplayed
          const error = yield* Effect.flip(replicas[0]!.query(sql))
          assert.strictEqual((error.cause as pg.DatabaseError).code, "25006")
          classifier.remember(sql, "a standby refused it (25006)")
          assert.deepInclude(classifier.classify(sql), { kind: "write", reason: "a standby refused it (25006)" })
          assert.strictEqual(classifier.isGuess?.(sql), true)
          yield* change("create table t (a int)")
          assert.strictEqual(kind("table t"), "read")
          assert.strictEqual(kind(sql), "read", "what was refused is forgotten with the next catalog")
        })
    )

    it.scoped("with one query of text, that any role may run and that always gives the same", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        yield* inSchema(
          "secret",
          "create table hidden (a int); create function f() returns int language sql as 'select 1'"
        )
        yield* primary.query("create role ordinary login password 'ordinary'")
        yield* primary.query("revoke all on schema public from public")
        const url = new URL(Redacted.value(primary.url))
        url.username = url.password = "ordinary"
        const client = yield* Effect.acquireRelease(
          Effect.promise(async () => {
            const client = new pg.Client({ connectionString: url.toString() })
            await client.connect()
            return client
          }),
          (client) => Effect.promise(() => client.end())
        )
        const queries: Array<string> = []
        const seen = yield* SqlClassifier.readCatalog((sql) => {
          queries.push(sql)
          return Effect.promise(async () => (await client.query<object>(sql)).rows)
        })
        assert.strictEqual(queries.length, 1)
        assert.deepStrictEqual(seen, yield* load)
        assert.deepStrictEqual(yield* load, yield* load)
        assert.deepStrictEqual(seen.relations.secret, { reads: ["hidden"], others: {} })
        assert.isBelow(JSON.stringify(seen).length, 32_768)
        yield* primary.query("drop role ordinary")
      })
    )

    it.scoped("and leaves temporary tables out, which belong to one session", () =>
      Effect.gen(function* () {
        const { primary } = yield* PgCluster.PgCluster
        const client = new pg.Client({ connectionString: Redacted.value(primary.url) })
        yield* Effect.acquireRelease(
          Effect.promise(() => client.connect()),
          () => Effect.promise(() => client.end())
        )
        const before = yield* load
        yield* Effect.promise(() =>
          client.query("create temp table passing (a int); create temp view v as table passing")
        )
        assert.deepStrictEqual(yield* load, before)
      })
    )
  })
})
