/** What a run does, as data: made from a seed, and made smaller by leaving parts out. */
import { Chance } from "./Chance.js"

export interface RouterPlan {
  readonly maxConnections: number
  readonly connectTimeout: number | undefined
  readonly scope: "flow" | "process"
  readonly wait: number
  readonly hedge: number | undefined
  readonly prepare: boolean | { readonly maxPerConnection: number }
  readonly strategy: "roundRobin" | "random" | "leastBusy" | "lowestLatency"
  readonly onNoReplica: "primary" | "fail"
  readonly interval: number
}

/** One step of a flow. Registers are numbered from 1. */
export type Op =
  | { readonly _tag: "pause"; readonly millis: number }
  | { readonly _tag: "write"; readonly register: number }
  | { readonly _tag: "read"; readonly register: number }
  | { readonly _tag: "readAll" }
  | { readonly _tag: "insert" }
  /** Reads a register again and again, with pauses. */
  | { readonly _tag: "poll"; readonly register: number; readonly times: number; readonly millis: number }
  /** Many reads at once, of which some are interrupted. */
  | { readonly _tag: "burst"; readonly count: number; readonly interrupted: number; readonly millis: number }
  /** A write that fails by itself. `isCaught`: what it is in goes on. */
  | { readonly _tag: "mistake"; readonly isCaught: boolean }
  | { readonly _tag: "rows"; readonly count: number; readonly take: number }
  | { readonly _tag: "notify" }
  | { readonly _tag: "setLocal" }
  | { readonly _tag: "hooks" }
  | {
      readonly _tag: "session"
      readonly how: "session" | "newSession" | "transaction" | "atomic"
      readonly isolation: "read committed" | "repeatable read" | undefined
      readonly tenant: boolean
      readonly ops: ReadonlyArray<Op>
      readonly end: "succeed" | "fail" | "die"
    }
  | { readonly _tag: "snapshot"; readonly registers: ReadonlyArray<number>; readonly millis: number }
  | { readonly _tag: "tenantReads"; readonly ops: ReadonlyArray<Op> }
  | { readonly _tag: "detached"; readonly ops: ReadonlyArray<Op> }
  | { readonly _tag: "reserve"; readonly register: number }
  | { readonly _tag: "primary" | "replica" | "fresh"; readonly ops: ReadonlyArray<Op> }
  | { readonly _tag: "fork"; readonly how: "all" | "join"; readonly branches: ReadonlyArray<ReadonlyArray<Op>> }
  | { readonly _tag: "race"; readonly branches: ReadonlyArray<ReadonlyArray<Op>> }
  | {
      readonly _tag: "timeout"
      readonly millis: number
      readonly outer: number | undefined
      readonly ops: ReadonlyArray<Op>
    }
  | {
      readonly _tag: "interrupt"
      readonly millis: number
      readonly again: number | undefined
      readonly ops: ReadonlyArray<Op>
    }
  | { readonly _tag: "token"; readonly router: number; readonly ops: ReadonlyArray<Op> }

export interface FlowPlan {
  readonly router: number
  readonly begin: number
  readonly ops: ReadonlyArray<Op>
}

export const faultKinds = [
  "crash",
  "lose host",
  "stop",
  "freeze",
  "partition",
  "refuse",
  "reset",
  "cut",
  "lost answer",
  "slow link",
  "slow server",
  "slow replay",
  "pause replay",
  "conflict",
  "split standby",
  "read-only",
  "terminate",
  "promote",
  "split brain",
  "stall"
] as const

export type FaultKind = (typeof faultKinds)[number]

export interface Fault {
  readonly kind: FaultKind
  readonly at: number
  /** How long until it is healed. */
  readonly millis: number
  /** Which server, counted among those that it can happen to. */
  readonly target: number
  readonly router: number
  readonly seed: string
}

export interface Plan {
  readonly seed: string
  readonly replicas: number
  readonly synchronous: number
  readonly isAsynchronous: boolean
  readonly isPrivileged: boolean
  readonly maxConnections: number
  readonly routers: ReadonlyArray<RouterPlan>
  readonly flows: ReadonlyArray<FlowPlan>
  readonly faults: ReadonlyArray<Fault>
}

export const registers = 6

/** All kinds of steps. */
export const opKinds = Object.keys({
  pause: 0,
  write: 0,
  read: 0,
  readAll: 0,
  insert: 0,
  mistake: 0,
  poll: 0,
  burst: 0,
  rows: 0,
  reserve: 0,
  notify: 0,
  setLocal: 0,
  hooks: 0,
  session: 0,
  snapshot: 0,
  tenantReads: 0,
  detached: 0,
  primary: 0,
  replica: 0,
  fresh: 0,
  fork: 0,
  race: 0,
  timeout: 0,
  interrupt: 0,
  token: 0
} satisfies Record<Op["_tag"], 0>)

const routerPlan = (chance: Chance): RouterPlan => ({
  maxConnections: chance.pick([1, 2, 3, 5, 10]),
  connectTimeout: chance.pick([undefined, undefined, 500, 2000]),
  scope: chance.is(0.2) ? "process" : "flow",
  wait: chance.pick([0, 20, 50, 200]),
  hedge: chance.is(0.3) ? chance.pick([2, 10, 50]) : undefined,
  prepare: chance.pick([true, true, true, false, { maxPerConnection: 2 }]),
  strategy: chance.pick(["roundRobin", "random", "leastBusy", "lowestLatency"]),
  onNoReplica: chance.is(0.9) ? "primary" : "fail",
  interval: chance.pick([500, 1000, 2000])
})

/** Where an op stands: not everything may be everywhere. */
interface Place {
  readonly depth: number
  readonly inSession: boolean
  /** Other fibers of the same session run beside it. */
  readonly isBeside: boolean
  readonly routers: number
  /** Whether a session may need a second connection: where the wait for one is bounded. */
  readonly mayNest: boolean
}

const some = (chance: Chance, least: number, most: number, place: Place): ReadonlyArray<Op> =>
  Array.from({ length: least + chance.below(most - least + 1) }, () => op(chance, place))

const op = (chance: Chance, place: Place): Op => {
  const { depth, inSession, isBeside } = place
  const inner: Place = { ...place, depth: depth + 1 }
  const register = 1 + chance.below(registers)
  const tag = chance.weighted<Op["_tag"]>({
    pause: 3,
    write: isBeside ? 0 : 9,
    read: 14,
    readAll: 2,
    insert: 5,
    mistake: 1,
    poll: inSession ? 0 : 2,
    burst: inSession ? 0 : 2,
    rows: 1,
    reserve: inSession ? 0 : 1,
    notify: inSession ? 0 : 1,
    ...(inSession && !isBeside ? { setLocal: 2, hooks: 3 } : {}),
    ...(depth < 3
      ? {
          session: isBeside ? 0 : inSession ? 3 : 9,
          snapshot: inSession ? 0 : 3,
          tenantReads: inSession ? 0 : 2,
          detached: inSession && place.mayNest ? 1 : 0,
          primary: 1,
          replica: 1,
          fresh: 1,
          fork: 4,
          race: inSession ? 0 : 2,
          timeout: inSession ? 0 : 4,
          interrupt: inSession ? 0 : 4,
          token: inSession ? 0 : 3
        }
      : {})
  })
  switch (tag) {
    case "pause":
      return { _tag: tag, millis: chance.pick([0, 1, 3, 10, 50, 300, 1500]) }
    case "write":
    case "read":
    case "reserve":
      return { _tag: tag, register }
    case "poll":
      return { _tag: tag, register, times: 3 + chance.below(6), millis: chance.pick([0, 1, 5, 30]) }
    case "burst": {
      const count = 4 + chance.below(12)
      return { _tag: tag, count, interrupted: chance.pick([0, 1, 2, count]), millis: chance.between(0, 4) }
    }
    case "mistake":
      return { _tag: tag, isCaught: chance.is(0.5) }
    case "rows": {
      const count = chance.pick([3, 100, 300])
      return { _tag: tag, count, take: chance.is(0.5) ? count : 1 + chance.below(count) }
    }
    case "session": {
      const how = inSession
        ? chance.pick(
            place.mayNest ? (["session", "transaction", "newSession"] as const) : (["session", "transaction"] as const)
          )
        : chance.weighted({ session: 6, newSession: 2, transaction: 4, atomic: 1 })
      const tenant = ((how === "session" && !inSession) || how === "newSession") && chance.is(0.3)
      return {
        _tag: tag,
        how,
        isolation:
          how === "session" && !inSession
            ? chance.pick([undefined, undefined, undefined, "read committed", "repeatable read"])
            : undefined,
        tenant,
        // A row that the session around has locked would be waited for without end.
        ops: some(chance, 1, 5, {
          ...inner,
          inSession: true,
          isBeside: inSession && how === "newSession",
          mayNest: place.mayNest
        }),
        end: chance.weighted({ succeed: 8, fail: 2, die: 1 })
      }
    }
    case "snapshot":
      return {
        _tag: tag,
        registers: Array.from({ length: 2 + chance.below(4) }, () => 1 + chance.below(3)),
        millis: chance.pick([0, 1, 10, 40])
      }
    case "tenantReads":
      return {
        _tag: tag,
        ops: Array.from({ length: 1 + chance.below(3) }, () =>
          op(chance, { ...inner, depth: 9, isBeside: true, inSession: true })
        )
      }
    case "detached":
    case "primary":
    case "replica":
    case "fresh":
      return {
        _tag: tag,
        ops: some(chance, 1, 2, tag === "detached" ? { ...inner, inSession: false, isBeside: true } : inner)
      }
    case "fork":
    case "race": {
      const branches = Array.from({ length: 2 + chance.below(2) }, () =>
        some(chance, 1, 2, { ...inner, isBeside: isBeside || inSession })
      )
      return tag === "fork" ? { _tag: tag, how: chance.pick(["all", "join"]), branches } : { _tag: tag, branches }
    }
    case "timeout":
      return {
        _tag: tag,
        millis: chance.pick([1, 2, 4, 10, 50]),
        outer: chance.is(0.5) ? chance.pick([2, 5, 20]) : undefined,
        ops: some(chance, 1, 3, inner)
      }
    case "interrupt":
      return {
        _tag: tag,
        millis: chance.between(0.2, 12),
        again: chance.is(0.5) ? chance.between(0.1, 5) : undefined,
        ops: some(chance, 1, 3, inner)
      }
    case "token":
      return { _tag: tag, router: chance.below(place.routers), ops: some(chance, 1, 3, inner) }
    default:
      return { _tag: tag } as Op
  }
}

const faultsOf = (chance: Chance, routers: number, until: number): ReadonlyArray<Fault> => {
  // A swizzle: only some kinds in one run, so that each gets its turn.
  const kinds = faultKinds.filter(() => chance.is(0.35))
  const rate = chance.pick([0.3, 1, 2.5])
  if (kinds.length === 0 || chance.is(0.1)) return []
  return Array.from({ length: Math.ceil((until / 1000) * rate) }, (_, i) => ({
    kind: chance.pick(kinds),
    at: chance.between(100, until),
    millis: chance.pick([20, 200, 1000, 3000]) * chance.between(0.5, 1.5),
    target: chance.below(60),
    router: chance.below(routers),
    seed: `${chance.seed}/${i}`
  })).sort((a, b) => a.at - b.at)
}

export const planOf = (seed: string): Plan => {
  const chance = new Chance(`plan ${seed}`)
  const routers = Array.from({ length: chance.pick([1, 1, 2, 3]) }, () => routerPlan(chance))
  const replicas = chance.pick([1, 2, 2, 3])
  const count = 2 + chance.below(5)
  const mayNest = routers.every(({ connectTimeout }) => connectTimeout !== undefined)
  const flows = Array.from({ length: count }, () => ({
    router: chance.below(routers.length),
    begin: chance.between(0, chance.pick([300, 2500])),
    ops: some(chance, 4, 14, { depth: 0, inSession: false, isBeside: false, routers: routers.length, mayNest })
  }))
  return {
    seed,
    replicas,
    synchronous: chance.is(0.25) ? 1 : 0,
    isAsynchronous: chance.is(0.15),
    isPrivileged: chance.is(0.7),
    maxConnections: chance.pick([100, 100, 20]),
    routers,
    flows,
    faults: faultsOf(chance.fork("faults"), routers.length, 3000)
  }
}
