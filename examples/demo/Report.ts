/**
 * What has happened so far: what the users saw, what the spans say, what the servers say.
 */
import { Effect, Option } from "effect"
import { type Decision, Observations, type Use, unused } from "./Observations.js"
import { difference, type Look, Servers } from "./Servers.js"
import type { Tally } from "./Traffic.js"

export interface EngineReport {
  readonly name: string
  readonly group: string
  /** Its server has just answered. Until it does again, its counts stay as they were. */
  readonly answers: boolean
  /** By the spans. */
  readonly use: Use
  /** By the server itself. */
  readonly server: Look
}

export interface Report {
  readonly tally: Tally
  readonly statements: number
  readonly unrouted: number
  readonly engines: ReadonlyArray<EngineReport>
  readonly decisions: ReadonlyArray<Decision>
}

const looks = Effect.flatMap(Servers, ({ list }) =>
  Effect.forEach(list, (server) => Effect.option(Effect.timeout(Effect.disconnect(server.look), "2 seconds")), {
    concurrency: "unbounded"
  })
)

/** Remembers what the servers have counted until now, and returns what reports the rest. */
export const begin = Effect.gen(function* () {
  const observations = yield* Observations
  const { list } = yield* Servers
  const before = yield* Effect.forEach(list, (server) => server.look)
  let last = before
  return (tally: Tally) =>
    Effect.gen(function* () {
      const now = yield* looks
      last = now.map((look, i) => Option.getOrElse(look, () => last[i]!))
      const { engines, ...observed } = yield* observations.observed
      const report: Report = {
        ...observed,
        tally,
        engines: list.map(({ group, name }, i) => ({
          name,
          group,
          answers: Option.isSome(now[i]!),
          use: engines.get(name) ?? unused,
          server: difference(before[i]!, last[i]!)
        }))
      }
      return report
    })
})
