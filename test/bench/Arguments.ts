import { closeSync, openSync } from "node:fs"
import { parseArgs } from "node:util"

export const sections = {
  select: "a SELECT by primary key, at 1, 10 and 50 fibers",
  others: "the same at 50 fibers, against other clients, routed or fast",
  requests: "whole HTTP requests, 50 clients in another process",
  write: "INSERT, UPDATE, transactions and sessions, at 10 fibers",
  rows: "10,000 rows at once, 100,000 as a stream: time and memory",
  causal: "reads after a write, and without one, that must see what was written",
  overhead: "what routing costs when no server answers",
  classify: "the classifier alone",
  replicas: "1, 2 and 4 replicas whose pools are the bottleneck",
  texts: "memory over 1,000,000 distinct texts",
  pgpool: "against pgpool-II, if it is installed",
  pgbouncer: "through pgbouncer in transaction mode, if it is installed: whether it works"
}

export type Section = keyof typeof sections

export const help = `npm run bench [-- --only NAME] [--quick] [--json FILE] [--markdown]

Measures on real servers what the router costs and gains. Whatever is compared takes turns
in short slices; a figure is the median of what the rounds say, with the quartiles. It is a
measurement, not a test: it exits with 0 whether the figures are met or not, and says in the
end which are not.

  --only NAME   only this section; may be given several times:
${Object.entries(sections)
  .map(([name, about]) => `                  ${name.padEnd(9)} ${about}`)
  .join("\n")}
  --quick       fewer and shorter rounds, and 100,000 texts
  --json FILE   writes the figures there too
  --markdown    prints the table as Markdown, for the README
  --help        this text

TypeORM, Sequelize and Prisma are installed outside the project when they are first compared
with. pgpool-II and pgbouncer are Debian's: apt-get install pgpool2 pgbouncer
`

export interface Options {
  readonly only: ReadonlySet<Section>
  readonly quick: boolean
  readonly json: string | undefined
  readonly markdown: boolean
  readonly help: boolean
}

const isSection = (name: string): name is Section => Object.hasOwn(sections, name)

/** Throws an error that says what is wrong. */
export const parse = (args: ReadonlyArray<string>): Options => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", multiple: true },
      quick: { type: "boolean" },
      json: { type: "string" },
      markdown: { type: "boolean" },
      help: { type: "boolean", short: "h" }
    }
  })
  const names = Object.keys(sections).filter(isSection)
  const only = (values.only ?? []).map((name) => {
    if (isSection(name)) return name
    throw new Error(`Unknown section ${name}; there are ${names.join(", ")}`)
  })
  // A run takes minutes: better to know before it that its results have no place.
  if (values.json !== undefined) closeSync(openSync(values.json, "a"))
  return {
    only: new Set(only.length === 0 ? names : only),
    quick: values.quick ?? false,
    json: values.json,
    markdown: values.markdown ?? false,
    help: values.help ?? false
  }
}
