import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { manifest, root } from "./package.js"
import type { Entry, Module } from "./referenceModel.js"

const biome = join(root, "node_modules", "@biomejs", "biome", "bin", "biome")

/** Formats blocks of TypeScript as this repository is. */
export const formatted = (blocks: ReadonlyArray<string>): ReadonlyArray<string> => {
  const separator = (i: number) => `//# ${i}\n`
  const all = blocks.map((block, i) => `${separator(i)}${block}\n`).join("")
  const text = execFileSync(process.execPath, [biome, "format", "--stdin-file-path=test/reference.ts"], {
    cwd: root,
    input: all,
    encoding: "utf8",
    stdio: ["pipe", "pipe", "inherit"]
  })
  return text
    .split(/^\/\/# \d+\n/m)
    .slice(1)
    .map((block) => block.replace(/^declare /gm, "").trim())
}

const fileOf = (module: Module) => `${module.name.replaceAll("/", "-")}.md`

const shortOf = (module: Module) => module.name.slice(module.name.lastIndexOf("/") + 1)

const slug = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, "")
    .replaceAll(" ", "-")

/** The anchors that GitHub makes of headings, in their order: of the same text, later ones are numbered. */
export const anchorsOf = (headings: ReadonlyArray<string>): ReadonlyArray<string> => {
  const counts = new Map<string, number>()
  return headings.map((heading) => {
    const text = slug(heading)
    const count = counts.get(text) ?? 0
    counts.set(text, count + 1)
    return count === 0 ? text : `${text}-${count}`
  })
}

const importOf = (module: Module): string => {
  const short = shortOf(module)
  const from = module.name.startsWith("testing/") ? `${manifest.name}/testing` : manifest.name
  return [
    "```ts",
    `import { ${short} } from "${from}"`,
    "// or, without the other modules:",
    `import * as ${short} from "${manifest.name}/${module.name}"`,
    "```"
  ].join("\n")
}

/** The anchor of an entry on its page. */
const anchorOf = (module: Module, name: string): string => {
  const categories = categoriesOf(module)
  const headings = [
    shortOf(module),
    ...categories.flatMap((category) => [capital(category), ...of(module, category).map((entry) => entry.name)])
  ]
  const isEntry = [
    false,
    ...categories.flatMap((category) => [false, ...of(module, category).map((entry) => entry.name === name)])
  ]
  return anchorsOf(headings)[isEntry.indexOf(true)]!
}

/** `{@link ...}` of the docstrings of a module as links, to another page where that has the name. */
const linked = (text: string, module: Module, all: ReadonlyArray<Module>): string =>
  text.replace(/\{@link\s+([^}\s]+)\s*\}/g, (_, target: string) => {
    const [first, second] = target.split(".")
    const has = (one: Module | undefined, name: string | undefined) =>
      one?.entries.some((entry) => entry.name === name) === true
    if (has(module, first)) return `[\`${target}\`](#${anchorOf(module, first!)})`
    const other = all.find((one) => shortOf(one) === first)
    const page = other && (second === undefined ? fileOf(other) : `${fileOf(other)}#${anchorOf(other, second)}`)
    const [named] = all.filter((one) => has(one, first))
    const found = page ?? (named && `${fileOf(named)}#${anchorOf(named, first!)}`)
    return found === undefined ? `\`${target}\`` : `[\`${target}\`](./${found})`
  })

const entryText = (entry: Entry, blocks: ReadonlyArray<string>, link: (text: string) => string): string =>
  [
    `### ${entry.name}`,
    ...(entry.text === "" ? [] : [link(entry.text)]),
    ["```ts", blocks.join("\n\n"), "```"].join("\n"),
    ...entry.examples.flatMap((example) => ["**Example**", example]),
    `Since ${entry.since}`
  ].join("\n\n")

/** Values first, by the order of the module; what only describes data last. */
const categoriesOf = ({ entries }: Module): ReadonlyArray<string> => {
  const all = [...new Set(entries.map(({ category }) => category))]
  return [...all.filter((name) => name !== "models"), ...all.filter((name) => name === "models")]
}

const of = (module: Module, category: string) => module.entries.filter((entry) => entry.category === category)

const capital = (text: string) => text.slice(0, 1).toUpperCase() + text.slice(1)

const note = "<!-- Written by `npm run reference` from the docstrings in `src`. Change those. -->"

const pageOf = (module: Module, all: ReadonlyArray<Module>, formattedOf: (entry: Entry) => ReadonlyArray<string>) => {
  const link = (text: string) => linked(text, module, all)
  const categories = categoriesOf(module)
  const contents = categories.map(
    (category) =>
      `| ${category} | ${of(module, category)
        .map(({ name }) => `[\`${name}\`](#${anchorOf(module, name)})`)
        .join(", ")} |`
  )
  return `${[
    note,
    `# ${shortOf(module)}`,
    link(module.text),
    importOf(module),
    ["| | |", "| --- | --- |", ...contents].join("\n"),
    ...categories.flatMap((category) => [
      `## ${capital(category)}`,
      ...of(module, category).map((entry) => entryText(entry, formattedOf(entry), link))
    ]),
    "[All modules](./README.md)"
  ].join("\n\n")}\n`
}

/** The first sentence of a text, on one line. */
const summary = (text: string): string => {
  const [paragraph = ""] = text.split("\n\n")
  const line = paragraph.replaceAll("\n", " ")
  return /^.*?[.](?= [A-Z]|$)/.exec(line)?.[0] ?? line
}

const indexOf = (
  barrel: Module,
  modules: ReadonlyArray<Module>,
  formattedOf: (entry: Entry) => ReadonlyArray<string>
) => {
  const row = (module: Module) =>
    `| [${shortOf(module)}](./${fileOf(module)}) | ${linked(summary(module.text), module, modules)} |`
  const table = (title: string, some: ReadonlyArray<Module>) =>
    [`| ${title} | |`, "| --- | --- |", ...some.map(row)].join("\n")
  const isOfTests = ({ name }: Module) => name.startsWith("testing/")
  return `${[
    note,
    "# API reference",
    `Everything that \`${manifest.name}\` exports, one page for each module.`,
    table(
      `\`${manifest.name}\``,
      modules.filter((module) => !isOfTests(module))
    ),
    table(`\`${manifest.name}/testing\``, modules.filter(isOfTests)),
    "## Layers",
    ...barrel.entries.map((entry) => entryText(entry, formattedOf(entry), (text) => linked(text, barrel, modules)))
  ].join("\n\n")}\n`
}

/** The pages of the reference by the name of their file. */
export const pages = ([barrel, ...modules]: ReadonlyArray<Module>): ReadonlyMap<string, string> => {
  const entries = [barrel!, ...modules].flatMap((module) => module.entries)
  const blocks = formatted(entries.flatMap((entry) => entry.declarations))
  const found = new Map<Entry, ReadonlyArray<string>>()
  let next = 0
  for (const entry of entries) {
    found.set(entry, blocks.slice(next, next + entry.declarations.length))
    next += entry.declarations.length
  }
  const of = (entry: Entry) => found.get(entry)!
  return new Map([
    ["README.md", indexOf(barrel!, modules, of)],
    ...modules.map((module) => [fileOf(module), pageOf(module, modules, of)] as const)
  ])
}
