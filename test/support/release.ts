import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { root } from "./package.js"
import { failure, npm } from "./run.js"
import { lint } from "./shipping.js"

/** What a release depends on, as it is in the checkout. */
export interface Facts {
  /** package.json. */
  readonly manifest: { readonly name: string; readonly version: string; readonly repository?: unknown }
  /** The version that package-lock.json says. */
  readonly locked: string
  readonly changelog: string
  /** What `git status --porcelain` prints. */
  readonly status: string
  /** The tags of the repository. */
  readonly tags: ReadonlyArray<string>
  /** The tags of the commit that is checked out. */
  readonly tagsHere: ReadonlyArray<string>
  /** The tag that is being released; `undefined`: none is there yet. */
  readonly tag: string | undefined
}

const sectionsOf = (changelog: string) =>
  changelog
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const [title = "", ...lines] = section.split("\n")
      return { title: title.trim(), text: lines.join("\n").trim() }
    })

const titleOf = (version: string) => new RegExp(`^\\[?${version.replaceAll(".", "\\.")}\\]? - \\d{4}-\\d{2}-\\d{2}$`)

const version = /^\d+\.\d+\.\d+(?:-[\w.-]+)?$/

/** Why this cannot be released as it is, one line each. */
export const problems = (facts: Facts): ReadonlyArray<string> => {
  const { changelog, locked, manifest, status, tag, tags, tagsHere } = facts
  const expected = `v${manifest.version}`
  const sections = sectionsOf(changelog)
  const own = sections.find(({ title }) => titleOf(manifest.version).test(title))
  const unreleased = sections.find(({ title }) => /^\[?unreleased\]?$/i.test(title))
  const found: Array<string | false> = [
    status.trim() !== "" && `The tree is not clean:\n${status.trimEnd()}`,
    !version.test(manifest.version) && `The version of package.json is none: ${manifest.version}`,
    locked !== manifest.version && `package-lock.json says ${locked}, package.json ${manifest.version}: npm install`,
    own === undefined && `CHANGELOG.md has no section "## ${manifest.version} - YYYY-MM-DD"`,
    own?.text === "" && `The section of ${manifest.version} in CHANGELOG.md is empty`,
    unreleased !== undefined && unreleased.text !== "" && "CHANGELOG.md has changes that are unreleased: move them",
    manifest.repository === undefined && "package.json has no repository: provenance needs to say where it comes from",
    tag === undefined && tags.includes(expected) && `There is a tag ${expected} already: choose another version`,
    tag !== undefined && tag !== expected && `The tag is ${tag}, and package.json says ${expected}`,
    tag !== undefined && !tagsHere.includes(tag) && `The tag ${tag} is not that of the commit that is checked out`
  ]
  return found.filter((problem) => problem !== false)
}

const git = (...args: ReadonlyArray<string>) => execFileSync("git", [...args], { cwd: root, encoding: "utf8" })

const lines = (text: string) => text.split("\n").filter((line) => line !== "")

const json = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"))

const factsOf = (tag: string | undefined): Facts => ({
  manifest: json("package.json"),
  locked: json("package-lock.json").version,
  changelog: readFileSync(join(root, "CHANGELOG.md"), "utf8"),
  status: git("status", "--porcelain"),
  tags: lines(git("tag", "--list")),
  tagsHere: lines(git("tag", "--points-at", "HEAD")),
  tag
})

const succeed = (text: string) => {
  if (text !== "") throw new Error(text)
}

const pack = async (out: string): Promise<string> => {
  mkdirSync(out, { recursive: true })
  const ended = await npm(["pack", "--json", "--silent", "--pack-destination", out], {
    cwd: root,
    timeoutMillis: 300_000
  })
  succeed(failure(ended))
  const [packed] = JSON.parse(ended.stdout.slice(ended.stdout.indexOf("[\n"))) as [{ readonly filename: string }]
  return join(out, packed.filename)
}

const check = (tag: string | undefined): void => {
  const found = problems(factsOf(tag))
  if (found.length > 0) throw new Error(`This cannot be released:\n${found.map((one) => `- ${one}`).join("\n")}`)
}

const packAndLint = async (tag: string | undefined, folder: string): Promise<void> => {
  const { manifest } = factsOf(tag)
  const out = join(root, folder)
  if (existsSync(out)) throw new Error(`${folder} is there already: what is published should be what is packed now`)
  const tarball = await pack(out)
  succeed((await lint(tarball)).join("\n"))
  const hash = createHash("sha512").update(readFileSync(tarball)).digest("base64")
  console.log(`${relative(root, tarball)}\nsha512 ${hash}`)
  if (tag === undefined) {
    console.log(`All is well. Now: git tag -s v${manifest.version} && git push origin main v${manifest.version}`)
  }
}

const main = async (): Promise<void> => {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { tag: { type: "string" }, out: { type: "string", default: "release" } }
  })
  if (positionals[0] === "check") return check(values.tag)
  if (positionals[0] === "pack") return packAndLint(values.tag, values.out)
  throw new Error("usage: npm run release [-- --tag vX.Y.Z] [--out FOLDER]")
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
