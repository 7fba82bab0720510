/**
 * What the catalog's volatility does not say about PostgreSQL's own functions. Everything volatile that is not named here is
 * a write.
 */

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/))

/** "Where am I": they answer for the server that runs them, which is what is asked for. A standby runs each. */
const whereAmI = words(`
  inet_client_addr inet_client_port inet_server_addr inet_server_port pg_conf_load_time pg_control_checkpoint
  pg_control_init pg_control_recovery pg_control_system pg_get_wal_replay_pause_state pg_is_in_recovery
  pg_is_wal_replay_paused pg_jit_available pg_last_wal_receive_lsn pg_last_wal_replay_lsn
  pg_last_xact_replay_timestamp pg_postmaster_start_time
`)

/**
 * Volatile, but nothing is changed: the answer differs from call to call, or is looked up outside the snapshot (sizes, large
 * objects), or is marked so by mistake (`timezone` on PostgreSQL 14). Any server may answer.
 */
export const harmless: ReadonlySet<string> = new Set([
  ...whereAmI,
  ...words(`
  array_sample array_shuffle clock_timestamp current_query gen_random_uuid lo_get pg_database_size pg_indexes_size pg_partition_ancestors pg_partition_tree pg_relation_size
  pg_sleep pg_sleep_for pg_sleep_until pg_table_size pg_tablespace_size pg_timezone_abbrevs pg_timezone_abbrevs_abbrevs pg_timezone_abbrevs_zone pg_timezone_names
  pg_total_relation_size random random_normal timeofday timezone uuidv4 uuidv7
`)
])

/** The same for functions of extensions, as `extension.function`. */
export const harmlessOfExtensions = words(`
  pg_uuidv7.uuid_generate_v7 pgcrypto.gen_random_bytes pgcrypto.gen_random_uuid pgcrypto.gen_salt
  pgcrypto.pgp_pub_encrypt pgcrypto.pgp_pub_encrypt_bytea pgcrypto.pgp_sym_encrypt pgcrypto.pgp_sym_encrypt_bytea
  pgx_ulid.gen_monotonic_ulid pgx_ulid.gen_ulid postgis.st_generatepoints tablefunc.normal_rand
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

/**
 * Functions of extensions that do the same, or set something on the connection (`isn_weak`), marked stable or immutable there.
 */
export const deniedOfExtensions = words(`
  isn.isn_weak tablefunc.connectby tablefunc.crosstab tablefunc.crosstab2 tablefunc.crosstab3 tablefunc.crosstab4 xml2.xpath_table
`)

/** Make a value of a type that is given as a value: the statement does not show which CHECK of which domain runs. */
export const hiddenTypes = words(`
  array_in array_recv domain_in domain_recv multirange_in multirange_recv range_in range_recv record_in record_recv
`)

/** The same for types that are named in a text: fine while no type has a CHECK, or a cast, that is not. */
export const hiddenTypeNames = words("pg_input_error_info pg_input_is_valid")

/** Call the functions of the operator classes of a relation that is given as a value. */
export const hiddenClasses = words("satisfies_hash_partition")

/**
 * Change no data, but the answer or the effect belongs to one server or one session. Several are marked stable or immutable,
 * and a standby runs most of them without an error.
 */
export const local = words(`
  currval lastval set_config setseed
  pg_available_extension_versions pg_available_extensions pg_backend_pid pg_blocking_pids pg_cancel_backend pg_collation_actual_version
  pg_config pg_cursor pg_current_logfile pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned
  pg_database_collation_actual_version pg_export_snapshot pg_extension_update_paths pg_get_aios
  pg_get_backend_memory_contexts pg_get_loaded_modules pg_get_replication_slots pg_get_sequence_data
  pg_get_shmem_allocations pg_get_shmem_allocations_numa pg_get_wait_events pg_hba_file_rules pg_ident_file_mappings
  pg_is_in_backup pg_isolation_test_session_is_blocked pg_last_committed_xact pg_listening_channels pg_lock_status
  pg_log_backend_memory_contexts pg_my_temp_schema pg_notification_queue_usage pg_numa_available pg_prepared_statement
  pg_prepared_xact pg_read_binary_file pg_read_file pg_reload_conf pg_rotate_logfile pg_safe_snapshot_blocking_pids
  pg_sequence_last_value pg_show_all_file_settings pg_show_all_settings pg_show_replication_origin_status pg_tablespace_databases
  pg_tablespace_location pg_terminate_backend pg_trigger_depth pg_wal_summary_contents pg_walfile_name
  pg_walfile_name_offset pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status txid_current
  txid_current_if_assigned txid_current_snapshot txid_status
`)

export const localPrefix =
  /^pg_(advisory_|available_wal_|control_|current_wal_|event_trigger_|get_wal_|last_wal_|last_xact_|ls_|stat_|try_advisory_|wal_replay_)/

export const isLocal = (name: string): boolean => local.has(name) || (localPrefix.test(name) && !harmless.has(name))

/** Not a read although every candidate of that name is marked stable or immutable. */
export const isDenied = (name: string): boolean =>
  hiddenSql.has(name) || hiddenTypes.has(name) || hiddenClasses.has(name) || isLocal(name)
