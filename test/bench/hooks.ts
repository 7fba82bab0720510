/**
 * Compiles the package as its build does. What runs TypeScript here otherwise gives a name to every function each time one
 * is made, which no user of the package pays for.
 */
import { readFileSync } from "node:fs"
import type { LoadHook } from "node:module"
import { fileURLToPath } from "node:url"
import ts from "typescript"

const sources = new URL("../../src/", import.meta.url).href

const configFile = fileURLToPath(new URL("../../tsconfig.json", import.meta.url))

const { options } = ts.convertCompilerOptionsFromJson(
  ts.readConfigFile(configFile, (path) => readFileSync(path, "utf8")).config.compilerOptions,
  fileURLToPath(new URL("../..", import.meta.url))
)

export const load: LoadHook = (url, context, nextLoad) => {
  const [file] = url.split("?")
  if (!file!.startsWith(sources) || !file!.endsWith(".ts")) return nextLoad(url, context)
  const { outputText } = ts.transpileModule(readFileSync(new URL(file!), "utf8"), {
    compilerOptions: { ...options, module: ts.ModuleKind.ESNext },
    fileName: fileURLToPath(file!)
  })
  return { format: "module", source: outputText, shortCircuit: true }
}
