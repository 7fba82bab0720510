/**
 * The README's table of options and environment variables. The variables come from the code; that the options and the
 * defaults are the code's is tested in `config-table.test.ts`.
 */

import { scalars } from "../../src/internal/config/environment.js"
import type { EngineConfig, Options } from "../../src/RouterConfig.js"

export interface Row {
  readonly type: string
  readonly default: string
  readonly meaning: string
  /** Where the value may also come from, if not from a variable in `scalars`. */
  readonly from?: string
}

/** `PgClientConfig`'s own fields that the router takes as they are. */
type Passed = "spanAttributes" | "stream" | "types" | "transformResultNames" | "transformQueryNames" | "transformJson"

export const options = {
  groups: {
    type: "`Record<string, Array<EngineConfig>>`",
    default: "required",
    meaning:
      "The servers. The default group holds the one that takes the writes (or several, of which one does), the read group its replicas; any other group is reached by `bindGroup`",
    from: "`DATABASE_URL`, `DATABASE_REPLICA_URLS`, `DATABASE_GROUPS` and `DATABASE_<NAME>_URLS`"
  },
  defaultGroup: { type: "`string`", default: '`"default"`', meaning: "The group whose server takes the writes" },
  readGroup: {
    type: "`string`",
    default: '`"read"`',
    meaning: 'The group whose servers take the reads. Only `"read"` may be missing: then there are no replicas'
  },
  strategy: {
    type: "`Strategy`",
    default: "`Selector.roundRobin`",
    meaning:
      "How a server of a group is chosen: `roundRobin` (`round-robin` in the variable), `random`, `leastBusy` (`least-busy`), `lowestLatency` (`lowest-latency`), or your own by `Selector.make`"
  },
  enabled: {
    type: "`boolean`",
    default: "`true`",
    meaning: "`false` sends every statement outside a bind group to the default group"
  },
  reads: {
    type: '`"automatic"`, `"explicit"`, `"observe"`',
    default: '`"automatic"`',
    meaning:
      "`explicit`: only reads inside `DbRouter.replica` go to replicas. `observe`: none do; spans, metrics and `explain` say which would have"
  },
  consistency: {
    type: "`Consistency`",
    default: "`Consistency.causal()`",
    meaning:
      "What reads see of the writes before them: `Consistency.causal()` (`causal` in the variable), `sticky()` (`sticky`), `window(duration)` (`window:2 seconds`), `eventual()` (`eventual`)"
  },
  onNoReplica: {
    type: '`"primary"`, `"fail"`',
    default: '`"primary"`',
    meaning: "Where a read goes when no replica may be used: to the default group, or nowhere (`NoEngineAvailable`)"
  },
  hedge: {
    type: "`DurationInput` or the fields below",
    default: "off",
    meaning:
      "A read outside transactions that a replica has not answered after this long also goes to another one; the first success counts"
  },
  "hedge.after": {
    type: "`DurationInput`",
    default: "required",
    meaning: "How long a replica has for its answer: longer than nearly all reads take"
  },
  "hedge.maxShare": {
    type: "`number`",
    default: "`0.1`",
    meaning: "The share of the reads that may be sent twice; after a while without any, ten may be at once"
  },
  prepare: {
    type: "`boolean` or the fields below",
    default: "`true`",
    meaning:
      "[Prepare statements on the server](./prepared-statements.md). `false` behind a proxy that pools by transaction"
  },
  "prepare.maxPerConnection": {
    type: "`number`",
    default: "`256`",
    meaning: "How many statements a connection keeps prepared; the least recently used make room"
  },
  "prepare.planCacheMode": {
    type: '`"auto"`, `"force_custom_plan"`, `"force_generic_plan"`',
    default: "the server's",
    meaning:
      "`plan_cache_mode` of every connection: plan a prepared statement for each run's values, or once for all. Sent in `options` of the startup packet"
  },
  "classifier.cacheSize": {
    type: "`number`",
    default: "`4096`",
    meaning: "How many SQL texts the default classifier remembers the answer for"
  },
  "classifier.refreshInterval": {
    type: "`DurationInput`",
    default: '`"1 minute"`',
    meaning: "How often the default classifier reads the primary's catalog again"
  },
  health: {
    type: "`boolean` or the fields below",
    default: "`true`",
    meaning:
      "Probe every server, on a connection that is free anyway or on one of its own, and send reads only to replicas that answer and are not too far behind. `false`: never probe"
  },
  "health.interval": {
    type: "`DurationInput`",
    default: '`"2 seconds"`',
    meaning: "How often a server is probed; a fifth more or less, by chance"
  },
  "health.timeout": {
    type: "`DurationInput`",
    default: '`"1 second"`',
    meaning: "How long a probe may take, connecting included"
  },
  "health.failures": {
    type: "`number`",
    default: "`2`",
    meaning: "After how many failed probes in a row a server is down. It gets no reads from the first one on"
  },
  "health.maxLag": {
    type: "`DurationInput`",
    default: '`"10 seconds"`',
    meaning: "A replica that has not replayed what the primary had written this long ago gets no reads until it has"
  },
  "health.maxLagBytes": {
    type: "`number`",
    default: "`67108864`",
    meaning: "A replica that has more bytes of the primary's write-ahead log to replay gets no reads until it has less"
  },
  "health.ejectShare": {
    type: "`number`",
    default: "`0.5`",
    meaning:
      "A replica on which at least five statements in 30 seconds, on three occasions between which a probe succeeded, and this share of them, failed because of it gets no reads for `health.ejectTime`, although it answers probes; so does one that leaves a trial statement without an answer when nothing has ended on it for 5 seconds"
  },
  "health.ejectTime": {
    type: "`DurationInput`",
    default: '`"10 seconds"`',
    meaning:
      'How long it is out; then a trial statement decides, and each failure doubles the time, up to 5 minutes; one that was `down` meanwhile is tried as soon as it answers. `0`: never. The primary never is, nor the last replica with `onNoReplica: "fail"`'
  },
  "health.slowStart": {
    type: "`DurationInput`",
    default: '`"10 seconds"`',
    meaning:
      "How long a replica that has come back takes to get its share of the reads: a tenth of it at first, more and more until then. `0`: all of it at once. Where no other replica may be used it gets all reads"
  },
  topology: {
    type: "`Topology`",
    default: "`Topology.fixed`",
    meaning:
      "Where the servers of the default and the read group come from: those of `groups`, or a list that may change. A `Topology` in the context takes its place"
  },
  "waitForPrimary.atStart": {
    type: "`DurationInput`",
    default: "`0`",
    meaning: "How long building the layer waits for a primary. `0`: it fails at once when there is none"
  },
  "waitForPrimary.statements": {
    type: "`DurationInput`",
    default: '`"5 seconds"`',
    meaning:
      "How long what needs a primary, and was not sent, waits while there is none, as after a failure until a standby is promoted. `0`: it fails at once"
  },
  waitForReplica: {
    type: "`DurationInput`",
    default: '`"1 second"`',
    meaning:
      'How long a read waits for a connection while no replica has a free one; then the primary takes it, or, with `onNoReplica: "fail"`, another replica. `0`: it does not wait'
  },
  maxPendingNotifications: {
    type: "`number`",
    default: "`10000`",
    meaning:
      "How many notifications are kept for a stream of `listen` that does not take them. At one more that stream fails, with the reason `ListenerBehind`, once it has taken those; others go on"
  },
  "tokens.keys": {
    type: "`Array<Redacted>`",
    default: "a random one of the process",
    meaning:
      "The secrets that tokens of positions are signed with, at least 32 bytes each: the first signs, all are accepted. Commas between them in the variable"
  },
  "tokens.lifetime": {
    type: "`DurationInput`",
    default: '`"1 minute"`',
    meaning: "How long a token of a position is good for. Longer than `health.maxLag`"
  },
  metrics: {
    type: "`boolean`",
    default: "`true`",
    meaning:
      "Whether statements, transactions, sessions and servers are measured (module `Telemetry`): about a microsecond of processor time a statement"
  },
  shutdownTimeout: {
    type: "`DurationInput`",
    default: '`"5 seconds"`',
    meaning: "How long closing the layer lets running work finish before it closes the connections"
  }
} satisfies Record<Exclude<keyof Options, "classifier" | "waitForPrimary" | "tokens">, Row> & Record<string, Row>

export const engine = {
  name: {
    type: "`string`",
    default: "group and position, as `read-2`",
    meaning: "What spans, metrics, `explain` and errors call the server; unique among all groups",
    from: "`?name=` in the URL"
  },
  weight: {
    type: "`number`",
    default: "`1`",
    meaning: "Its share of the group's work; positive",
    from: "`?weight=` in the URL"
  },
  zone: {
    type: "`string`",
    default: "none",
    meaning: "Where it is, for `Selector.preferZone(zone, strategy)`; `DB_ROUTER_ZONE` names the zone to prefer",
    from: "`?zone=` in the URL"
  },
  url: {
    type: "`Redacted`",
    default: "none",
    meaning: "`postgresql://user:password@host:5432/database`, instead of the five fields below"
  },
  host: {
    type: "`string`",
    default: "`PGHOST`, else `localhost`",
    meaning: "Host name, address, or directory of a Unix socket"
  },
  port: { type: "`number`", default: "`PGPORT`, else `5432`", meaning: "Port" },
  database: { type: "`string`", default: "`PGDATABASE`, else the user name", meaning: "Database" },
  username: { type: "`string`", default: "`PGUSER`, else `USER`", meaning: "Role to log in as" },
  password: {
    type: "`Redacted` or an Effect of one",
    default: "`PGPASSWORD`, else `~/.pgpass`",
    meaning:
      "Its password. An Effect is run for each new connection, within `connectTimeout`, also beside a `url` without a password: for tokens that expire"
  },
  path: { type: "`string`", default: "none", meaning: "Directory of a Unix socket, instead of `host`" },
  ssl: {
    type: "`boolean` or `tls.ConnectionOptions`",
    default: "`false`",
    meaning: "TLS; a URL says it as `?sslmode=`"
  },
  maxConnections: { type: "`number`", default: "`10`", meaning: "Most connections to the server" },
  minConnections: { type: "`number`", default: "`0`", meaning: "Connections that are kept although idle" },
  connectTimeout: {
    type: "`DurationInput`",
    default: '`"5 seconds"`',
    meaning: "Longest wait for a connection, a new one or a free one of the pool; zero is no limit"
  },
  idleTimeout: {
    type: "`DurationInput`",
    default: '`"10 seconds"`',
    meaning: "When an idle connection is closed; zero is never"
  },
  connectionTTL: {
    type: "`DurationInput`",
    default: "none",
    meaning: "When a connection is replaced although in use; zero is never"
  },
  applicationName: {
    type: "`string`",
    default: '`"effect-db-router"`',
    meaning: "`application_name` in `pg_stat_activity`"
  },
  writable: {
    type: "`boolean`",
    default: "`true`",
    meaning: "`false`: it gets no writes, also when it says that it is the primary"
  },
  allowCleartextPassword: {
    type: "`boolean`",
    default: "`false`",
    meaning: "The password is sent in clear text to a server that asks for it, without verified TLS too"
  }
} satisfies Record<Exclude<keyof EngineConfig, Passed>, Row> & Record<string, Row>

export const passed = [
  "spanAttributes",
  "stream",
  "transformJson",
  "transformQueryNames",
  "transformResultNames",
  "types"
] as const satisfies ReadonlyArray<Passed>

const variableOf = (field: string): string | undefined => {
  const variable = scalars.find((scalar) => scalar.field === field)?.variable
  return variable === undefined ? undefined : `\`${variable}\``
}

const escape = (cell: string) => cell.replaceAll("|", "\\|")

const table = (prefix: string, rows: Record<string, Row>): string =>
  Object.entries(rows)
    .map(([name, row]) => {
      const variable = row.from ?? variableOf(`${prefix}${name}`) ?? ""
      return `| ${[`\`${name}\``, row.type, row.default, variable, row.meaning].map(escape).join(" | ")} |`
    })
    .join("\n")

const head = (what: string) => `| ${what} | type | default | variable | meaning |\n| --- | --- | --- | --- | --- |`

/** The section as Markdown. */
export const configTable = (): string =>
  [
    `${head("option")}\n${table("", options)}`,
    "Each engine is a `PgClientConfig` with three fields more, or an Effect that yields one. The variables count for all engines:",
    `${head("engine")}\n${table("engine.", engine)}`,
    `${passed.map((name) => `\`${name}\``).join(", ")} are as in \`PgClientConfig\`; transforms and types are those of the ` +
      "default group's engine, and other engines leave them out or name the same.",
    "Variables that list servers hold [addresses](#addresses), separated by commas, so a comma inside a password is written `%2C`:",
    [
      "| variable | meaning |",
      "| --- | --- |",
      "| `DATABASE_URL` | The server that takes the writes. Required |",
      "| `DATABASE_REPLICA_URLS` | Its replicas; without any, the router is a plain client |",
      "| `DATABASE_GROUPS` | Names of further groups, separated by commas |",
      "| `DATABASE_<NAME>_URLS` | The servers of each of them: `DATABASE_ANALYTICS_URLS` for `analytics`. Required for each name |"
    ].join("\n")
  ].join("\n\n")
