import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { failure, node, npm } from "./run.js"

/** The repository's root. */
export const root = fileURLToPath(new URL("../..", import.meta.url))

export interface Manifest {
  readonly name: string
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional?: boolean }>>
  readonly scripts: Readonly<Record<string, string>>
}

const json = (path: string) => JSON.parse(readFileSync(path, "utf8"))

export const manifest: Manifest = json(join(root, "package.json"))

/** The peers that a user has to install. */
export const requiredPeers = Object.keys(manifest.peerDependencies).filter(
  (name) => manifest.peerDependenciesMeta[name]?.optional !== true
)

/** Files that users do not import by these names: the barrel and the command. */
const notModules = ["index.ts", "bin.ts"]

/** Where the test of a name is: `test/client/client-listen.test.ts` for `client-listen`. */
export const testFile = (name: string): string => {
  const found = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" }).find(
    (path) => basename(path) === `${name}.test.ts`
  )
  if (found === undefined) throw new Error(`There is no test ${name}`)
  return join("test", found)
}

/** The names of the modules of the package, as a user imports them: `DbRouter`, `testing/PgCluster`. */
export const publicModules = (source = join(root, "src")): ReadonlyArray<string> =>
  ["", "testing/"].flatMap((folder) =>
    readdirSync(join(source, folder))
      .filter((name) => name.endsWith(".ts") && !notModules.includes(name))
      .map((name) => folder + name.slice(0, -".ts".length))
  )

/** Every entry point of the package, as a user imports it. */
export const entries: ReadonlyArray<string> = [
  manifest.name,
  ...["testing", ...publicModules()].map((name) => `${manifest.name}/${name}`)
]

/** A program that names every entry point, once as types and once as values. */
export const everything: string = [
  ...entries.map((name, index) => `import * as m${index} from "${name}"`),
  `export const loaded = { ${entries.map((_, index) => `m${index}`).join(", ")} }`,
  "console.log(Object.keys(loaded).length)"
].join("\n")

const locked = json(join(root, "package-lock.json")).packages as Record<string, { readonly version: string }>

/** The version of a package in the lock file. */
export const lockedVersion = (name: string): string => locked[`node_modules/${name}`]!.version

const minutes = (count: number) => count * 60_000

const succeed = (text: string) => {
  if (text !== "") {
    throw new Error(text)
  }
}

export interface Packed {
  readonly tarball: string
  /** The paths inside the tarball. */
  readonly files: ReadonlyArray<string>
}

/**
 * Builds and packs in a copy of what the package is made from, so that the checkout's own `dist` is neither needed nor
 * touched while other tests run. What a release does is what happens here: `npm pack` with its `prepack` script.
 */
export const pack = async (folder: string): Promise<Packed> => {
  const copy = join(folder, "source")
  mkdirSync(copy, { recursive: true })
  for (const name of ["package.json", "tsconfig.json", "README.md", "CHANGELOG.md", "LICENSE", "src"]) {
    cpSync(join(root, name), join(copy, name), { recursive: true })
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"), "junction")
  const ended = await npm(["pack", "--json", "--silent", "--pack-destination", folder], {
    cwd: copy,
    timeoutMillis: minutes(4)
  })
  succeed(failure(ended))
  const [packed] = JSON.parse(ended.stdout.slice(ended.stdout.indexOf("[\n"))) as [
    { readonly filename: string; readonly files: ReadonlyArray<{ readonly path: string }> }
  ]
  return { tarball: join(folder, packed.filename), files: packed.files.map((file) => file.path) }
}

/**
 * An empty project that installs the tarball and the peers. Versions are those of the repository's lock file (of a
 * package that is there in two versions, npm chooses): a new release of a peer does not change the outcome, and `npm ci` has
 * left all of them in npm's cache.
 */
export const consumer = async (folder: string, tarball: string): Promise<void> => {
  const direct = [...requiredPeers, "@types/node"]
  const names = Object.keys(locked).map((path) =>
    path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)
  )
  const once = names.filter((name) => name !== "" && names.indexOf(name) === names.lastIndexOf(name))
  const overrides = once.filter((name) => !direct.includes(name))
  const pinned = (some: ReadonlyArray<string>) => Object.fromEntries(some.map((name) => [name, lockedVersion(name)]))
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({
      name: "consumer",
      private: true,
      type: "module",
      dependencies: { [manifest.name]: `file:${tarball}`, ...pinned(requiredPeers) },
      devDependencies: pinned(["@types/node"]),
      overrides: pinned(overrides)
    })
  )
  succeed(
    failure(
      await npm(["install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"], {
        cwd: folder,
        timeoutMillis: minutes(4)
      })
    )
  )
}

/** Compiles the consumer's files with strict checks of every declaration file it reaches. What tsc says, or "". */
export const compile = async (
  folder: string,
  options: Readonly<Record<string, unknown>>,
  files: ReadonlyArray<string>
): Promise<string> => {
  const config = join(folder, "tsconfig.json")
  writeFileSync(
    config,
    JSON.stringify({
      compilerOptions: { target: "ES2022", strict: true, skipLibCheck: false, outDir: "out", ...options },
      files
    })
  )
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
  return failure(await node([tsc, "-p", config], { cwd: folder, timeoutMillis: minutes(3) }))
}

export const write = (path: string, text: string): void => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
}

/** The sources that a source map names, as paths, that are not in the package. */
export const missingSources = (packageFolder: string, map: string): ReadonlyArray<string> => {
  const sources = json(join(packageFolder, map)).sources as ReadonlyArray<string>
  return sources.map((source) => join(dirname(map), source)).filter((path) => !existsSync(join(packageFolder, path)))
}
