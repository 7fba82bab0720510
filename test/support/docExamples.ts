import { join } from "node:path"
import ts from "typescript"
import { root } from "./package.js"

/** A program in a docstring. */
export interface DocExample {
  /** The file that it is in, from the repository's root. */
  readonly path: string
  /** The line of that file on which the program begins. */
  readonly line: number
  readonly code: string
}

const comment = /\/\*\*[\s\S]*?\*\//g
const fence = /^[ \t]*\*[ \t]*```ts[^\n]*\n((?:[ \t]*\*[^\n]*\n)*?)[ \t]*\*[ \t]*```[ \t]*$/gm

/** The programs in the docstrings of a file: its `ts` blocks, whether or not they are below `@example`. */
export const examplesOf = (path: string, source: string): ReadonlyArray<DocExample> =>
  [...source.matchAll(comment)].flatMap((doc) =>
    [...doc[0].matchAll(fence)].map((block) => {
      const before = doc.index + block.index + block[0].indexOf("\n") + 1
      return {
        path,
        line: source.slice(0, before).split("\n").length,
        code: block[1]!.replace(/^[ \t]*\* ?/gm, "")
      }
    })
  )

const configuration = () =>
  ts.parseJsonConfigFileContent(ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile).config, ts.sys, root)

/**
 * What the compiler says of the programs, each a module of its own, as a line `src/DbRouter.ts:12 ...`. Names that are not used
 * are fine: an example shows a value.
 */
export const compileExamples = (examples: ReadonlyArray<DocExample>): ReadonlyArray<string> => {
  const { fileNames, options } = configuration()
  const files = new Map(examples.map((example, i) => [join(root, "test", `docstring-${i}.ts`), example]))
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile } = host
  host.fileExists = (path) => files.has(path) || fileExists(path)
  host.readFile = (path) => files.get(path)?.code ?? readFile(path)
  const ambient = fileNames.filter((path) => path.endsWith(".d.ts"))
  const program = ts.createProgram(
    [...ambient, ...files.keys()],
    { ...options, noUnusedLocals: false, noUnusedParameters: false },
    host
  )
  return [...files].flatMap(([path, example]) => {
    const file = program.getSourceFile(path)
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map((diagnostic) => {
      const { line = 0 } = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start ?? 0) ?? {}
      return `${example.path}:${example.line + line} ${ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n")}`
    })
  })
}
