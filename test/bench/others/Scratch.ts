/** Packages that are too heavy for everybody's `npm ci`: installed when they are compared with, outside the project. */
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import { promisify } from "node:util"
import { Console, Effect } from "effect"

const folder = join(tmpdir(), "effect-db-router-bench")

const run = promisify(execFile)

export interface Project {
  readonly name: string
  /** Exact versions. */
  readonly dependencies: Readonly<Record<string, string>>
  /** Other files, by their path. */
  readonly files?: Readonly<Record<string, string>>
  /** A command of one of the packages that has to run once, with its arguments and environment. */
  readonly prepare?: { readonly command: ReadonlyArray<string>; readonly env: Readonly<Record<string, string>> }
  /** A module that exports what the bench needs of the packages. */
  readonly entry: string
}

const npm = (cwd: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) =>
  run("npm", [...args], { cwd, timeout: 180_000, env: { ...process.env, ...env } })

const install = async ({ dependencies, entry, files = {}, name, prepare }: Project): Promise<string> => {
  const home = join(folder, name)
  const all = {
    "package.json": JSON.stringify({ name: `bench-${name}`, private: true, type: "module", dependencies }),
    ...files,
    "entry.mjs": entry
  }
  const done = join(home, "done.json")
  const wanted = JSON.stringify({ all, prepare, node: process.version })
  if (existsSync(done) && readFileSync(done, "utf8") === wanted) return home
  for (const [path, content] of Object.entries(all)) {
    mkdirSync(dirname(join(home, path)), { recursive: true })
    writeFileSync(join(home, path), content)
  }
  // No scripts: they would fetch binaries from elsewhere.
  await npm(home, ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
  if (prepare !== undefined) await npm(home, ["exec", "--no", "--", ...prepare.command], prepare.env)
  writeFileSync(done, wanted)
  return home
}

/** What a command has said of its failure, without where it has written more. */
const reason = (error: unknown): Error => {
  const { message, stderr } = error as { readonly message?: string; readonly stderr?: string }
  const lines = (stderr || message || String(error)).split("\n").filter((line) => line.trim() !== "")
  const errors = lines.filter((line) => /error/i.test(line) && !line.includes("complete log"))
  return new Error((errors.length > 0 ? errors : lines).slice(0, 2).join("; "))
}

/** What a project exports, after its packages were installed where they were not. */
export const load = <Exports>(project: Project): Effect.Effect<Exports, Error> =>
  Effect.tryPromise({
    try: async () => (await import(pathToFileURL(join(await install(project), "entry.mjs")).href)) as Exports,
    catch: reason
  }).pipe(
    Effect.mapError((error) => new Error(`${project.name} could not be installed into ${folder}: ${error.message}`)),
    Effect.tap(() => Console.error(`  ${project.name}, from ${folder}`))
  )
