/**
 * The health of a server: the report of a probe, the state that follows from it, and the lag of a replica. Everything here is
 * data and pure functions; the probes run elsewhere.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import { contentEnd } from "./Position.js"

/**
 * - `starting`: no probe has ended yet
 * - `up`: the last probe succeeded, and a replica is within its limits
 * - `lagging`: a replica answers, but is behind by more than a limit
 * - `foreign`: it answers, but does not belong to the primary: another system, another timeline, or it has stopped following
 * - `suspect`: a statement or a probe has failed; the next probe decides
 * - `down`: probes fail
 * - `ejected`: a replica answers probes, but statements fail on it or have no answer; after a while it is tried again
 *
 * @since 0.1.0
 * @category models
 */
export type State = "starting" | "up" | "lagging" | "foreign" | "suspect" | "down" | "ejected"

/**
 * The state as the status shows it: `draining` is a server that `drain` has taken out, `unchecked` one that is not probed
 * (`health: false`).
 *
 * @since 0.1.0
 * @category models
 */
export type Shown = State | "draining" | "unchecked"

/**
 * The findings of one probe.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  readonly role: "primary" | "replica"
  /** `system_identifier` of `pg_control_system()`: the same for all servers that stem from one `initdb`. */
  readonly system: string
  /** The timeline it is on; `undefined` where the server does not say. */
  readonly timeline: number | undefined
  /** The insert position of a primary, the replay position of a replica, as bytes of write-ahead log. */
  readonly position: bigint
  /**
   * `pg_postmaster_start_time()`, in milliseconds, to the microsecond: it tells servers of one system apart, and two may well
   * start within a millisecond. Positions of before a restart say nothing.
   */
  readonly startedAt: number
  /** Of a standby, whether it receives from a server now, whose timeline it tells. `undefined`: it does not say. */
  readonly receives?: boolean | undefined
  /** New sessions begin read-only (`default_transaction_read_only`). `undefined`: it does not say. */
  readonly isReadOnly?: boolean | undefined
  /** `current_database()` of its connections. `undefined`: it does not say. */
  readonly database?: string | undefined
}

/**
 * The findings of a probe, together with those of the one before it. A standby without a server to receive from tells an older
 * timeline than it is on, or none, until it has made its next restartpoint: while it is the same process, it stays on the one
 * that it was on.
 *
 * @since 0.1.0
 * @category transitions
 */
export const continued = (before: Report | undefined, report: Report): Report => {
  if (before?.timeline === undefined || report.role === "primary" || report.receives !== false) return report
  const isSame = before.system === report.system && before.startedAt === report.startedAt
  return isSame && (report.timeline ?? 0) < before.timeline ? { ...report, timeline: before.timeline } : report
}

/**
 * The lag of a replica behind the primary.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lag {
  /** The upper bound of its lag in milliseconds. `0`: it has replayed all WAL that is known. */
  readonly millis: number
  /** Write-ahead log that the replica has not replayed. */
  readonly bytes: bigint
}

/**
 * The health of a server, as far as the router knows.
 *
 * @since 0.1.0
 * @category models
 */
export interface Health {
  readonly state: State
  /** Since when it is in this state, in milliseconds of the clock. */
  readonly since: number
  /** Probes that have failed since the last one that succeeded. */
  readonly failures: number
  /** The reason why it is not `up`; `undefined` where it is. */
  readonly reason: string | undefined
  /** The report of the last probe that succeeded. */
  readonly report: Report | undefined
  /** Of a replica, at its last probe. */
  readonly lag: Lag | undefined
}

/**
 * The limits within which a server is used.
 *
 * @since 0.1.0
 * @category models
 */
export interface Limits {
  /** A replica whose lag is more than this is `lagging`. */
  readonly maxLag: Duration.Duration
  /** A replica that has more write-ahead log than this to replay is `lagging`. */
  readonly maxLagBytes: bigint
  /** So many probes in a row have to fail before a server is `down`. */
  readonly failures: number
}

/**
 * A server of which nothing is known yet.
 *
 * @since 0.1.0
 * @category constructors
 */
export const starting = (now: number): Health => ({
  state: "starting",
  since: now,
  failures: 0,
  reason: "it has not answered yet",
  report: undefined,
  lag: undefined
})

const become = (health: Health, state: State, now: number): Pick<Health, "state" | "since"> =>
  health.state === state ? health : { state, since: now }

/**
 * The system, and the newest timeline of it, that a server has to be on.
 *
 * @since 0.1.0
 * @category models
 */
export type Era = Pick<Report, "system"> & { readonly timeline: number }

/**
 * A probe succeeded. `lag` is how far a replica is behind the primary. `isRival`: it claims to be the primary, and is not the
 * one that takes the writes. `database` is the one that it has to be connected to; `undefined`: any.
 *
 * @since 0.1.0
 * @category transitions
 */
export const answered = (
  health: Health,
  report: Report,
  known: {
    readonly era: Era | undefined
    readonly lag: Lag | undefined
    readonly isRival: boolean
    readonly database?: string | undefined
  },
  limits: Limits,
  now: number
): Health => {
  const [state, reason] = judge(report, known, limits)
  return { ...become(health, state, now), failures: 0, reason, report, lag: known.lag }
}

const judge = (
  report: Report,
  { database, era, isRival, lag }: Parameters<typeof answered>[2],
  limits: Limits
): readonly [State, string | undefined] => {
  const foreign = era && whyForeign(report, era)
  if (foreign !== undefined) return ["foreign", foreign]
  if (isElsewhere(report, database)) {
    return ["foreign", `it is connected to the database ${report.database}, the primary to ${database}`]
  }
  if (isRival) return ["foreign", "it claims to be the primary, and another one takes the writes"]
  if (lag !== undefined && lag.millis > Duration.toMillis(limits.maxLag)) {
    return ["lagging", `it is ${lag.millis} ms behind the primary`]
  }
  return lag !== undefined && lag.bytes > limits.maxLagBytes
    ? ["lagging", `it has ${lag.bytes} bytes of the primary's log to replay`]
    : ["up", undefined]
}

const whyForeign = (report: Report, era: Era): string | undefined => {
  if (report.system !== era.system) {
    return `its system identifier is ${report.system}, the primary's is ${era.system}`
  }
  if (report.timeline === era.timeline) return undefined
  if (report.timeline !== undefined && report.timeline > era.timeline) {
    return `it says that it is on timeline ${report.timeline}, and no primary is: the newest is timeline ${era.timeline}`
  }
  if (report.timeline !== undefined) {
    return `it is on timeline ${report.timeline}, the newest is timeline ${era.timeline}`
  }
  // Before the first promotion there is only one that it can be on.
  return era.timeline === 1 && report.role === "replica"
    ? undefined
    : `it does not say whether it is on the newest timeline, ${era.timeline}`
}

/**
 * The connections of a server are to another database than that one. What is not known is none.
 *
 * @since 0.1.0
 * @category questions
 */
export const isElsewhere = ({ database }: Report, expected: string | undefined): boolean =>
  database !== undefined && expected !== undefined && database !== expected

/**
 * Returns `true` if a server holds the data of that system and timeline. Positions of different systems or timelines do not
 * compare, however far a replica has replayed.
 *
 * @since 0.1.0
 * @category questions
 */
export const follows = (report: Report, era: Era): boolean => whyForeign(report, era) === undefined

/**
 * A probe of the server that is to take the writes has found a standby.
 *
 * @since 0.1.0
 * @category transitions
 */
export const demoted = (health: Health, report: Report, now: number): Health => ({
  ...become(health, "foreign", now),
  failures: 0,
  reason: "it is a standby and takes no writes",
  report,
  lag: undefined
})

/**
 * A probe failed, for that reason.
 *
 * @since 0.1.0
 * @category transitions
 */
export const unanswered = (health: Health, reason: string, limits: Limits, now: number): Health => {
  const failures = health.failures + 1
  const isDown = health.state === "starting" || health.state === "down" || failures >= limits.failures
  return { ...health, ...become(health, isDown ? "down" : "suspect", now), failures, reason }
}

/**
 * A statement failed because of the server, for that reason. It is out of use until a probe succeeds; statements that
 * succeed meanwhile change nothing.
 *
 * @since 0.1.0
 * @category transitions
 */
export const suspected = (health: Health, reason: string, now: number): Health =>
  answers(health) ? { ...health, state: "suspect", since: now, reason } : health

/**
 * Too many statements have failed on a server that answers probes, for that reason. It is out of use until it is tried again.
 *
 * @since 0.1.0
 * @category transitions
 */
export const ejected = (health: Health, reason: string, now: number): Health => ({
  ...health,
  ...become(health, "ejected", now),
  reason
})

/**
 * A server may get reads that were not sent to it by name.
 *
 * @since 0.1.0
 * @category questions
 */
export const isUsable = (health: Health): boolean => health.state === "up"

/**
 * Returns `true` if a server answers, as far as is known, lagging and foreign ones too.
 *
 * @since 0.1.0
 * @category questions
 */
export const answers = ({ state }: Health): boolean => state === "up" || state === "lagging" || state === "foreign"

/**
 * The state as the status shows it.
 *
 * @since 0.1.0
 * @category questions
 */
export const shown = (health: Health | undefined, isDrained: boolean): Shown =>
  isDrained ? "draining" : (health?.state ?? "unchecked")

/**
 * The positions of the primary, and when each was first seen, by one clock. From them follows how old the data of a replica
 * is: a replica that has replayed all that is known is not behind, however long the primary has been idle.
 *
 * @since 0.1.0
 * @category lag
 */
export interface History {
  /** The oldest first; positions and times only grow. The primary was at `position` from `at` until `until`, at least. */
  readonly seen: ReadonlyArray<{ readonly position: bigint; readonly at: number; readonly until: number }>
  /** The system and timeline of the positions. */
  readonly system: string
  readonly timeline: number | undefined
  /** The start time of the primary that was at the last of them. */
  readonly startedAt: number
}

/** After how long a position counts no more that the primary is said to be before, in milliseconds. */
const backAfter = 5_000

/** The number of positions kept. Older ones fall together, so that a lag is never shown as less than it is. */
const maxHistory = 256

/**
 * The history with one more report of the primary. Begins anew when the primary is another system, or on another timeline.
 *
 * A crash loses what the primary had not flushed. What was past the position that it comes back with counts no more: no replica
 * gets it. One that says the same of itself, and has not started anew, may have been asked before: then it counts for 5 seconds.
 *
 * @since 0.1.0
 * @category lag
 */
export const record = (history: History | undefined, primary: Report, now: number): History => {
  const { position, startedAt, system, timeline } = primary
  const here = { position, at: now, until: now }
  if (history === undefined || history.system !== system || history.timeline !== timeline) {
    return { seen: [here], system, timeline, startedAt }
  }
  const before = history.seen[history.seen.length - 1]!
  const isBack = position < before.position
  if (isBack && startedAt === history.startedAt && now - before.until < backAfter) return history
  const kept = isBack ? history.seen.filter((entry) => entry.position <= position) : history.seen
  const last = kept[kept.length - 1]
  const seen = last?.position === position ? [...kept.slice(0, -1), { ...last, until: now }] : [...kept, here]
  return { ...history, seen: seen.length > maxHistory ? thin(seen) : seen, startedAt }
}

// Of two neighbours the earlier time counts for the later position: the lag errs upwards.
const thin = (seen: History["seen"]): History["seen"] =>
  seen.flatMap((entry, i) =>
    i % 2 === 0 && i + 1 < seen.length ? [{ ...seen[i + 1]!, at: entry.at }] : i % 2 === 0 ? [entry] : []
  )

/**
 * The lag of a replica with that replay position. WAL that it has not replayed may have been written at once after the
 * primary was last seen where the replica is, so that is from when on it is behind.
 *
 * @since 0.1.0
 * @category lag
 */
export const lagOf = (history: History, replayed: bigint, now: number): Lag => {
  const missing = history.seen.findIndex(({ position }) => contentEnd(position) > replayed)
  const last = history.seen[history.seen.length - 1]!
  const bytes = contentEnd(last.position) - replayed
  const since = history.seen[missing - 1]?.until ?? history.seen[0]!.at
  return { millis: missing === -1 ? 0 : Math.max(0, now - since), bytes: bytes > 0n ? bytes : 0n }
}

/**
 * An event of `router.events`, told once. `at` is in milliseconds of the clock.
 *
 * - `StateChanged`: an engine is in another state than before; `reason` says why, where it is not `up`
 * - `Drained`, `Undrained`: `router.drain` and `router.undrain` have changed something
 * - `PrimaryChanged`: writes go to another engine than before, or, with `engine: undefined`, to none
 * - `PrimaryDisputed`: engines claim to be the primary that are not the one that takes the writes. They get nothing. An
 *   operator has to look: what was written there is not here
 * - `EngineAdded`, `EngineRemoved`: the topology has changed
 *
 * @since 0.1.0
 * @category events
 */
export type Event = Data.TaggedEnum<{
  StateChanged: {
    readonly group: string
    readonly engine: string
    readonly from: State
    readonly to: State
    readonly reason: string | undefined
    readonly at: number
  }
  Drained: { readonly group: string; readonly engine: string; readonly at: number }
  Undrained: { readonly group: string; readonly engine: string; readonly at: number }
  PrimaryChanged: {
    readonly group: string
    readonly engine: string | undefined
    readonly from: string
    readonly reason: string
    readonly at: number
  }
  PrimaryDisputed: {
    readonly group: string
    /** The one that takes the writes. */
    readonly engine: string | undefined
    readonly rivals: ReadonlyArray<string>
    readonly at: number
  }
  EngineAdded: { readonly group: string; readonly engine: string; readonly at: number }
  EngineRemoved: { readonly group: string; readonly engine: string; readonly at: number }
}>

/**
 * Constructors and matchers of events.
 *
 * @since 0.1.0
 * @category events
 */
export const Event = Data.taggedEnum<Event>()
