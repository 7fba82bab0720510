/**
 * Runs a day of a fleet on simulated servers, and prints what it costs them.
 *
 *   npm run fleet                               300 routers, 8 replicas
 *   npm run fleet -- --routers 1000 --rate 5    with so many requests a second from each
 *   npm run fleet -- --json                     the figures as data
 */
import { mkdir, readFile, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { loadModule } from "libpg-query"
import { stopClocks } from "./Globals.js"

const { values } = parseArgs({
  options: {
    routers: { type: "string", default: "300" },
    replicas: { type: "string", default: "8" },
    rate: { type: "string", default: "10" },
    connections: { type: "string", default: "10" },
    steady: { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    json: { type: "boolean", default: false }
  }
})

await loadModule()
const go = stopClocks()
const { runFleet } = await import("./Fleet.js")
const { print } = await import("./FleetReport.js")
const { record } = await import("./Recorder.js")
const { unknownTexts, useRecordings } = await import("./Statement.js")
go()

const cached = fileURLToPath(new URL("../../node_modules/.cache/simulation/recordings.json", import.meta.url))
const recorded = fileURLToPath(new URL("recordings.json", import.meta.url))
for (const file of [recorded, cached]) useRecordings(JSON.parse(await readFile(file, "utf8").catch(() => "[]")))

const smallest = { seed: "warm", routers: 1, replicas: 1, rate: 1, maxConnections: 1, steady: 1 }
// The library may ask what was never recorded.
await runFleet(smallest).catch(() => {})
if (unknownTexts.size > 0) {
  const recordings = await record([...unknownTexts])
  await mkdir(dirname(cached), { recursive: true })
  await writeFile(cached, JSON.stringify(recordings))
  useRecordings(recordings)
}

const began = performance.now()
const figures = await runFleet({
  seed: values.seed,
  routers: Number(values.routers),
  replicas: Number(values.replicas),
  rate: Number(values.rate),
  maxConnections: Number(values.connections),
  steady: Number(values.steady)
})
if (values.json) console.log(JSON.stringify(figures))
else print(figures, performance.now() - began)
