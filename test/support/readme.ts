/**
 * What the README promises, read back from it: its `ts` blocks are files under `examples/`, its commands are run as
 * they stand. An HTML comment on the line before a fence says which block is which:
 *
 *   <!-- example: examples/session.ts -->          the block is that whole file
 *   <!-- example: examples/session.ts#usage -->    the block is what stands between `// #region usage` and `// #endregion usage`
 *   <!-- quickstart:test -->                       the block is commands, found by this name
 */
export interface CodeBlock {
  /** The line of the opening fence, counted from 1. */
  readonly line: number
  readonly language: string
  readonly content: string
  /** The text of the HTML comment on the line before the fence. */
  readonly marker: string | undefined
}

const opening = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/
const comment = /^\s*<!--\s*(.*?)\s*-->\s*$/

/** The fenced code blocks of a Markdown text; a fence that is never closed runs to the end of the text. */
export const codeBlocks = (markdown: string): ReadonlyArray<CodeBlock> => {
  const lines = markdown.split(/\r?\n/)
  const blocks: Array<CodeBlock> = []
  for (let index = 0; index < lines.length; index++) {
    const fence = opening.exec(lines[index]!)
    if (fence === null) {
      continue
    }
    const start = index
    const closing = new RegExp(`^ {0,3}\\${fence[1]![0]}{${fence[1]!.length},}\\s*$`)
    const content: Array<string> = []
    for (index++; index < lines.length && !closing.test(lines[index]!); index++) {
      content.push(lines[index]!)
    }
    blocks.push({
      line: start + 1,
      language: fence[2]!.toLowerCase(),
      content: content.join("\n"),
      marker: start === 0 ? undefined : comment.exec(lines[start - 1]!)?.[1]
    })
  }
  return blocks
}

const programs = new Set(["ts", "typescript", "tsx", "mts", "js", "javascript", "mjs"])
const exampleMarker = /^example: (examples\/[^#\s]+\.ts)(?:#(\S+))?$/

/** The text between `// #region name` and `// #endregion name`, without the indentation that all its lines share. */
export const region = (source: string, name: string): string | undefined => {
  const lines = source.split(/\r?\n/)
  const start = lines.findIndex((line) => line.trim() === `// #region ${name}`)
  const end = lines.findIndex((line) => line.trim() === `// #endregion ${name}`)
  if (start < 0 || end < start) {
    return undefined
  }
  const inside = lines.slice(start + 1, end)
  const indents = inside.filter((line) => line.trim() !== "").map((line) => line.length - line.trimStart().length)
  const shared = indents.length === 0 ? 0 : Math.min(...indents)
  return inside.map((line) => line.slice(shared)).join("\n")
}

const firstDifference = (actual: string, expected: string): string => {
  const left = actual.split("\n")
  const right = expected.split("\n")
  const at = Array.from({ length: Math.max(left.length, right.length) }, (_, index) => index).find(
    (index) => left[index] !== right[index]
  )
  const show = (line: string | undefined) => (line === undefined ? "nothing" : JSON.stringify(line))
  return at === undefined ? "" : `line ${at + 1} of the block is ${show(left[at])}, of the file is ${show(right[at])}`
}

const trim = (text: string) => text.replace(/\r\n/g, "\n").replace(/^\n+|\n+$/g, "")

const blockProblem = (block: CodeBlock, read: (path: string) => string | undefined): string | undefined => {
  const marker = block.marker === undefined ? null : exampleMarker.exec(block.marker)
  if (marker === null) {
    return "has no `<!-- example: examples/NAME.ts -->` on the line before it"
  }
  const [, path, name] = marker
  const source = read(path!)
  if (source === undefined) {
    return `names ${path}, which does not exist`
  }
  const expected = name === undefined ? source : region(source, name)
  if (expected === undefined) {
    return `names the region ${name} of ${path}, which has no \`// #region ${name}\` with its \`// #endregion ${name}\``
  }
  return trim(block.content) === trim(expected)
    ? undefined
    : `differs from ${block.marker?.slice("example: ".length)}: ${firstDifference(trim(block.content), trim(expected))}`
}

/**
 * What is wrong with the programs shown in a Markdown text: one sentence for each block that is not the example it
 * should be. `read` gives the text of a file of the repository.
 */
export const exampleProblems = (markdown: string, read: (path: string) => string | undefined): ReadonlyArray<string> =>
  codeBlocks(markdown).flatMap((block) => {
    const problem = programs.has(block.language) ? blockProblem(block, read) : undefined
    return problem === undefined ? [] : [`the ${block.language} block at line ${block.line} ${problem}`]
  })

/** The commands of the block marked `<!-- name -->`. None or more than one such block is an error. */
export const commands = (markdown: string, name: string): string => {
  const found = codeBlocks(markdown).filter((block) => block.marker === name && block.language === "sh")
  if (found.length !== 1 || found[0]!.content.trim() === "") {
    throw new Error(
      `the README has ${found.length} \`sh\` blocks marked <!-- ${name} -->; it must have one, and that with a command`
    )
  }
  return found[0]!.content
}

/** The `npm run NAME` and `npm test` of some commands, as names of scripts. */
export const scriptsOf = (text: string): ReadonlyArray<string> =>
  Array.from(text.matchAll(/\bnpm (?:run ([\w:-]+)|(test)\b)/g), (match) => (match[1] ?? match[2])!)

/** `name@range` of every package that an `npm install` line names with a range. */
export const installedRanges = (text: string): ReadonlyMap<string, string> =>
  new Map(
    Array.from(text.matchAll(/["'\s]((?:@[\w.-]+\/)?[\w.-]+)@([^\s"']+)/g), (match) => [match[1]!, match[2]!] as const)
  )
