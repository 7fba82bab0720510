/**
 * A read for which the router has chosen a replica, and where it runs when that fails. Pure but for the turns that choosing
 * takes.
 */
import type { SqlError } from "@effect/sql/SqlError"
import type { Engine } from "../../Engine.js"
import type { EngineGroup } from "../../EngineGroup.js"
import * as RouterError from "../../RouterError.js"
import { attributes, type Rule } from "../../Telemetry.js"
import { isPoolBusy, judge } from "../driver/failure.js"

/** How long after its first failure a read is still tried on a further replica; then only the primary is left. */
const limitMillis = 5_000

/** Where a read runs next. */
export interface Step {
  readonly group: string
  readonly engine: Engine
  readonly rule: Extract<Rule, "again" | "moved" | "refused">
  readonly reason: string
  /** The SQLSTATE with which a standby has refused it as a standby; `undefined` where that is not what happened. */
  readonly refusal: string | undefined
  /** Whether it may move on from there too. */
  readonly movable: boolean
}

export class Fallback {
  /** The engines that have failed, and how. */
  private readonly failed = new Map<Engine, string>()
  private attempts = 1
  private ranAgain = false
  private deadline = Number.POSITIVE_INFINITY

  constructor(
    private readonly replicas: EngineGroup,
    private readonly writers: EngineGroup,
    private readonly usesPrimary: boolean,
    /** Replicas that the read may not go to, eligible as they are. */
    private readonly unfit: () => Iterable<Engine> = () => []
  ) {}

  /** The read has failed on a replica that it was sent to as well. */
  note(engine: Engine, error: SqlError): void {
    this.attempts++
    this.failed.set(engine, judge(error, engine.health?.report?.role ?? "replica").why)
  }

  /** Where the read runs after an error on an engine; what its caller gets where it does not. */
  after(engine: Engine, isReplica: boolean, error: SqlError, now: number): Step | SqlError {
    const { action, why } = judge(error, isReplica ? (engine.health?.report?.role ?? "replica") : "primary")
    if (action === "caller" || !(isReplica || action === "again")) return error
    if (action === "again") {
      if (this.ranAgain) return error
      this.ranAgain = true
      return this.step(isReplica ? this.replicas : this.writers, engine, why, undefined)
    }
    this.failed.set(engine, why)
    this.deadline = Math.min(this.deadline, now + limitMillis)
    const replica = action === "elsewhere" && now < this.deadline ? this.replicas.choose(this.tried) : undefined
    // Of those that are left none has room; the primary may.
    const other = this.usesPrimary && replica?.hasRoom === false && isPoolBusy(error) ? undefined : replica
    if (other !== undefined) return this.step(this.replicas, other, why, undefined)
    if (action === "elsewhere" && !this.usesPrimary) {
      return RouterError.toSqlError(
        RouterError.noEngineAvailable(this.replicas.name, { why: this.failures, cause: error, onNoReplica: "fail" })
      )
    }
    const primary = this.writers.choose()
    return primary === undefined ? error : this.step(this.writers, primary, why, action === "refused" ? why : undefined)
  }

  /** What the span of a read says that has moved. */
  get attributes(): Readonly<Record<string, string | number>> {
    return { [attributes.attempts]: this.attempts, [attributes.failed]: this.failures }
  }

  private get tried(): ReadonlySet<Engine> {
    return new Set([...this.failed.keys(), ...this.unfit()])
  }

  private get failures(): string {
    return Array.from(this.failed, ([{ name }, why]) => `${name}: ${why}`).join("; ")
  }

  private step(group: EngineGroup, engine: Engine, why: string, refusal: string | undefined): Step {
    this.attempts++
    const last = [...this.failed.keys()].at(-1)
    const reason =
      last === undefined
        ? `again on ${engine.name} (${why})`
        : `${refusal === undefined ? "failed on" : "refused by"} ${last.name} (${why})`
    const rule = last === undefined ? "again" : refusal === undefined ? "moved" : "refused"
    return { group: group.name, engine, rule, reason, refusal, movable: group === this.replicas }
  }
}
