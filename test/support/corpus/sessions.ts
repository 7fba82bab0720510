import { lines, texts } from "./entry.js"

const statements = lines(
  "session",
  `
begin ## BEGIN
begin read only
start transaction isolation level serializable
commit ## COMMIT
commit and chain
end
rollback ## ROLLBACK
abort
savepoint a ## SAVEPOINT
release savepoint a
rollback to savepoint a
set search_path = app ## SET
set local statement_timeout = 100
set session characteristics as transaction read only
set transaction isolation level serializable
set transaction snapshot '0'
set role postgres
set session authorization default
set time zone 'UTC'
set names 'utf8'
set constraints all deferred ## SET CONSTRAINTS
set transaction_read_only = on
reset all ## RESET
reset search_path
discard all ## DISCARD
discard temp
listen changes ## LISTEN
unlisten *
prepare p as select 1 ## PREPARE
prepare p (int) as insert into users (id) values ($1)
deallocate p ## DEALLOCATE
deallocate all
declare c cursor for select * from users ## DECLARE CURSOR
declare c cursor with hold for select 1
declare c scroll cursor for values (1)
fetch all from c ## FETCH
fetch forward 5 from c
move 5 in c ## MOVE
close c ## CLOSE
close all
lock table users ## LOCK
lock users in access share mode nowait
checkpoint ## CHECKPOINT
load 'auto_explain' ## LOAD
copy users to stdout ## COPY TO
copy (select * from users) to stdout with (format csv)
copy (values (1)) to stdout
begin; select 1; commit ## BEGIN
begin read only; select * from users; rollback
select 1; set timezone = 'UTC'
discard plans; select 1
explain analyze select * from users ## EXPLAIN ANALYZE
explain (analyze) select 1
explain (analyze true, timing off) select 1
explain (analyze 1, buffers) values (1)
explain (analyze on) table users
explain (analyze 'true') select 1
explain (verbose, analyze) select 1
explain insert into users (id) values (1) ## EXPLAIN: INSERT
explain delete from users
explain update users set name = 'a'
explain select nextval('orders_id_seq')
explain select * from users for update
explain (analyze false) insert into users (id) values (1)
explain execute some_statement
explain create table t as select 1
explain declare c cursor for select 1
`
)

const functions = lines(
  "session",
  `
select currval('orders_id_seq') ## calls currval
select pg_catalog.currval('orders_id_seq')
select lastval() ## calls lastval
select set_config('app.tenant', '1', false) ## calls set_config
select set_config('app.tenant', '1', true)
with ctx as (select set_config('app.tenant', '1', true)) select u.* from users u, ctx ## calls set_config
select setseed(0.5)
select pg_advisory_lock(1) ## calls pg_advisory_lock
select pg_advisory_lock(1, 2), pg_advisory_lock_shared(1)
select pg_try_advisory_lock(1) ## calls pg_try_advisory_lock
select pg_try_advisory_lock($1::bigint) as locked
select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(1)
select pg_advisory_unlock(1) ## calls pg_advisory_unlock
select pg_advisory_unlock_all(), pg_advisory_unlock_shared(1)
select * from users where pg_try_advisory_lock(id)
select pg_cancel_backend(0) ## calls pg_cancel_backend
select pg_terminate_backend(0)
select pg_reload_conf() ## calls pg_reload_conf
select pg_rotate_logfile()
select pg_stat_reset() ## calls pg_stat_reset
select pg_stat_reset_shared('bgwriter')
select pg_stat_clear_snapshot()
select pg_wal_replay_pause() ## calls pg_wal_replay_pause
select pg_wal_replay_resume()
select pg_export_snapshot() ## calls pg_export_snapshot
select pg_log_backend_memory_contexts(0)
select pg_read_file('PG_VERSION') ## calls pg_read_file
select pg_read_binary_file('PG_VERSION')
select * from pg_ls_dir('.')
select * from pg_ls_waldir()
select pg_stat_file('PG_VERSION')
select pg_backend_pid() ## calls pg_backend_pid
select pg_current_wal_lsn(), pg_current_wal_insert_lsn()
select pg_walfile_name('0/1')
select pg_current_snapshot() ## calls pg_current_snapshot
select pg_current_xact_id() ## calls pg_current_xact_id
select txid_current() ## calls txid_current
select txid_current_snapshot(), txid_status(1), pg_xact_status('1')
select pg_stat_get_numscans('users'::regclass)
select * from pg_stat_get_activity(null)
select pg_blocking_pids(1)
select pg_my_temp_schema()
select pg_listening_channels()
select pg_notification_queue_usage()
select pg_sequence_last_value('orders_id_seq')
select pg_tablespace_location(1663)
select pg_last_committed_xact()
select * from pg_available_extensions()
select pg_trigger_depth()
select s.pg_stat_get_numscans from cast('users'::regclass as oid) s
`
)

const relations = lines(
  "session",
  `
select * from pg_stat_activity ## reads pg_stat_activity
select * from pg_catalog.pg_stat_activity
select * from pg_stat_user_tables
select * from pg_statio_user_tables
select * from pg_stat_database
select * from pg_stat_replication
select * from pg_stat_wal_receiver
select * from pg_stat_progress_vacuum
select * from pg_locks ## reads pg_locks
select * from pg_prepared_xacts
select * from pg_prepared_statements
select * from pg_cursors
select * from pg_settings
select setting from pg_settings where name = 'max_connections'
select * from pg_file_settings
select * from pg_hba_file_rules
select * from pg_replication_slots
select * from pg_replication_origin_status
select * from pg_sequences
select * from pg_config
select * from pg_available_extensions
select * from pg_backend_memory_contexts
select * from pg_shmem_allocations
select * from users where id in (select pid from pg_locks)
with a as (select * from pg_stat_activity) select * from a
with pg_locks as (select * from pg_locks) select * from pg_locks
with pg_locks as (select 1) select * from pg_catalog.pg_locks
select * from pg_temp.t ## temporary table
select * from pg_temp_3.t
`
)

/** The catalog shows what these relations are; without one they look like tables. */
const known = lines(
  "session",
  `
select * from orders_id_seq ## reads sequence orders_id_seq
select last_value from public.orders_id_seq
select * from app.position ## reads position, which reads sequence orders_id_seq
select * from app.cache ## reads unlogged table cache
select c.* from users u join app.cache c on c.key = u.name
select * from app.cached ## reads cached, which reads unlogged table cache
select * from app.hits ## reads hits, which reads unlogged table hits_2
select * from app.hits_2
select * from app.activity ## reads activity, which reads pg_stat_activity
select * from app.locks ## reads locks, which calls pg_try_advisory_lock
select * from app.remote ## reads foreign table remote
select * from cache
with cache as (select * from cache) select * from cache
with cache as (select 1) select * from app.cache
select * from users where exists (select from app.cache)
table app.cache
`,
  "read"
)

const nothing = texts(
  "session",
  "",
  " ",
  "\n",
  ";",
  ";;",
  "-- nothing",
  "/* nothing */",
  "-- select 1",
  "/* select 1 */ ;"
)

export const sessions = [...statements, ...functions, ...relations, ...known, ...nothing]
