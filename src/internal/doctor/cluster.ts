/**
 * The servers together: which one takes the writes, who follows it, and how far behind they are.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Health from "../../Health.js"
import { contentEnd } from "../../Position.js"
import type { RouterConfig } from "../../RouterConfig.js"
import * as optionChecks from "../config/options.js"
import { elect, isSameServer } from "../health/election.js"
import { elapsed } from "../util/clock.js"
import type { Inspected } from "./inspect.js"
import { type Finding, type Lag, ok, problem, warning } from "./report.js"
import type { Target } from "./targets.js"
import type { Told } from "./told.js"

/** A server that was asked. */
export interface Examined {
  readonly target: Target
  /** `undefined`: its address or its credentials are unknown. */
  readonly result: Either.Either<Inspected, Told> | undefined
}

/** The findings on one server that follow from all of them. */
export interface Verdict {
  readonly state: Health.State
  readonly reason: string | undefined
  readonly lag: Lag | undefined
}

export interface Cluster {
  readonly verdicts: ReadonlyMap<Target, Verdict>
  readonly writer: Target | undefined
  readonly findings: ReadonlyArray<Finding>
}

export const inspectedOf = ({ result }: Examined): Inspected | undefined =>
  result !== undefined && Either.isRight(result) ? result.right : undefined

/** What the router's probe has found of a server. */
export const probeOf = (examined: Examined): Health.Report | undefined => {
  const probe = inspectedOf(examined)?.answers.probe
  return probe !== undefined && Either.isRight(probe) ? probe.right : undefined
}

/** How long a replica gets to replay what the primary had, in milliseconds, and how often it is asked. */
const patienceMillis = 1_000
const pauseMillis = 20

/** How far a replica is behind a position that the primary was at before. `undefined`: it does not say. */
const measureLag = (replica: Inspected, primary: bigint): Effect.Effect<Lag | undefined> =>
  Effect.gen(function* () {
    const began = yield* elapsed
    let bytes: bigint | undefined
    for (;;) {
      const answer = yield* replica.askPosition
      if (Either.isLeft(answer)) return undefined
      const missing = contentEnd(primary) - answer.right.lsn
      bytes ??= missing > 0n ? missing : 0n
      const millis = (yield* elapsed) - began
      if (missing <= 0n) return { bytes: Number(bytes), millis: bytes === 0n ? 0 : millis, caughtUp: true }
      if (millis >= patienceMillis) {
        const age = yield* replica.askReplayAge
        const known = Either.isRight(age) ? Math.round(age.right) : 0
        return { bytes: Number(missing), millis: Math.max(known, millis), caughtUp: false }
      }
      yield* Effect.sleep(pauseMillis)
    }
  })

/** The limits that the router would hold replicas to. */
export const healthOf = (config: RouterConfig) => config.health ?? optionChecks.healthOf(true)!

const judge = (
  examined: Examined,
  known: {
    readonly config: RouterConfig
    readonly era: Health.Era | undefined
    readonly primary: Health.Report | undefined
    readonly isWriter: boolean
    readonly position: bigint | undefined
  }
): Effect.Effect<Verdict> =>
  Effect.gen(function* () {
    const { config, era, isWriter, position, primary } = known
    const { result, target } = examined
    const report = probeOf(examined)
    if (report === undefined) {
      const why = result === undefined ? undefined : Either.isLeft(result) ? result.left : leftOf(result.right)
      return { state: "down", reason: why?.message ?? "its configuration could not be obtained", lag: undefined }
    }
    if (isWriter) return { state: "up", reason: undefined, lag: undefined }
    const inspected = inspectedOf(examined)!
    const isBehind = report.role === "replica" && era !== undefined && Health.follows(report, era)
    const lag = isBehind && position !== undefined ? yield* measureLag(inspected, position) : undefined
    const isRival =
      target.isOfSystem && report.role === "primary" && (primary === undefined || !isSameServer(report, primary))
    const now = yield* Clock.currentTimeMillis
    const { reason, state } = Health.answered(
      Health.starting(now),
      report,
      {
        era,
        isRival,
        lag: lag && { millis: lag.millis, bytes: BigInt(lag.bytes) },
        database: target.isOfSystem ? primary?.database : undefined
      },
      healthOf(config),
      now
    )
    return { state, reason, lag }
  })

const leftOf = ({ answers: { probe } }: Inspected): Told | undefined =>
  Either.isLeft(probe) ? { ...probe.left, message: `its probe failed: ${probe.left.message}` } : undefined

/** Judges all servers as the router would. */
export const assess = (config: RouterConfig, all: ReadonlyArray<Examined>): Effect.Effect<Cluster> =>
  Effect.gen(function* () {
    const ofSystem = all.filter(({ target }) => target.isOfSystem)
    const first = ofSystem.find(({ target }) => target.isNamed) ?? ofSystem[0]!
    const candidates = ofSystem.map((one) => {
      const report = probeOf(one)
      return { server: one, report, answers: report !== undefined, isNamed: one.target.isNamed }
    })
    const { era, rivals, writer: elected } = elect(candidates, first, undefined)
    // One that does not answer keeps its place, but nothing can be written there.
    const writer = elected !== undefined && probeOf(elected)?.role === "primary" ? elected : undefined
    const primary = writer && probeOf(writer)
    const answer = writer && (yield* inspectedOf(writer)!.askPosition)
    const position = answer !== undefined && Either.isRight(answer) ? answer.right.lsn : undefined
    const verdicts = yield* Effect.forEach(
      all,
      (one) =>
        Effect.map(
          judge(one, { config, era, primary, isWriter: one === writer, position }),
          (verdict) => [one.target, verdict] as const
        ),
      { concurrency: "unbounded" }
    )
    const found = new Map(verdicts)
    const findings = [
      ...ofPrimary(first, writer, rivals),
      ...duplicates(ofSystem),
      ...versions(ofSystem),
      ...ofSystem.flatMap((one) => (one === writer ? [] : ofReplica(one, found.get(one.target)!, primary?.database)))
    ]
    return { verdicts: found, writer: writer?.target, findings }
  })

const ofPrimary = (
  first: Examined,
  writer: Examined | undefined,
  rivals: ReadonlyArray<Examined>
): ReadonlyArray<Finding> => {
  const contested = rivals.map(({ target }) =>
    problem(
      "primary",
      target.name,
      "It claims to be the primary too; it gets nothing",
      "Stop it, look for what was written there, and make it a standby of the primary"
    )
  )
  if (writer === undefined) {
    const remedy = "Start the primary, promote a standby, or name the primary in the default group (DATABASE_URL)"
    return [problem("primary", undefined, "No server takes the writes", remedy), ...contested]
  }
  const { name } = writer.target
  if (writer === first) return [ok("primary", name, "It takes the writes"), ...contested]
  const was = first.target.name
  return [
    warning(
      "primary",
      name,
      `It takes the writes, though ${was} stands first in the default group`,
      `Name it there (DATABASE_URL): the router finds it, but a start waits for ${was} first`
    ),
    ...contested
  ]
}

const duplicates = (all: ReadonlyArray<Examined>): ReadonlyArray<Finding> =>
  all.flatMap((one, i) => {
    const report = probeOf(one)
    const same = all.slice(0, i).find((other) => {
      const earlier = probeOf(other)
      return report !== undefined && earlier !== undefined && isSameServer(report, earlier)
    })
    if (same === undefined) return []
    return [
      warning(
        "same-server",
        one.target.name,
        `It is the same server as ${same.target.name}, with a pool of its own`,
        "List each server of the default and the read group once; a name that leads to several servers belongs into Topology.dns"
      )
    ]
  })

const versions = (all: ReadonlyArray<Examined>): ReadonlyArray<Finding> => {
  const found = new Set(all.flatMap((one) => inspectedOf(one)?.answers.identity.version ?? []))
  if (found.size < 2) return []
  const message = `The servers run different versions: ${[...found].join(", ")}`
  return [warning("version", undefined, message, "Bring the replicas to the newest of them, then the primary")]
}

const ofReplica = (
  one: Examined,
  { lag, reason, state }: Verdict,
  database: string | undefined
): ReadonlyArray<Finding> => {
  const { result, target } = one
  const { name } = target
  const report = probeOf(one)
  if (state === "foreign") {
    if (report !== undefined && Health.isElsewhere(report, database)) {
      const remedy = `Name the database ${database} in its URL, or put it into a group of its own`
      return [problem("database", name, `It gets no reads: ${reason}`, remedy)]
    }
    const remedy =
      "Make it a standby of the primary that takes the writes (pg_rewind or a new base backup), or take it out"
    return [problem("role", name, `It gets no reads: ${reason}`, remedy)]
  }
  if (state === "lagging") {
    const remedy = "Look at its replay, its disks and the network; the limits are health.maxLag and health.maxLagBytes"
    return [problem("lag", name, `It gets no reads: ${reason}`, remedy)]
  }
  if (result === undefined || state === "down") return []
  if (lag === undefined) return []
  if (lag.caughtUp) return [ok("lag", name, "It has what the primary has")]
  const message = `It has ${lag.bytes} bytes to replay that it could not within ${patienceMillis} ms`
  return [warning("lag", name, message, "It will be left out once it is behind by more than health.maxLag")]
}
