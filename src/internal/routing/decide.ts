import type * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { Engine } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import type { RouterConfig } from "../../RouterConfig.js"
import * as RouterError from "../../RouterError.js"
import * as RoutingContext from "../../RoutingContext.js"
import type { Classification, SqlClassifier } from "../../SqlClassifier.js"
import { attributes, type Rule } from "../../Telemetry.js"
import type { Leaves } from "../classifier/finding.js"
import { ofSession } from "../classifier/leaves.js"
import { Causal } from "../consistency/causal.js"
import type { Servers } from "../health/serverSet.js"
import type { Telemetry } from "../telemetry/metrics.js"
import type { Trip, Went } from "../telemetry/statementRun.js"
import type { Transaction } from "../transaction/transaction.js"
import type { Work } from "../transaction/work.js"
import { nowOf } from "../util/clock.js"
import { currentTest } from "./engineOverride.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** Where a statement goes, and why. */
export interface Decision extends Went {
  readonly reason: string
  readonly changesSchema: boolean
  /** What it leaves behind for the statements after it. */
  readonly leaves: Leaves | undefined
  /** Whether it must not be prepared under a name. */
  readonly foldsSettings: boolean
  /** The transaction it runs in. */
  readonly transaction: Transaction | undefined
  /** Whether it belongs in a transaction of the session that is begun for it. */
  readonly begins: boolean
  /** Whether it goes to the primary because no replica is known to have what it has to see, and one may turn out to. */
  readonly awaits: boolean
  /** Whether it is free to run on the primary instead: a read for which the router has chosen a replica. */
  readonly movable: boolean
  /** With `reads: "observe"`: the engine that it would have gone to. */
  readonly observed: { readonly group: string; readonly engine: string } | undefined
}

/** Says on a span where its statement went. */
const annotate = (span: Tracer.Span, decision: Decision): void => {
  const { address, name } = decision.engine
  span.attribute(attributes.group, decision.group)
  span.attribute(attributes.engine, name)
  span.attribute(attributes.kind, decision.kind)
  span.attribute(attributes.rule, decision.rule)
  span.attribute(attributes.reason, decision.reason)
  if (address.host !== undefined) span.attribute(attributes.serverAddress, address.host)
  if (address.port !== undefined) span.attribute(attributes.serverPort, address.port)
  if (decision.observed !== undefined) {
    span.attribute(attributes.observedGroup, decision.observed.group)
    span.attribute(attributes.observedEngine, decision.observed.engine)
  }
}

/** A statement goes somewhere else than was said before. */
export const redirect = (trip: Trip, decision: Decision): void => {
  trip.went = decision
  if (trip.span !== undefined) annotate(trip.span, decision)
}

/** Hears where every statement goes. */
export type Observer = (decision: Decision, sql: string, fiber: AnyFiber) => void

/** Why a statement goes where it goes: the rule, and what people read of it. */
type Why = readonly [rule: Rule, reason: string]

/** Replicas that a read may not go to, and why it goes to the primary where it may go to none. */
export interface Unfit {
  readonly engines: ReadonlySet<Engine>
  readonly why: Why
  /** Whether one may turn out to be fit soon. */
  readonly awaits: boolean
  /** Whether it is about what the flow has seen. */
  readonly hasNeeds: boolean
}

/** Where a transaction belongs. */
export interface Target {
  readonly group: string
  readonly engine: Engine
}

export interface RoutesOptions {
  readonly config: RouterConfig
  readonly servers: Servers
  /** Groups to bind to. */
  readonly others: ReadonlyArray<EngineGroup>
  readonly classifier: SqlClassifier
  /** `undefined`: statements are not measured. */
  readonly telemetry: Telemetry | undefined
}

const noEngines: ReadonlySet<Engine> = new Set()

type ToDefault = (...why: Why) => Decision | RouterError.RouterError

const insideTransaction: Why = ["transaction", "inside a transaction"]
const insideSnapshot: Why = ["transaction", "inside a snapshot"]
const insideHolder: Why = ["transaction", "after a statement that holds for the rest of the transaction"]
const insideTest: Why = ["test", "inside a test's transaction"]
const caughtUp: Why = ["caught_up", "causal: it has what the flow has seen"]
const behind: Why = ["behind", "causal: no replica is known to have what the flow has seen"]

/** What a statement leaves behind. A classifier that does not say it of a `session` statement leaves all to be expected. */
const leavesOf = ({ kind, leaves }: Classification): Leaves | undefined =>
  leaves ?? (kind === "session" ? ofSession : undefined)

/** What would let a transaction write although the section is read-only, and on a connection of one's own those after it. */
const opening = /read_only|\bread\s+write\b/i
const openingLater = /read_only|\bread\s+write\b|\breset\b|\bdiscard\b|set_config/i

/** Why a statement that is no read is refused in a read-only section, if it is. */
const violationOf = (
  classification: Classification,
  sql: string,
  openings: RegExp
): RouterError.RouterError | undefined => {
  const leaves = leavesOf(classification)
  const mayWrite =
    classification.kind === "write" || leaves?.controls === true || (leaves?.sets === true && openings.test(sql))
  return mayWrite ? RouterError.readOnlyViolation(classification.reason) : undefined
}

/** The route of every statement. Runs none. */
export class Routes {
  readonly defaultGroup: EngineGroup
  readonly readGroup: EngineGroup | undefined
  /** The engine of a test that all fibers belong to. */
  test: Engine | undefined
  /** Set while decisions are observed. */
  observer: Observer | undefined
  readonly telemetry: Telemetry | undefined

  readonly config: RouterConfig
  readonly groups: ReadonlyMap<string, EngineGroup>
  readonly classifier: SqlClassifier
  /** Where positions decide. */
  readonly causal: Causal | undefined
  protected readonly servers: Servers

  constructor(options: RoutesOptions) {
    const { classifier, config, others, servers, telemetry } = options
    this.config = config
    this.telemetry = telemetry
    this.classifier = classifier
    this.servers = servers
    this.defaultGroup = servers.writing
    this.readGroup = servers.reading
    const own = servers.reading === undefined ? [servers.writing] : [servers.writing, servers.reading]
    const { positions } = config.consistency
    if (config.enabled && positions !== undefined && servers.reading !== undefined) {
      this.causal = new Causal(positions, servers.writing, servers.reading)
    }
    this.groups = new Map([...own, ...others].map((group) => [group.name, group]))
  }

  /** Why a statement is refused on a connection of one's own in a read-only section, if it is. */
  violation(sql: string): RouterError.RouterError | undefined {
    const classification = this.classifier.classify(sql)
    return classification.kind === "read" || this.isGuess(sql)
      ? undefined
      : violationOf(classification, sql, openingLater)
  }

  private isGuess(sql: string): boolean {
    return this.classifier.isGuess?.(sql) === true
  }

  /** The classification of a statement, as far as the holder of a connection needs it. */
  classified(sql: string): Pick<Decision, "kind" | "leaves" | "foldsSettings"> {
    const classification = this.classifier.classify(sql)
    const { foldsSettings = false, kind } = classification
    return { kind, leaves: leavesOf(classification), foldsSettings }
  }

  /** Says where a statement goes, to all who want to know. */
  tell(trip: Trip, decision: Decision, sql: string, fiber: AnyFiber): void {
    redirect(trip, decision)
    this.observer?.(decision, sql, fiber)
  }

  /** Decides where a statement of a fiber goes. `choose` takes a turn among the engines; `peek` only looks. */
  decide(
    fiber: AnyFiber,
    work: Work | undefined,
    sql: string,
    take: "choose" | "peek"
  ): Decision | RouterError.RouterError {
    let classification = this.classifier.classify(sql)
    const session = work?.session
    if (work?.hasEnded === true) return RouterError.sessionClosed()
    const isGuess = session?.readOnly === true && classification.kind === "write" && this.isGuess(sql)
    if (session?.readOnly === true && classification.kind !== "read" && !isGuess) {
      const violation = violationOf(classification, sql, opening)
      if (violation !== undefined) return violation
    }
    // The server guards: there it is a read, or fails.
    if (isGuess) classification = { ...classification, kind: "read" }
    const bound = fiber.getFiberRef(RoutingContext.bindGroup)
    const test = this.testOf(fiber)
    if (test !== undefined) return this.decideInTest(test, classification, bound, work)
    const forced = fiber.getFiberRef(RoutingContext.forcePrimary)
    const holder = work?.holder
    if (work?.level !== undefined) {
      const group = bound._tag === "Some" ? bound.value : work.level.group
      const transaction = work.transaction(group)
      if (transaction !== undefined) {
        return this.lacks(transaction, holder)
          ? RouterError.settingsMissing(group, holder.group)
          : this.decision(classification, group, transaction.engine, insideTransaction, { transaction })
      }
    }
    if (bound._tag === "Some") {
      const group = this.groups.get(bound.value)
      if (group === undefined) return RouterError.unknownGroup(bound.value, [...this.groups.keys()])
      return this.lacks(session?.current(bound.value), holder)
        ? RouterError.settingsMissing(bound.value, holder.group)
        : this.inGroup(group, classification, ["bound", `bound to the group ${group.name}`], take, work)
    }
    const snapshot = session?.snapshot
    if (snapshot !== undefined) {
      // What says how to read belongs there too, where nothing but reads can follow.
      const belongs = session!.isSnapshot
        ? classification.kind === "read" || classification.leaves?.sets === true
        : classification.kind === "read" && holder === undefined
      if (belongs) {
        return this.decision(classification, snapshot.group, snapshot.engine, insideSnapshot, { transaction: snapshot })
      }
    }
    if (holder !== undefined && (holder.group === this.defaultGroup.name || classification.kind !== "write")) {
      return this.decision(classification, holder.group, holder.engine, insideHolder, { transaction: holder })
    }
    if (this.lacks(undefined, holder)) return RouterError.settingsMissing(this.defaultGroup.name, holder.group)
    const toDefault: ToDefault = (...why) => this.inGroup(this.defaultGroup, classification, why, take, work)
    if (!this.config.enabled) return toDefault("disabled", "routing is disabled")
    if (forced) return toDefault("forced", "forced to the primary")
    if (classification.kind !== "read") return toDefault(classification.kind, classification.reason)
    if (isGuess) return toDefault("write", classification.reason)
    return this.decideRead(fiber, work, classification, take, toDefault)
  }

  /**
   * Whether a statement that runs in a transaction, or in none, would run without the settings that another one of its unit
   * of work has made in SQL.
   */
  private lacks(transaction: Transaction | undefined, holder: Transaction | undefined): holder is Transaction {
    return holder?.writes.sets === true && holder !== transaction && transaction?.writes.sets !== true
  }

  /** In a test everything goes to one connection, whatever would decide otherwise. */
  private decideInTest(
    test: Engine,
    classification: Classification,
    bound: Option.Option<string>,
    work: Work | undefined
  ): Decision | RouterError.RouterError {
    const { name } = this.defaultGroup
    if (bound._tag === "Some" && !this.groups.has(bound.value)) {
      return RouterError.unknownGroup(bound.value, [...this.groups.keys()])
    }
    const transaction = work?.level ?? work?.session?.current(name)
    return transaction === undefined
      ? this.decision(classification, name, test, insideTest, { begins: work?.session !== undefined })
      : this.decision(classification, name, transaction.engine, insideTest, { transaction })
  }

  /** The engine of the test that a fiber belongs to. */
  private testOf(fiber: AnyFiber): Engine | undefined {
    return fiber.getFiberRef(currentTest) ?? this.test
  }

  private decideRead(
    fiber: AnyFiber,
    work: Work | undefined,
    classification: Classification,
    take: "choose" | "peek",
    toDefault: ToDefault
  ): Decision | RouterError.RouterError {
    const { config, readGroup } = this
    const session = work?.session
    const explicit = fiber.getFiberRef(RoutingContext.preferReplica)
    // Another fiber of it has begun to read there.
    const isKept = readGroup !== undefined && session?.snapshotGroup === readGroup.name
    if (!explicit) {
      if (session?.current(this.defaultGroup.name)?.wrote === true)
        return toDefault("session_wrote", "the session has written")
    }
    if (!explicit && !isKept) {
      if (config.consistency.readsFromPrimary(fiber))
        return toDefault("consistency", `${config.consistency.name} after a write`)
      if (config.reads === "explicit") return toDefault("explicit", "reads are explicit")
    }
    if (session?.readsOnPrimary === true) {
      return toDefault(
        "serializable",
        session.isSerializable ? "standbys have no serializable isolation" : "repeatable read, and it may write"
      )
    }
    if (session?.snapshotGroup === this.defaultGroup.name) return toDefault(...insideSnapshot)
    if (readGroup === undefined) return toDefault("no_read_group", "there is no read group")
    const unfit = isKept ? undefined : this.unfit(fiber, explicit)
    const transaction = session?.current(readGroup.name)
    if (transaction !== undefined) {
      // Every read stands for itself.
      if (unfit?.engines.has(transaction.engine) !== true) {
        return this.decision(classification, readGroup.name, transaction.engine, ["read", classification.reason], {
          transaction
        })
      }
      return toDefault(...unfit.why)
    }
    const engine = readGroup[config.reads === "observe" ? "peek" : take](unfit?.engines)
    if (engine === undefined && unfit !== undefined && readGroup.peek() !== undefined) {
      const decision = toDefault(...unfit.why)
      // What runs on the primary anyway need not wait for a replica.
      const awaits = unfit.awaits && config.reads !== "observe"
      return RouterError.isRouterError(decision) ? decision : { ...decision, awaits }
    }
    if (engine === undefined) {
      return config.onNoReplica === "fail"
        ? RouterError.noEngineAvailable(readGroup.name, { why: readGroup.whyNone(), onNoReplica: config.onNoReplica })
        : toDefault("no_replica", "no replica is available")
    }
    if (take === "choose" && unfit?.hasNeeds === true && unfit.engines.size > 0) this.causal!.refresh(unfit.engines)
    if (config.reads === "observe") {
      const decision = toDefault("observed", "reads are observed")
      return RouterError.isRouterError(decision)
        ? decision
        : { ...decision, observed: { group: readGroup.name, engine: engine.name } }
    }
    const begins = session?.readsInTransaction === true
    const why: Why = unfit?.hasNeeds === true ? caughtUp : ["read", classification.reason]
    return this.decision(classification, readGroup.name, engine, why, { begins, movable: !begins })
  }

  /**
   * The replicas that a read of a fiber may not go to, eligible as they are: those that may not have what its flow has seen,
   * and those that may be staler than it allows. `undefined` where there is nothing to see to.
   */
  unfit(fiber: AnyFiber, explicit = fiber.getFiberRef(RoutingContext.preferReplica)): Unfit | undefined {
    const { causal, readGroup } = this
    const maxStaleness = fiber.getFiberRef(RoutingContext.maxStaleness)
    const needs = causal?.needs(fiber)
    const hasNeeds = needs !== undefined && (needs.marks.length > 0 || needs.positions.length > 0)
    if (readGroup === undefined || (!hasNeeds && maxStaleness === Number.POSITIVE_INFINITY)) return undefined
    const now = nowOf(fiber)
    const stale =
      maxStaleness === Number.POSITIVE_INFINITY
        ? noEngines
        : new Set(readGroup.engines.filter((engine) => this.stalenessOf(engine, now()) > maxStaleness))
    if (!hasNeeds)
      return { engines: stale, why: ["stale", "no replica is known to be fresh enough"], awaits: false, hasNeeds }
    const lacking = readGroup.engines.filter((engine) => !causal!.has(engine, needs, now))
    const engines = lacking.length === 0 ? stale : new Set([...stale, ...lacking])
    // A read that is bound to replicas runs on one: if there is one that does not go back in time, on that.
    if (explicit && readGroup.peek(engines) === undefined)
      return { engines: stale, why: ["stale", "no replica is fresh"], awaits: false, hasNeeds }
    return { engines, why: behind, awaits: !explicit, hasNeeds }
  }

  /** How old the data of a replica may be, in milliseconds. */
  private stalenessOf({ health, positions }: Engine, now: number): number {
    if (positions.isBalanced) return Number.POSITIVE_INFINITY
    if (health?.lag === undefined) return Number.POSITIVE_INFINITY
    // What it was compared with is as old as the primary's own last probe.
    return health.lag.millis + now - Math.min(positions.probedAt, this.primary.positions.probedAt)
  }

  /** Where positions decide for a group. */
  causalIn(group: string): Causal | undefined {
    return group === this.defaultGroup.name || group === this.readGroup?.name ? this.causal : undefined
  }

  private inGroup(
    group: EngineGroup,
    classification: Classification,
    why: Why,
    take: "choose" | "peek",
    work: Work | undefined
  ): Decision | RouterError.RouterError {
    const transaction = work?.session?.current(group.name)
    if (transaction !== undefined) {
      return this.decision(classification, group.name, transaction.engine, why, { transaction })
    }
    const engine = group[take]()
    return engine === undefined
      ? RouterError.noEngineAvailable(group.name, { why: group.whyNone() })
      : this.decision(classification, group.name, engine, why, { begins: work?.session !== undefined })
  }

  private decision(
    classification: Classification,
    group: string,
    engine: Engine,
    [rule, reason]: Why,
    how: { readonly transaction?: Transaction; readonly begins?: boolean; readonly movable?: boolean }
  ): Decision {
    return {
      group,
      engine,
      kind: classification.kind,
      rule,
      reason,
      changesSchema: classification.changesSchema,
      leaves: leavesOf(classification),
      foldsSettings: classification.foldsSettings === true,
      transaction: how.transaction,
      begins: how.begins ?? false,
      movable: how.movable ?? false,
      awaits: false,
      observed: undefined
    }
  }

  /** Where a transaction of a fiber belongs: the bound group, else that of the transaction around it, else the default. */
  engineForTransaction(fiber: AnyFiber, work: Work | undefined): Target | RouterError.RouterError {
    const bound = fiber.getFiberRef(RoutingContext.bindGroup)
    const name = bound._tag === "Some" ? bound.value : (work?.level?.group ?? this.defaultGroup.name)
    if (work?.hasEnded === true) return RouterError.sessionClosed()
    // One snapshot, also for who reads it in a transaction.
    if (work?.session?.isSnapshot === true && work.level === undefined && bound._tag === "None") {
      return this.decide(fiber, work, "SELECT 1", "choose")
    }
    const test = this.testOf(fiber)
    if (test !== undefined) {
      return bound._tag === "Some" && !this.groups.has(bound.value)
        ? RouterError.unknownGroup(bound.value, [...this.groups.keys()])
        : { group: this.defaultGroup.name, engine: test }
    }
    const holder = work?.holder
    const enclosing = work?.transaction(name) ?? work?.session?.current(name)
    if (this.lacks(enclosing, holder)) return RouterError.settingsMissing(name, holder.group)
    if (enclosing !== undefined) return enclosing
    const group = this.groups.get(name)
    if (group === undefined) return RouterError.unknownGroup(name, [...this.groups.keys()])
    const engine = group.choose()
    return engine === undefined
      ? RouterError.noEngineAvailable(name, { why: group.whyNone() })
      : { group: name, engine }
  }

  /** The names of all engines. */
  get engineNames(): ReadonlyArray<string> {
    return [...this.groups.values()].flatMap((group) => group.engines.map((engine) => engine.name))
  }

  /** The engine of a name. */
  engine(name: string): Engine | undefined {
    for (const group of this.groups.values()) {
      for (const engine of group.engines) {
        if (engine.name === name) return engine
      }
    }
    return undefined
  }

  /** The engine that takes the writes, or was the last to. */
  get primary(): Engine {
    return this.servers.lastWriter
  }
}
