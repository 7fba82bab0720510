import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { PgClusterError } from "./error.js"
import * as Member from "./member.js"
import { until } from "./poll.js"
import { chain, timeline } from "./replication.js"
import * as Server from "./server.js"
import type { Query } from "./sql.js"

const answers = (member: Member.Member): boolean => Server.pidOf(member.server) !== undefined && !member.server.frozen

interface Found {
  readonly member: Member.Member
  readonly query: Query
  readonly standby: boolean
  readonly timeline: number | null
}

const ask = (member: Member.Member): Effect.Effect<Found, PgClusterError, Scope.Scope> =>
  Effect.gen(function* () {
    const query = yield* Member.connect(member, "postgres")
    const [row] = yield* query<Pick<Found, "standby" | "timeline">>(`${timeline}, pg_is_in_recovery() as standby`)
    return { member, query, standby: row?.standby ?? true, timeline: row?.timeline ?? null }
  })

/** All servers that can answer, and the primary among them. Asked of them, as a test may promote one in SQL. */
const survey = (members: ReadonlyArray<Member.Member>) =>
  Effect.gen(function* () {
    const found = yield* Effect.forEach(members.filter(answers), ask, { concurrency: "unbounded" })
    const [primary] = found
      .filter((one) => !one.standby)
      .sort((one, other) => (other.timeline ?? 0) - (one.timeline ?? 0))
    if (primary === undefined) {
      return yield* Effect.fail(new PgClusterError({ reason: "NoPrimary", detail: "No running server is a primary" }))
    }
    return { primary, found }
  })

/**
 * The running server that is not in recovery. Of two, as after a promotion beside a living primary, the one on the newer
 * timeline.
 */
export const currentPrimary = (members: ReadonlyArray<Member.Member>): Effect.Effect<Member.Member, PgClusterError> =>
  Effect.scoped(Effect.map(survey(members), ({ primary }) => primary.member))

/**
 * The insert position without the header of a page (24 bytes) or of a segment (40 bytes) that it may stand just behind: a
 * standby gets there only with the next record.
 */
const insertPosition = `
  with wal as (
    select pg_current_wal_insert_lsn() as lsn,
           pg_size_bytes(current_setting('wal_segment_size')) as segment,
           current_setting('wal_block_size')::bigint as page)
  select (lsn - case when (lsn - '0/0') % segment = 40 then 40
                     when (lsn - '0/0') % page = 24 then 24
                     else 0 end::numeric)::text as lsn
  from wal`

const awaitPosition = (
  { member, query }: Found,
  lsn: string,
  within: Duration.Duration
): Effect.Effect<void, PgClusterError> => {
  const late = () =>
    Member.failure(member, "ReplicationTimeout", `It has not replayed ${lsn} after ${Duration.format(within)}`)
  return until(
    Effect.map(
      query<{ readonly there: boolean | null }>(
        "select not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= $1::pg_lsn as there",
        [lsn]
      ),
      ([row]) => row?.there === true
    ),
    { every: "4 millis", within, otherwise: Effect.failSync(late) }
  ).pipe(
    // Frozen meanwhile, it does not answer at all.
    Effect.timeoutFail({ duration: within, onTimeout: late }),
    // Stopped meanwhile, it is none of the running ones.
    Effect.catchAll((error) => (answers(member) ? Effect.fail(error) : Effect.void))
  )
}

/** Waits until every running standby of the current primary has replayed all that the primary has inserted so far. */
export const awaitReplayed = (
  members: ReadonlyArray<Member.Member>,
  within: Duration.Duration
): Effect.Effect<void, PgClusterError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { found, primary } = yield* survey(members)
      const [position] = yield* primary.query<{ readonly lsn: string }>(insertPosition)
      yield* Effect.forEach(
        found.filter(({ member }) => chain(member).includes(primary.member)),
        (standby) => awaitPosition(standby, position!.lsn, within),
        { concurrency: "unbounded", discard: true }
      )
    })
  )
