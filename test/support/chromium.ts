import { execFile } from "node:child_process"
import { accessSync, constants, existsSync } from "node:fs"
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { delimiter, join } from "node:path"
import { promisify } from "node:util"
import { Effect, type Scope } from "effect"
import { type Browser, chromium } from "playwright-core"
import { root } from "./package.js"

/** How to start a Chromium. */
interface Program {
  readonly executablePath: string
  readonly env?: Record<string, string>
}

const run = promisify(execFile)

const names = ["chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable"]

const places = [
  ...(process.env.PATH ?? "").split(delimiter).flatMap((folder) => names.map((name) => join(folder, name))),
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium"
]

const isProgram = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const packed = "@sparticuz/chromium@143.0.4"

const cache = join(root, "node_modules/.cache/effect-db-router-chromium-143.0.4")

const inCache: Program = {
  executablePath: join(cache, "unpacked/chromium"),
  env: { LD_LIBRARY_PATH: join(cache, "unpacked/al2023/lib"), FONTCONFIG_PATH: join(cache, "unpacked/fonts") }
}

/** A headless Chromium that a package of npm holds, with the libraries that it needs, for Linux on x64. */
const fromNpm = async (): Promise<Program> => {
  if (existsSync(inCache.executablePath)) return inCache
  await mkdir(join(cache, ".."), { recursive: true })
  const folder = await mkdtemp(`${cache}-`)
  try {
    await writeFile(join(folder, "package.json"), `{ "private": true, "type": "module" }`)
    await run("npm", ["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", packed], { cwd: folder })
    const unpacked = join(folder, "unpacked")
    await mkdir(unpacked)
    const unpack = `import chromium from "@sparticuz/chromium"\nawait chromium.executablePath()\n`
    await writeFile(join(folder, "unpack.js"), unpack)
    // It unpacks into the folder for temporary files, and its libraries where it thinks that there are none.
    const env = { ...process.env, TMPDIR: unpacked, AWS_LAMBDA_JS_RUNTIME: "nodejs22.x" }
    await run(process.execPath, ["unpack.js"], { cwd: folder, env })
    await rm(join(folder, "node_modules"), { recursive: true })
    await rename(folder, cache)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return inCache
}

/** The build that playwright-core has made for this machine. */
const fromPlaywright = async (): Promise<Program> => {
  const cli = join(root, "node_modules/playwright-core/cli.js")
  await run(process.execPath, [cli, "install", "chromium-headless-shell"])
  return { executablePath: chromium.executablePath() }
}

const find = async (): Promise<Program> => {
  const named = process.env.CHROMIUM
  if (named !== undefined && named !== "") return { executablePath: named }
  const installed = places.find(isProgram)
  if (installed !== undefined) return { executablePath: installed }
  if (existsSync(chromium.executablePath())) return { executablePath: chromium.executablePath() }
  try {
    return await (process.platform === "linux" && process.arch === "x64" ? fromNpm() : fromPlaywright())
  } catch (cause) {
    throw new Error(
      "There is no Chromium, and none could be fetched: install one (Debian: apt-get install chromium), or name its program in CHROMIUM",
      { cause }
    )
  }
}

/**
 * A headless Chromium until the scope closes: the one that `CHROMIUM` names, one that is installed, or one that is fetched
 * for this checkout.
 */
export const launch: Effect.Effect<Browser, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const { env, executablePath } = await find()
    return await chromium.launch({
      executablePath,
      // Root has no sandbox to give, and containers have little shared memory.
      args: [...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), "--disable-dev-shm-usage"],
      env: { ...(process.env as Record<string, string>), ...env }
    })
  }),
  (browser) => Effect.promise(() => browser.close())
)
