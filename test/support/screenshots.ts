/**
 * `npm run screenshots`: starts the demo, takes its primary away, and takes the pictures of the README while it does.
 */
import { spawn } from "node:child_process"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import type { Page } from "playwright-core"
import * as Chromium from "./chromium.js"
import { root } from "./package.js"

const folder = join(root, "examples/demo/screenshots")

/** The demo until the scope closes, and the address of its page. */
const demo = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = spawn(process.execPath, ["--import", "tsx", "examples/demo/main.ts"], {
        cwd: root,
        stdio: ["ignore", "pipe", "inherit"]
      })
      const url = await new Promise<string>((resolve, reject) => {
        let text = ""
        child.stdout.setEncoding("utf8").on("data", (more: string) => {
          text += more
          const found = /Status page: (\S+)/.exec(text)?.[1]
          if (found !== undefined) resolve(found)
        })
        child.once("close", () => reject(new Error(`The demo has ended:\n${text}`)))
      })
      return { child, url }
    }),
    ({ child }) =>
      Effect.promise(
        () =>
          new Promise<void>((resolve) => {
            child.once("close", () => resolve())
            child.kill("SIGINT")
          })
      )
  ),
  ({ url }) => url
)

const shoot = (page: Page, name: string, height: number) =>
  Effect.promise(async () => {
    const { width = 0 } = page.viewportSize() ?? {}
    await page.screenshot({ path: join(folder, `${name}.png`), clip: { x: 0, y: 0, width, height }, fullPage: true })
  })

const press = (page: Page, name: string) =>
  Effect.promise(async () => {
    await page.getByRole("button", { name, exact: true }).click()
    await page.mouse.move(0, 0)
    await page.locator("body:not(.busy)").waitFor()
  })

const program = Effect.gen(function* () {
  yield* Effect.promise(() => mkdir(folder, { recursive: true }))
  const url = yield* demo
  const browser = yield* Chromium.launch
  const open = (colorScheme: "light" | "dark", width: number) =>
    Effect.promise(async () => {
      const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme, reducedMotion: "reduce" })
      await page.goto(url)
      return page
    })
  const light = yield* open("light", 1100)
  const dark = yield* open("dark", 1100)
  const phone = yield* open("dark", 390)
  yield* Effect.sleep("35 seconds")
  yield* shoot(light, "light", 840)
  yield* shoot(dark, "dark", 840)
  yield* press(light, "Kill primary")
  yield* Effect.sleep("3 seconds")
  yield* press(light, "Promote replica1")
  yield* Effect.sleep("8 seconds")
  yield* shoot(light, "failover", 1040)
  yield* shoot(phone, "phone", 844)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
