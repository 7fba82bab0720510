/**
 * Reports as text, for people.
 */
import * as Duration from "effect/Duration"
import { printable } from "../validation/printValue.js"
import type { Explained, Finding, Level, Report, Server } from "./report.js"

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const none = "-"

const addressOf = ({ database, host, port }: Server): string => {
  const at = host?.includes(":") === true ? `[${host}]` : (host ?? "(PGHOST)")
  return `${at}${port === undefined ? "" : `:${port}`}${database === undefined ? "" : `/${database}`}`
}

const bytesOf = (bytes: number): string => {
  if (bytes < 10_240) return `${bytes} B`
  return bytes < 10_485_760 ? `${Math.round(bytes / 1_024)} KiB` : `${Math.round(bytes / 1_048_576)} MiB`
}

const lagOf = ({ lag, role, state }: Server): string => {
  if (lag === undefined) return role === "replica" && state !== "down" ? "?" : none
  if (lag.bytes === 0) return "0"
  const time = Duration.format(Duration.millis(Math.round(lag.millis)))
  return `${bytesOf(lag.bytes)}, ${lag.caughtUp ? time : `up to ${time}`}`
}

const skewOf = ({ skew }: Server): string =>
  skew === undefined ? none : `${skew.millis > 0 ? "+" : ""}${skew.millis}±${skew.uncertainty} ms`

const connectionsOf = ({ connections, pool }: Server, instances: number): string => {
  const own = pool === undefined ? "?" : instances === 1 ? `${pool}` : `${instances}×${pool}`
  return connections === undefined ? own : `${own} of ${connections.available}, ${connections.inUse} in use`
}

const rowOf = (server: Server, instances: number): ReadonlyArray<string> => [
  server.name,
  server.group,
  addressOf(server),
  server.state,
  server.role ?? none,
  server.version ?? none,
  server.timeline === undefined ? none : String(server.timeline),
  lagOf(server),
  server.roundTrip === undefined ? none : `${server.roundTrip.toFixed(1)} ms`,
  skewOf(server),
  connectionsOf(server, instances)
]

const head = [
  "SERVER",
  "GROUP",
  "ADDRESS",
  "STATE",
  "ROLE",
  "VERSION",
  "TIMELINE",
  "LAG",
  "ANSWER",
  "CLOCK",
  "CONNECTIONS"
]

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`

const marks: Readonly<Record<Level, string>> = { problem: "✗ problem", warning: "! warning", ok: "✓ ok" }
const markWidth = 11

const line = ({ level, message, remedy }: Finding, engines: ReadonlyArray<string>): string => {
  const about = engines.length === 0 ? "" : `${engines.join(", ")}: `
  const what = `${marks[level].padEnd(markWidth)}${printable(`${about}${message}`)}`
  return remedy === undefined ? what : `${what}\n${" ".repeat(markWidth)}→ ${printable(remedy)}`
}

/** What is said of several servers in the same words is said once. */
const grouped = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> => {
  const groups = new Map<string, { readonly first: Finding; readonly engines: Array<string> }>()
  for (const finding of findings) {
    const key = JSON.stringify([finding.level, finding.code, finding.message, finding.remedy])
    const group = groups.get(key) ?? { first: finding, engines: [] }
    groups.set(key, group)
    if (finding.engine !== undefined) group.engines.push(finding.engine)
  }
  return [...groups.values()].map(({ engines, first }) => line(first, engines))
}

/** The settings of all servers that have told theirs. */
const settingsOf = (servers: ReadonlyArray<Server>): ReadonlyArray<ReadonlyArray<string>> => {
  const known = servers.filter(({ settings }) => Object.keys(settings).length > 0)
  const names = [...new Set(known.flatMap(({ settings }) => Object.keys(settings)))]
  return known.length === 0
    ? []
    : [
        ["SETTING", ...known.map(({ name }) => name)],
        ...names.map((name) => [name, ...known.map(({ settings }) => settings[name] || none)])
      ]
}

export const report = ({ findings, healthy, instances, primary, servers }: Report): string => {
  const count = (level: Level) => findings.filter((finding) => finding.level === level).length
  return [
    table([head, ...servers.map((server) => rowOf(server, instances))].map((row) => row.map(printable))),
    table(settingsOf(servers).map((row) => row.map(printable))),
    grouped(findings).join("\n"),
    `${healthy ? "Healthy" : "Not healthy"}: ${counted(count("problem"), "problem")}, ${counted(count("warning"), "warning")}; ` +
      (primary === undefined ? "no server takes the writes" : `${printable(primary)} takes the writes`)
  ]
    .filter((part) => part !== "")
    .join("\n\n")
}

const oneLine = (sql: string): string => printable(sql.replace(/\s+/g, " ").trim())

const routeOf = ({ error, route }: Explained): string => {
  if (route === undefined) return `fails: ${error}`
  const { engine, group, kind, observed, reason } = route
  const otherwise = observed === undefined ? "" : `; would go to ${observed.group}/${observed.engine}`
  return `${group}/${engine} (${kind}: ${reason}${otherwise})`
}

export const explained = (statements: ReadonlyArray<Explained>): string =>
  statements.map((one) => `${oneLine(one.sql)}\n  → ${printable(routeOf(one))}`).join("\n")
