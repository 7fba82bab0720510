/**
 * What a server is asked, and how its answers are read. All columns are text, so that no parser of the user's matters.
 */

export type Row = ReadonlyArray<string | null>

export interface Identity {
  readonly version: string
  readonly versionNumber: number
  readonly isStandby: boolean
  readonly user: string
  readonly database: string
  readonly processId: number
  readonly isSuperuser: boolean
  readonly isEncrypted: boolean | undefined
}

export const identity = `SELECT current_setting('server_version'), current_setting('server_version_num'),
  pg_is_in_recovery()::text, session_user::text, current_database()::text, pg_backend_pid()::text,
  (SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user),
  (SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid())`

export const identityOf = ([row = []]: ReadonlyArray<Row>): Identity => ({
  version: (row[0] ?? "").split(" ")[0]!,
  versionNumber: Number(row[1]),
  isStandby: row[2] === "true",
  user: row[3] ?? "",
  database: row[4] ?? "",
  processId: Number(row[5]),
  isSuperuser: row[6] === "true",
  isEncrypted: row[7] == null ? undefined : row[7] === "true"
})

export const clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::text"

export interface Capacity {
  readonly max: number
  /** For superusers alone. */
  readonly superuserReserved: number
  /** For members of `pg_use_reserved_connections`; since PostgreSQL 16. */
  readonly reserved: number
  readonly mayUseReserved: boolean
  readonly roleLimit: number | undefined
  readonly databaseLimit: number | undefined
  readonly inUse: number
  readonly ofRole: number
  readonly ofDatabase: number
  readonly own: number
}

/**
 * `$1`: the application names of the router's connections. Columns of others' connections that a role may not see are NULL,
 * their kind too. A process without a user is no client.
 */
export const capacity = `SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections'),
  coalesce(current_setting('reserved_connections', true), '0'),
  (SELECT bool_or(pg_has_role(session_user, oid, 'usage'))::text FROM pg_roles WHERE rolname = 'pg_use_reserved_connections'),
  (SELECT rolconnlimit::text FROM pg_roles WHERE rolname = session_user),
  (SELECT datconnlimit::text FROM pg_database WHERE datname = current_database()),
  count(*)::text, (count(*) FILTER (WHERE usename = session_user))::text,
  (count(*) FILTER (WHERE datname = current_database()))::text,
  (count(*) FILTER (WHERE usename = session_user AND application_name = ANY ($1::text[])))::text
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'`

const limitOf = (text: string | null | undefined): number | undefined =>
  text == null || Number(text) < 0 ? undefined : Number(text)

export const capacityOf = ([row = []]: ReadonlyArray<Row>): Capacity => ({
  max: Number(row[0]),
  superuserReserved: Number(row[1]),
  reserved: Number(row[2]),
  mayUseReserved: row[3] === "true",
  roleLimit: limitOf(row[4]),
  databaseLimit: limitOf(row[5]),
  inUse: Number(row[6]),
  ofRole: Number(row[7]),
  ofDatabase: Number(row[8]),
  own: Number(row[9])
})

const settingNames = [
  "default_transaction_isolation",
  "default_transaction_read_only",
  "hot_standby_feedback",
  "idle_in_transaction_session_timeout",
  "idle_session_timeout",
  "max_standby_archive_delay",
  "max_standby_streaming_delay",
  "statement_timeout",
  "synchronous_commit",
  "synchronous_standby_names",
  "transaction_timeout",
  "wal_receiver_status_interval"
]

/** What a session begins with: the router itself may have set something in this one. */
export const settings = `SELECT name, reset_val, unit FROM pg_settings
WHERE name IN (${settingNames.map((name) => `'${name}'`).join(", ")}) ORDER BY name`

export interface Setting {
  readonly value: string
  readonly unit: string | undefined
}

export type Settings = ReadonlyMap<string, Setting>

export const settingsOf = (rows: ReadonlyArray<Row>): Settings =>
  new Map(rows.map(([name, value, unit]) => [name ?? "", { value: value ?? "", unit: unit ?? undefined }]))

const unitMillis: Readonly<Record<string, number>> = { ms: 1, s: 1_000, min: 60_000 }

/** A setting that is a time, in milliseconds; `undefined` where the server does not have it, or has no limit there. */
export const millisOf = (settings: Settings, name: string): number | undefined => {
  const setting = settings.get(name)
  if (setting === undefined || Number(setting.value) <= 0) return undefined
  return Number(setting.value) * (unitMillis[setting.unit ?? "ms"] ?? 1)
}

/** What the probes and the questions for positions call: see `probe.ts` and `driver/position.ts`. */
const calledFunctions = [
  "pg_is_in_recovery()",
  "pg_control_system()",
  "pg_control_recovery()",
  "pg_current_wal_insert_lsn()",
  "pg_last_wal_replay_lsn()",
  "pg_postmaster_start_time()",
  "pg_stat_get_wal_receiver()",
  "pg_walfile_name(pg_lsn)"
]

export interface Privileges {
  readonly refused: ReadonlyArray<string>
  readonly absent: ReadonlyArray<string>
  /** Whether it sees other roles' statistics: `received_tli` of a standby. */
  readonly readsStatistics: boolean
}

export const privileges = `SELECT f, has_function_privilege(to_regprocedure('pg_catalog.' || f)::oid, 'execute')::text,
  pg_has_role(current_user, 'pg_read_all_stats', 'usage')::text
FROM unnest(ARRAY[${calledFunctions.map((name) => `'${name}'`).join(", ")}]) AS f`

export const privilegesOf = (rows: ReadonlyArray<Row>): Privileges => ({
  refused: rows.flatMap(([name, may]) => (may === "false" ? [name ?? ""] : [])),
  absent: rows.flatMap(([name, may]) => (may === null ? [name ?? ""] : [])),
  readsStatistics: rows[0]?.[2] === "true"
})

export interface Replay {
  readonly isPaused: boolean
  readonly hasReceiver: boolean
}

/** On a standby. */
export const replay = `SELECT pg_is_wal_replay_paused()::text, (SELECT count(*)::text FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL)`

export const replayOf = ([row = []]: ReadonlyArray<Row>): Replay => ({
  isPaused: row[0] === "true",
  hasReceiver: Number(row[1]) > 0
})

/** On a standby: the age of the last commit that it has replayed, in milliseconds. */
export const replayAge = "SELECT (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::text"

/** On a primary: the number of standbys that its commits can wait for. A role that may not see the statistics sees no states. */
export const synchronous = `SELECT (count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')))::text FROM pg_stat_replication`
