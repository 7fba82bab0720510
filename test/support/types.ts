/** The types of files that a test is about, by the options of the project. */
import { fileURLToPath } from "node:url"
import ts from "typescript"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** What the compiler says of the files of the project that `isMeant` names by their paths in it. */
export const typeProblems = (isMeant: (path: string) => boolean): ReadonlyArray<string> => {
  const pathIn = (fileName: string) => fileName.slice(root.length)
  const config = ts.parseJsonConfigFileContent(
    ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile).config,
    ts.sys,
    root
  )
  const files = config.fileNames.filter((path) => path.endsWith(".d.ts") || isMeant(pathIn(path)))
  return ts.getPreEmitDiagnostics(ts.createProgram(files, config.options)).map(({ file, messageText, start }) => {
    const line = (file?.getLineAndCharacterOfPosition(start ?? 0).line ?? 0) + 1
    return `${pathIn(file?.fileName ?? root)}:${line} ${ts.flattenDiagnosticMessageText(messageText, "\n")}`
  })
}
