/** The results as a table, in words, as Markdown and as JSON. */
import { checksOf, isMet, type Outcome, type Row, shortfalls } from "./Row.js"

export interface Result {
  readonly row: Omit<Row, "run">
  readonly outcome: Outcome
}

export const verdict = (outcome: Outcome): string =>
  outcome._tag === "NotRun" ? "NOT RUN" : isMet(outcome) ? "met" : "NOT MET"

const measuredOf = (outcome: Outcome): ReadonlyArray<string> => {
  switch (outcome._tag) {
    case "Broken":
      return [outcome.error.split("\n")[0]!]
    case "NotRun":
      return [`not run: ${outcome.why}`]
    case "Measured": {
      const { always, figures } = outcome.measured
      return [...figures, ...always.filter(({ met }) => !met)].map(({ measured }) => measured)
    }
  }
}

const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines = [""]
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1]!
    if (last !== "" && last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`
  }
  return lines
}

const widths = [34, 44, 62, 7] as const

/** One row of the table, as lines. */
const lines = (cells: readonly [ReadonlyArray<string>, ReadonlyArray<string>, ReadonlyArray<string>, string]) => {
  const [fault, mustShow, measured, last] = cells
  const columns = [fault, mustShow, measured, [last]].map((paragraphs, i) =>
    paragraphs.flatMap((paragraph) => wrap(paragraph, widths[i]!))
  )
  return Array.from({ length: Math.max(...columns.map((column) => column.length)) }, (_, line) =>
    columns
      .map((column, i) => (column[line] ?? "").padEnd(widths[i]!))
      .join(" | ")
      .trimEnd()
  )
}

const rule = widths.map((width) => "-".repeat(width)).join("-+-")

export const table = (results: ReadonlyArray<Result>): string =>
  [
    ...lines([["fault"], ["must show"], ["measured"], ""]),
    ...results.flatMap(({ outcome, row }) => [
      rule,
      ...lines([row.fault.split("\n"), row.mustShow.split("; "), measuredOf(outcome), verdict(outcome)])
    ])
  ].join("\n")

const ranges = (results: ReadonlyArray<Result>): string => {
  const measured = results.flatMap(({ outcome }) => (outcome._tag === "Measured" ? [outcome.measured] : []))
  const always = new Map<string, ReadonlyArray<string>>()
  for (const one of measured) {
    for (const { measured: text } of one.always) {
      const what = text.replace(/^-?[\d.,]+ /, "").replace(/of [\d,]+ /, "")
      always.set(what, [...(always.get(what) ?? []), text])
    }
  }
  const figure = (text: string) => Number.parseFloat(text.replaceAll(",", ""))
  return [...always]
    .map(([what, texts]) => {
      const figures = texts.map(figure)
      const most = Math.max(...figures)
      return `${most} ${what}${figures.some((n) => n !== most) ? " at most" : ""}`
    })
    .join("; ")
}

/** What held in every row. */
export const everywhere = (results: ReadonlyArray<Result>): string => {
  const text = ranges(results)
  return text === "" ? "No row was measured." : `In every row: ${text}.`
}

/** What is not met, in words. */
export const verdicts = (results: ReadonlyArray<Result>): string => {
  const bad = results.filter(({ outcome }) => outcome._tag !== "NotRun" && !isMet(outcome))
  const notRun = results.flatMap(({ outcome, row }) =>
    outcome._tag === "NotRun" ? [`NOT RUN, and so not shown: ${row.name}: ${outcome.why}`] : []
  )
  const short = bad.flatMap(({ outcome, row }) => [
    `${row.name}:`,
    ...(outcome._tag === "Broken"
      ? outcome.error.split("\n")
      : outcome._tag === "Measured"
        ? shortfalls(checksOf(outcome.measured)).flatMap((text) => text.split("\n"))
        : []
    ).map((line) => `  ${line}`)
  ])
  const met = results.length - bad.length - notRun.length
  return [`${met} of ${results.length} rows are met.`, ...short, ...notRun].join("\n")
}

/** What comes first of a row that is met, and all of one that is not. */
const inShort = (outcome: Outcome): ReadonlyArray<string> =>
  isMet(outcome) ? measuredOf(outcome).slice(0, 2) : measuredOf(outcome)

/** The table of the README, to stand between `<!-- soak -->` and `<!-- /soak -->`. */
export const markdown = (headline: string, results: ReadonlyArray<Result>): string =>
  [
    "| fault | must show | measured | |",
    "| --- | --- | --- | --- |",
    ...results.map(({ outcome, row }) => {
      const cells = [row.fault, row.mustShow, inShort(outcome).join("; "), verdict(outcome)]
      return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`
    }),
    "",
    everywhere(results),
    "",
    `Measured by \`npm run soak\`, which prints more of each row. ${headline.replace("\n", ". ")}.`
  ].join("\n")

export const json = (circumstances: object, results: ReadonlyArray<Result>): string =>
  `${JSON.stringify(
    {
      ...circumstances,
      rows: results.map(({ outcome, row: { fault, mustShow, name } }) => ({
        name,
        fault,
        mustShow,
        met: isMet(outcome),
        ...outcome
      }))
    },
    null,
    2
  )}\n`
