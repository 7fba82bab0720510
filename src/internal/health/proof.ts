/**
 * When statements tell of a server what a probe would. Pure: times are milliseconds of the clock that never goes back.
 *
 * What has just answered need not be asked whether it answers: PgBouncer leaves out its check of a connection that was released
 * lately (`server_check_delay`), HikariCP that of one used within 500 ms (`aliveBypassWindowMs`). Here statements have to tell
 * as much as a probe does, so it is the answers to questions for positions that count: role, timeline and position.
 */
import * as Duration from "effect/Duration"
import type { Engine } from "../../Engine.js"
import type * as Health from "../../Health.js"

/** Of so many statements one may be a probe: what positions do not tell, such as another server behind a proxy, probes find. */
const statementsPerProbe = 256

/** What statements have told, and when the server was so. */
export interface News {
  readonly report: Health.Report
  readonly at: number
}

/** What is known of one server without a probe. */
export class Proof {
  private newsAt = Number.NEGATIVE_INFINITY
  private answeredAtProbe = 0
  private answeredBefore = 0

  /** It was probed. */
  probed({ answered }: Engine, now: number): void {
    this.newsAt = now
    this.answeredAtProbe = answered
    this.answeredBefore = answered
  }

  /** What statements have told since the last time; `undefined` where a probe is due. */
  news(engine: Engine, interval: Duration.Duration): News | undefined {
    const { answered, health, positions } = engine
    const report = health?.report
    const { told } = positions
    if (health?.state !== "up" || report === undefined || told === undefined || !saysTheSame(report, told))
      return undefined
    if (told.at <= this.newsAt || answered === this.answeredBefore) return undefined
    if (answered - this.answeredAtProbe >= statementsPerProbe) return undefined
    // It may have gone silent right after that.
    if (engine.isSilent(Duration.toMillis(interval) / 4)) return undefined
    this.newsAt = told.at
    this.answeredBefore = answered
    return { report: { ...report, position: told.lsn }, at: told.at }
  }
}

/** Whether a server is what it was at its last probe. A standby need not tell its timeline. */
const saysTheSame = (
  { role, timeline }: Health.Report,
  told: { readonly isStandby: boolean; readonly timeline: number | undefined }
): boolean => told.isStandby === (role === "replica") && (told.timeline === undefined || told.timeline === timeline)
