/** Prints the figures of a fleet. */
import type { Figures } from "./Fleet.js"

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)}%`

const round = (number: number): string => number.toFixed(number < 10 ? 1 : 0)

export const print = (figures: Figures, millis: number): void => {
  const { comeBack, deploy, failover, idle, load, options } = figures
  const { replicas, routers } = options
  const servers = replicas + 1
  const rows: ReadonlyArray<readonly [string, string]> = [
    [
      "connections on a server, idle: most",
      `${idle.connections.most} (${round(idle.connections.most / routers)} a router)`
    ],
    ["connections of a router to a server, idle", (idle.connections.all / routers / servers).toFixed(2)],
    ["probes a second, idle", round(idle.statements.probe)],
    ["statements a second, under load", round(load.statements.work)],
    [
      "probes a second, under load",
      `${round(load.statements.probe)} (${percent(load.statements.probe / load.statements.work)})`
    ],
    [
      "questions for positions a second, under load",
      `${round(load.statements.question)} (${percent(load.statements.question / load.statements.work)})`
    ],
    [
      "connections on a server, under load: most",
      `${load.connections.most} (${round(load.connections.most / routers)} a router)`
    ],
    ["connections of a router to a server, under load", (load.connections.all / routers / servers).toFixed(2)],
    ["of these, of probes alone", (load.connections.probes / routers / servers).toFixed(3)],
    [
      "failover: attempts to connect in any 100 ms",
      `${failover.attempts.tenth.all}, ${failover.attempts.tenth.one} from one router`
    ],
    [
      "failover: attempts to connect in any second",
      `${failover.attempts.second.all}, ${failover.attempts.second.one} from one router`
    ],
    ["failover: connections on a server: most", String(failover.connections.most)],
    [
      "failover: 99% of the routers write after the promotion within",
      failover.wrote === undefined ? "never" : `${(failover.wrote / 1000).toFixed(2)} s`
    ],
    [
      "a replica comes back: its share of the reads, each second",
      `${comeBack.shares.map((share) => percent(share)).join(" ")} (fair: ${percent(comeBack.fair)})`
    ],
    [
      "deploy: attempts to connect in any 100 ms",
      `${deploy.attempts.tenth.all}, ${deploy.attempts.tenth.one} from one router`
    ],
    ["deploy: connections on a server: most", String(deploy.connections.most)],
    ["requests", `${figures.requests}, ${figures.failed} of them failed`]
  ]
  console.log(
    `${routers} routers, one primary, ${replicas} replicas, ${options.rate} requests a second from each, seed ${options.seed}`
  )
  console.log("| what | |\n| --- | --- |")
  for (const [what, figure] of rows) console.log(`| ${what} | ${figure} |`)
  console.log(`${round(figures.time)} virtual seconds in ${round(millis / 1000)} seconds`)
}
