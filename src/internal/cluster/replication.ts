import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { PgClusterError } from "./error.js"
import * as Files from "./files.js"
import * as Member from "./member.js"
import { until } from "./poll.js"
import * as Processes from "./processes.js"
import * as Server from "./server.js"
import type { Query } from "./sql.js"

// What src/backend/access/transam/xlogrecovery.c and src/backend/replication say of it.
const diverged =
  /forked off current database system timeline|is not a child of database system timeline|is ahead of the WAL flush position|highest timeline \d+ of the primary is behind/

const notStreaming = (standby: Member.Member, upstream: Member.Member): PgClusterError =>
  new PgClusterError({
    reason: "ReplicationTimeout",
    node: standby.name,
    detail: `It does not replicate from ${upstream.name} after ${Duration.format(standby.server.home.startTimeout)}`,
    log: Server.tail(Server.logOf(standby.server))
  })

/**
 * A primary's timeline from its next log file's name, as the control file is behind after a promotion; a standby's from
 * its receiver, and NULL while that has none.
 */
export const timeline = `
  select case when pg_is_in_recovery() then (select received_tli from pg_stat_wal_receiver)
              else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end as timeline`

const isStreaming = (
  standby: Member.Member,
  upstream: Member.Member,
  ofStandby: Query,
  ofUpstream: Query
): Effect.Effect<boolean, PgClusterError> =>
  Effect.gen(function* () {
    const senders = yield* ofUpstream(
      "select from pg_stat_replication where application_name = $1 and state = 'streaming'",
      [standby.name]
    )
    if (senders.length === 0) return false
    // A diverged standby streams for a moment too: to where the upstream's timeline began, on its own one.
    const [current] = yield* ofUpstream<{ readonly timeline: number | null }>(timeline)
    const receivers = yield* ofStandby(
      `select from pg_stat_wal_receiver
       where status = 'streaming' and sender_port = $1 and received_tli = coalesce($2, received_tli)`,
      [upstream.connection.port, current?.timeline ?? null]
    )
    return receivers.length > 0
  })

/** Waits until `upstream` sends its log to the standby, or the standby says that it never can. */
export const awaitStreaming = (standby: Member.Member, upstream: Member.Member): Effect.Effect<void, PgClusterError> =>
  Effect.suspend(() => {
    const before = Server.logOf(standby.server).length
    const check = (ofStandby: Query, ofUpstream: Query) =>
      Effect.flatMap(isStreaming(standby, upstream, ofStandby, ofUpstream), (streams) =>
        !streams && diverged.test(Server.logOf(standby.server).slice(before))
          ? Effect.fail(
              Member.failure(
                standby,
                "Diverged",
                `It has replayed, or written, what ${upstream.name} does not have, and cannot follow it`
              )
            )
          : Effect.succeed(streams)
      )
    return Member.administer(standby, (ofStandby) =>
      Member.administer(upstream, (ofUpstream) =>
        until(check(ofStandby, ofUpstream), {
          every: "10 millis",
          within: standby.server.home.startTimeout,
          otherwise: Effect.suspend(() => Effect.fail(notStreaming(standby, upstream)))
        })
      )
    )
  })

const requireStandby = (member: Member.Member, query: Query): Effect.Effect<void, PgClusterError> =>
  Effect.flatMap(query<{ readonly standby: boolean }>("select pg_is_in_recovery() as standby"), ([row]) =>
    row?.standby === true ? Effect.void : Effect.fail(Member.failure(member, "NotStandby", "It is a primary"))
  )

/** Stops replay; the standby goes on receiving. Waits until no more is replayed. */
export const pauseReplay = (member: Member.Member): Effect.Effect<void, PgClusterError> =>
  Member.administer(member, (query) =>
    Effect.gen(function* () {
      yield* requireStandby(member, query)
      yield* query("select pg_wal_replay_pause()")
      // The function returns when the pause is requested; what was in hand is still replayed.
      yield* until(
        Effect.map(
          query<{ readonly state: string }>("select pg_get_wal_replay_pause_state() as state"),
          ([row]) => row?.state === "paused"
        ),
        {
          every: "4 millis",
          within: member.server.home.startTimeout,
          otherwise: Effect.fail(Member.failure(member, "ReplicationTimeout", "Its replay does not pause"))
        }
      )
    })
  )

/** Undoes {@link pauseReplay}. */
export const resumeReplay = (member: Member.Member): Effect.Effect<void, PgClusterError> =>
  Member.administer(member, (query) =>
    Effect.zipRight(requireStandby(member, query), query("select pg_wal_replay_resume()"))
  )

/** Ends recovery on a standby. Its upstream, if it still runs, is left as it is: a second primary. */
export const promote = (member: Member.Member): Effect.Effect<void, PgClusterError> =>
  Member.administer(member, (query) =>
    Effect.gen(function* () {
      yield* requireStandby(member, query)
      const seconds = Math.max(1, Math.ceil(Duration.toSeconds(member.server.home.startTimeout)))
      const [answer] = yield* query<{ readonly done: boolean }>("select pg_promote(true, $1) as done", [seconds])
      if (answer?.done !== true) {
        return yield* Effect.fail(Member.failure(member, "StartTimeout", "Its promotion did not end"))
      }
      member.upstream = undefined
    })
  )

/** Makes a standby, running or not, replicate from another server. */
export const follow = (standby: Member.Member, upstream: Member.Member): Effect.Effect<void, PgClusterError> =>
  Effect.gen(function* () {
    yield* refuseCircle(standby, upstream)
    yield* Server.running(upstream.server)
    if (!Fs.existsSync(Path.join(standby.server.data, "standby.signal"))) {
      return yield* Effect.fail(Member.failure(standby, "NotStandby", "It is a primary, which cannot follow"))
    }
    const pid = Server.pidOf(standby.server)
    if (pid !== undefined) yield* Server.running(standby.server)
    standby.upstream = upstream
    yield* Member.configure(standby)
    if (pid === undefined) yield* Server.start(standby.server)
    else Processes.signal(pid, "SIGHUP")
    yield* awaitStreaming(standby, upstream)
  })

// What a backup leaves out: PostgreSQL's documentation, "Making a Base Backup Using the Low Level API".
const contents = /^(pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans)\/./
const single = /^(postmaster\.(pid|opts)|(standby|recovery)\.signal|backup_label(\.old)?|tablespace_map(\.old)?)$/
const temporary = /(^|\/)(pgsql_tmp|pg_internal\.init)/

const isLeftOut = (relative: string): boolean =>
  contents.test(relative) || single.test(relative) || temporary.test(relative) || relative === control

const control = Path.join("global", "pg_control")

interface Backup {
  readonly label: string
  readonly tablespaces: string
}

const copyRunning = (
  from: Server.Server,
  to: Server.Server,
  query: Query
): Effect.Effect<Backup | undefined, PgClusterError> =>
  Effect.gen(function* () {
    const { account } = to.home
    yield* query("select pg_backup_start('rejoin', true)")
    yield* Files.copyTree(from.data, to.data, account, isLeftOut)
    // Last, as it says from where the rest has to be brought up to date when the source is itself a standby.
    yield* Files.copyFile(Path.join(from.data, control), Path.join(to.data, control), account)
    yield* Files.makeFolder(Path.join(to.data, "pg_wal", "archive_status"), account)
    const [backup] = yield* query<Backup>(
      "select labelfile as label, spcmapfile as tablespaces from pg_backup_stop(false)"
    )
    return backup
  })

/**
 * Makes the server, whatever it was, a standby of `upstream`: its data directory is replaced by a copy of the other
 * one's, taken while that one runs.
 */
export const rejoin = (member: Member.Member, upstream: Member.Member): Effect.Effect<void, PgClusterError> =>
  Effect.gen(function* () {
    yield* refuseCircle(member, upstream)
    yield* Server.running(upstream.server)
    yield* Server.kill(member.server)
    yield* Server.removeData(member.server)
    const backup = yield* Member.administer(upstream, (query) => copyRunning(upstream.server, member.server, query))
    if (backup === undefined || backup.tablespaces.trim() !== "") {
      yield* Files.remove(member.server.data)
      return yield* Effect.fail(
        Member.failure(upstream, "QueryFailed", "It has tablespaces outside its data directory, which cannot be copied")
      )
    }
    yield* Files.writeFile(Path.join(member.server.data, "backup_label"), backup.label, member.server.home.account)
    member.upstream = upstream
    yield* Member.configure(member)
    yield* Member.markStandby(member)
    yield* Server.start(member.server)
    yield* awaitStreaming(member, upstream)
  })

/** Whom a server replicates from, and whom that one does. */
export const chain = (member: Member.Member): ReadonlyArray<Member.Member> =>
  member.upstream === undefined ? [] : [member.upstream, ...chain(member.upstream)]

const refuseCircle = (member: Member.Member, upstream: Member.Member): Effect.Effect<void, PgClusterError> =>
  upstream === member || chain(upstream).includes(member)
    ? Effect.fail(Member.failure(member, "Circular", `It cannot be a standby of ${upstream.name}, which follows it`))
    : Effect.void
