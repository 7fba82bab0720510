/**
 * `npm run soak`: what users of a router notice while servers fail, lag and move, measured under load on a real cluster.
 */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Console, Effect } from "effect"
import { runMain } from "../support/main.js"
import * as Arguments from "./Arguments.js"
import { external, rows } from "./rows/index.js"
import { run } from "./Soak.js"

/** How long the process may take to end by itself when everything is closed. */
const exitMillis = 10_000

/** Does not keep the process running: it only sees that something else does. */
const endsByItself = Effect.sync(() => {
  setTimeout(() => {
    console.error(`The process does not end by itself: ${process.getActiveResourcesInfo().join(", ")}`)
    process.exit(1)
  }, exitMillis).unref()
})

const all = [...rows, ...external]

/**
 * `npm run soak -- fuzz`: conversations with a server, changed in every way. `npm run soak -- endings`: units of work that are
 * interrupted at every stage, on servers that answer late or never.
 */
const others = ["fuzz", "endings"]

const other = (name: string) =>
  Effect.async<boolean>((resume) => {
    const file = fileURLToPath(new URL(`../${name}/main.ts`, import.meta.url))
    const child = spawn(process.execPath, ["--import", "tsx", file, ...process.argv.slice(3)], { stdio: "inherit" })
    child.on("close", (code) => resume(Effect.succeed(code === 0)))
    return Effect.sync(() => child.kill())
  })

const rowsOf = Effect.try({
  try: () => Arguments.parse(process.argv.slice(2), all),
  catch: (error) => error as Error
}).pipe(Effect.flatMap((options) => (options.help ? Effect.as(Console.log(Arguments.help(all)), true) : run(options))))

const main = Effect.suspend(() => {
  const name = process.argv[2] ?? ""
  return others.includes(name) ? other(name) : rowsOf
}).pipe(
  Effect.flatMap((met) =>
    Effect.sync(() => {
      if (!met) process.exitCode = 1
    })
  ),
  Effect.zipLeft(endsByItself)
)

runMain(main)
