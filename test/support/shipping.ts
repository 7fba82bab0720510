import { readFileSync } from "node:fs"
import { join } from "node:path"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { entries, manifest, root } from "./package.js"
import { node } from "./run.js"

const attw = join(root, "node_modules", "@arethetypeswrong", "cli", "dist", "index.js")

/** What the linters of packages say against a tarball, suggestions included; nothing where all is well. */
export const lint = async (tarball: string): Promise<ReadonlyArray<string>> => {
  const bytes = readFileSync(tarball)
  const pack = { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer }
  const { messages, pkg } = await publint({ pack, strict: true })
  // By default it leaves out what `exports` has as a pattern, which is nearly all.
  const named = entries.map((entry) => entry.replace(manifest.name, "."))
  const args = [attw, tarball, "--profile", "esm-only", "--no-emoji", "--no-color", "--entrypoints", ...named]
  const typed = await node(args, { cwd: root, timeoutMillis: 120_000 })
  return [
    ...messages.map((message) => `publint: ${formatMessage(message, pkg) ?? message.code}`),
    ...(typed.status === 0 ? [] : [`attw: ${typed.stdout}${typed.stderr}`])
  ]
}
