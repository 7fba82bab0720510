/** What a server's configuration is made of. */
export interface Connection {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  readonly password: string
}

/**
 * Chosen for tests: quick to start, quick to reconnect, nothing flushed to disk, and standbys that do not lose the
 * primary's log while they are away. Full page writes stay on: a SIGKILL may tear a page in two.
 */
const base: Readonly<Record<string, string>> = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: "100",
  shared_buffers: "32MB",
  // Segments in /dev/shm would outlive a killed server; these are in the data directory.
  dynamic_shared_memory_type: "mmap",
  huge_pages: "off",
  fsync: "off",
  wal_level: "replica",
  hot_standby: "on",
  max_wal_senders: "20",
  max_replication_slots: "20",
  max_prepared_transactions: "20",
  wal_keep_size: "256MB",
  max_wal_size: "512MB",
  wal_retrieve_retry_interval: "100ms",
  wal_receiver_status_interval: "1s",
  recovery_target_timeline: "latest",
  timezone: "UTC",
  log_timezone: "UTC",
  lc_messages: "C",
  logging_collector: "off",
  log_destination: "stderr"
}

const quote = (value: string): string => `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`

const conninfoValue = (value: string): string => `'${value.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`

/**
 * libpq's connection string to `upstream`, under the standby's own name. The password is in a file, as a server writes this
 * string to its log when it changes.
 */
const conninfo = (upstream: Connection, name: string, passfile: string): string =>
  Object.entries({
    host: upstream.host,
    port: String(upstream.port),
    user: upstream.username,
    passfile,
    application_name: name,
    connect_timeout: "5",
    sslmode: "disable",
    gssencmode: "disable"
  })
    .map(([key, value]) => `${key}=${conninfoValue(value)}`)
    .join(" ")

/** The text of libpq's password file for all servers of a cluster. */
export const passwordFile = (connection: Pick<Connection, "username" | "password">): string =>
  ["*", "*", "*", connection.username.replaceAll(/[\\:]/g, "\\$&"), connection.password].join(":").concat("\n")

/** The text of a server's postgresql.conf. `upstream` is who it replicates from whenever it is a standby. */
export const render = (options: {
  readonly name: string
  readonly port: number
  readonly upstream: Connection | undefined
  readonly passfile: string
  readonly settings: Readonly<Record<string, string>>
}): string =>
  Object.entries({
    ...base,
    ...options.settings,
    cluster_name: options.name,
    port: String(options.port),
    ...(options.upstream === undefined
      ? {}
      : { primary_conninfo: conninfo(options.upstream, options.name, options.passfile) })
  })
    .map(([name, value]) => `${name} = ${quote(value)}\n`)
    .join("")

/** A connection as the URL that `pg` and `@effect/sql-pg` take. */
export const url = (connection: Connection): string =>
  `postgres://${encodeURIComponent(connection.username)}:${encodeURIComponent(connection.password)}@${connection.host}:${connection.port}/${encodeURIComponent(connection.database)}`
