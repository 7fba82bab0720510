/**
 * What the catalog's volatility does not say about PostgreSQL's own functions. Everything volatile that is not named here is
 * a write.
 */

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/))

/** Volatile, but only because the answer differs from call to call: nothing is changed, and any server may answer. */
export const harmless = words(`
  array_sample array_shuffle clock_timestamp current_query gen_random_uuid pg_partition_ancestors pg_partition_tree
  pg_sleep pg_sleep_for pg_sleep_until random random_normal timeofday uuidv4 uuidv7
`)

/** The same for functions of extensions, as `extension.function`. */
export const harmlessOfExtensions = words(`
  pgcrypto.gen_random_bytes pgcrypto.gen_random_uuid pgcrypto.gen_salt tablefunc.normal_rand
  tsm_system_rows.system_rows tsm_system_time.system_time
  uuid-ossp.uuid_generate_v1 uuid-ossp.uuid_generate_v1mc uuid-ossp.uuid_generate_v4
`)

/** Table sampling methods of PostgreSQL; their handler functions are marked volatile. */
export const samplingMethods = words("bernoulli system")

/** Run SQL, or read relations, that are given as text: the statement does not show what they do. Some are marked stable. */
export const hiddenSql = words(`
  cursor_to_xml cursor_to_xmlschema database_to_xml database_to_xml_and_xmlschema database_to_xmlschema
  query_to_xml query_to_xml_and_xmlschema query_to_xmlschema schema_to_xml schema_to_xml_and_xmlschema
  schema_to_xmlschema table_to_xml table_to_xml_and_xmlschema table_to_xmlschema ts_rewrite ts_stat
`)

/** The same for functions of extensions, marked stable or immutable there. */
export const hiddenSqlOfExtensions = words(`
  tablefunc.connectby tablefunc.crosstab tablefunc.crosstab2 tablefunc.crosstab3 tablefunc.crosstab4 xml2.xpath_table
`)

/**
 * Change no data, but the answer or the effect belongs to one server or one session. Several are marked stable or immutable,
 * and a standby runs most of them without an error.
 */
export const local = words(`
  currval lastval set_config setseed
  inet_client_addr inet_client_port inet_server_addr inet_server_port
  pg_available_extension_versions pg_available_extensions pg_backend_pid pg_blocking_pids pg_cancel_backend
  pg_collation_actual_version pg_conf_load_time pg_config pg_cursor pg_current_logfile pg_current_snapshot
  pg_current_xact_id pg_current_xact_id_if_assigned pg_database_collation_actual_version pg_database_size
  pg_export_snapshot pg_extension_update_paths pg_get_aios pg_get_backend_memory_contexts pg_get_loaded_modules
  pg_get_replication_slots pg_get_sequence_data pg_get_shmem_allocations pg_get_shmem_allocations_numa
  pg_get_wait_events pg_hba_file_rules pg_ident_file_mappings pg_indexes_size pg_is_in_backup pg_is_in_recovery
  pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact
  pg_listening_channels pg_lock_status pg_log_backend_memory_contexts pg_my_temp_schema pg_notification_queue_usage
  pg_numa_available pg_postmaster_start_time pg_prepared_statement pg_prepared_xact pg_read_binary_file pg_read_file
  pg_relation_size pg_reload_conf pg_rotate_logfile pg_safe_snapshot_blocking_pids pg_sequence_last_value
  pg_show_all_file_settings pg_show_all_settings pg_show_replication_origin_status pg_table_size
  pg_tablespace_databases pg_tablespace_location pg_tablespace_size pg_terminate_backend pg_timezone_abbrevs
  pg_timezone_abbrevs_abbrevs pg_timezone_abbrevs_zone pg_timezone_names pg_total_relation_size pg_trigger_depth
  pg_wal_summary_contents pg_walfile_name pg_walfile_name_offset pg_xact_commit_timestamp
  pg_xact_commit_timestamp_origin pg_xact_status
  txid_current txid_current_if_assigned txid_current_snapshot txid_status
`)

export const localPrefix =
  /^pg_(advisory_|available_wal_|control_|current_wal_|event_trigger_|get_wal_|last_wal_|last_xact_|ls_|stat_|try_advisory_|wal_replay_)/

export const isLocal = (name: string): boolean => local.has(name) || localPrefix.test(name)

/** Not a read although every candidate of that name is marked stable or immutable. */
export const isDenied = (name: string): boolean => hiddenSql.has(name) || isLocal(name)
