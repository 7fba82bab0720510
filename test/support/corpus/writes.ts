import { lines, texts } from "./entry.js"

const data = lines(
  "write",
  `
insert into users (id, name) values (1, 'x') ## INSERT
insert into users default values
insert into users select * from users on conflict (id) do nothing
insert into users (id) values (2) on conflict (id) do update set name = excluded.name returning *
INSERT INTO "users" ("name") VALUES ($1) RETURNING "id"
update users set name = 'x' where id = 1 ## UPDATE
update users u set name = o.note from orders o where o.user_id = u.id returning u.*
delete from users ## DELETE
delete from users using orders where orders.user_id = users.id
delete from users where id in (select user_id from orders)
merge into users u using orders o on u.id = o.user_id when matched then update set name = 'x' when not matched then do nothing ## MERGE
truncate users cascade ## TRUNCATE
with x as (select 1) insert into users (id) select * from x ## INSERT
with x as (select 1 as id) update users set name = 'a' from x where x.id = users.id
with x as (select 1) delete from users
with x as (select 1) delete from users where id in (select * from x) returning id
copy users from stdin ## COPY FROM
copy users (id, name) from '/nonexistent/x' with (format csv)
copy users to '/nonexistent/x' ## COPY TO a file
copy users to program 'cat'
copy (delete from users returning *) to stdout ## DELETE
copy (select app.touch()) to stdout ## touch
copy (select * from users for update) to stdout ## locking clause FOR UPDATE
call app.run() ## CALL
do $$ begin delete from users; end $$ ## DO
do language plpgsql $$ begin null; end $$
refresh materialized view totals ## REFRESH MATERIALIZED VIEW
refresh materialized view concurrently totals
notify changes, 'payload' ## NOTIFY
execute some_statement (1) ## EXECUTE
`
)

const hidden = lines(
  "write",
  `
with x as (insert into users (id) values (1) returning *) select * from x ## data-modifying CTE
with x as (update users set name = 'a' returning id) select count(*) from x ## data-modifying CTE
with x as (delete from users returning *) select 1 ## data-modifying CTE
with x as (merge into users u using orders o on u.id = o.user_id when matched then delete returning u.*) select * from x ## data-modifying CTE
with a as (select 1), b as (delete from users returning *) select * from a ## data-modifying CTE
with a as (select * from (with b as (delete from users returning *) select * from b) x) select * from a ## data-modifying CTE
select * from (with b as (delete from users returning *) select * from b) x ## data-modifying CTE
select (with b as (delete from users returning id) select max(id) from b) ## data-modifying CTE
select * from users where id in (with b as (delete from orders returning user_id) select user_id from b) ## data-modifying CTE
select 1 union (with b as (insert into users (id) values (3) returning id) select id from b) ## data-modifying CTE
(with b as (insert into users (id) values (3) returning id) select id from b) union select 1 ## data-modifying CTE
with a as (with b as (with c as (delete from users returning id) select id from c) select id from b) select id from a ## data-modifying CTE
with recursive t as (select 1 union all select * from t), d as (delete from users returning id) select 1 ## data-modifying CTE
values ((with b as (delete from users returning id) select max(id) from b)) ## data-modifying CTE
select * into copy_of_users from users ## SELECT INTO
select id into temp temp_users from users ## SELECT INTO
select 1 as a into unlogged x union select 2 ## SELECT INTO
with u as (select 1 as a) select a into x from u ## SELECT INTO
select * from users for update ## locking clause FOR UPDATE
select * from users for no key update ## locking clause FOR NO KEY UPDATE
select * from users for share ## locking clause FOR SHARE
select * from users for key share ## locking clause FOR KEY SHARE
select * from users where id = 1 for update nowait ## locking clause FOR UPDATE
select * from orders o join users u on u.id = o.user_id for no key update of o skip locked ## locking clause FOR NO KEY UPDATE
select * from users limit 1 for update skip locked
SELECT * FROM users WHERE id = $1 FOR UPDATE
select * from (select * from users for update) u ## locking clause FOR UPDATE
select * from orders where user_id in (select id from users for share) ## locking clause FOR SHARE
with u as (select * from users for update) select * from u ## locking clause FOR UPDATE
select (select id from users limit 1 for key share) ## locking clause FOR KEY SHARE
(select * from users for update) union all select * from users
select 1 where exists (select from users for update)
table users for update
`
)

const functions = lines(
  "write",
  `
select nextval('orders_id_seq') ## calls nextval
select pg_catalog.nextval('orders_id_seq') ## calls nextval
SELECT NEXTVAL('orders_id_seq')
select "nextval"('orders_id_seq')
select setval('orders_id_seq', 10) ## calls setval
select setval('orders_id_seq', (select max(id) from orders))
select id, nextval('orders_id_seq') from users
select * from users where id = nextval('orders_id_seq')
select * from users order by nextval('orders_id_seq')
select * from users limit nextval('orders_id_seq')
select * from users offset (select nextval('orders_id_seq'))
select count(*) filter (where nextval('orders_id_seq') > 0) from users
select sum(nextval('orders_id_seq')) from users
select sum(id) over (order by nextval('orders_id_seq')) from users
select case when nextval('orders_id_seq') > 1 then 1 end
select coalesce(null, nextval('orders_id_seq'))
select array[nextval('orders_id_seq')]
select row(nextval('orders_id_seq'))
select (array[1, 2])[nextval('orders_id_seq')]
select greatest(1, nextval('orders_id_seq'))
select nextval('orders_id_seq')::text
select nextval('orders_id_seq') is null
select * from nextval('orders_id_seq') as n
select * from generate_series(1, nextval('orders_id_seq'))
select * from rows from (generate_series(1, 2), nextval('orders_id_seq')) as r
select * from users u, lateral (select nextval('orders_id_seq')) n
select * from users u join orders o on o.id = nextval('orders_id_seq')
select user_id from orders group by user_id having count(*) > nextval('orders_id_seq')
select user_id from orders group by user_id, nextval('orders_id_seq')
values (nextval('orders_id_seq'))
with n as (select nextval('orders_id_seq')) select * from n
with nextval as (select 1) select nextval('orders_id_seq') from nextval
select 1 union select nextval('orders_id_seq')
select * from users tablesample bernoulli (nextval('orders_id_seq'))
select json_object('a' value nextval('orders_id_seq'))
select xmlelement(name a, nextval('orders_id_seq'))
select * from json_table('[1]', '$[*]' passing nextval('orders_id_seq') as x columns (a int path '$'))
select json_value('{}', '$.a' default nextval('orders_id_seq')::text on empty)
select format('%s', variadic array[nextval('orders_id_seq')::text])
select make_interval(days => nextval('orders_id_seq')::int)
select * from users where id in (select nextval('orders_id_seq'))
select * from users window w as (partition by nextval('orders_id_seq'))
select x.nextval from regclass('orders_id_seq') x ## calls nextval
select ('orders_id_seq'::regclass).nextval ## calls nextval
select pg_advisory_lock(1), nextval('orders_id_seq') ## calls nextval
select pg_backend_pid() from users for update ## locking clause FOR UPDATE
select * from pg_locks where pid = unknown_function(1) ## unknown_function
select set_config('a.b', '1', true) union select (with d as (delete from users returning name) select max(name) from d) ## data-modifying CTE
select lo_create(0) ## calls lo_create
select lo_from_bytea(0, 'a')
select lo_unlink(1)
select lo_import('/etc/hostname')
select lo_export(1, '/nonexistent/x')
select lo_put(1, 0, 'a')
select pg_notify('changes', 'payload') ## calls pg_notify
select query_to_xml('delete from users returning *', true, true, '') ## calls query_to_xml, which runs SQL given as text
select query_to_xmlschema('select 1', true, true, '')
select table_to_xml('users', true, true, '') ## which runs SQL given as text
select schema_to_xml('public', true, true, '')
select database_to_xml(true, true, '')
select cursor_to_xml('c', 1, true, true, '')
select * from ts_stat('select search from products') ## calls ts_stat
select ts_rewrite('a'::tsquery, 'select ''a''::tsquery, ''b''::tsquery')
select pg_create_restore_point('x') ## calls pg_create_restore_point
select pg_switch_wal()
select pg_logical_emit_message(true, 'a', 'b')
select pg_create_physical_replication_slot('s')
select pg_drop_replication_slot('s')
select pg_logical_slot_get_changes('s', null, null)
select pg_replication_origin_create('o')
select pg_promote() ## calls pg_promote
select pg_backup_start('x')
select pg_import_system_collations('pg_catalog')
select brin_summarize_new_values('x'::regclass)
select gin_clean_pending_list('x'::regclass)
select pg_sync_replication_slots()
select pg_log_standby_snapshot()
select pg_extension_config_dump('users', '')
select pg_clear_relation_stats('public', 'users')
select unknown_function() ## unknown
select * from unknown_function(1)
select dblink_exec('dbname=x', 'delete from users')
select * from dblink('dbname=x', 'select 1') as t (a int)
select app.unknown_function(1)
select public.nextval(1)
select upsert_category($1, $2)
select * from create_order($1)
select random_between(1, 2)
`
)

const definitions = lines(
  "write",
  `
create table t (a int) ## CREATE TABLE
create temp table t (a int)
create temporary table t as select * from users
create unlogged table t (a int)
create table t as select * from users ## CREATE TABLE AS
create table if not exists t as table users with no data
create materialized view m as select 1
create view v as select 1 ## CREATE VIEW
create or replace temp view v as select 1
create index on users (name) ## CREATE INDEX
create index concurrently i on users (name)
create sequence s
create schema s
create function f() returns int language sql as 'select 1' ## CREATE FUNCTION
create or replace procedure p() language sql as 'select 1'
create trigger g after insert on users for each row execute function f()
create type t as enum ('a')
create domain d as int
create extension pg_trgm
create policy q on users using (true)
create rule r as on insert to users do nothing
create role r
create database d
create publication p for all tables
create statistics st on id, name from users
create event trigger e on ddl_command_start execute function f()
create cast (text as int) with inout
create operator ~~~ (leftarg = int, rightarg = int, procedure = int4eq)
create aggregate g (int) (sfunc = int4pl, stype = int)
alter table users add column x int ## ALTER TABLE
alter table users rename to people
alter table users owner to postgres
alter table users set schema app
alter sequence orders_id_seq restart
alter function app.double(int) volatile
alter type mood add value 'happy'
alter role postgres set work_mem = '8MB'
alter system set work_mem = '8MB' ## ALTER SYSTEM
alter database postgres set work_mem = '8MB'
alter default privileges grant select on tables to public
drop table users ## DROP
drop view if exists v cascade
drop function f()
drop owned by postgres
drop role r
drop database d
comment on table users is 'x' ## COMMENT
grant select on users to public ## GRANT
revoke all on users from public ## REVOKE
grant pg_read_all_data to postgres
reassign owned by postgres to postgres
security label on table users is 'x'
import foreign schema s from server elsewhere into app
vacuum ## VACUUM
vacuum full users
analyze users ## ANALYZE
reindex table users
cluster users
prepare transaction 'x' ## PREPARE TRANSACTION
commit prepared 'x' ## COMMIT PREPARED
rollback prepared 'x'
`
)

const explained = lines(
  "write",
  `
explain analyze insert into users (id) values (9) ## EXPLAIN ANALYZE: INSERT
explain (analyze) delete from users
explain (analyze true, verbose) update users set name = 'a'
explain (verbose, analyze on) delete from users
explain (analyze 1) delete from users
explain analyze select nextval('orders_id_seq')
explain analyze with d as (delete from users returning *) select * from d
explain analyze create table t as select 1
explain analyze execute some_statement
explain analyze select * from users for update
declare c cursor for select nextval('orders_id_seq') ## DECLARE CURSOR
declare c cursor for select * from users for update
`
)

const several = lines(
  "write",
  `
select 1; delete from users ## DELETE
delete from users; select 1
select 1; select nextval('orders_id_seq'); select 2 ## calls nextval
set search_path = app; insert into notes values (1)
begin; update users set name = 'a'; commit ## UPDATE
show timezone; create table t (a int)
select 1; not sql
`
)

const broken = [
  ...lines(
    "write",
    String.raw`
selec 1 ## does not parse
select from where
select * from users where
select 'unterminated
select "unterminated
select $$ unterminated
select (1
select 1)
not sql at all
exec sp_who
select top 1 * from users
select * from users limit 1, 2 for
explain
explain (analyze false) 
with x as (select 1)
/* unterminated select 1
select * from users where id = ?
select * from users where id = :id
replace into users values (1)
lock in share mode
select sql_no_cache * from users
show tables like 'u%'
describe users
use shop
select @@version from
{ "find": "users" }
\d users
select * from users; \g
`
  ),
  ...texts("write", "select 1\u0000", "select 1 \u0000; delete from users", "\uFEFFselect 1", "\u00A0select 1")
]

const comments = texts(
  "write",
  "-- select\ndelete from users",
  "/* select 1 */ delete from users",
  "/* app:web */ insert into users (id) values (1)",
  "-- primary\n\nupdate users set name = 'a'",
  "select 1 /* ; */ ; delete from users",
  "select '/*'; delete from users; select '*/'",
  "select 1 -- \n; delete from users",
  "select $a$ ; $a$; delete from users",
  "select * from users /* trailing */ for update /* more */",
  "with x as (\n  -- comment\n  delete from users returning *\n)\nselect * from x",
  "/* select */ with a as (select 1) insert into users (id) select * from a"
)

/** Only the catalog shows that these write, or may. */
const known = lines(
  "write",
  `
select * from app.next_order ## reads next_order, which calls nextval
select * from next_order
select * from app.touching ## reads touching, which calls touch
select * from app.touching_twice ## reads touching_twice, which calls touch
select * from (select * from app.touching) t
select * from app.locked_users ## locking clause
select * from app.guarded ## reads guarded, whose policy calls touch
select id from guarded g join users using (id)
select * from app.guarded_by_view ## reads guarded_by_view, whose policy calls touch
select * from app.shades ## reads shades, which has a column of a type that calls to_shade
select 1 operator(app.<+>) 2 ## uses operator <+>, which calls add_touch
select id <+> 1 from users
select * from users where id <+> 1 > 2
select id <+> any (array[1]) from users
select 1::app.shade ## which calls to_shade
select cast(1 as app.shade)
select id::app.checked from users ## which calls touch
select null::app.checked[]
select json_value('1', '$' returning app.checked)
select * from json_to_record('{"a":1}') as r (a app.checked)
select * from jsonb_to_recordset('[]') as r (a int, b app.checked)
select * from xmltable('/a' passing '<a/>' columns b app.checked path 'b')
select * from unknown_table ## unknown to the catalog
select * from public.unknown_table
select * from shop.users
select * from app.users
select null::unknown_type ## unknown to the catalog
select (1).checked
select u.stamp from users u ## calls stamp
select id from users u where u.stamp > 1
select u.touch from generate_series(1, 2) u ## calls touch
select (id).touch from users
select repeat('a', 2) ## calls repeat
`,
  "read"
)

/** Functions that are not PostgreSQL's own: writes for both. */
const touching = lines(
  "write",
  `
select app.touch() ## touch
select touch()
select app.touch(1)
select app.mixed(1) ## mixed
select app.mixed('a')
select app.repeat('a', 2)
select app.with_default()
select app.sum_touch(id) from users
select app.sum_touch(id) over () from users
select app.stamp(u) from users u
select * from app.touch() t
select * from users where id = app.touch()
select app.to_shade(1)
select checked(1)
select app.checked(1)
`
)

/** From the issue trackers of makara, pgcat, pgdog, pgpool, Drizzle, Prisma, Laravel, Sequelize and ProxySQL. */
const reported = lines(
  "write",
  `
select mytable.id from orders mytable where (mytable.note = $1 or (mytable.total < mytable.id and mytable.placed <= (statement_timestamp()) and mytable.note = $2)) order by mytable.placed asc nulls first, mytable.id asc limit 10 for no key update of mytable skip locked
with "update" as (update "users" set "name" = $1 returning "id") select "id" from "users"
with inserted as (insert into orders (user_id) values ($1) returning id) insert into items (order_id, product_id) select id, 1 from inserted returning *
with employee as (select id, name from users), averages as (select user_id, avg(total) from orders group by user_id) insert into products (id) select user_id from averages
insert into users (id) values ($1) on conflict on constraint users_pkey do update set name = $2 returning *
select upsert_productcategory($1, $2)
/* ShardingSphere hint: writeRouteOnly=true */ insert into users (id) values (1)
select * from users where userid = 3 for update
select * from orders order by id limit 1 for share of orders
select 1; insert into users (id) values (5); select 2
analyze verbose users
select id from users into copied_users
with deleted as (delete from users where status is null returning *) select count(*) from deleted
explain analyze delete from users
select lock.* from users lock for update
`
)

export const writes = [
  ...data,
  ...hidden,
  ...functions,
  ...definitions,
  ...explained,
  ...several,
  ...broken,
  ...comments,
  ...known,
  ...touching,
  ...reported
]
