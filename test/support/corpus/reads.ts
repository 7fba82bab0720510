import { lines, texts } from "./entry.js"

const plain = lines(
  "read",
  String.raw`
select 1 ## plain SELECT
SELECT
select 1;
select 1; ;
(select 1)
((select 1))
select * from users ## plain SELECT
select u.* from public.users as u
select id, name from users where id = $1
select name from users where id = 1 order by created_at desc nulls last limit 10 offset 5
select distinct on (status) status, name from users order by status, created_at
select count(*) from orders
select count(distinct user_id), sum(total), avg(total) filter (where total > 10) from orders
select user_id, sum(total) from orders group by user_id having sum(total) > 100
select status, count(*) from users group by rollup (status)
select status, active, count(*), grouping(status) from users group by grouping sets ((status), (active), ())
select o.id, u.name from orders o join users u on u.id = o.user_id
select * from orders o left join users u on o.user_id = u.id and u.active
select * from orders natural join items
select * from orders join items on items.order_id = orders.id join products on products.id = items.product_id
select * from users u cross join lateral (select sum(total) from orders o where o.user_id = u.id) s
select * from items join orders o on o.id = order_id full join users using (id)
select * from users where id in (select user_id from orders where total > 10)
select * from users u where exists (select from orders o where o.user_id = u.id)
select * from users where id = any (array[1, 2, 3])
select * from users where id = any ($1::int[])
select (select max(total) from orders) as top
select array(select id from users)
select case when active then 'yes' else 'no' end from users
select case status when 'new' then 1 end from users
select coalesce(name, email, 'unnamed'), nullif(status, ''), greatest(1, 2), least(1, 2) from users
select * from users where name like 'a%' or name ilike '%b%' or name similar to 'c%' or name ~ '^d'
select * from users where created_at between now() - interval '1 day' and now()
select * from users where (id, name) = (1, 'Ann')
select * from users where row(id, name) > row(1, 'A')
select * from users where name is not distinct from $1
select * from users where active is true and email is not null
select not active, - id, id + 1, id::text || 'x' from users
select tags[1], tags[1:2], profile -> 'a' -> 'b' -> 0, profile #>> '{a,b}' from users
select profile['a']['b'] from users
select * from users where profile @> '{"a": {}}' and profile ? 'a'
select * from users where tags && array['a']
select (p).a, (p).b from feelings
select (p).* from feelings
select id::positive from users
select m::text, 'calm'::mood from feelings
select null::mood[], null::pair, null::users
select '[1,2]'::money_range
select cast(id as text), id::varchar(10), '1'::numeric(10, 2) from users
select date '2020-01-01', interval '1 day', time '10:00', timestamp with time zone '2020-01-01'
select 'orders_id_seq'::regclass, 'users'::regclass::oid
select "select", "insert into" from "Mixed Case"
select 'insert into users values (1)' as text, 'for update' as clause
select 'it''s -- not a comment', E'a\'b', U&'d\0061t', $$; delete from users; $$, $x$ drop table users $x$
select name as "for update", email as "nextval('s')" from users
select name collate "C" from users order by name collate "C"
select * from only users
select * from users tablesample bernoulli (10)
select * from users tablesample system (50) repeatable (1)
select * from users order by id using <
select * from users fetch first 5 rows only
select * from users order by id fetch first 5 rows with ties
select 1 as nextval
select u.name as currval from users u
select nextval from (select 1 as nextval) s
select $1::text, $2::int
select 0x1F, 0b101, 1_000
select b'101', x'1F'
select all id from users
`
)

const sets = lines(
  "read",
  `
values (1), (2) ## VALUES
values (1, 'a'), (2, 'b') order by 1 limit 1
table users
table only public.users
select 1 union select 2
select 1 union all select 2 intersect select 3 except select 4
(select id from users limit 1) union all (select id from orders limit 1) order by 1
select * from (values (1, 'a')) as v (id, name)
select * from (select * from (select id from users) a) b
with u as (select * from users) select * from u
with u as (table users), o as (select * from u) select count(*) from o
with u (a) as (values (1)) select a from u
with recursive tree as (select id, parent_id from users where id = 1 union all select u.id, u.parent_id from users u join tree t on u.parent_id = t.id) select * from tree
with recursive a as (select * from b), b as (select 1) select * from a
with u as materialized (select 1), v as not materialized (select 2) select * from u, v
with recursive t(n) as (values (1) union all select n + 1 from t where n < 5) search depth first by n set o select * from t
with recursive t(n) as (values (1) union all select n + 1 from t where n < 5) cycle n set c using p select * from t
select * from (with u as (select 1 as x) select x from u) s
select (with u as (select 1 as x) select x from u)
with pg_stat_activity as (select 1) select * from pg_stat_activity
with orders_id_seq as (select 1 as last_value) select last_value from orders_id_seq
with cache as (select 1) select * from cache
with users as (select id, name from users where active is true) select * from users
`
)

const functions = lines(
  "read",
  `
select now(), current_timestamp, current_date, localtime, current_time(2), transaction_timestamp(), statement_timestamp()
select current_user, session_user, user, current_role, current_catalog, current_schema, current_database(), current_schemas(true)
select lower(name), length(name), substring(name from 1 for 2), trim(both ' ' from name), position('a' in name) from users
select overlay('abc' placing 'x' from 2), extract(year from now()), now() at time zone 'UTC', date_trunc('day', now())
select date_part('year', now()), age(now()), to_char(now(), 'YYYY'), make_interval(days => 1)
select pg_catalog.lower('A'), pg_catalog.now()
select format('%s', name), concat_ws(',', name, email), string_agg(name, ',' order by name) from users group by name, email
select array_agg(id order by id), json_agg(users), jsonb_object_agg(id, name) from users
select percentile_cont(0.5) within group (order by total) from orders
select row_number() over (partition by user_id order by id), lag(total) over w, sum(total) over (rows between 1 preceding and current row) from orders window w as (order by id)
select * from generate_series(1, 10)
select * from generate_series(now(), now() + interval '1 day', '1 hour') with ordinality as g (at, n)
select * from unnest(array[1, 2], array['a', 'b']) as u (a, b)
select * from rows from (generate_series(1, 3), unnest(array['a'])) as r
select unnest(tags) from users
select * from jsonb_array_elements('[1,2]'), jsonb_each('{"a":1}')
select * from json_to_recordset('[{"a":1}]') as x (a int)
select * from jsonb_to_record('{"a":1}') as x (a int, b text)
select * from regexp_split_to_table('a b', ' ')
select to_tsvector('english', name) @@ plainto_tsquery('pen'), ts_rank(search, to_tsquery('pen')) from products
select md5(name), sha256('a'::bytea), encode('a', 'hex'), gen_random_uuid() from users
select random(), random(1, 10), random_normal(), clock_timestamp(), timeofday()
select * from users order by random() limit 1
select uuidv7(), uuidv4(), uuid_extract_version(uuidv4())
select pg_sleep(0), pg_sleep_for('0 seconds'), pg_sleep_until(now())
select array_shuffle(array[1, 2]), array_sample(array[1, 2], 1)
select pg_typeof(1), pg_column_size(1), pg_size_pretty(10::bigint)
select pg_get_viewdef('active_users'::regclass), pg_get_userbyid(10), obj_description('users'::regclass)
select has_table_privilege('users', 'select'), to_regclass('users'), format_type(23, null)
select pg_get_serial_sequence('orders', 'id'), col_description('users'::regclass, 1)
select version(), current_setting('TimeZone'), current_setting('app.tenant', true)
select xmlelement(name a, xmlattributes(1 as b), 'c'), xmlforest(1 as a), xmlparse(content '<a/>'), xmlserialize(content '<a/>' as text)
select * from xmltable('/a' passing xml '<a><b>1</b></a>' columns b int)
select json_object('a' value 1), json_array(1, 2), json_array(select id from users), json_objectagg(name value id), json_arrayagg(id) from users group by ()
select json_value('{"a":1}', '$.a' returning int), json_query('{"a":1}', '$.a'), json_exists('{"a":1}', '$.a'), '1' is json
select * from json_table('[{"a":1}]', '$[*]' columns (a int path '$.a', n for ordinality, nested path '$.b' columns (c text)))
select json('1'), json_scalar(1), json_serialize('1')
select extract(epoch from created_at)::int, created_at::date from users
select (now() - created_at) > '1 day', (date '2020-01-01', date '2020-02-01') overlaps (date '2020-01-15', date '2020-03-01') from users
select name is normalized, normalize(name), upper(name) collate "C" from users
select jsonb_path_query(profile, '$.a.b[*]'), jsonb_set(profile, '{x}', '1') from users
select * from users where to_tsvector(name) @@ websearch_to_tsquery('ann or bob')
select int4range(1, 5) * int4range(2, 8), lower(int4range(1, 5)), range_agg(int4range(1, 2))
select uuid('6ba7b810-9dad-11d1-80b4-00c04fd430c8')
select int4('5'), text('a'), date('2020-01-01')
select width_bucket(5, 0, 10, 5), round(1.5), ceil(1.2), power(2, 3), log(10), pi()
select inet '10.0.0.1' << inet '10.0.0.0/8', host(inet '10.0.0.1'), point(1, 2) <-> point(3, 4)
select query_to_tsv from (select to_tsvector('a') as query_to_tsv) s
select pg_partition_root('events'), relid from pg_partition_tree('events')
select u.* from users u where u.* is not null
select count(u) from users u
select u from users u
select row_to_json(u), to_jsonb(u) from users u
`
)

const catalogs = lines(
  "read",
  `
select relname from pg_class where relkind = 'r'
select * from pg_catalog.pg_type limit 1
select nspname from pg_namespace
select attname from pg_attribute where attrelid = 'users'::regclass
select * from information_schema.tables limit 1
select column_name from information_schema.columns where table_name = 'users'
select * from information_schema.key_column_usage limit 1
select rolname from pg_roles
select tablename from pg_tables where schemaname = 'public'
select indexname from pg_indexes
select viewname from pg_views limit 1
select extname from pg_extension
select enumlabel from pg_enum
select datname from pg_database
select conname, pg_get_constraintdef(oid) from pg_constraint limit 1
select proname from pg_proc limit 1
select seqstart from pg_sequence
select attname, n_distinct from pg_stats limit 1
select reltuples from pg_class where oid = 'users'::regclass
`
)

const others = lines(
  "read",
  `
show all ## SHOW
show timezone
SHOW server_version
show transaction isolation level
show search_path; select 1
explain select * from users ## EXPLAIN of a read
explain (verbose, costs off) select 1
explain (analyze false) select 1
explain (analyze off, format json) select * from orders
explain (analyze 0) select 1
explain (analyze 'false') select 1
explain verbose values (1)
explain (generic_plan) select * from users where id = $1
explain (settings, memory) table users
explain with u as (select 1) select * from u
select 1; select 2
select 1; values (2); table users;
`
)

const comments = texts(
  "read",
  "-- a comment\nselect 1",
  "/* a comment */ select 1",
  "/* insert into users */ select 1",
  "/* nested /* comment */ still */ select 1",
  "\n\t select 1",
  "select 1 -- for update",
  "select 1 /* ; drop table users */",
  "select\n  *\nfrom\n  users\nwhere id = 1",
  "SeLeCt 1",
  "/*+ IndexScan(users) */ select * from users",
  "/* app:web,controller:orders */ select * from orders",
  "select 1 --",
  "select '\u{1F600}', 'é'",
  "select * from users -- it's\nwhere id = 1"
)

/** Reads that only the catalog shows to be reads: without one, a function that is not PostgreSQL's own is a write. */
const known = lines(
  "read",
  `
select app.total_of(1)
select app.double(app.double(2))
select * from app.list_users()
select * from users where app.double(id) = 2
select app.sum_up(id) from users
select app.sum_up(id) over () from users
select u.id from users u order by app.double(u.id)
`,
  "write"
)

/** Reads for both. */
const objects = lines(
  "read",
  `
select * from active_users
select * from recent_orders where name = 'Ann'
select * from lottery
select * from table_list limit 1
select * from totals
select * from events
select * from events_a
select * from app.notes
select * from app.by_setting
select * from app.insert_policy
select * from app.update_policy
select 1 operator(app.|+|) 2
select 1 operator(pg_catalog.+) 2
select m, n, p from feelings where m = 'calm'
select null::positive, 5::positive
select null::app.notes
`
)

/** From the issue trackers of makara, pgcat, pgdog, pgpool, Drizzle, Prisma, Laravel, Sequelize and ProxySQL. */
const reported = lines(
  "read",
  `
with ids as (select id from users), more as (select id from ids) select * from more union select id from orders
select * from users where name = 'DELETE FROM users'
select replace(name, 'a', 'b') from users
select name from users where status = 'for update'
select id as update, name as delete from users
select '/* hint: write */', 1
select u.name, 'set' as set from users u
select "u"."id", "u"."name" from "public"."users" "u" where "u"."id" = $1
select "users".* from "users" where "users"."id" = $1 limit $2
select 1 as one from "users" where "users"."email" = $1 limit $2
select count(*) as "count" from "orders" where "orders"."placed" > $1 and ("orders"."total" is null or "orders"."total" >= $2)
select set_masklen('10.0.0.1/8'::inet, 16)
select * from (select * from users) as updated
select * from users where status in ('insert', 'update', 'delete')
`
)

/** Volatile in PostgreSQL, or of one server, and what is asked for all the same: "where am I", sizes, large objects. */
const askedFor = lines(
  "read",
  `
select pg_is_in_recovery()
select pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(), pg_last_xact_replay_timestamp()
select pg_postmaster_start_time(), pg_conf_load_time()
select inet_server_addr(), inet_server_port(), inet_client_addr(), inet_client_port()
select system_identifier from pg_control_system()
select * from pg_control_checkpoint(), pg_control_recovery()
select pg_relation_size('users'), pg_total_relation_size('users'), pg_table_size('users'), pg_indexes_size('users')
select pg_database_size('postgres'), pg_tablespace_size('pg_default')
select * from pg_timezone_names()
select * from pg_timezone_names
select pg_get_wal_replay_pause_state(), pg_is_wal_replay_paused()
select pg_is_in_recovery(), inet_server_addr()::text, current_setting('cluster_name')
select pg_size_pretty(pg_total_relation_size(c.oid)) from pg_class c where relkind = 'r'
select now() at time zone 'UTC', timezone('UTC', now())
select lo_get(m.oid) from pg_largeobject_metadata m
`
)

export const reads = [
  ...plain,
  ...sets,
  ...functions,
  ...catalogs,
  ...others,
  ...comments,
  ...known,
  ...objects,
  ...reported,
  ...askedFor
]
