import type { Equivalent } from "./rooms.js"

/** What is read of a report of Stryker: https://github.com/stryker-mutator/mutation-testing-elements */
export interface Report {
  readonly files: Readonly<
    Record<
      string,
      {
        readonly source: string
        readonly mutants: ReadonlyArray<{
          readonly mutatorName: string
          readonly replacement?: string
          readonly status: string
          readonly location: { readonly start: { readonly line: number } }
        }>
      }
    >
  >
}

export interface Score {
  readonly killed: number
  /** Mutants that no test could kill. */
  readonly explained: number
  /** The others that no test has killed: `file:line mutator: line -> replacement`. */
  readonly survivors: ReadonlyArray<string>
  /** The share of those killed among all that a test could kill, in percent. */
  readonly percent: number
}

const killed = ["Killed", "Timeout"]
const survived = ["Survived", "NoCoverage"]

/** Counts a report. An explanation is for one mutant. Mutants that do not compile, and those that failed to run, count neither way. */
export const scoreOf = (report: Report, equivalents: ReadonlyArray<Equivalent>): Score => {
  let kills = 0
  let explained = 0
  const survivors: Array<string> = []
  const left = [...equivalents]
  for (const [file, { mutants, source }] of Object.entries(report.files)) {
    const lines = source.split("\n")
    for (const { location, mutatorName, replacement = "", status } of mutants) {
      const line = lines[location.start.line - 1]!.trim()
      if (killed.includes(status)) kills++
      if (!survived.includes(status)) continue
      const index = left.findIndex((one) => one.file === file && one.line === line && one.replacement === replacement)
      if (index >= 0) {
        left.splice(index, 1)
        explained++
      } else survivors.push(`${file}:${location.start.line} ${mutatorName}: ${line} -> ${replacement}`)
    }
  }
  const all = kills + survivors.length
  return { killed: kills, explained, survivors, percent: all === 0 ? 0 : (100 * kills) / all }
}
