import * as Position from "../../Position.js"
import type { Mark } from "../wal/lsnTracker.js"

/** What a flow of work has written and read, as far as its reads must know. A value. */
export interface Seen {
  /** Whether its reads stick to the primary. */
  readonly stuck: boolean
  /** When it last wrote or committed, in milliseconds of the clock that never goes back. */
  readonly writtenAt: number
  /** What a server must have replayed. */
  readonly positions: ReadonlyArray<Position.Position>
  /** Where it has written and read, and the position is not known yet. */
  readonly marks: ReadonlyArray<Mark>
  /** Whether a primary has shown it something, which replicas may not have. */
  readonly ofPrimary: boolean
}

export const nothing: Seen = {
  stuck: false,
  writtenAt: Number.NEGATIVE_INFINITY,
  positions: [],
  marks: [],
  ofPrimary: false
}

export const withStuck = (seen: Seen, stuck: boolean): Seen => (seen.stuck === stuck ? seen : { ...seen, stuck })

export const withWrite = (seen: Seen, at: number): Seen => (seen.writtenAt >= at ? seen : { ...seen, writtenAt: at })

/** A write has failed, or was interrupted. Another value in any case: what began before that cannot know what became of it. */
export const withFailure = (seen: Seen, at: number): Seen => ({ ...seen, writtenAt: Math.max(seen.writtenAt, at) })

export const withPosition = (seen: Seen, position: Position.Position): Seen => {
  const positions = Position.add(seen.positions, position)
  return positions === seen.positions ? seen : { ...seen, positions }
}

/** The same with positions in the place of marks, as far as they are known. */
export const resolved = (seen: Seen): Seen => {
  const { marks, ofPrimary, stuck, writtenAt } = seen
  let { positions } = seen
  let unknown: Array<Mark> | undefined
  for (let i = 0; i < marks.length; i++) {
    const { known } = marks[i]!
    if (known === undefined) {
      unknown?.push(marks[i]!)
    } else {
      unknown ??= marks.slice(0, i)
      positions = Position.add(positions, known)
    }
  }
  return unknown === undefined ? seen : { stuck, writtenAt, positions, marks: unknown, ofPrimary }
}

export const withMark = (seen: Seen, mark: Mark): Seen => {
  const now = withPrimary(resolved(seen), mark)
  const { known } = mark
  if (known !== undefined) return withPosition(now, known)
  const { marks, ofPrimary, positions, stuck, writtenAt } = now
  if (marks.some((other) => other === mark || (other.hasEnded && other.supersedes(mark)))) return now
  // One that runs says nothing until it has ended; what the flow was told before is to be known before.
  const kept = mark.hasEnded ? marks.filter((other) => !mark.supersedes(other)) : withoutSuperseded(marks)
  return { stuck, writtenAt, positions, marks: [...kept, mark], ofPrimary }
}

const withoutSuperseded = (marks: ReadonlyArray<Mark>): ReadonlyArray<Mark> =>
  marks.length < 2
    ? marks
    : marks.filter((mark, i) => !marks.some((other, j) => j > i && other.hasEnded && other.supersedes(mark)))

const withPrimary = (seen: Seen, mark: Mark): Seen =>
  seen.ofPrimary || !mark.tracker.isPrimary ? seen : { ...seen, ofPrimary: true }

/** Whether a system is none of a router's; `undefined`: which one is not known. */
export type IsForeign = (system: string | undefined) => boolean

/**
 * Whether a position is of a later timeline than a server's: then that server does not have it, primary or not. What a server
 * has told holds for what it tells later: it does not go back to an earlier timeline.
 */
const isPast = (position: Position.Position | undefined, known: Position.Position | undefined): boolean =>
  position !== undefined &&
  known !== undefined &&
  position.timeline > known.timeline &&
  position.system === known.system

const isMarkPast = (mark: Mark, known: Position.Position | undefined): boolean =>
  isPast(mark.tracker.known, known) || isPast(mark.known, known)

/** Whether a later timeline was seen than a server's. */
export const hasPast = ({ marks, positions }: Seen, known: Position.Position | undefined): boolean =>
  positions.some((position) => isPast(position, known)) || marks.some((mark) => isMarkPast(mark, known))

/** The same without what is of later timelines than a server's. */
export const withoutPast = (seen: Seen, known: Position.Position | undefined): Seen => ({
  ...seen,
  positions: seen.positions.filter((position) => !isPast(position, known)),
  marks: seen.marks.filter((mark) => !isMarkPast(mark, known))
})

/**
 * After something on the primary that has ended: it has everything of its system that was to be seen before, but for what is of
 * a later timeline. `before` is what the flow had seen when it began; what came since then stays.
 */
export const superseded = (seen: Seen, before: Seen, mark: Mark, isForeign: IsForeign): Seen => {
  if (seen !== before) return withMark(seen, mark)
  const { known } = mark.tracker
  return {
    ...seen,
    positions: seen.positions.filter((position) => isForeign(position.system) || isPast(position, known)),
    marks: [
      ...seen.marks.filter((mark) => !mark.hasEnded || isForeign(mark.tracker.system) || isMarkPast(mark, known)),
      mark
    ],
    ofPrimary: true
  }
}

/** The same without what is of other systems, which says nothing of a router's servers. */
export const without = (seen: Seen, isForeign: IsForeign): Seen => {
  const { marks, positions } = seen
  for (let i = 0; i < positions.length; i++) {
    if (isForeign(positions[i]!.system)) return own(seen, isForeign)
  }
  for (let i = 0; i < marks.length; i++) {
    if (isForeign(marks[i]!.tracker.system)) return own(seen, isForeign)
  }
  return seen
}

const own = (seen: Seen, isForeign: IsForeign): Seen => ({
  ...seen,
  positions: seen.positions.filter(({ system }) => !isForeign(system)),
  marks: seen.marks.filter(({ tracker }) => !isForeign(tracker.system))
})

/**
 * The same without positions of timelines that are no more. For positions that the primary had: once it is on a later
 * timeline, what has survived of the earlier ones is before it there.
 */
export const latest = (seen: Seen): Seen => {
  const { positions } = seen
  if (positions.length < 2) return seen
  const isLatest = ({ system, timeline }: Position.Position) =>
    positions.every((other) => other.system !== system || other.timeline <= timeline)
  return { ...seen, positions: positions.filter(isLatest) }
}

/** Both. The first where the second adds nothing. */
export const merge = (self: Seen, that: Seen): Seen => {
  if (self === that || that === nothing) return self
  let seen = withWrite(withStuck(self, self.stuck || that.stuck), that.writtenAt)
  if (that.ofPrimary && !seen.ofPrimary) seen = { ...seen, ofPrimary: true }
  for (const position of that.positions) seen = withPosition(seen, position)
  for (const mark of that.marks) seen = withMark(seen, mark)
  return seen
}
