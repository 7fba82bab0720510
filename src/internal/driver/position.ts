import type { Duplex } from "node:stream"
import * as Option from "effect/Option"
import * as Position from "../../Position.js"
import type { Answer, Sampler } from "../wal/positionSample.js"
import { timelineOf } from "../wal/timeline.js"
import * as messages from "./messages.js"
import { OwnQuestion } from "./ownQuestion.js"

/**
 * For primaries and standbys. The insert position, because under `synchronous_commit = off` the written one is behind what
 * is committed and visible. A primary's timeline is the first part of the name of its log file, which a standby does not tell;
 * that tells the one that it receives to roles with `pg_read_all_stats`. (As a field: with the function in a FROM it takes
 * a standby half as long again.)
 */
export const text =
  "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text," +
  " CASE WHEN pg_is_in_recovery() THEN (pg_stat_get_wal_receiver()).received_tli::text" +
  " ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END"

const fileNameLength = 24

/** The answer in a row of that statement. */
export const answerOf = ([position, timeline]: ReadonlyArray<unknown>): Answer | Error => {
  const lsn = Option.getOrUndefined(Position.parseLsn(String(position)))
  if (lsn === undefined) return new Error("The server has not replayed anything")
  const isFile = typeof timeline === "string" && timeline.length === fileNameLength
  const number = isFile ? timelineOf(`0x${timeline.slice(0, 8)}`) : timelineOf(timeline)
  if (number instanceof Error) return number
  return { isStandby: !isFile, lsn, timeline: number }
}

const name = "edr_position"

// Closing it first, because another client may have prepared one under that name, behind a proxy. It never fails.
const prepared = Buffer.concat([messages.run(name), messages.sync])
const preparing = Buffer.concat([messages.closeStatement(name), messages.parse(name, text), prepared])
const unprepared = Buffer.concat([messages.parse("", text), messages.run(""), messages.sync])

/** The state of the question on one connection. */
export interface Asked {
  isPrepared: boolean
}

/**
 * The question for the server's position, for `client.query`, which calls the methods `submit` and `handle...`. It goes onto
 * the wire behind a statement, before the driver is ready for it, and has a Sync of its own: so it runs once the statement
 * has committed, and its error cannot touch the statement.
 */
export class Question extends OwnQuestion<Answer | Error> {
  private readonly question: number

  constructor(
    private readonly sampler: Sampler,
    private readonly asked: Asked,
    private readonly isNamed: boolean
  ) {
    super()
    this.question = sampler.send()
  }

  protected write(stream: Pick<Duplex, "write">): void {
    stream.write(!this.isNamed ? unprepared : this.asked.isPrepared ? prepared : preparing)
    if (this.isNamed) this.asked.isPrepared = true
  }

  handleError(error: Error): void {
    // A server that has forgotten the statement is told of it again.
    this.asked.isPrepared = false
    this.answer(error)
  }

  handleReadyForQuery(): void {
    this.answer(this.row === undefined ? new Error("The server did not tell its position") : answerOf(this.row))
  }

  protected answered(answer: Answer | Error): void {
    this.sampler.heard(this.question, answer)
  }
}
