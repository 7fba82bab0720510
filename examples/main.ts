/**
 * `npm run example NAME` runs one of the examples, on servers that are started for it; without a name it lists them.
 *
 * An example is a file `NAME.ts` here or in `recipes`, or a folder `NAME` with a `main.ts`; the first line of the comment
 * that it begins with is what the list says of it. What follows the name goes to the example.
 */
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url))

const filesIn = (path: string) =>
  readdirSync(folder(path)).map((entry) => ({ name: entry.replace(/\.ts$/, ""), path: `${path}${entry}` }))

const paths = new Map(
  ["./", "./recipes/"].flatMap((path) =>
    filesIn(path).flatMap((file): Array<readonly [string, string]> => {
      // The demo has a command of its own.
      if (file.path === "./main.ts" || file.name === "demo") return []
      if (file.path.endsWith(".ts")) return [[file.name, folder(file.path)]]
      const main = folder(`${file.path}/main.ts`)
      return existsSync(main) ? [[file.name, main]] : []
    })
  )
)

const about = (path: string) => /^\/\*\*[\s*]*(.+?)\s*(?:\*\/)?\n/.exec(readFileSync(path, "utf8"))?.[1] ?? ""

const list = () => {
  const names = [...paths.keys()].sort()
  const width = Math.max(...names.map(({ length }) => length))
  return ["npm run example NAME", "", ...names.map((name) => `  ${name.padEnd(width)}  ${about(paths.get(name)!)}`)]
}

const [, , name, ...rest] = process.argv
const path = name === undefined ? undefined : paths.get(name)

if (path === undefined) {
  if (name !== undefined) {
    console.error(`There is no example ${name}.\n`)
    process.exitCode = 1
  }
  console.log(list().join("\n"))
} else {
  const child = spawn(process.execPath, ["--import", "tsx", path, ...rest], { stdio: "inherit" })
  // A terminal tells both; the child cleans up, and then both end.
  process.on("SIGINT", () => {})
  process.on("SIGTERM", () => child.kill("SIGTERM"))
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? (signal === null ? 1 : 128)
  })
}
