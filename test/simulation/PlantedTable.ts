/** The table of planted faults in docs/simulation.md, which a run writes. */
import { readFileSync, writeFileSync } from "node:fs"
import type { Found } from "./Planted.js"

const path = new URL("../../docs/simulation.md", import.meta.url)

/** The head of the table. */
export const head = "| planted fault | found by | seeds |\n| --- | --- | --- |"

export const rowOf = (name: string, { by, seeds }: Found): string => `| ${name} | ${by ?? "not found"} | ${seeds} |`

const nameOf = (row: string): string => row.split("|")[1]!.trim()

/** Puts rows in the place of those of the same faults, in the order of all faults; those of faults that are no more go. */
export const writeRows = (rows: ReadonlyArray<string>, order: ReadonlyArray<string>): void => {
  const page = readFileSync(path, "utf8")
  const from = page.indexOf(head)
  const end = page.indexOf("\n\n", from)
  const to = end < 0 ? page.trimEnd().length : end
  if (from < 0) throw new Error("docs/simulation.md has no table of planted faults")
  const before = page
    .slice(from + head.length, to)
    .trim()
    .split("\n")
  const all = new Map([...before, ...rows].filter((row) => row !== "").map((row) => [nameOf(row), row]))
  const kept = order.flatMap((name) => all.get(name) ?? [])
  writeFileSync(path, page.slice(0, from) + [head, ...kept].join("\n") + page.slice(to))
}
