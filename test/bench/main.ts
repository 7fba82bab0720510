/**
 * `npm run bench`: what the router costs and gains, as ratios from one run in which everything takes turns.
 */
import { register } from "node:module"
import { Console, Effect, Logger } from "effect"
import { runMain } from "../support/main.js"
import * as Arguments from "./Arguments.js"

// What is imported before this would be compiled by something else.
const bench = Effect.promise(() => {
  register("./hooks.ts", import.meta.url)
  return import("./Bench.js")
})

const main = Effect.try({ try: () => Arguments.parse(process.argv.slice(2)), catch: (error) => error as Error }).pipe(
  Effect.flatMap((options) =>
    options.help ? Console.log(Arguments.help) : Effect.flatMap(bench, ({ run }) => run(options))
  ),
  // What servers go through meanwhile is no part of the figures.
  Effect.provide(Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.stringLogger)))
)

runMain(main)
