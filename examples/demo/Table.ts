/**
 * A report as lines of text.
 */
import type { Check } from "./Checks.js"
import type { Decision } from "./Observations.js"
import type { EngineReport, Report } from "./Report.js"
import { total } from "./Traffic.js"

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan"

/** How to make text stand out, where that is possible. */
export type Paint = (style: Style, text: string) => string

export interface Format {
  readonly paint: Paint
  /** Columns that a line may have. */
  readonly width: number
}

const number = (n: number) => n.toLocaleString("en-US")

const cut = (text: string, width: number) =>
  text.length <= width ? text : width < 1 ? "" : `${text.slice(0, width - 1)}…`

const left = (text: string, width: number) => cut(text, width).padEnd(width)

const right = (text: string, width: number) => cut(text, width).padStart(width)

const millis = (n: number) => (n === 0 ? "–" : `${n < 100 ? n.toFixed(1) : n.toFixed(0)} ms`)

const percent = (part: number, whole: number) => `${Math.round((100 * part) / Math.max(whole, 1))} %`

const bar = (share: number, width: number) => {
  const eighths = Math.round(share * width * 8)
  const rest = eighths % 8
  return "█".repeat(Math.floor(eighths / 8)) + (rest === 0 ? "" : " ▏▎▍▌▋▊▉"[rest]!)
}

export const duration = (millis: number) => {
  const seconds = Math.floor(millis / 1000)
  const two = (n: number) => String(n).padStart(2, "0")
  return seconds < 3600
    ? `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`
    : `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
}

const role = ({ answers, server }: EngineReport) => (answers ? (server.standby ? "standby" : "primary") : "silent")

/** One line for each engine: what was sent to it, and what its server has counted. */
const engineLines = ({ engines }: Report, { paint, width }: Format): ReadonlyArray<string> => {
  const name = Math.min(20, Math.max(8, ...engines.map((engine) => engine.name.length)))
  const barWidth = Math.max(4, Math.min(30, width - name - 62))
  const reads = engines.reduce((sum, { use }) => sum + use.reads, 0)
  const writes = engines.reduce((sum, { use }) => sum + use.writes, 0)
  const columns = (cells: readonly [string, string, string, string, string, string, string, string]) => [
    left(cells[0], name),
    left(cells[1], 7),
    right(cells[2], 7),
    left(cells[3], barWidth + 6),
    right(cells[4], 7),
    right(cells[5], 8),
    right(cells[6], 8),
    right(cells[7], 8)
  ]
  const row = (cells: ReadonlyArray<string>) => ` ${cells.join("  ")}`
  const line = (engine: EngineReport) => {
    const { use } = engine
    const share = use.reads / Math.max(reads, 1)
    const filled = bar(share, barWidth)
    const cells = columns([
      engine.name,
      role(engine),
      number(use.reads),
      "",
      number(use.writes),
      millis(use.p50),
      millis(use.p95),
      number(engine.server.committed)
    ])
    cells[0] = paint("bold", cells[0]!)
    cells[1] = paint(engine.answers ? (engine.server.standby ? "cyan" : "yellow") : "red", cells[1]!)
    cells[3] = `${paint("cyan", filled.padEnd(barWidth))} ${right(percent(use.reads, reads), 5)}`
    return row(cells)
  }
  const header = columns(["engine", "role", "reads", "share of reads", "writes", "p50", "p95", "commits*"])
  const sums = columns(["all", "", number(reads), "", number(writes), "", "", ""])
  return [paint("dim", row(header)), ...engines.map(line), paint("dim", row(sums))]
}

const requestLine = ({ millis, tally }: Report, { paint, width }: Format) => {
  const rate = total(tally) / Math.max(millis / 1000, 1)
  const text =
    ` ${number(total(tally))} requests, ${number(Math.round(rate))}/s: ${number(tally.searches)} searches, ` +
    `${number(tally.orders)} orders read, ${number(tally.topLists)} top lists, ${number(tally.placed)} placed`
  const failed = tally.failed === 0 ? "" : `, ${number(tally.failed)} failed`
  return cut(text, width - failed.length) + paint("red", failed)
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

const decisionLines = ({ decisions }: Report, format: Format, room: number): ReadonlyArray<string> => {
  const { paint, width } = format
  if (decisions.length === 0 || room < 2) return []
  const shown = decisions.slice(0, room - 1)
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
  const title = ` Last routing decisions, for each statement and reason`
  return [paint("dim", cut(title, width)), ...shown.map(decisionLine(format, widths))]
}

/** The table, in no more than `height` lines: the decisions get what room there is. */
export const render = (report: Report, format: Format, height: number): ReadonlyArray<string> => {
  const { paint, width } = format
  const above = [
    ...engineLines(report, format),
    paint("dim", cut(" * by the server itself: pg_stat_database, up to a second late, our looks included", width)),
    "",
    requestLine(report, format),
    ""
  ]
  return [...above, ...decisionLines(report, format, height - above.length)].slice(0, Math.max(height, 1))
}

/** One line for a log. */
export const summary = ({ engines, millis, tally }: Report): string =>
  [
    duration(millis),
    `${number(total(tally))} requests`,
    ...engines.map(
      (engine) =>
        `${engine.name} (${role(engine)}) ${number(engine.use.reads)} reads, ${number(engine.use.writes)} writes`
    ),
    ...(tally.failed === 0 ? [] : [`${number(tally.failed)} failed`])
  ].join(" | ")

export const checkLines = (checks: ReadonlyArray<Check>, { paint, width }: Format): ReadonlyArray<string> => {
  const name = Math.max(...checks.map((check) => check.name.length))
  return checks.flatMap(({ detail, name: text, problems }) =>
    problems.length === 0
      ? [` ${paint("green", "✓")} ${left(text, name)}  ${paint("dim", cut(detail, width - name - 5))}`.trimEnd()]
      : [` ${paint("red", "✗")} ${paint("bold", text)}`, ...problems.map((problem) => paint("red", `   ${problem}`))]
  )
}
