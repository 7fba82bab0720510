import { readFileSync } from "node:fs"
import { commands } from "./readme.js"

// Prints the commands of one marked block of the README, so that `.ci/run` runs what the README tells people to run.
const name = process.argv[2]
if (name === undefined) {
  throw new Error("usage: tsx test/support/readme-commands.ts MARKER")
}
console.log(commands(readFileSync(new URL("../../README.md", import.meta.url), "utf8"), name))
