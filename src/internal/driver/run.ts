import type { SqlError } from "@effect/sql/SqlError"
import type { Leaves } from "../classifier/finding.js"
import type { Sampler } from "../wal/positionSample.js"
import { giveUp } from "./cancel.js"
import type { Connection, Member, Query, Result } from "./connection.js"
import { refuseCopy } from "./copy.js"
import type { Opening } from "./opening.js"
import { effectsOf, isOutOfDate, judge, type PreparedStatements, Stale, type Text } from "./prepared.js"
import { schema } from "./schema.js"
import { toWire, unsendable } from "./values.js"

/** A statement as the driver takes it. */
export interface Request {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
  /** Rows as arrays instead of objects. */
  readonly asArrays: boolean
  /** Whether it may run as a server-side prepared statement. */
  readonly prepare: boolean
  /** What it leaves behind on its connection. */
  readonly leaves?: Leaves | undefined
  /** Who hears of the server's position right after it. Not for COPY, which takes no message behind it. */
  readonly sampler?: Sampler
}

/** A text of the router's own: without values, and not prepared. */
export const command = (sql: string): Request => ({ sql, params: [], asArrays: false, prepare: false })

/** A statement that is parsed for each run. */
export const unprepared = (request: Request): Request => ({ ...request, prepare: false })

/** Hears how a statement has ended. */
export type Callback = (error: SqlError | undefined, result: Result | undefined) => void

/** What all that runs on one server has in common. */
export interface Runs {
  /** None where nothing is prepared. */
  readonly prepared: PreparedStatements | undefined
  /** The clock, in milliseconds. */
  readonly now: () => number
  /** How many there are. */
  inFlight: number
  /** How many have succeeded. */
  answered: number
  /** Notes an error, and returns it. */
  failed(error: SqlError): SqlError
}

/** One statement on one connection. */
export abstract class Run implements Member {
  isWanted = true
  /** Where it runs. */
  connection: Connection | undefined
  /** When it was sent, in milliseconds of the clock that never goes back, if nothing else ran on its connection. */
  began: number | undefined
  /** What is known of its text. */
  readonly text: Text | undefined

  constructor(
    readonly request: Request,
    private readonly runs: Runs,
    private readonly opening?: Opening
  ) {
    const { params, prepare, sql } = request
    this.text = prepare ? runs.prepared?.textOf(sql, params.length) : undefined
  }

  /** Whether it may share a connection with others. */
  abstract readonly isShared: boolean

  abstract move(): void

  /** It has ended, on that connection. The last thing that happens. */
  protected abstract ended(connection: Connection, error: SqlError | undefined, result: Result | undefined): void

  /** Runs it. */
  start(connection: Connection): void {
    this.runs.inFlight++
    this.connection = connection
    if (!connection.isUsable) {
      this.end(connection, connection.unsentError, undefined)
      return
    }
    if (this.request.leaves !== undefined) connection.traces.note(this.request.leaves)
    const { isShared, opening, runs, text } = this
    const { asArrays, params, sampler, sql } = this.request
    const effects = text === undefined ? effectsOf(sql, params.length > 0) : text.effects
    let values: ReadonlyArray<unknown>
    try {
      if (effects === "command" || effects === "schema") refuseCopy(sql)
      values = toWire(params)
    } catch (cause) {
      this.end(connection, unsendable(cause), undefined)
      return
    }
    const now = runs.now()
    if (effects !== "none") connection.affects(effects, sql, params, now)
    const asked = sampler?.isWanted === true ? sampler : undefined
    const isNamed = runs.prepared !== undefined
    // A single statement without a name is parsed for this run.
    const name = text?.name === undefined ? undefined : (runs.prepared!.nameOn(connection, text, params, now) ?? "")
    const query = { name, text: sql, values, asArrays, isShared, opening, sampler: asked, isNamed }
    this.send(connection, query, now)
  }

  private send(connection: Connection, query: Query, began: number): void {
    const { runs, text } = this
    const name = query.name === "" ? undefined : query.name
    const closed = name === undefined ? [] : runs.prepared!.use(connection, name, began)
    const prepared = name === undefined ? undefined : connection.prepared.get(name)
    for (const other of closed) connection.closeStatement(other)
    const isAlone = !connection.isBusy
    const { answered } = runs
    connection.query(query, (error, result) => {
      if (error === undefined) {
        if (prepared?.types !== undefined && closed.length > 0) text!.hasTypes(prepared.types, began)
        if (isAlone) {
          const isBeside = runs.inFlight > 1 || runs.answered !== answered
          text?.took(runs.now() - began, prepared !== undefined, began, isBeside)
        }
        this.end(connection, undefined, result)
        return
      }
      const verdict = prepared === undefined ? "fine" : judge(error, closed.length === 0)
      if (verdict !== "fine" || prepared?.columns === undefined) this.forget(connection, name)
      if (verdict !== "stale") return this.fail(connection, error, false)
      if (isOutOfDate(error) && prepared!.isUpToDate) {
        text!.wentStale(began)
        schema.changed()
      }
      // One that shares a connection is repeated on one of its own.
      if (query.isShared === true) return this.fail(connection, error, true)
      connection.whenReady(() => {
        // In a transaction the error has aborted it already: it has to begin again, if it can.
        const mayRetry = connection.isUsable && connection.isOutsideTransaction && this.isWanted
        if (mayRetry) this.send(connection, { ...query, name: "" }, runs.now())
        else this.fail(connection, error, true)
      })
    })
  }

  private forget(connection: Connection, name: string | undefined): void {
    if (name !== undefined) this.runs.prepared!.forget(connection, name)
  }

  private fail(connection: Connection, error: Error, isStale: boolean): void {
    // Messages that still come answer a statement that is no longer wanted.
    if (error.message === "Query read timeout") giveUp(connection, error)
    connection.whenAnswered(error, () => {
      const failed = connection.statementError(error)
      const { cause, message } = failed
      this.end(connection, isStale && connection.isUsable ? new Stale({ cause, message }) : failed, undefined)
    })
  }

  private end(connection: Connection, error: SqlError | undefined, result: Result | undefined): void {
    this.runs.inFlight--
    if (error === undefined) this.runs.answered++
    this.connection = undefined
    this.ended(connection, error && this.runs.failed(error), result)
  }
}
