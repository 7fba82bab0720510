/** The results as a table, and as JSON. */
import { readFileSync } from "node:fs"
import { cpus, loadavg, totalmem } from "node:os"
import { digits, isMet, isRow, type Line, type Row } from "./Row.js"

const times = (row: Row): string => {
  const { high, low, median } = row.measured
  if (row.unit === "") return String(median)
  const unit = row.unit === "x" ? "x" : ` ${row.unit}`
  return `${digits(median)}${unit} (${digits(low)} to ${digits(high)})`
}

const reach = ({ reach, unit }: Row): string => {
  const value = "atLeast" in reach ? reach.atLeast : reach.atMost
  return `${"atLeast" in reach ? ">=" : "<="} ${value}${unit === "x" ? "x" : ` ${unit}`}`.trimEnd()
}

const heads = ["what", "against", "reach", "measured (quartiles)", "", ""]

const cells = (line: Line): ReadonlyArray<string> =>
  isRow(line)
    ? [line.what, line.against, reach(line), times(line), isMet(line) ? "met" : "SHORT", line.detail]
    : [line.what, line.against, "", "NOT RUN", "", line.why]

/** The lines, each column as wide as it needs to be. */
export const table = (lines: ReadonlyArray<Line>): string => {
  const all = [heads, ...lines.map(cells)]
  const widths = heads.map((_, i) => Math.max(...all.map((row) => row[i]!.length)))
  const rule = widths.map((width) => "-".repeat(width))
  return [heads, rule, ...all.slice(1)]
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const markdownCells = (line: Line): ReadonlyArray<string> =>
  isRow(line)
    ? [
        line.what,
        line.against,
        reach(line).replace(">=", "≥").replace("<=", "≤"),
        isMet(line) ? `**${times(line)}**` : `${times(line)}, short`
      ]
    : [line.what, line.against, "", `not run: ${line.why}`]

/** The same for a README. */
export const markdown = (circumstances: Circumstances, lines: ReadonlyArray<Line>): string =>
  [
    `Measured by \`npm run bench\`: ${headline(circumstances).replace("\n", ". ")}.`,
    "",
    ...[
      ["what", "against", "to reach", "measured (quartiles)"],
      ["---", "---", "---", "---"],
      ...lines.map(markdownCells)
    ].map((row) => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`)
  ].join("\n")

const isShort = (line: Line): line is Row => isRow(line) && !isMet(line)

/** Which figures fell short, and which are missing, in words. The last lines. */
export const shortfalls = (lines: ReadonlyArray<Line>): string => {
  const rows = lines.filter(isRow)
  const short = rows.filter(isShort)
  const missing = lines.filter((line) => !isRow(line))
  return [
    ...missing.map((line) => `Not run: ${line.what}, against ${line.against}`),
    ...short.map((row) => `Short: ${row.what}, against ${row.against}: ${times(row)}, to reach ${reach(row)}`),
    `${rows.length - short.length} of ${lines.length} figures are met, ${short.length} fell short, ${missing.length} were not run.`
  ].join("\n")
}

const packages = [
  "effect",
  "@effect/sql",
  "@effect/sql-pg",
  "pg",
  "libpg-query",
  "drizzle-orm",
  "kysely-replication",
  "postgres"
]

// Read as a file: not all packages let their manifest be imported.
const versionOf = (name: string): string => {
  const manifest = new URL(`../../node_modules/${name}/package.json`, import.meta.url)
  return JSON.parse(readFileSync(manifest, "utf8")).version
}

/** What the figures were measured on. */
export const circumstances = (postgres: string, began: Date) => ({
  date: began.toISOString(),
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  load: loadavg().map((load) => Number(load.toFixed(2))),
  node: process.version,
  postgres,
  packages: Object.fromEntries(packages.map((name) => [name, versionOf(name)]))
})

export type Circumstances = ReturnType<typeof circumstances>

export const headline = ({ cores, cpu, date, load, memoryGiB, node, packages, postgres }: Circumstances): string =>
  [
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, load ${load.join(" ")}; ${date}`,
    `Node ${node}, PostgreSQL ${postgres}, ${Object.entries(packages)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}`
  ].join("\n")

export const json = (circumstances: Circumstances, lines: ReadonlyArray<Line>): string =>
  `${JSON.stringify(
    { ...circumstances, rows: lines.map((line) => (isRow(line) ? { ...line, met: isMet(line) } : line)) },
    null,
    2
  )}\n`
