/**
 * What has to be true of a pass, and what was seen instead.
 */
import type { EngineReport, Report } from "./Report.js"

/** A report after the end of the traffic, with the answers to the queries that follow it. */
export interface Evidence extends Report {
  /** The group of the standbys; `undefined` when there are none. */
  readonly readGroup: string | undefined
  /** The demo is the only client of the servers, so every transaction there is one of its own. */
  readonly exclusive: boolean
  /** The orders that later requests asked for, and how many of them came back as they were placed. */
  readonly again: { readonly asked: number; readonly found: number }
  /** The number of these orders on each server, counted there directly. */
  readonly ordersOn: ReadonlyMap<string, number>
}

export interface Check {
  readonly name: string
  /** Empty when it passed. */
  readonly problems: ReadonlyArray<string>
  /** The findings. */
  readonly detail: string
}

const sum = (engines: ReadonlyArray<EngineReport>, of: (engine: EngineReport) => number) =>
  engines.reduce((total, engine) => total + of(engine), 0)

const when = (condition: boolean, problem: string): ReadonlyArray<string> => (condition ? [problem] : [])

const number = (n: number) => n.toLocaleString("en-US")

/** By the spans and by the servers: rows of the shop were written on primaries only. */
const noWriteOnStandby = ({ engines, exclusive, readGroup, tally }: Evidence): Check => {
  const standbys = engines.filter(({ server }) => server.standby)
  const primaries = engines.filter(({ server }) => !server.standby)
  const rows = sum(primaries, ({ server }) => server.rowsWritten)
  return {
    name: "no write reached a standby",
    problems: [
      ...standbys.flatMap(({ name, server, use }) => [
        ...when(use.writes > 0, `${name} is a standby and got ${number(use.writes)} statements that are not reads`),
        ...when(server.rowsWritten > 0, `${name} has counted ${number(server.rowsWritten)} written rows`),
        // What a standby refuses is a transaction that it rolls back; what its replay cancels is not counted.
        ...when(exclusive && server.rolledBack > 0, `${name} has refused or rolled back ${number(server.rolledBack)}`)
      ]),
      ...engines
        .filter(({ group, server }) => group === readGroup && !server.standby)
        .map(({ name }) => `${name} is in the group of the standbys and is none`),
      ...when(rows < tally.placed, `the primary has counted ${number(rows)} written rows only`)
    ],
    detail: `${number(rows)} rows on the primary, 0 on standbys`
  }
}

/** By the spans and by the servers: each standby took part. */
const standbysServedReads = ({ engines, readGroup }: Evidence): Check => {
  const standbys = engines.filter(({ group }) => group === readGroup)
  return {
    name: "every standby served reads",
    problems: standbys.flatMap(({ name, server, use }) => [
      ...when(use.reads === 0, `no read was sent to ${name}`),
      ...when(server.scans === 0, `${name} has not looked into the shop's tables`)
    ]),
    detail:
      standbys.length === 0
        ? "there is none"
        : standbys.map(({ name, use }) => `${name} ${number(use.reads)}`).join(", ")
  }
}

const writesWereReadBack = ({ again, ordersOn, tally }: Evidence): Check => ({
  name: "what was written was read back",
  problems: [
    ...when(tally.placed === 0, "no order was placed"),
    ...when(
      tally.foundAtOnce !== tally.placed,
      `${number(tally.placed - tally.foundAtOnce)} of ${number(tally.placed)} orders were not found by their own request`
    ),
    ...when(again.asked === 0, "no order was asked for again"),
    ...when(
      again.found !== again.asked,
      `${number(again.asked - again.found)} of ${number(again.asked)} orders were not found by a later request`
    ),
    ...Array.from(ordersOn)
      .filter(([, found]) => found !== again.asked)
      .map(([name, found]) => `${name} has ${number(found)} of ${number(again.asked)} orders`)
  ],
  detail: `${number(tally.placed)} orders: at once, later, on every server`
})

/** The order that a request has placed is looked for at once, on any server that has it by then. */
const standbysServedOwnWrites = ({ engines, readGroup }: Evidence): Check => {
  const standbys = engines.filter(({ group }) => group === readGroup)
  const reads = sum(engines, ({ use }) => use.readsAfterWrites)
  const there = sum(standbys, ({ use }) => use.readsAfterWrites)
  return {
    name: "standbys served reads of own writes",
    problems: when(standbys.length > 0 && there === 0, `all ${number(reads)} reads after a write went to the primary`),
    detail:
      standbys.length === 0
        ? "there is none"
        : `${number(there)} of ${number(reads)} reads in requests that had written`
  }
}

/** Every statement went to one engine, and that engine's server knows of it. */
const sumsAddUp = ({ engines, statements, unrouted }: Evidence): Check => {
  const reads = sum(engines, ({ use }) => use.reads)
  const writes = sum(engines, ({ use }) => use.writes)
  return {
    name: "the sums add up",
    problems: [
      ...when(statements === 0, "no statement was seen"),
      ...when(unrouted > 0, `${number(unrouted)} statements went to an unknown server`),
      ...when(
        reads + writes !== statements,
        `${number(statements)} statements, but ${number(reads)} reads and ${number(writes)} others on the servers`
      ),
      ...engines
        .filter(({ server, use }) => server.committed < use.committed)
        .map(
          ({ name, server, use }) =>
            `${name} has counted ${number(server.committed)} transactions, less than the ${number(use.committed)} sent to it`
        )
    ],
    detail: `${number(statements)} statements: ${number(reads)} reads + ${number(writes)} others`
  }
}

const requestsSucceeded = ({ tally }: Evidence): Check => ({
  name: "no request failed",
  problems: when(tally.failed > 0, `${number(tally.failed)} failed, the last one with ${tally.failure}`),
  detail: ""
})

/** All checks, the failed ones among them. */
export const run = (evidence: Evidence): ReadonlyArray<Check> =>
  [
    noWriteOnStandby,
    standbysServedReads,
    standbysServedOwnWrites,
    writesWereReadBack,
    sumsAddUp,
    requestsSucceeded
  ].map((check) => check(evidence))
