/** What a session of a server keeps, is told, and ends with. */
import { Effect } from "effect"
import { open, scenario, type Scenario, until } from "../Site.js"
import type { Probe } from "../Probe.js"

const each = (probe: Probe, ...sqls: ReadonlyArray<string>) => Effect.forEach(sqls, probe.simple)

/** What an attempt to connect fails with. */
export const refusal = (error: unknown): unknown => {
  if (typeof error !== "object" || error === null) return error
  const { code, message, routine, severity } = error as Readonly<Record<string, unknown>>
  return routine === undefined ? { code, ...(code === undefined ? { message } : {}) } : { code, message, routine, severity }
}

const active = (watcher: Probe, { pid }: Probe) =>
  until(watcher.values(`SELECT state FROM pg_stat_activity WHERE pid = ${pid}`), ([state]) => state === "active")

export const sessions: ReadonlyArray<Scenario> = []
void [each, active, scenario, open]
