import { statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import { manifest, root } from "./package.js"

/** What a bundle has. */
export interface Bundle {
  /** Bytes of the minified program. */
  readonly bytes: number
  readonly gzipped: number
  /** The files that it was made from, from the repository's root. */
  readonly inputs: ReadonlyArray<string>
  /** What it imports when it is loaded. */
  readonly imports: ReadonlyArray<string>
  /** What it imports later, when it is needed. */
  readonly dynamicImports: ReadonlyArray<string>
}

const packages = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies)]

/** Bundles a program for Node. `external` names packages that stay outside. */
export const bundle = async (program: string, external: ReadonlyArray<string>): Promise<Bundle> => {
  const { metafile, outputFiles } = await build({
    stdin: { contents: program, resolveDir: root, loader: "ts" },
    alias: { "effect-db-router": join(root, "src", "index.ts") },
    external: [...external, "pg-native"],
    bundle: true,
    minify: true,
    treeShaking: true,
    platform: "node",
    format: "esm",
    target: "node20",
    write: false,
    metafile: true,
    logLevel: "error"
  })
  const [output] = Object.values(metafile.outputs)
  const [file] = outputFiles
  const imported = (kind: string) =>
    [...new Set(output!.imports.flatMap((one) => (one.kind === kind ? [one.path] : [])))].sort()
  return {
    bytes: file!.contents.length,
    gzipped: gzipSync(file!.contents).length,
    inputs: Object.keys(output!.inputs),
    imports: imported("import-statement"),
    dynamicImports: imported("dynamic-import")
  }
}

/** A program that uses the router as the README's first example does. */
export const typical = `
import { DbRouter, DbRouterLive, HttpSession } from "effect-db-router"
export const layer = DbRouterLive
export const combinators = [DbRouter.primary, DbRouter.session, DbRouter.bindGroup, HttpSession.middleware]
`

/** The router alone; its dependencies and peers stay outside. */
export const own = (): Promise<Bundle> => bundle(typical, packages)

/** The router with all that it needs but the parser. */
export const whole = (): Promise<Bundle> => bundle(typical, ["libpg-query"])

/** The parser's files: bytes as they are, and compressed. */
export const parserBytes = (): number =>
  ["libpg-query.js", "libpg-query.wasm"]
    .map((name) => statSync(join(root, "node_modules", "libpg-query", "wasm", name)).size)
    .reduce((sum, size) => sum + size, 0)

const kb = (bytes: number) => `${Math.round(bytes / 1024)} KiB`

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [alone, everything] = [await own(), await whole()]
  console.log(`the router alone: ${kb(alone.bytes)} minified, ${kb(alone.gzipped)} compressed`)
  console.log(`with Effect, @effect/* and pg: ${kb(everything.bytes)} minified, ${kb(everything.gzipped)} compressed`)
  console.log(`the parser (libpg-query), which is loaded when a router is built: ${kb(parserBytes())}`)
}
