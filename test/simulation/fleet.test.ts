import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, beforeAll, describe, it } from "vitest"
import type { Figures } from "./Fleet.js"

const run = promisify(execFile)

const routers = 24
const replicas = 3
const servers = replicas + 1

// All of it is virtual time and chance from a seed: a slow machine changes nothing.
describe("a fleet", () => {
  let figures: Figures

  beforeAll(async () => {
    const options = ["--routers", routers, "--replicas", replicas, "--rate", 10, "--steady", 30, "--json"].map(String)
    const { stdout } = await run(process.execPath, ["--import", "tsx", "test/simulation/fleetCommand.ts", ...options], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      maxBuffer: 2 ** 26
    })
    figures = JSON.parse(stdout)
  }, 600_000)

  it("fails in a failover, a comeback and a deploy only what the primary ran when it crashed", () => {
    assert.isAbove(figures.requests, 10_000)
    // Writes without an answer, which must not be repeated.
    assert.isAtMost(figures.failed, 3)
  })

  it("has one connection for each router and server when idle", () => {
    // One that reads the catalog again, once a minute, has two until its next probe.
    assert.isAtMost(figures.idle.connections.most, 1.1 * routers)
    assert.isAtMost(figures.idle.connections.all, 1.02 * routers * servers)
  })

  it("has none for probes alone under load", () => {
    const { all, probes } = figures.load.connections
    assert.isBelow(probes / all, 0.01)
    // The traffic of one router is one statement at a time, nearly always.
    assert.isBelow(all / (routers * servers), 1.1)
  })

  it("probes less than once for a hundred statements", () => {
    const { probe, work } = figures.load.statements
    assert.isBelow(probe / work, 0.01)
  })

  it("spreads its connections after a failover, at most ten a second from a router", () => {
    const { second, tenth } = figures.failover.attempts
    assert.isAtMost(second.one, 10)
    assert.isAtMost(tenth.all, 2 * routers)
    assert.isAtMost(second.all, 10 * routers)
  })

  it("writes to the new primary soon after its promotion", () => {
    assert.isDefined(figures.failover.wrote)
    assert.isBelow(figures.failover.wrote!, 2_000)
  })

  it("sends a replica that has come back more and more", () => {
    const { fair, shares } = figures.comeBack
    const average = (from: number, to: number) =>
      shares.slice(from, to).reduce((sum, share) => sum + share, 0) / (to - from)
    assert.isBelow(average(0, 3), fair / 3)
    assert.isBelow(average(3, 6), (2 * fair) / 3)
    assert.approximately(average(15, shares.length), fair, fair / 10)
  })
})
