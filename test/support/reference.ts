import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { root } from "./package.js"
import { read } from "./referenceModel.js"
import { pages } from "./referencePage.js"

// Of our own, because the tools that there are do not fit. TypeDoc with its Markdown plugin prints every data-first and
// data-last pair three times, `layerConfig` with a hundred lines of `Config.Wrap`, `session: WithOptions<DbRouter>`, and of what
// DbRouter passes on from Session nothing but a link. @effect/docgen does not look behind `interface Report extends model.Report {}`,
// and wants its configuration at the top of the repository. The compiler knows all of it.

/** Where the reference is. */
export const folder = join(root, "docs", "reference")

/** The reference as it is in the repository: pages by the name of their file. */
export const committed = (): ReadonlyMap<string, string> =>
  new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), "utf8")]))

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const made = pages(read())
  mkdirSync(folder, { recursive: true })
  for (const name of readdirSync(folder)) if (!made.has(name)) rmSync(join(folder, name))
  for (const [name, text] of made) writeFileSync(join(folder, name), text)
}
