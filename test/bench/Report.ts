/** The results as a table, and as JSON. */
import { readFileSync } from "node:fs"
import { cpus, loadavg, totalmem } from "node:os"
import { digits, isMet, type Row } from "./Row.js"

const times = (row: Row): string => {
  const { high, low, median } = row.measured
  const unit = row.unit === "x" ? "x" : ` ${row.unit}`
  return `${digits(median)}${unit} (${digits(low)} to ${digits(high)})`
}

const reach = ({ reach, unit }: Row): string => {
  const value = "atLeast" in reach ? reach.atLeast : reach.atMost
  return `${"atLeast" in reach ? ">=" : "<="} ${value}${unit === "x" ? "x" : ` ${unit}`}`
}

const columns: ReadonlyArray<readonly [head: string, cell: (row: Row) => string]> = [
  ["what", (row) => row.what],
  ["against", (row) => row.against],
  ["reach", reach],
  ["measured (quartiles)", times],
  ["", (row) => (isMet(row) ? "met" : "SHORT")],
  ["", (row) => row.detail]
]

/** The rows as lines, each column as wide as it needs to be. */
export const table = (rows: ReadonlyArray<Row>): string => {
  const cells = [columns.map(([head]) => head), ...rows.map((row) => columns.map(([, cell]) => cell(row)))]
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)))
  const rule = widths.map((width) => "-".repeat(width))
  return [cells[0]!, rule, ...cells.slice(1)]
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** Which figures fell short, in words. */
export const shortfalls = (rows: ReadonlyArray<Row>): string => {
  const short = rows.filter((row) => !isMet(row))
  return short.length === 0
    ? "All figures are met."
    : [
        `${short.length} of ${rows.length} figures fell short:`,
        ...short.map((row) => `  ${row.what}: ${times(row)}, to reach ${reach(row)}`)
      ].join("\n")
}

const packages = ["effect", "@effect/sql", "@effect/sql-pg", "pg", "drizzle-orm", "libpg-query"]

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

export const json = (circumstances: Circumstances, rows: ReadonlyArray<Row>): string =>
  `${JSON.stringify({ ...circumstances, rows: rows.map((row) => ({ ...row, met: isMet(row) })) }, null, 2)}\n`
