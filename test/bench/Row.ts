import { type Costs, type Summary, summary } from "./Measure.js"

/** One line of the table. */
export interface Row {
  /** The section it belongs to: see `--only`. */
  readonly section: string
  readonly what: string
  readonly against: string
  readonly reach: Reach
  readonly unit: Unit
  readonly measured: Summary
  /** The figures behind the ratio. They hold for this machine and this run only. */
  readonly detail: string
}

/** A line of the table for what could not be measured here. */
export interface NotRun extends Pick<Row, "section" | "what" | "against"> {
  /** Why, and what to do about it. */
  readonly why: string
}

export type Line = Row | NotRun

export const isRow = (line: Line): line is Row => "measured" in line

/** Times as much; microseconds; megabytes; a count. */
export type Unit = "x" | "µs" | "MB" | ""

/** The target, for the median. */
export type Reach = { readonly atLeast: number } | { readonly atMost: number }

/** By the figure as it is printed. */
export const isMet = ({ measured, reach }: Row): boolean => {
  const median = Number(digits(measured.median))
  return "atLeast" in reach ? median >= reach.atLeast : median <= reach.atMost
}

/** A number with three digits that tell something. */
export const digits = (n: number): string =>
  Math.abs(n) >= 100 ? n.toFixed(0) : Math.abs(n) >= 10 ? n.toFixed(1) : n.toFixed(2)

/** What two contestants need for one operation. */
export const each = (measured: Costs, without: Costs, unit: "µs" | "ms" = "µs"): string => {
  const scale = unit === "µs" ? 1 : 1_000
  const [one, other] = [measured, without].map((costs) => digits(summary(costs).median / scale))
  return `${one} ${unit} each; the other ${other}`
}
