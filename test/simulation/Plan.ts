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

/** What a fiber of a session does beside the others. */
export interface Sibling {
  /** An atomic block, statements alone, a savepoint, an early end, a statement that fails, or a read. */
  readonly what: "atomic" | "bare" | "transaction" | "commit" | "rollback" | "close" | "mistake" | "read"
  /** Of an atomic block. */
  readonly current: "commit" | "rollback" | "append" | "savepoint" | "fail"
  readonly inserts: number
  /** After how many milliseconds it begins. */
  readonly begin: number
  /** How long it pauses after each insert. */
  readonly millis: number
  readonly end: "succeed" | "fail" | "die"
  /** After how many milliseconds it is interrupted. */
  readonly interrupted: number | undefined
  /** The session ends without waiting for it. */
  readonly isLeft: boolean
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
  /** Statements of some length at once, which run on the primary: most of them wait for a connection. */
  | { readonly _tag: "crowd"; readonly count: number; readonly millis: number }
  /** A write that fails by itself. `isCaught`: what it is in goes on. */
  | { readonly _tag: "mistake"; readonly isCaught: boolean }
  | { readonly _tag: "rows"; readonly count: number; readonly take: number }
  | { readonly _tag: "notify" }
  /** COPY FROM STDIN, which has no source here. */
  | { readonly _tag: "copy"; readonly isCaught: boolean }
  /** A statement that takes some time. */
  | { readonly _tag: "sleep"; readonly millis: number }
  /** Requests that a resolver answers together. `isWrite`: each inserts a row, else each reads a register. */
  | { readonly _tag: "batch"; readonly count: number; readonly isWrite: boolean }
  /** Reads of a session at once, of which all but one are interrupted as soon as that one has ended. */
  | { readonly _tag: "jostle"; readonly count: number; readonly register: number }
  | { readonly _tag: "setLocal" }
  | { readonly _tag: "hooks" }
  | {
      readonly _tag: "session"
      readonly how: "session" | "newSession" | "transaction" | "atomic"
      readonly isolation: "read committed" | "repeatable read" | undefined
      readonly tenant: boolean
      /** `statementTimeout`, in milliseconds. */
      readonly limit?: number | undefined
      readonly ops: ReadonlyArray<Op>
      readonly end: "succeed" | "fail" | "die"
    }
  /** A session with fibers beside each other, each of which may end what all of them share. */
  | { readonly _tag: "siblings"; readonly siblings: ReadonlyArray<Sibling>; readonly end: "succeed" | "fail" }
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
  /** An HTTP request, which a router answers in a session of its own. */
  | {
      readonly _tag: "request"
      readonly router: number
      readonly ops: ReadonlyArray<Op>
      readonly status: number
      readonly tenant: boolean
      /** After how many milliseconds the client hangs up. */
      readonly hangsUp: number | undefined
    }
  /** With the router of another system. `withToken`: in a flow that has a token of this one. */
  | { readonly _tag: "elsewhere"; readonly withToken: boolean; readonly ops: ReadonlyArray<Op> }

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
  "long split brain",
  "stall",
  "restore"
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
  /** What it concentrates on. */
  readonly theme?: Theme
  readonly replicas: number
  readonly synchronous: number
  readonly isAsynchronous: boolean
  readonly isPrivileged: boolean
  readonly maxConnections: number
  readonly routers: ReadonlyArray<RouterPlan>
  readonly flows: ReadonlyArray<FlowPlan>
  readonly faults: ReadonlyArray<Fault>
  /** A second system, with a router of its own. */
  readonly other?: OtherSystem | undefined
}

export interface OtherSystem {
  readonly replicas: number
  readonly router: RouterPlan
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
  crowd: 0,
  rows: 0,
  reserve: 0,
  notify: 0,
  jostle: 0,
  copy: 0,
  sleep: 0,
  batch: 0,
  setLocal: 0,
  hooks: 0,
  session: 0,
  siblings: 0,
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
  token: 0,
  request: 0,
  elsewhere: 0
} satisfies Record<Op["_tag"], 0>)

type Weights = Partial<Record<Op["_tag"], number>>

interface Bent {
  /** How often plans have it. */
  readonly share: number
  /** How many times as often as elsewhere steps occur. `others`: those that are not named. */
  readonly ops: Weights
  readonly others?: number
  /** The faults that occur; all where none are named. */
  readonly faults?: ReadonlyArray<FaultKind>
  /** Those that every one of its plans may have. */
  readonly always?: ReadonlyArray<FaultKind>
  /** How many a second. */
  readonly rates?: ReadonlyArray<number>
  /** How long they last, in milliseconds. */
  readonly lengths?: ReadonlyArray<number>
  /** Until when they begin, and flows do, in milliseconds. */
  readonly until?: number
  readonly begins?: ReadonlyArray<number>
  readonly router?: (chance: Chance) => Partial<RouterPlan>
  /** How many flows there are. */
  readonly flows?: number
  /** How many steps each has, at least and at most. */
  readonly steps?: readonly [number, number]
  /** Whether there is always a second system. */
  readonly hasOther?: boolean
  readonly hasCrowds?: boolean
  readonly hasSiblings?: boolean
}

/**
 * What a plan concentrates on: what goes wrong in rare combinations only, occurs often where everything else is rare. Most plans
 * concentrate on nothing.
 */
const themes = {
  all: { share: 10, ops: {} },
  /** Two primaries for a long time, while flows go on. */
  promotions: {
    share: 3,
    ops: { pause: 3, poll: 2, token: 2, fresh: 3, write: 1.5 },
    faults: ["long split brain", "promote", "split brain", "slow replay", "split standby"],
    rates: [0.3, 0.7],
    begins: [300, 2500, 6000],
    router: (chance) => ({ interval: chance.pick([500, 500, 1000]) })
  },
  /** Servers that come back with less than they had told, while flows go on. */
  restarts: {
    share: 2,
    // What has been written since then would hide what they lack.
    ops: { pause: 6, poll: 3, readAll: 18, write: 0.7, read: 0.5 },
    others: 0.1,
    flows: 2,
    steps: [20, 35],
    always: ["restore"],
    faults: ["crash", "stop", "lose host"],
    lengths: [20, 100, 1000],
    rates: [1],
    begins: [300, 2500],
    router: (chance) => ({ interval: chance.pick([500, 500, 1000]) })
  },
  /** Sessions whose ends go wrong. */
  endings: {
    share: 2,
    ops: { session: 3, hooks: 4, interrupt: 2, timeout: 2, insert: 2 },
    others: 0.7,
    always: ["lost answer"],
    faults: ["reset", "cut", "terminate", "freeze", "slow link"],
    rates: [1, 2.5]
  },
  /** Many fibers in one session. */
  siblings: {
    share: 1,
    ops: { session: 3, fork: 3, jostle: 12, setLocal: 2, tenantReads: 2, snapshot: 2 },
    hasSiblings: true,
    rates: [0.3]
  },
  /** More statements than connections, which wait without a limit, while servers fail. */
  crowds: {
    share: 1,
    ops: { crowd: 3, burst: 3, fork: 2, primary: 3 },
    // Anything that begins at a server wakes what waits there.
    others: 0.2,
    hasCrowds: true,
    flows: 2,
    steps: [5, 9],
    always: ["reset", "lose host"],
    faults: ["refuse", "crash", "partition", "freeze", "terminate", "promote"],
    rates: [1, 2.5],
    lengths: [1000, 15_000],
    router: (chance) => ({ connectTimeout: 0, maxConnections: chance.pick([1, 2]) })
  },
  /** HTTP requests with tokens. */
  requests: { share: 1, ops: { request: 8, token: 2 } },
  /** Two systems in one program. */
  systems: { share: 1, ops: { elsewhere: 3, token: 2 }, hasOther: true }
} satisfies Record<string, Bent>

export type Theme = keyof typeof themes

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
  readonly bent: Bent
  readonly hasOther: boolean
  /** Whether statements may take only so long. */
  readonly limit?: number | undefined
}

const some = (chance: Chance, least: number, most: number, place: Place): ReadonlyArray<Op> =>
  Array.from({ length: least + chance.below(most - least + 1) }, () => op(chance, place))

/** Where a session around does not count. */
const outside: Pick<Place, "inSession" | "limit"> = { inSession: false, limit: undefined }

const bentTo = ({ ops, others = 1 }: Bent, weights: Weights): Weights => {
  const bent: Weights = {}
  for (const [tag, weight] of Object.entries(weights) as Array<[Op["_tag"], number]>) {
    bent[tag] = weight * (ops[tag] ?? others)
  }
  return bent
}

const sibling = (chance: Chance): Sibling => ({
  what: chance.weighted({ atomic: 8, bare: 4, transaction: 2, commit: 1, rollback: 2, close: 1, mistake: 1, read: 1 }),
  current: chance.pick(["commit", "commit", "append", "savepoint", "rollback", "fail"]),
  inserts: 1 + chance.below(3),
  begin: chance.between(0, chance.pick([0, 3, 12])),
  millis: chance.pick([0, 0, 1, 4, 15]),
  end: chance.weighted({ succeed: 6, fail: 3, die: 1 }),
  interrupted: chance.is(0.15) ? chance.between(0.2, 20) : undefined,
  isLeft: chance.is(0.15)
})

const op = (chance: Chance, place: Place): Op => {
  const { depth, inSession, isBeside } = place
  const inner: Place = { ...place, depth: depth + 1 }
  const register = 1 + chance.below(registers)
  const weights: Weights = {
    pause: 3,
    write: isBeside ? 0 : 9,
    read: 14,
    readAll: 2,
    insert: 5,
    mistake: 1,
    poll: inSession ? 0 : 2,
    burst: inSession ? 0 : 2,
    ...(inSession || place.bent.hasCrowds !== true ? {} : { crowd: 10 }),
    rows: 1,
    copy: 0.5,
    batch: 2,
    sleep: place.limit === undefined ? 0 : 3,
    reserve: inSession ? 0 : 1,
    notify: inSession ? 0 : 1,
    ...(inSession && !isBeside ? { setLocal: 2, hooks: 3, jostle: 1 } : {}),
    ...(depth < 3
      ? {
          session: isBeside ? 0 : inSession ? 3 : 9,
          ...(inSession || isBeside || place.bent.hasSiblings !== true ? {} : { siblings: 25 }),
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
          token: inSession ? 0 : 3,
          request: inSession ? 0 : 2,
          elsewhere: place.hasOther ? 4 : 0
        }
      : {})
  }
  const tag = chance.weighted<Op["_tag"]>(bentTo(place.bent, weights))
  switch (tag) {
    case "pause":
      return { _tag: tag, millis: chance.pick([0, 1, 3, 10, 50, 300, 1500]) }
    case "write":
    case "read":
    case "reserve":
      return { _tag: tag, register }
    case "jostle":
      return { _tag: tag, count: 1 + chance.below(4), register }
    case "poll":
      return { _tag: tag, register, times: 3 + chance.below(6), millis: chance.pick([0, 1, 5, 30]) }
    case "burst": {
      const count = 4 + chance.below(12)
      return { _tag: tag, count, interrupted: chance.pick([0, 1, 2, count]), millis: chance.between(0, 4) }
    }
    case "crowd":
      return { _tag: tag, count: 6 + chance.below(12), millis: chance.pick([20, 60, 150]) }
    case "sleep":
      return { _tag: tag, millis: place.limit! * chance.pick([0.2, 4]) }
    case "batch":
      return { _tag: tag, count: 2 + chance.below(4), isWrite: chance.is(0.4) }
    case "mistake":
    case "copy":
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
      const isOwn = (how === "session" && !inSession) || how === "newSession"
      const tenant = isOwn && chance.is(0.3)
      const limit = isOwn && chance.is(0.1) ? chance.pick([5, 20, 100]) : undefined
      return {
        _tag: tag,
        how,
        isolation:
          how === "session" && !inSession
            ? chance.pick([undefined, undefined, undefined, "read committed", "repeatable read"])
            : undefined,
        tenant,
        ...(limit === undefined ? {} : { limit }),
        // A row that the session around has locked would be waited for without end.
        ops: some(chance, 1, 5, {
          ...inner,
          inSession: true,
          isBeside: isBeside || (inSession && how === "newSession"),
          limit: limit ?? (isOwn ? undefined : place.limit)
        }),
        end: chance.weighted({ succeed: 8, fail: 2, die: 1 })
      }
    }
    case "siblings":
      return {
        _tag: tag,
        siblings: Array.from({ length: 2 + chance.below(4) }, () => sibling(chance)),
        end: chance.weighted({ succeed: 8, fail: 2 })
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
        ops: some(chance, 1, 2, tag === "detached" ? { ...inner, ...outside, isBeside: true } : inner)
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
    case "request":
      return {
        _tag: tag,
        router: chance.below(place.routers),
        ops: some(chance, 1, 4, { ...inner, inSession: true }),
        status: chance.pick([200, 200, 200, 204, 302, 404, 500]),
        tenant: chance.is(0.3),
        hangsUp: chance.is(0.2) ? chance.between(0.5, 15) : undefined
      }
    case "elsewhere":
      return {
        _tag: tag,
        withToken: chance.is(0.4),
        ops: some(chance, 1, 3, { ...inner, ...outside, isBeside: isBeside || inSession, routers: 1, hasOther: false })
      }
    default:
      return { _tag: tag } as Op
  }
}

/** Those of plans that concentrate on nothing. */
const usual = faultKinds.filter((kind) => kind !== "restore")

/** How long a fault lasts, in milliseconds. */
const lengths: ReadonlyArray<number> = [20, 200, 1000, 3000]
const longLengths: ReadonlyArray<number> = [5000, 8000]

const faultsOf = (chance: Chance, routers: number, bent: Bent): ReadonlyArray<Fault> => {
  const until = bent.until ?? 3000
  // A swizzle: only some kinds in one run, so that each gets its turn.
  const kinds = [...(bent.always ?? []), ...(bent.faults ?? usual).filter(() => chance.is(0.35))]
  const rate = chance.pick(bent.rates ?? [0.3, 1, 2.5])
  if (kinds.length === 0 || chance.is(0.1)) return []
  return Array.from({ length: Math.ceil((until / 1000) * rate) }, (_, i) => {
    const kind = chance.pick(kinds)
    return {
      kind,
      at: chance.between(100, until),
      millis:
        chance.pick(kind === "long split brain" ? longLengths : (bent.lengths ?? lengths)) * chance.between(0.5, 1.5),
      target: chance.below(60),
      router: chance.below(routers),
      seed: `${chance.seed}/${i}`
    }
  }).sort((a, b) => a.at - b.at)
}

const otherOf = (chance: Chance, bent: Bent): OtherSystem => ({
  replicas: 1,
  router: { ...routerPlan(chance), connectTimeout: 2000 },
  faults: faultsOf(chance.fork("faults"), 1, { ...bent, rates: [0.3, 0.7] })
})

const shares = Object.fromEntries(Object.entries(themes).map(([name, { share }]) => [name, share])) as Readonly<
  Record<Theme, number>
>

export const planOf = (seed: string): Plan => {
  const chance = new Chance(`plan ${seed}`)
  const theme = chance.weighted<Theme>(shares)
  const bent: Bent = themes[theme]
  const routers = Array.from({ length: chance.pick([1, 1, 2, 3]) }, () => ({
    ...routerPlan(chance),
    ...bent.router?.(chance)
  }))
  const replicas = chance.pick([1, 2, 2, 3])
  const [least, most] = bent.steps ?? [4, 14]
  const count = bent.flows ?? 2 + chance.below(5)
  const hasOther = bent.hasOther === true || chance.is(0.04)
  const mayNest = routers.every(({ connectTimeout = 0 }) => connectTimeout > 0)
  const flows = Array.from({ length: count }, () => ({
    router: chance.below(routers.length),
    begin: chance.between(0, chance.pick(bent.begins ?? [300, 2500])),
    ops: some(chance, least, most, {
      depth: 0,
      inSession: false,
      isBeside: false,
      routers: routers.length,
      mayNest,
      bent,
      hasOther
    })
  }))
  return {
    seed,
    theme,
    replicas,
    synchronous: chance.is(0.25) ? 1 : 0,
    isAsynchronous: chance.is(0.15),
    isPrivileged: chance.is(0.7),
    maxConnections: chance.pick([100, 100, 20]),
    routers,
    flows,
    faults: faultsOf(chance.fork("faults"), routers.length, bent),
    ...(hasOther ? { other: otherOf(chance.fork("other"), bent) } : {})
  }
}
