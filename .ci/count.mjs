import { readFileSync } from "node:fs"

// Counts what Vitest's JSON report says was run, on one line. A file that failed without a failed test of its own (it
// could not be loaded, or what it sets up failed) counts as one failed.
const report = JSON.parse(readFileSync(process.argv[2], "utf8"))
const broken = report.testResults.filter(
  (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")
)
for (const file of broken) {
  console.log(`failed as a whole: ${file.name}`)
}
const failed = report.numFailedTests + broken.length
const skipped = report.numPendingTests + report.numTodoTests
console.log(`\n${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`)
process.exitCode = report.numPassedTests > 0 && failed === 0 && skipped === 0 ? 0 : 1
