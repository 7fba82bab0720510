import type { Effect, Scope } from "effect"
import type { PgCluster } from "effect-db-router/testing"
import type { Pace } from "./Pace.js"

/** One thing that a row must show, and what was measured of it. */
export interface Check {
  /** What was measured, in words and figures. */
  readonly measured: string
  readonly met: boolean
  /** The errors, or whatever else tells why it is not met. */
  readonly evidence?: ReadonlyArray<string> | undefined
}

/** What a row has measured. */
export interface Measured {
  /** What the row is about. */
  readonly figures: ReadonlyArray<Check>
  /** What has to hold in every row: connections, memory, promises kept. */
  readonly always: ReadonlyArray<Check>
}

/** One fault, and what must be shown under it. */
export interface Row {
  /** What `--only` calls it. */
  readonly name: string
  readonly fault: string
  readonly mustShow: string
  /**
   * Injects the fault and measures. The cluster has one primary and two replicas in step, and is so again afterwards,
   * unless the row moves the primary.
   */
  readonly run: (cluster: PgCluster.Cluster, pace: Pace) => Effect.Effect<Measured, unknown, Scope.Scope>
}

/** A row on servers that it starts itself, of programs that may not be installed. */
export interface ExternalRow extends Omit<Row, "run"> {
  /** Why it cannot run here, and what to do about it. */
  readonly whyNot: Effect.Effect<string | undefined>
  readonly run: (pace: Pace) => Effect.Effect<Measured, unknown, Scope.Scope>
}

/** What became of a row. */
export type Outcome =
  | { readonly _tag: "Measured"; readonly measured: Measured }
  | { readonly _tag: "Broken"; readonly error: string }
  | { readonly _tag: "NotRun"; readonly why: string }

/** All that was measured in a row. */
export const checksOf = ({ always, figures }: Measured): ReadonlyArray<Check> => [...figures, ...always]

export const isMet = (outcome: Outcome): boolean =>
  outcome._tag === "Measured" && checksOf(outcome.measured).every(({ met }) => met)

/** A check that a number of bad things is 0. */
export const none = (what: string, bad: number, evidence?: ReadonlyArray<string>): Check => ({
  measured: `${bad} ${what}`,
  met: bad === 0,
  evidence
})

/** Some checks as one. */
export const together = (what: string, checks: ReadonlyArray<Check>): Check => ({
  measured: `${what}: ${checks.map(({ measured }) => measured).join("; ")}`,
  met: checks.every(({ met }) => met),
  evidence: checks.filter(({ met }) => !met).flatMap(({ evidence = [], measured }) => [measured, ...evidence])
})

/** What of the checks is not met, with its evidence. */
export const shortfalls = (checks: ReadonlyArray<Check>): ReadonlyArray<string> =>
  checks
    .filter(({ met }) => !met)
    .map(({ evidence = [], measured }) => [measured, ...evidence.slice(0, 12).map((line) => `  ${line}`)].join("\n"))

/** Milliseconds, as a person says them. */
export const seconds = (millis: number): string =>
  millis < 995 ? `${Math.round(millis)} ms` : `${(millis / 1_000).toFixed(millis < 9_950 ? 2 : 1)} s`

/** A number with its thousands apart. */
export const count = (n: number): string => n.toLocaleString("en-US")
