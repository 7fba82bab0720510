/**
 * Which server takes the writes. Pure: from what the servers have said of themselves.
 */
import type { Era, Report } from "../Health.js"

/** A server, and what it has said last. */
export interface Candidate<A> {
  readonly server: A
  /** `undefined` while it has not said anything. */
  readonly report: Report | undefined
  /** Whether it answered when it was last asked. */
  readonly answers: boolean
  /** Whether it was named as one that may be the primary, and not only as a replica. */
  readonly isNamed: boolean
}

export interface Election<A> {
  /** `undefined`: nobody may get a write. */
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
 * - Only the newest timeline counts, be it a standby's: somebody has promoted a server then, even if nobody here can see it.
 * - Of two on the newest timeline the current writer stays, else the first takes its place.
 * - A writer that does not answer stays as long as nobody else claims its place: it may come back.
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
  const entitled = claimants.filter(({ report }) => report?.timeline === era?.timeline)
  const elected = entitled.find(({ server }) => server === current) ?? entitled[0]
  const rivals = claimants
    .filter((other) => other !== elected && !(elected !== undefined && isSameServer(other.report!, elected.report!)))
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

const newest = (
  system: string,
  candidates: ReadonlyArray<Candidate<unknown>>,
  known: Era | undefined
): Era | undefined => {
  const timelines = candidates.flatMap(({ report }) =>
    report?.system === system && report.timeline !== undefined ? [report.timeline] : []
  )
  if (known !== undefined) timelines.push(known.timeline)
  return timelines.length === 0 ? undefined : { system, timeline: Math.max(...timelines) }
}
