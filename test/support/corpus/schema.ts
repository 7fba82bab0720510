/** What the corpus names: an ordinary shop in `public`, and in `app` every trap that only the catalog can show. */
export const schema = `
create schema app;

create table users (id int primary key, name text, email text, status text, parent_id int, tags text[], profile jsonb,
  created_at timestamptz default now(), balance numeric default 0, active bool default true);
create table orders (id serial primary key, user_id int references users, total numeric, placed date, note text, doc xml);
create table items (order_id int references orders, product_id int, quantity int, price numeric, primary key (order_id, product_id));
create table products (id int primary key, name text, price numeric, stock int, search tsvector);
create table "Mixed Case" (id int, "select" text, "insert into" text);
create table events (id int, at timestamptz, kind text) partition by list (kind);
create table events_a partition of events for values in ('a');
create view active_users as select * from users where active;
create view recent_orders as select o.*, u.name from orders o join users u on u.id = o.user_id where o.placed > date '2020-01-01';
create view lottery as select random() as ticket, clock_timestamp() as at;
create view table_list as select table_name from information_schema.tables;
create materialized view totals as select user_id, sum(total) as total from orders group by user_id;
create type mood as enum ('calm', 'angry');
create type pair as (a int, b text);
create domain positive as int check (value > 0);
create type money_range as range (subtype = numeric);
create table feelings (id int, m mood, p pair, n positive);

insert into users (id, name, email, status, tags, profile) values (1, 'Ann', 'ann@example.com', 'new', '{a,b}', '{"a": {"b": [1, 2]}}');
insert into orders (user_id, total, placed) values (1, 10, '2024-01-01');
insert into items values (1, 1, 2, 5);
insert into products values (1, 'pen', 5, 10, to_tsvector('english', 'a pen'));
insert into feelings values (1, 'calm', (1, 'x'), 1);
refresh materialized view totals;

create function app.total_of(int) returns numeric language sql stable as 'select sum(total) from orders where user_id = $1';
create function app.double(int) returns int language sql immutable as 'select $1 * 2';
create function app.list_users() returns setof users language sql stable as 'select * from users';
create function app.label(users) returns text language sql stable as 'select ($1).name';
create function app.add(int, int) returns int language sql immutable as 'select $1 + $2';
create aggregate app.sum_up(int) (sfunc = app.add, stype = int, initcond = '0');
create operator app.|+| (leftarg = int, rightarg = int, procedure = app.add);
create table app.notes (id int, body text);
create table app.by_setting (id int);
alter table app.by_setting enable row level security;
create policy p on app.by_setting using (current_setting('app.tenant', true) is distinct from 'none');
create table app.insert_policy (id int);
alter table app.insert_policy enable row level security;

create function app.touch() returns int language sql volatile as 'insert into public.orders (total) values (1) returning id';
create function app.touch(int) returns int language sql volatile as 'insert into public.orders (total) values ($1) returning id';
create function app.mixed(int) returns int language sql immutable as 'select $1';
create function app.mixed(text) returns int language sql volatile as 'insert into public.orders (total) values (2) returning id';
create function app.repeat(text, int) returns text language sql volatile as 'select app.touch()::text';
create function app.stamp(users) returns int language sql volatile as 'select app.touch()';
create function app.with_default(a bigint default nextval('public.orders_id_seq')) returns bigint language sql immutable as 'select $1';
create function app.add_touch(int, int) returns int language sql volatile as 'select app.touch()';
create aggregate app.sum_touch(int) (sfunc = app.add_touch, stype = int, initcond = '0');
create operator app.<+> (leftarg = int, rightarg = int, procedure = app.add_touch);
create procedure app.run() language sql as 'select app.touch()';
create unlogged table app.cache (key text, value text);
create unlogged table app.hits_2 (id int);
create table app.hits (id int);
alter table app.hits_2 inherit app.hits;
create view app.cached as select * from app.cache;
create view app.next_order as select nextval('public.orders_id_seq') as id;
create view app.touching as select app.touch() as id;
create view app.touching_twice as select * from app.touching;
create view app.locked_users as select * from users for update;
create view app.activity as select pid, query from pg_stat_activity;
create view app.position as select last_value from public.orders_id_seq;
create view app.locks as select pg_try_advisory_lock(1) as ok;
create table app.guarded (id int);
alter table app.guarded enable row level security;
create policy p on app.guarded using (app.touch(id) > 0);
create table app.guarded_by_view (id int);
alter table app.guarded_by_view enable row level security;
create policy p on app.guarded_by_view using (id in (select t.id from app.touching t));
create policy p on app.insert_policy for insert with check (app.touch(id) > 0);
create table app.update_policy (id int);
alter table app.update_policy enable row level security;
create policy p on app.update_policy for update using (app.touch(id) > 0);
create domain app.checked as int check (app.touch(value) > 0);
create type app.shade as enum ('dark', 'light');
create function app.to_shade(int) returns app.shade language sql volatile as 'select app.touch(); select ''dark''::app.shade';
create cast (int as app.shade) with function app.to_shade(int) as implicit;
create table app.shades (s app.shade);
create foreign data wrapper nowhere;
create server elsewhere foreign data wrapper nowhere;
create foreign table app.remote (id int) server elsewhere;
`
