import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { PoolStatus } from "../../Engine.js"
import type * as Health from "../../Health.js"
import type { DbRouter, EngineStatus } from "../client/service.js"
import { type Decided, Journal, type Kept, type Traffic } from "./journal.js"

/** Something that can be done to a server. */
export interface Action {
  readonly label: string
  readonly run: Effect.Effect<unknown, unknown>
}

/** What the page and the JSON are made by. */
export interface Policy {
  readonly operations: boolean
  readonly texts: boolean | "masked"
  /** The hosts that requests may be for, beside addresses and `localhost`; `undefined` for any. */
  readonly hosts: ReadonlySet<string> | undefined
  readonly title: string
  readonly description: string | undefined
  /** In milliseconds. */
  readonly refresh: number
  readonly actions: (engine: EngineStatus) => ReadonlyArray<Action>
}

/** A server, as `status.json` has it. What is not known is not there. */
export interface Server {
  readonly name: string
  readonly group: string
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly eligible: boolean
  readonly state: Health.Shown
  readonly reason?: string | undefined
  readonly since?: number | undefined
  readonly role?: Health.Report["role"] | undefined
  readonly lag?: { readonly millis: number; readonly bytes: number } | undefined
  readonly inFlight: number
  readonly latency: number
  readonly pool: PoolStatus
  /** The statements that were sent to it since `since` of the status. */
  readonly traffic: Traffic
  /** The labels of the actions that there are for it now. */
  readonly actions: ReadonlyArray<string>
}

/** What `status.json` has. */
export interface Status {
  readonly title: string
  readonly description?: string | undefined
  /** In milliseconds of the clock. */
  readonly at: number
  /** Since when statements, decisions and events are recorded, in milliseconds of the clock. */
  readonly since: number
  /** How often the page asks again, in milliseconds. */
  readonly refresh: number
  /** Whether `drain` and `undrain` are there. */
  readonly operations: boolean
  /** The name of the engine that takes the writes; not there while none does. */
  readonly writer?: string | undefined
  readonly engines: ReadonlyArray<Server>
  readonly decisions: ReadonlyArray<Decided>
  /** The newest first. */
  readonly events: ReadonlyArray<Health.Event>
}

const serverOf = (engine: EngineStatus, traffic: Traffic, policy: Policy): Server => ({
  ...engine,
  lag: engine.lag && { millis: engine.lag.millis, bytes: Number(engine.lag.bytes) },
  traffic,
  actions: policy.actions(engine).map(({ label }) => label)
})

/** How everything is now. */
export const take = (router: DbRouter, policy: Policy): Effect.Effect<Status> =>
  Effect.gen(function* () {
    const journal = yield* Journal.of(router)
    const engines = yield* router.status
    const trafficOf = journal.traffic(new Set(engines.map(({ name }) => name)))
    const { defaultGroup } = router.runner.router
    const decisions = journal.decisions()
    return {
      title: policy.title,
      description: policy.description,
      at: yield* Clock.currentTimeMillis,
      since: journal.since,
      refresh: policy.refresh,
      operations: policy.operations,
      writer: engines.find(({ eligible, group }) => eligible && group === defaultGroup.name)?.name,
      engines: engines.map((engine) => serverOf(engine, trafficOf(engine.name), policy)),
      decisions: policy.texts === false ? withoutTexts(decisions) : decisions.map(withText(policy.texts)),
      events: journal.events.toReversed()
    }
  })

const withText =
  (texts: true | "masked") =>
  ({ masked, sql, ...decision }: Kept): Decided => ({ ...decision, sql: texts === true ? sql : masked })

/** One for each kind and reason. */
const withoutTexts = (decisions: ReadonlyArray<Kept>): ReadonlyArray<Decided> => {
  const latest = new Map<string, Decided>()
  for (const { masked: _, sql: __, ...decision } of decisions) {
    const key = `${decision.kind} ${decision.reason}`
    const known = latest.get(key)
    const last = known === undefined || known.last < decision.last ? decision : known
    latest.set(key, { ...last, id: known?.id ?? decision.id })
  }
  return [...latest.values()]
}
