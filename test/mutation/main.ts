/**
 * Changes the pure parts of the sources, one place at a time, and counts the changes that their tests notice (Stryker):
 *
 *   npm run mutate                   all rooms
 *   npm run mutate -- election       one of them
 *
 * Fails where a room has fewer than 85% killed. Survivors are printed; those that no test can kill are in `rooms.ts`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Console, Effect } from "effect"
import { runMain } from "../support/main.js"
import { root } from "../support/package.js"
import { node } from "../support/run.js"
import { equivalents, type MutatedRoom, mutatedRooms } from "./rooms.js"
import { type Report, type Score, scoreOf } from "./Score.js"

const least = 85

/** Runs Stryker over a room. It works on a copy of the repository, in a folder that it removes. */
const mutate = async ({ mutate, tests }: MutatedRoom): Promise<Score> => {
  const folder = mkdtempSync(join(tmpdir(), "effect-db-router-mutate-"))
  try {
    const report = join(folder, "report.json")
    const config = join(folder, "stryker.json")
    writeFileSync(
      config,
      JSON.stringify({
        mutate,
        testRunner: "vitest",
        plugins: ["@stryker-mutator/vitest-runner"],
        vitest: { configFile: "test/mutation/vitest.config.ts" },
        coverageAnalysis: "perTest",
        concurrency: 1,
        timeoutMS: 20_000,
        ignorePatterns: ["dist", "docs", "examples", "release"],
        reporters: ["json"],
        jsonReporter: { fileName: report },
        thresholds: { high: 100, low: least, break: null },
        allowEmpty: false
      })
    )
    const stryker = join(root, "node_modules/@stryker-mutator/core/bin/stryker.js")
    const ended = await node([stryker, "run", config], {
      cwd: root,
      timeoutMillis: 3_600_000,
      env: { MUTATE_TESTS: tests.join(",") }
    })
    if (ended.status !== 0) throw new Error(`Stryker ended with ${ended.status}:\n${ended.stdout}${ended.stderr}`)
    return scoreOf(JSON.parse(readFileSync(report, "utf8")) as Report, equivalents)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

runMain(
  Effect.gen(function* () {
    const { positionals } = parseArgs({ allowPositionals: true })
    const names = positionals.length === 0 ? Object.keys(mutatedRooms) : positionals
    const unknown = names.filter((name) => !(name in mutatedRooms))
    if (unknown.length > 0) {
      return yield* Effect.fail(new Error(`No such room: ${unknown}. There are ${Object.keys(mutatedRooms)}`))
    }
    const low: Array<string> = []
    for (const name of names) {
      const { explained, killed, percent, survivors } = yield* Effect.tryPromise({
        try: () => mutate(mutatedRooms[name]!),
        catch: (error) => (error instanceof Error ? error : new Error(String(error)))
      })
      for (const survivor of survivors) yield* Console.log(`survived: ${survivor}`)
      yield* Console.log(
        `${name}: ${percent.toFixed(1)}%, ${killed} killed, ${survivors.length} survived, ${explained} explained`
      )
      if (percent < least) low.push(name)
    }
    if (low.length > 0) return yield* Effect.fail(new Error(`Fewer than ${least}% were killed in ${low}`))
  })
)
