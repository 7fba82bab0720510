/**
 * A report as lines of text.
 */
import type { Check } from "./Checks.js"
import type { Decision } from "./Observations.js"
import type { EngineReport, Report } from "./Report.js"
import { total } from "./Traffic.js"

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan"

/** The way to make text stand out, where that is possible. */
export type Paint = (style: Style, text: string) => string

export interface Format {
  readonly paint: Paint
  /** Columns that a line may have. */
  readonly width: number
  /** Lines that the table may have. */
  readonly height: number
}

const number = (n: number) => n.toLocaleString("en-US")

const cut = (text: string, width: number) =>
  text.length <= width ? text : width < 1 ? "" : `${text.slice(0, width - 1)}…`

const left = (text: string, width: number) => cut(text, width).padEnd(width)

const right = (text: string, width: number) => cut(text, width).padStart(width)

const millis = (n: number) => (n === 0 ? "–" : `${n < 100 ? n.toFixed(1) : n.toFixed(0)} ms`)

const bar = (share: number, width: number) => {
  const eighths = Math.round(share * width * 8)
  const rest = eighths % 8
  return "█".repeat(Math.floor(eighths / 8)) + (rest === 0 ? "" : " ▏▎▍▌▋▊▉"[rest]!)
}

const duration = (millis: number) => {
  const seconds = Math.floor(millis / 1000)
  const two = (n: number) => String(n).padStart(2, "0")
  return seconds < 3600
    ? `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`
    : `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
}

const role = ({ answers, server }: EngineReport) => (answers ? (server.standby ? "standby" : "primary") : "silent")

/** A column of the table: its cells all have the same width, colours not counted. */
interface Column {
  readonly head: string
  readonly width: number
  readonly cell: (engine: EngineReport) => string
  readonly sum?: string
  /** When there is no room for all columns, those with the highest number go first. */
  readonly rank: number
}

const numeric = (
  head: string,
  width: number,
  rank: number,
  of: (engine: EngineReport) => string,
  sum = ""
): Column => ({
  head: right(head, width),
  width,
  cell: (engine) => right(of(engine), width),
  sum: right(sum, width),
  rank
})

const columnsFor = ({ engines }: Report, { paint, width }: Format): ReadonlyArray<Column> => {
  const name = Math.min(20, Math.max(8, ...engines.map((engine) => engine.name.length))) + 2
  const reads = engines.reduce((sum, { use }) => sum + use.reads, 0)
  const writes = engines.reduce((sum, { use }) => sum + use.writes, 0)
  const barWidth = Math.max(7, Math.min(30, width - name - 62))
  const shade = (engine: EngineReport) => (engine.answers ? (engine.server.standby ? "cyan" : "yellow") : "red")
  const share = ({ use }: EngineReport) => use.reads / Math.max(reads, 1)
  return [
    {
      head: left("engine", name),
      width: name,
      cell: (engine) => paint("bold", left(engine.name, name)),
      sum: left("all", name),
      rank: 0
    },
    { head: "role   ", width: 7, cell: (engine) => paint(shade(engine), left(role(engine), 7)), rank: 0 },
    numeric("reads", 9, 0, ({ use }) => number(use.reads), number(reads)),
    {
      head: " ".repeat(barWidth + 2),
      width: barWidth + 2,
      cell: (engine) => `  ${paint("cyan", bar(share(engine), barWidth).padEnd(barWidth))}`,
      rank: 3
    },
    numeric("share", 6, 1, (engine) => `${Math.round(100 * share(engine))} %`),
    numeric("writes", 9, 0, ({ use }) => number(use.writes), number(writes)),
    numeric("p50", 9, 2, ({ use }) => millis(use.p50)),
    numeric("p95", 9, 1, ({ use }) => millis(use.p95)),
    numeric("commits*", 10, 2, ({ server }) => number(server.committed))
  ]
}

const widthOf = (columns: ReadonlyArray<Column>) => columns.reduce((sum, column) => sum + column.width, 1)

/** One line for each engine: what was sent to it, and what its server has counted. */
const engineLines = (report: Report, format: Format): ReadonlyArray<string> => {
  const all = columnsFor(report, format)
  const columns = [3, 2, 1].reduce(
    (shown, rank) => (widthOf(shown) > format.width ? shown.filter((column) => column.rank < rank) : shown),
    all
  )
  const row = (cell: (column: Column) => string) => ` ${columns.map(cell).join("")}`
  return [
    format.paint(
      "dim",
      row(({ head }) => head)
    ),
    ...report.engines.map((engine) => row(({ cell }) => cell(engine))),
    format.paint(
      "dim",
      row(({ sum, width }) => sum ?? " ".repeat(width))
    )
  ]
}

const requestLines = ({ tally }: Report, { paint, width }: Format): ReadonlyArray<string> => {
  const { failed, failure, millis, orders, placed, searches, topLists } = tally
  const rate = Math.round(total(tally) / Math.max(millis / 1000, 1))
  const text =
    ` ${number(total(tally))} requests, ${number(rate)}/s: ${number(searches)} searches, ` +
    `${number(orders)} orders read, ${number(topLists)} top lists, ${number(placed)} placed`
  const problem = ` ${number(failed)} failed, the last one with ${failure}`.replace(/\s+/g, " ")
  return failed === 0 ? [cut(text, width)] : [cut(text, width), paint("red", cut(problem, width))]
}

const decisionLine =
  ({ paint, width }: Format, widths: { readonly engine: number; readonly reason: number }) =>
  ({ engine, kind, reason, sql }: Decision) => {
    const fixed = 7 + widths.engine + 2 + widths.reason + 2
    return [
      " ",
      paint(kind === "read" ? "cyan" : "yellow", left(kind, 7)),
      paint("bold", left(engine, widths.engine + 2)),
      left(reason, widths.reason + 2),
      paint("dim", cut(sql, width - fixed - 1))
    ].join("")
  }

/** As many as there is room for: one of each reason first, then a second of each, and so on. */
const choose = (decisions: ReadonlyArray<Decision>, room: number): ReadonlyArray<Decision> => {
  const before = (decision: Decision, i: number) =>
    decisions.slice(0, i).filter(({ reason }) => reason === decision.reason).length
  const ranked = decisions.map((decision, i) => ({ decision, rank: before(decision, i) }))
  const chosen = new Set([...ranked].sort((a, b) => a.rank - b.rank).slice(0, room))
  return ranked.filter((one) => chosen.has(one)).map(({ decision }) => decision)
}

const decisionLines = ({ decisions }: Report, format: Format, room: number): ReadonlyArray<string> => {
  const { paint, width } = format
  if (decisions.length === 0 || room < 2) return []
  const shown = choose(decisions, room - 1)
  const longest = (of: (decision: Decision) => string) => Math.max(...shown.map((decision) => of(decision).length))
  const widths = {
    engine: Math.min(
      20,
      longest(({ engine }) => engine)
    ),
    reason: Math.min(
      Math.max(22, Math.floor(width / 4)),
      longest(({ reason }) => reason)
    )
  }
  const title = " Last routing decisions, for each statement and reason"
  return [paint("dim", cut(title, width)), ...shown.map(decisionLine(format, widths))]
}

/** The table, with a word on what is going on. The decisions get the room that is left. */
export const render = (report: Report, format: Format, hint: string): ReadonlyArray<string> => {
  const { height, paint, width } = format
  const title = "effect-db-router"
  const above = [
    "",
    ` ${paint("bold", title)}  ${paint("dim", cut(`${duration(report.tally.millis)}  ${hint}`, width - title.length - 3))}`,
    "",
    ...engineLines(report, format),
    paint("dim", cut(" * as its server counts them, the demo's own questions included, a second late", width)),
    "",
    ...requestLines(report, format),
    ""
  ]
  return [...above, ...decisionLines(report, format, height - above.length)].slice(0, Math.max(height, 1))
}

/** One line for a log. */
export const summary = ({ engines, tally }: Report): string =>
  [
    duration(tally.millis),
    `${number(total(tally))} requests`,
    ...engines.map(
      (engine) =>
        `${engine.name} (${role(engine)}) ${number(engine.use.reads)} reads, ${number(engine.use.writes)} writes`
    ),
    ...(tally.failed === 0 ? [] : [`${number(tally.failed)} failed`])
  ].join(" | ")

/** The checks with their results. */
export const checkLines = (checks: ReadonlyArray<Check>, { paint, width }: Format): ReadonlyArray<string> => {
  const name = Math.max(...checks.map((check) => check.name.length))
  return [
    "",
    ...checks.flatMap(({ detail, name: text, problems }) =>
      problems.length === 0
        ? [` ${paint("green", "✓")} ${left(text, name)}  ${paint("dim", cut(detail, width - name - 5))}`.trimEnd()]
        : [` ${paint("red", "✗")} ${paint("bold", text)}`, ...problems.map((problem) => paint("red", `   ${problem}`))]
    )
  ]
}
