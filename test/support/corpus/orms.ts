/** Pure reads as query builders and API servers send them. Their types and tables are in `ormSchema`. */

export const ormSchema = `
create schema orm; set search_path = orm;
create type role as enum ('ADMIN', 'USER');
create domain email as text check (value ~ '@');
create table users (id serial primary key, name text, email email, role role, age int, active bool, meta jsonb, tags text[],
  created_at timestamptz default now(), "createdAt" timestamptz default now(), "deletedAt" timestamptz, tenant_id uuid);
create table posts (id serial primary key, title text, body text, author_id int references users, "authorId" int,
  "userId" int, published bool, price numeric(10, 2), search tsvector, created_at timestamptz default now());
create table comments (id serial primary key, post_id int references posts, text text);
create view recent as select * from posts where created_at > now() - interval '1 day';
create materialized view totals as select author_id, count(*) as n from posts group by author_id;
create function full_name(users) returns text language sql stable as 'select ($1).name || '' '' || ($1).email';
create function search_posts(term text) returns setof posts language sql stable as
  'select * from orm.posts where search @@ websearch_to_tsquery(term)';
create function current_user_id() returns int language sql stable as
  $$ select nullif(current_setting('jwt.claims.user_id', true), '')::int $$;
insert into users (name, email) values ('Ann', 'ann@example.com');
reset search_path;
`

const texts: Readonly<Record<string, string>> = {
  Drizzle: `
select "id", "name", "email" from "orm"."users"
select "id", "name" from "orm"."users" where "users"."id" = $1
select "id", "name" from "orm"."users" where ("users"."role" = $1::orm.role and "users"."age" between $2 and $3) order by "users"."created_at" desc limit $4 offset $5
select "users"."id", "posts"."title" from "orm"."users" left join "orm"."posts" on "users"."id" = "posts"."author_id" where "users"."name" ilike $1
select count(*) from "orm"."users"
select count(*) as "count" from "orm"."users" where "users"."email" = $1
select "users"."id", "users"."name", (select count(*) from "orm"."posts" where "posts"."author_id" = "users"."id") from "orm"."users"
select "users"."id", "users"."name", "users_posts"."data" as "posts" from "orm"."users" "users" left join lateral (select coalesce(json_agg(json_build_array("users_posts"."id", "users_posts"."title")), '[]'::json) as "data" from "orm"."posts" "users_posts" where "users_posts"."author_id" = "users"."id") "users_posts" on true
select "d0"."id" as "id", "posts"."r" as "posts" from "orm"."users" as "d0" left join lateral(select coalesce(json_agg(row_to_json("t".*)), '[]') as "r" from (select "d1"."id" as "id", "d1"."title" as "title" from "orm"."posts" as "d1" where "d0"."id" = "d1"."author_id") as "t") as "posts" on true
with "sq" as (select "id", "name" from "orm"."users" where "users"."id" = $1) select "id", "name" from "sq"
(select "id" from "orm"."users") union all (select "author_id" from "orm"."posts") limit $1
select distinct on ("users"."name") "id", "name" from "orm"."users" order by "users"."name"
select "id" from "orm"."users" where "users"."tags" @> $1 and "users"."id" in ($2, $3)
select "id" from "orm"."users" where exists (select "id" from "orm"."posts" where "posts"."author_id" = "users"."id")
select "role", cast(count(*) as int), max("age"), avg("age") from "orm"."users" group by "users"."role" having count(*) > $1
select "id", lower("name"), "meta"->>'a' from "orm"."users" where "users"."meta"->'a' is not null
select to_tsvector('english', "title") @@ to_tsquery('english', $1) from "orm"."posts"
select "id", row_number() over (partition by "role" order by "age") from "orm"."users"
select * from "orm"."totals"
select "id", now() at time zone 'UTC', "created_at"::date, date_trunc('day', "created_at") from "orm"."users"`,
  Kysely: `
select "id", "name" from "orm"."users" where "id" = $1
select "first"."name" as "n" from "orm"."users" as "first" inner join "orm"."posts" as "p" on "p"."author_id" = "first"."id" where "p"."published" = $1 order by "p"."id" limit $2
select "id", (select coalesce(json_agg(agg), '[]') from (select "p"."id", "p"."title" from "orm"."posts" as "p" where "p"."author_id" = "u"."id") as agg) as "posts" from "orm"."users" as "u"
select "id", (select to_json(obj) from (select "u"."name" from "orm"."users" as "u" where "u"."id" = "p"."author_id") as obj) as "author" from "orm"."posts" as "p"
select count(*) as "count" from "orm"."users" where "name" like $1
select count(distinct "name") as "n", sum("age") as "s" from "orm"."users"
select "name" from "orm"."users" where ("name" = $1 or "age" > $2) and "id" = any($3)
with "active" as (select * from "orm"."users" where "active" = $1) select "active"."id" from "active"
with recursive "tree"("id", "n") as (select "id", 1 from "orm"."posts" where "id" = $1 union all select "p"."id", "n" + 1 from "orm"."posts" as "p" inner join "tree" on "tree"."id" = "p"."author_id" where "n" < 5) select * from "tree"
select case when "age" > $1 then $2 else $3 end as "group" from "orm"."users"
select * from (select "id" from "orm"."users" union select "id" from "orm"."posts") as "all" order by "id" fetch next 5 rows only
select "id" from "orm"."users" where ("id", "name") > ($1, $2) order by "id", "name"
select coalesce("name", 'x') as "name", concat("name", ' ', "email"::text) from "orm"."users"
select "table_catalog", "c"."relname" as "table" from "pg_catalog"."pg_class" as "c" inner join "pg_catalog"."pg_namespace" as "ns" on "ns"."oid" = "c"."relnamespace" cross join (select current_database() as "table_catalog") as "x" where "c"."relkind" in ($1, $2) and "ns"."nspname" !~ '^pg_'
select "a"."attname" as "column", "a"."attnotnull" as "not_null", "a"."atthasdef" as "has_default", "c"."relname" as "table", "typ"."typname" as "type", col_description("a"."attrelid", "a"."attnum") as "column_description", pg_get_serial_sequence(quote_ident("ns"."nspname") || '.' || quote_ident("c"."relname"), "a"."attname") as "auto_incrementing" from "pg_catalog"."pg_attribute" as "a" inner join "pg_catalog"."pg_class" as "c" on "a"."attrelid" = "c"."oid" inner join "pg_catalog"."pg_namespace" as "ns" on "c"."relnamespace" = "ns"."oid" inner join "pg_catalog"."pg_type" as "typ" on "a"."atttypid" = "typ"."oid" where "ns"."nspname" = 'orm' and "a"."attnum" >= 0 and "c"."relkind" in ('r')`,
  Prisma: `
SELECT 1
SELECT "orm"."users"."id", "orm"."users"."email", "orm"."users"."role"::text FROM "orm"."users" WHERE ("orm"."users"."id" = $1 AND 1=1) LIMIT $2 OFFSET $3
SELECT "orm"."users"."id", "orm"."users"."name" FROM "orm"."users" WHERE ("orm"."users"."name"::text LIKE $1 AND "orm"."users"."role" = CAST($2::text AS "orm"."role")) ORDER BY "orm"."users"."id" DESC LIMIT $3 OFFSET $4
SELECT "orm"."posts"."id", "orm"."posts"."author_id" FROM "orm"."posts" WHERE "orm"."posts"."author_id" IN ($1,$2,$3) OFFSET $4
SELECT COUNT(*) FROM (SELECT "orm"."users"."id" FROM "orm"."users" WHERE 1=1 OFFSET $1) AS "sub"
SELECT COUNT(*), SUM("age"), AVG("age") FROM (SELECT "orm"."users"."id", "orm"."users"."age" FROM "orm"."users" WHERE 1=1 OFFSET $1) AS "sub"
SELECT COUNT(*), "orm"."users"."role"::text FROM "orm"."users" WHERE 1=1 GROUP BY "orm"."users"."role" HAVING COUNT(*) > $1 OFFSET $2
SELECT "t1"."id", "t1"."name", "users_posts"."__prisma_data__" AS "posts" FROM "orm"."users" AS "t1" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("__prisma_data__"), '[]') AS "__prisma_data__" FROM (SELECT "t4"."__prisma_data__" FROM (SELECT JSONB_BUILD_OBJECT('id', "t3"."id", 'title', "t3"."title") AS "__prisma_data__" FROM (SELECT "t2".* FROM "orm"."posts" AS "t2" WHERE "t1"."id" = "t2"."author_id") AS "t3") AS "t4") AS "t5") AS "users_posts" ON TRUE WHERE "t1"."id" = $1 LIMIT $2
SELECT "t0"."id" FROM "orm"."posts" AS "t0" LEFT JOIN "orm"."users" AS "j0" ON ("j0"."id") = ("t0"."author_id") WHERE ("j0"."name" ILIKE $1 AND ("j0"."id" IS NOT NULL)) OFFSET $2
SELECT "orm"."users"."id" FROM "orm"."users" WHERE ("orm"."users"."id") NOT IN (SELECT "t1"."author_id" FROM "orm"."posts" AS "t1" WHERE ((NOT "t1"."published" = $1) AND "t1"."author_id" IS NOT NULL)) ORDER BY "orm"."users"."name" ASC NULLS LAST OFFSET $2
SELECT "orm"."users"."id" FROM "orm"."users" WHERE ("orm"."users"."meta"#>ARRAY[$1]::text[])::jsonb::jsonb = $2 OFFSET $3
SELECT "orm"."users"."id" FROM "orm"."users" WHERE "orm"."users"."tags" && $1 OFFSET $2
SELECT "orm"."posts"."id" FROM "orm"."posts" WHERE to_tsvector(concat_ws(' ', "orm"."posts"."title", "orm"."posts"."body")) @@ to_tsquery($1) ORDER BY ts_rank(to_tsvector("orm"."posts"."title"), to_tsquery($2)) DESC OFFSET $3
SELECT MIN("orm"."posts"."price"), MAX("orm"."posts"."created_at") FROM "orm"."posts"
SELECT version()
SELECT namespace.nspname as namespace_name FROM pg_namespace as namespace WHERE namespace.nspname = ANY ( $1 )
SELECT tbl.relname AS table_name, namespace.nspname as namespace, (tbl.relhassubclass and tbl.relkind = 'p') as is_partition, obj_description(tbl.oid, 'pg_class') AS description FROM pg_class AS tbl INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace WHERE tbl.relkind IN ('r', 'p') AND namespace.nspname = ANY ( $1 )
SELECT t.typname as name, e.enumlabel as value FROM pg_type t JOIN pg_enum e ON t.oid = e.enumtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = ANY ( $1 ) ORDER BY e.enumsortorder`,
  TypeORM: `
SELECT "User"."id" AS "User_id", "User"."name" AS "User_name" FROM "orm"."users" "User" WHERE (("User"."id" = $1)) LIMIT 1
SELECT "User"."id" AS "User_id", "User__posts"."id" AS "User__posts_id" FROM "orm"."users" "User" LEFT JOIN "orm"."posts" "User__posts" ON "User__posts"."author_id"="User"."id" WHERE "User"."deletedAt" IS NULL ORDER BY "User"."id" ASC
SELECT DISTINCT "distinctAlias"."User_id" AS "ids_User_id" FROM (SELECT "User"."id" AS "User_id" FROM "orm"."users" "User" LEFT JOIN "orm"."posts" "p" ON "p"."author_id"="User"."id") "distinctAlias" ORDER BY "User_id" ASC LIMIT 10
SELECT COUNT(DISTINCT("User"."id")) AS "cnt" FROM "orm"."users" "User"
SELECT COUNT(1) AS "cnt" FROM "orm"."users" "User" WHERE "User"."active" = $1
SELECT 1 AS "row_exists" FROM (SELECT 1 AS dummy_column) "dummy_table" WHERE EXISTS (SELECT 1 FROM "orm"."users" "User" WHERE "User"."name" = $1) LIMIT 1
SELECT "User"."id" AS "User_id" FROM "orm"."users" "User" WHERE UPPER("User"."name") LIKE UPPER($1) AND "User"."created_at" BETWEEN $2 AND $3
SELECT SUM("p"."price") AS "SUM" FROM "orm"."posts" "p"
SELECT "r"."id" AS "r_id" FROM "orm"."recent" "r"
SELECT * FROM current_schema()
SELECT * FROM current_database()
SELECT version()
SELECT "table_schema", "table_name", obj_description(('"' || "table_schema" || '"."' || "table_name" || '"')::regclass, 'pg_class') AS table_comment FROM "information_schema"."tables" WHERE ("table_schema" = 'orm' AND "table_name" = 'users')
SELECT columns.*, pg_catalog.col_description(('"' || table_catalog || '"."' || table_schema || '"."' || table_name || '"')::regclass::oid, ordinal_position) AS description, ('"' || "udt_schema" || '"."' || "udt_name" || '"')::"regtype" AS "regtype", pg_catalog.format_type("col_attr"."atttypid", "col_attr"."atttypmod") AS "format_type" FROM "information_schema"."columns" LEFT JOIN "pg_catalog"."pg_attribute" AS "col_attr" ON "col_attr"."attname" = "columns"."column_name" AND "col_attr"."attrelid" = (SELECT "cls"."oid" FROM "pg_catalog"."pg_class" AS "cls" LEFT JOIN "pg_catalog"."pg_namespace" AS "ns" ON "ns"."oid" = "cls"."relnamespace" WHERE "cls"."relname" = "columns"."table_name" AND "ns"."nspname" = "columns"."table_schema") WHERE ("table_schema" = 'orm' AND "table_name" = 'users')
SELECT "ns"."nspname" AS "table_schema", "t"."relname" AS "table_name", "cnst"."conname" AS "constraint_name", pg_get_constraintdef("cnst"."oid") AS "expression", CASE "cnst"."contype" WHEN 'p' THEN 'PRIMARY' WHEN 'u' THEN 'UNIQUE' END AS "constraint_type", "a"."attname" AS "column_name" FROM "pg_constraint" "cnst" INNER JOIN "pg_class" "t" ON "t"."oid" = "cnst"."conrelid" INNER JOIN "pg_namespace" "ns" ON "ns"."oid" = "cnst"."connamespace" LEFT JOIN "pg_attribute" "a" ON "a"."attrelid" = "cnst"."conrelid" AND "a"."attnum" = ANY ("cnst"."conkey") WHERE "t"."relkind" IN ('r', 'p')
SELECT "n"."nspname" AS "table_schema", "c"."relname", pg_get_expr("ix"."indpred", "ix"."indrelid") AS "condition" FROM "pg_class" "c" INNER JOIN "pg_index" "ix" ON "c"."oid" = "ix"."indrelid" INNER JOIN "pg_namespace" "n" ON "n"."oid" = "c"."relnamespace"`,
  Sequelize: `
SELECT "id", "name", "createdAt" FROM "orm"."users" AS "User" WHERE "User"."id" = 1;
SELECT "id", "name" FROM "orm"."users" AS "User" WHERE ("User"."deletedAt" IS NULL AND "User"."name" ILIKE '%a%') ORDER BY "User"."createdAt" DESC LIMIT 10 OFFSET 0;
SELECT count(*) AS "count" FROM "orm"."users" AS "User" WHERE "User"."active" = true;
SELECT count(DISTINCT("User"."id")) AS "count" FROM "orm"."users" AS "User" LEFT OUTER JOIN "orm"."posts" AS "Posts" ON "User"."id" = "Posts"."userId";
SELECT "User".*, "Posts"."id" AS "Posts.id", "Posts"."title" AS "Posts.title" FROM (SELECT "User"."id", "User"."name" FROM "orm"."users" AS "User" WHERE ( SELECT "userId" FROM "orm"."posts" AS "Posts" WHERE ("Posts"."userId" = "User"."id") LIMIT 1 ) IS NOT NULL LIMIT 10) AS "User" INNER JOIN "orm"."posts" AS "Posts" ON "User"."id" = "Posts"."userId";
SELECT max("age") AS "max" FROM "orm"."users" AS "User";
SELECT "role", COUNT("id") AS "n" FROM "orm"."users" AS "User" GROUP BY "role";
SELECT "id" FROM "orm"."users" AS "User" WHERE "User"."meta" @> '{"a":1}' AND ("User"."meta"#>>'{b,c}') = 'x';
SELECT "id", (SELECT COUNT(*) FROM "orm"."posts" WHERE "userId" = "User"."id") AS "n" FROM "orm"."users" AS "User";
SELECT 1+1 AS result
SHOW SERVER_VERSION
WITH ranges AS ( SELECT pg_range.rngtypid, pg_type.typname AS rngtypname, pg_type.typarray AS rngtyparray, pg_range.rngsubtype FROM pg_range LEFT OUTER JOIN pg_type ON pg_type.oid = pg_range.rngtypid) SELECT pg_type.typname, pg_type.typtype, pg_type.oid, pg_type.typarray, ranges.rngtypname, ranges.rngtypid, ranges.rngtyparray FROM pg_type LEFT OUTER JOIN ranges ON pg_type.oid = ranges.rngsubtype WHERE (pg_type.typtype IN('b', 'e'));
SELECT i.relname AS name, ix.indisprimary AS primary, ix.indisunique AS unique, ix.indkey AS indkey, array_agg(a.attnum) as column_indexes, array_agg(a.attname) AS column_names, pg_get_indexdef(ix.indexrelid) AS definition FROM pg_class t, pg_class i, pg_index ix, pg_attribute a WHERE t.oid = ix.indrelid AND i.oid = ix.indexrelid AND a.attrelid = t.oid AND t.relkind = 'r' and t.relname = 'users' GROUP BY i.relname, ix.indexrelid, ix.indisprimary, ix.indisunique, ix.indkey ORDER BY i.relname;
SELECT pk.constraint_type as "Constraint", c.column_name as "Field", c.column_default as "Default", c.is_nullable as "Null", (SELECT array_agg(e.enumlabel) FROM pg_catalog.pg_type t JOIN pg_catalog.pg_enum e ON t.oid=e.enumtypid WHERE t.typname=c.udt_name) AS "special", (SELECT pgd.description FROM pg_catalog.pg_statio_all_tables AS st INNER JOIN pg_catalog.pg_description pgd on (pgd.objoid=st.relid) WHERE c.ordinal_position=pgd.objsubid AND c.table_name=st.relname) AS "Comment" FROM information_schema.columns c LEFT JOIN (SELECT tc.table_schema, tc.table_name, cu.column_name, tc.constraint_type FROM information_schema.TABLE_CONSTRAINTS tc JOIN information_schema.KEY_COLUMN_USAGE cu ON tc.constraint_name=cu.constraint_name) pk ON pk.column_name=c.column_name WHERE c.table_name = 'users';`,
  PostGraphile: `
with __local_0__ as (select to_json((json_build_object('__identifiers'::text, json_build_array(__local_1__."id"), 'id'::text, (__local_1__."id"), 'name'::text, (__local_1__."name")))) as "@nodes" from (select __local_1__.* from "orm"."users" as __local_1__ where (__local_1__."id" = $1) and (TRUE) and (TRUE) order by __local_1__."id" ASC limit 10) __local_1__), __local_2__ as (select json_agg(to_json(__local_0__)) as data from __local_0__) select coalesce((select __local_2__.data from __local_2__), '[]'::json) as "data", (select json_build_object('totalCount'::text, count(1)) from "orm"."users" as __local_1__ where 1 = 1) as "aggregates"
select __users__."id"::text as "0", __users__."name" as "1" from "orm"."users" as __users__ where ( __users__."id" = $1::"int4" )
select __users_result__.* from (select ids.ordinality - 1 as idx, (ids.value->>0)::"int4" as "id0" from json_array_elements($1::json) with ordinality as ids) as __users_identifiers__, lateral (select __users__."id"::text as "0", __users_identifiers__.idx as "1" from "orm"."users" as __users__ where ( __users__."id" = __users_identifiers__."id0" )) as __users_result__
select array(select array[__posts__."id"::text, __posts__."title"]::text[] from "orm"."posts" as __posts__ where (__users__."id"::"int4" = __posts__."author_id") order by __posts__."id" asc)::text from "orm"."users" as __users__
select (count(*))::text as "0" from "orm"."posts" as __posts__
select "orm"."full_name"(__users__)::text as "0" from "orm"."users" as __users__
select to_json(__local_0__) from "orm"."search_posts"($1) as __local_0__
select "orm"."current_user_id"()
select to_char(__posts__."created_at", 'YYYY-MM-DD"T"HH24:MI:SS.USTZH:TZM'::text) as "0" from "orm"."posts" as __posts__
select exists(select 1 from "orm"."posts" as __posts__ where (__posts__."author_id" = $1) offset 10) as "hasNextPage"
with accessible_roles(_oid) as (select oid _oid, pg_roles.* from pg_roles where rolname = current_user), namespace as (select 'namespace' as "kind", nsp.oid as "id", nsp.nspname as "name", dsc.description from pg_catalog.pg_namespace as nsp left join pg_catalog.pg_description as dsc on dsc.objoid = nsp.oid and dsc.classoid = 'pg_catalog.pg_namespace'::regclass where nsp.nspname = any ($1)) select row_to_json(x) as object from namespace as x
select pro.oid as id, pro.proname as name, pro.provolatile = 'i' or pro.provolatile = 's' as "isStable", pg_get_function_result(pro.oid), has_function_privilege(pro.oid, 'EXECUTE') as "aclExecutable" from pg_catalog.pg_proc as pro where pro.prokind = 'f'
select att.attname, pg_catalog.has_column_privilege(att.attrelid, att.attname, 'SELECT') as "aclSelectable", pg_get_expr(ad.adbin, ad.adrelid) from pg_catalog.pg_attribute att left join pg_attrdef ad on ad.adrelid = att.attrelid and ad.adnum = att.attnum where att.attnum > 0`,
  Hasura: `
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_1_e" FROM (SELECT "_0_root.base"."id" AS "id", "_0_root.base"."name" AS "name", "_0_root.base"."age" AS "age") AS "_1_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ((("orm"."users"."id") = ((($1)::json #>> ARRAY['x-hasura-user-id'])::integer)) OR ((("orm"."users"."id") IS NULL) AND (((($1)::json #>> ARRAY['x-hasura-user-id'])::integer) IS NULL)))) AS "_0_root.base") AS "_2_root"
SELECT coalesce(json_agg("root" ORDER BY "root.or.author.pg.id" DESC NULLS FIRST), '[]') AS "root" FROM (SELECT "_2_root.or.author"."root.or.author.pg.id" AS "root.or.author.pg.id", row_to_json((SELECT "_3_e" FROM (SELECT "_0_root.base"."id" AS "id", "_0_root.base"."title" AS "title") AS "_3_e")) AS "root" FROM (SELECT * FROM "orm"."posts" WHERE ('true')) AS "_0_root.base" LEFT OUTER JOIN LATERAL (SELECT "_1_root.or.author.base"."id" AS "root.or.author.pg.id" FROM (SELECT * FROM "orm"."users" WHERE (("_0_root.base"."author_id") = ("id")) LIMIT 1) AS "_1_root.or.author.base") AS "_2_root.or.author" ON ('true') ORDER BY "root.or.author.pg.id" DESC NULLS FIRST LIMIT 3 OFFSET 2) AS "_4_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."name" AS "name", "_root.ar.root.posts"."posts" AS "posts") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT coalesce(json_agg("posts" ORDER BY "root.ar.root.posts.pg.id" DESC NULLS FIRST), '[]') AS "posts" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.ar.root.posts.base"."title" AS "title") AS "_e")) AS "posts", "_root.ar.root.posts.base"."id" AS "root.ar.root.posts.pg.id" FROM (SELECT * FROM "orm"."posts" WHERE (("_root.base"."id") = ("author_id")) ORDER BY "id" DESC NULLS FIRST LIMIT 5) AS "_root.ar.root.posts.base" ORDER BY "root.ar.root.posts.pg.id" DESC NULLS FIRST) AS "_root.ar.root.posts") AS "_root.ar.root.posts" ON ('true')) AS "_root"
SELECT coalesce((json_agg("root") -> 0), 'null') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."title" AS "title", "_root.or.author"."author" AS "author") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."posts" WHERE (("orm"."posts"."id") = (($1)::integer))) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.or.author.base"."id" AS "id", "_root.or.author.base"."name" AS "name") AS "_e")) AS "author" FROM (SELECT * FROM "orm"."users" WHERE (("_root.base"."author_id") = ("id")) LIMIT 1) AS "_root.or.author.base") AS "_root.or.author" ON ('true')) AS "_root"
SELECT json_build_object('aggregate', json_build_object('count', COUNT(*), 'sum', json_build_object('age', SUM("root.pg.age")), 'avg', json_build_object('age', AVG("root.pg.age"))), 'nodes', coalesce(json_agg("root"), '[]')) AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root", "_root.base"."age" AS "root.pg.age" FROM (SELECT * FROM "orm"."users" WHERE (("orm"."users"."active") = (($1)::boolean))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.ar.root.posts_aggregate"."posts_aggregate" AS "posts_aggregate") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT json_build_object('aggregate', json_build_object('count', COUNT(*))) AS "posts_aggregate" FROM (SELECT FROM (SELECT * FROM "orm"."posts" WHERE (("_root.base"."id") = ("author_id"))) AS "_root.ar.root.posts_aggregate.base") AS "_root.ar.root.posts_aggregate") AS "_root.ar.root.posts_aggregate" ON ('true')) AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE (EXISTS (SELECT 1 FROM "orm"."posts" AS "__be_0_orm_posts" WHERE (((("__be_0_orm_posts"."author_id") = ("orm"."users"."id")) AND ('true')) AND (((("__be_0_orm_posts"."title") ILIKE (($1)::text)) AND ('true')) AND ('true')))))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ((("orm"."users"."id") = ANY((($1)::integer[]))) AND (NOT (("orm"."users"."name") IS NULL)) AND (("orm"."users"."created_at") >= (($2)::timestamptz)))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."meta" AS "meta", "_root.base"."tags" AS "tags") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ((("orm"."users"."meta") @> (($1)::jsonb)) OR (("orm"."users"."meta") ? (($2)::text)) OR (("orm"."users"."meta") ?| (($3)::text[])))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root" ORDER BY "root.pg.role" ASC NULLS LAST), '[]') AS "root" FROM (SELECT DISTINCT ON ("root.pg.role") row_to_json((SELECT "_e" FROM (SELECT "_root.base"."role" AS "role") AS "_e")) AS "root", "_root.base"."role" AS "root.pg.role" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base" ORDER BY "root.pg.role" ASC NULLS LAST) AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "orm"."full_name"("_root.base") AS "full_name") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base") AS "_root"
SELECT "_subs"."result_id", "_fld_resp"."root" AS "result", "_fld_resp"."cursor" AS "cursor" FROM UNNEST(($1)::uuid[], ($2)::json[]) AS "_subs"("result_id", "result_vars") LEFT OUTER JOIN LATERAL (SELECT json_build_object('posts_stream', "posts_stream"."root") AS "root", to_json("posts_stream"."cursor") AS "cursor" FROM (SELECT coalesce(json_agg("root" ORDER BY "root.pg.id" ASC), '[]') AS "root", json_build_object('id', (MAX("root.pg.id"))::text) AS "cursor" FROM (SELECT row_to_json((SELECT "_1_e" FROM (SELECT "_0_root.base"."id" AS "id") AS "_1_e")) AS "root", "_0_root.base"."id" AS "root.pg.id" FROM (SELECT * FROM "orm"."posts" WHERE (("orm"."posts"."id") > ((("_subs"."result_vars" #>> ARRAY['cursor', 'id']))::integer)) ORDER BY "id" ASC LIMIT 1) AS "_0_root.base" ORDER BY "root.pg.id" ASC) AS "_2_root") AS "posts_stream") AS "_fld_resp" ON ('true')
WITH "__base_select" AS (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root.node", encode(convert_to((json_build_object('id', "_root.base"."id"))::text, 'UTF8'), 'base64') AS "root.cursor", "_root.base"."id" AS "root.pg.id" FROM (SELECT * FROM "orm"."posts" WHERE ('true') ORDER BY "id" ASC LIMIT 11) AS "_root.base"), "__split_cursor" AS (SELECT *, (ROW_NUMBER() OVER ()) AS "__row_number" FROM "__base_select") SELECT json_build_object('edges', coalesce(json_agg(json_build_object('cursor', "root.cursor", 'node', "root.node")), '[]'), 'pageInfo', json_build_object('hasNextPage', COUNT(*) > 10)) AS "root" FROM "__split_cursor"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.ar.root.posts"."posts" AS "posts") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT coalesce(json_agg("posts"), '[]') AS "posts" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.ar.root.posts.base"."id" AS "id", "_root.ar.root.posts.ar.posts.comments"."comments" AS "comments") AS "_e")) AS "posts" FROM (SELECT * FROM "orm"."posts" WHERE (("_root.base"."id") = ("author_id"))) AS "_root.ar.root.posts.base" LEFT OUTER JOIN LATERAL (SELECT coalesce(json_agg("comments"), '[]') AS "comments" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.ar.root.posts.ar.posts.comments.base"."text" AS "text") AS "_e")) AS "comments" FROM (SELECT * FROM "orm"."comments" WHERE (("_root.ar.root.posts.base"."id") = ("post_id"))) AS "_root.ar.root.posts.ar.posts.comments.base") AS "_root.ar.root.posts.ar.posts.comments") AS "_root.ar.root.posts.ar.posts.comments" ON ('true')) AS "_root.ar.root.posts") AS "_root.ar.root.posts" ON ('true')) AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.base"."name" AS "name") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE (("orm"."users"."id") = (($1)::integer))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root" ORDER BY "root.pg.id" ASC NULLS LAST), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.ar.root.posts"."posts" AS "posts") AS "_e")) AS "root", "_root.base"."id" AS "root.pg.id" FROM (SELECT * FROM "orm"."users" WHERE ('true') ORDER BY "id" ASC NULLS LAST LIMIT 10) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT coalesce(json_agg("posts"), '[]') AS "posts" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.ar.root.posts.base"."title" AS "title") AS "_e")) AS "posts" FROM (SELECT * FROM "orm"."posts" WHERE (("_root.base"."id") = ("author_id"))) AS "_root.ar.root.posts.base") AS "_root.ar.root.posts") AS "_root.ar.root.posts" ON ('true')) AS "_root"
SELECT json_build_object('aggregate', json_build_object('count', COUNT(*), 'max', json_build_object('age', MAX("age")))) AS "root" FROM (SELECT "_root.base"."age" AS "age" FROM (SELECT * FROM "orm"."users" WHERE ('true')) AS "_root.base") AS "_root"
SELECT "__subs"."result_id", "__fld_resp"."root" AS "result" FROM UNNEST(($1)::uuid[], ($2)::json[]) AS "__subs"("result_id", "result_vars") LEFT OUTER JOIN LATERAL (SELECT json_build_object('users', "_users"."root") AS "root" FROM (SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE (("orm"."users"."id") = (("__subs"."result_vars"#>>ARRAY['session', 'x-hasura-user-id'])::integer))) AS "_root.base") AS "_root") AS "_users") AS "__fld_resp" ON ('true')
SELECT coalesce((json_agg("root")->0), 'null') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.base"."meta"#>ARRAY['a'] AS "a") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."users" WHERE (EXISTS (SELECT 1 FROM "orm"."posts" AS "__be_0_posts" WHERE ((("__be_0_posts"."author_id") = ("orm"."users"."id")) AND ("__be_0_posts"."published" = 'true'))))) AS "_root.base") AS "_root"
SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id") AS "_e")) AS "root" FROM (SELECT * FROM "orm"."search_posts"(($1)::text) AS "_search" WHERE ('true')) AS "_root.base") AS "_root"
SELECT "table".relname, "schema".nspname, coalesce(pg_catalog.obj_description("table".oid), '') FROM pg_class "table" JOIN pg_namespace "schema" ON "schema".oid = "table".relnamespace WHERE "table".relkind IN ('r', 't', 'v', 'm', 'f', 'p')`,
  "PostgREST, Rails, Django": `
WITH pgrst_source AS ( SELECT "orm"."users".* FROM "orm"."users" WHERE "orm"."users"."id" = $1 LIMIT $2 OFFSET $3 ) SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body, nullif(current_setting('response.headers', true), '') AS response_headers, nullif(current_setting('response.status', true), '') AS response_status FROM ( SELECT * FROM pgrst_source ) _postgrest_t
SELECT name FROM pg_timezone_names
SELECT "users".* FROM "orm"."users" WHERE "users"."id" = $1 LIMIT $2
SELECT 1 AS one FROM "orm"."users" WHERE "users"."email" = $1 LIMIT $2
SELECT COUNT(*) FROM "orm"."posts" WHERE "posts"."author_id" = $1
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid WHERE a.attrelid = '"orm"."users"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4')
SELECT pg_size_pretty(pg_total_relation_size('orm.users'))
SELECT (1) AS "a" FROM "orm"."users" WHERE "orm"."users"."id" = $1 LIMIT 1
SELECT "users"."id", EXTRACT(YEAR FROM "users"."created_at" AT TIME ZONE 'UTC') FROM "orm"."users" WHERE "users"."name"::text LIKE UPPER($1)
SELECT DISTINCT (DATE_TRUNC('day', "created_at" AT TIME ZONE 'Europe/Berlin'))::date AS "day" FROM "orm"."posts" ORDER BY 1 DESC`
}

/** By sender. */
export const ormReads: ReadonlyArray<readonly [sender: string, texts: ReadonlyArray<string>]> = Object.entries(
  texts
).map(([sender, all]) => [sender, all.trim().split("\n")])
