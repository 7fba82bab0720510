/**
 * Which server takes the writes. Pure: from what the servers have said of themselves.
 */
import type { Era, Report } from "../../Health.js"

/** A server, and what it has said last. */
export interface Candidate<A> {
  readonly server: A
  /** `undefined` while it has not said anything. */
  readonly report: Report | undefined
  /** Whether it answered when it was last asked. */
  readonly answers: boolean
  /** Whether it was named as one that may be the primary, and not only as a replica. */
  readonly isNamed: boolean
  /** Whether it may take the writes if it is the primary. Default: it may. */
  readonly mayWrite?: boolean
  /** Whether it has named its timeline at two probes in a row. What it has said once may be a mistake. Default: it has not. */
  readonly isConfirmed?: boolean
  /** It has not answered for so long that its last report counts no more against a primary. Default: it counts. */
  readonly isGone?: boolean
}

export interface Election<A> {
  /** The server that takes the writes. `undefined`: none does. */
  readonly writer: A | undefined
  /** Others that answer and claim to be the primary. They are not: their timeline is older, or another had it first. */
  readonly rivals: ReadonlyArray<A>
  readonly era: Era | undefined
}

/** Whether two reports are of one server that goes by two names. */
export const isSameServer = (one: Report, other: Report): boolean =>
  one.system === other.system && one.startedAt === other.startedAt && one.role === other.role

/**
 * - Only a server of the known system counts. Which one that is, the current writer says, who may be of another one than
 *   before (a name that leads to the successor of an upgrade). As long as that one has not said anything, all that answer have to agree, and to be more than a stranger that was named as a replica (a subscriber of
 *   logical replication is a primary of another system): one of them was named, is a standby, or has been promoted.
 * - Only the newest timeline counts that a primary has claimed, or a standby more than once: a server was promoted then, even
 *   if none here can see it. It counts for as long as a server is on it, or was when it answered last.
 * - A server that may not write is not elected, and what it claims as a primary counts for nothing.
 * - Of two on the newest timeline the current writer stays, else the first takes its place.
 * - A writer that does not answer stays as long as no other server claims its place: it may come back.
 */
export const elect = <A>(candidates: ReadonlyArray<Candidate<A>>, current: A, known: Era | undefined): Election<A> => {
  const holder = candidates.find(({ server }) => server === current)
  const own = holder?.answers === true && holder.report?.role === "primary" ? holder.report.system : undefined
  const system = own ?? known?.system ?? holder?.report?.system ?? systemOfAll(candidates)
  if (system === undefined) return { writer: current, rivals: [], era: known }
  const era = newest(system, candidates, known?.system === system ? known : undefined)
  const claimants = candidates.filter(
    ({ answers, report }) => answers && report?.role === "primary" && report.system === system
  )
  const entitled = claimants.filter(({ mayWrite = true, report }) => mayWrite && report!.timeline === era?.timeline)
  const elected = entitled.find(({ server }) => server === current) ?? entitled[0]
  const rivals = claimants
    .filter(({ report }) => elected === undefined || !isSameServer(report!, elected.report!))
    .map(({ server }) => server)
  const mayReturn = holder !== undefined && !holder.answers && mayStay(holder.report, era)
  return { writer: elected?.server ?? (mayReturn ? current : undefined), rivals, era }
}

/** Whether one that does not answer may still be the primary. */
const mayStay = (report: Report | undefined, era: Era | undefined): boolean =>
  report === undefined || (report.role === "primary" && report.timeline === era?.timeline)

const systemOfAll = (candidates: ReadonlyArray<Candidate<unknown>>): string | undefined => {
  const answered = candidates.filter(({ report }) => report !== undefined)
  const systems = new Set(answered.map(({ report }) => report!.system))
  const isKnown = answered.some(
    ({ isNamed, report }) => isNamed || report!.role === "replica" || (report!.timeline ?? 1) > 1
  )
  return systems.size === 1 && isKnown ? [...systems][0] : undefined
}

/** So many promotions between two looks are none: the number is wrong. */
const maxPromotions = 1_000

/** Whether what a server has said of its timeline counts, where that one was known before. */
const counts = (
  { isConfirmed = false, mayWrite = true, report }: Candidate<unknown>,
  known: number | undefined
): boolean => {
  const timeline = report!.timeline!
  if (known !== undefined && timeline - known > maxPromotions) return false
  if (report!.role === "primary") return mayWrite
  return isConfirmed || (known !== undefined && timeline <= known)
}

const newest = (
  system: string,
  candidates: ReadonlyArray<Candidate<unknown>>,
  known: Era | undefined
): Era | undefined => {
  const all = candidates.filter(({ report }) => report?.system === system && report.timeline !== undefined)
  const claimed = all.flatMap(({ answers, mayWrite = true, report }) =>
    answers && mayWrite && report!.role === "primary" ? [report!.timeline!] : []
  )
  const before = known?.timeline ?? (claimed.length === 0 ? undefined : Math.min(...claimed))
  const said = all.filter((one) => counts(one, before))
  const hasPrimary = said.some(({ answers, report }) => answers && report!.role === "primary")
  const timelines = said.flatMap(({ answers, isGone = false, report }) =>
    !answers && isGone && hasPrimary ? [] : [report!.timeline!]
  )
  return timelines.length === 0 ? known : { system, timeline: Math.max(...timelines) }
}
