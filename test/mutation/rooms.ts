/** What `npm run mutate` changes, and the tests that are to notice. All of these are pure: they start no server. */
export interface MutatedRoom {
  readonly mutate: ReadonlyArray<string>
  readonly tests: ReadonlyArray<string>
}

export const mutatedRooms: Readonly<Record<string, MutatedRoom>> = {
  election: { mutate: ["src/internal/health/election.ts"], tests: ["test/health/election.test.ts"] },
  health: { mutate: ["src/Health.ts"], tests: ["test/health/health.test.ts"] },
  positions: { mutate: ["src/Position.ts"], tests: ["test/context/position.test.ts"] }
}

/** A mutant that no test can kill, as the program does the same with it. */
export interface Equivalent {
  readonly file: string
  /** The text of the line that it changes, without spaces around. */
  readonly line: string
  readonly replacement: string
  readonly because: string
}

const covers =
  "isComparable(replayed, wanted) && (replayed.lsn >= wanted.lsn || replayed.lsn >= contentEnd(wanted.lsn))"
const never = "the end of content is never after the position: the first comparison only saves its calculation"
const election = "src/internal/health/election.ts"

export const equivalents: ReadonlyArray<Equivalent> = [
  {
    file: election,
    line: "if (known !== undefined && timeline - known > maxPromotions) return false",
    replacement: "true",
    because: "a difference to undefined is NaN, which is not greater"
  },
  {
    file: election,
    line: "return isConfirmed || (known !== undefined && timeline <= known)",
    replacement: "true",
    because: "no number is less than undefined, or equal to it"
  },
  { file: "src/Position.ts", line: covers, replacement: "false", because: never },
  { file: "src/Position.ts", line: covers, replacement: "replayed.lsn > wanted.lsn", because: never }
]
