import type { Duplex } from "node:stream"
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import type * as Pg from "pg"
import * as RouterError from "../../RouterError.js"
import * as limits from "../util/limits.js"
import type { Sampler } from "../wal/positionSample.js"
import { Batch, type Progress } from "./batch.js"
import { CastQuestion } from "./casts.js"
import { copyBegun } from "./copy.js"
import { brokenBefore, isOnlyOfStatement, isServerError, ProtocolViolation, Unanswered } from "./failure.js"
import { type Config, makeClient } from "./guard.js"
import type { Opening } from "./opening.js"
import { known } from "./parameters.js"
import { Plain } from "./plain.js"
import { Portal } from "./portal.js"
import { type Asked, Question } from "./position.js"
import type { Effects, Prepared, Text } from "./prepared.js"
import { schema } from "./schema.js"
import { Statement, type Wire } from "./statement.js"
import { Surroundings } from "./surroundings.js"
import { Traces } from "./traces.js"
import { NotSent, unsendable } from "./values.js"

/** What the driver's client has and its type declarations leave out. */
interface Internals {
  password: unknown
  readonly processID: number | null
  readonly secretKey: number | null
  readonly sslNegotiation?: "postgres" | "direct"
  readonly ssl: NonNullable<Pg.ClientConfig["ssl"]>
  readonly _queryable: boolean
  readonly _ending: boolean
  readonly readyForQuery?: boolean
  readonly _queryQueue: Array<object>
  readonly _types: unknown
  readonly _activeQuery: { readonly text?: string } | null
  readonly binary: boolean
  readonly connectionParameters: { readonly query_timeout: number | false }
  readonly connection: Wire & {
    readonly stream: Duplex & {
      readonly remoteAddress?: string
      readonly remotePort?: number
      // A stream of the user's own may have none.
      setKeepAlive?(enable: boolean, initialDelay: number): unknown
    }
    close(message: { readonly type: "S" | "P"; readonly name: string }): void
    on(event: "readyForQuery", listener: (message: { readonly status: string }) => void): void
    on(
      event: "parameterStatus",
      listener: (message: { readonly parameterName: string; readonly parameterValue: string }) => void
    ): void
    on(event: (typeof copies)[number], listener: () => void): void
    on(event: "errorMessage", listener: (error: Error) => void): void
    on(
      event: "parameterDescription",
      listener: (message: { readonly dataTypeIDs: ReadonlyArray<number> }) => void
    ): void
    on(event: "notice", listener: (notice: { readonly code?: string; readonly message?: string }) => void): void
  }
}

/** What the driver answers: one result, or one for each statement of a text that holds several. */
export type Result = Pg.QueryResult | ReadonlyArray<Pg.QueryResult>

/** Where and how the server is told to cancel what runs on a connection. */
export interface CancelTarget {
  readonly processID: number
  readonly secretKey: number
  readonly host: string
  readonly port: number
  /** The address that the socket is connected to. A name may stand for several servers. */
  readonly address: string | undefined
  readonly ssl: NonNullable<Pg.ClientConfig["ssl"]>
  readonly sslNegotiation: "postgres" | "direct" | undefined
  readonly stream: Pg.ClientConfig["stream"]
}

/** A statement on a connection that others may share. */
export interface Member {
  /** Whether it may be one of several. */
  readonly isShared: boolean
  /** Whether anybody waits for its answer on this connection. */
  isWanted: boolean
  /** When it was sent, in milliseconds of the clock that never goes back, if nothing else ran there. */
  began: number | undefined
  /** What is known of its text. */
  readonly text: Text | undefined
  /** Runs it on another connection: one before it has turned out to be long. */
  move(): void
}

/** What is sent to the server. */
export interface Query {
  readonly text: string
  readonly values?: ReadonlyArray<unknown>
  /** Rows as arrays instead of objects. */
  readonly asArrays?: boolean
  /** The name of its prepared statement; an empty one is none, for a single statement that the extended protocol takes. */
  readonly name?: string | undefined
  /** Whether it may go behind statements that run. */
  readonly isShared?: boolean
  /** What begins its transaction. Only for a statement that has run on the connection before. */
  readonly opening?: Opening | undefined
  /** Who hears of the server's position right after it. */
  readonly sampler?: Sampler | undefined
  /** Whether that question is a prepared statement. */
  readonly isNamed?: boolean
}

type Callback = (error: Error | undefined, result: Result | undefined) => void
type Done = (error: Error | null | undefined, result: Result | undefined) => void

/** What a server says of data that is copied through the connection. */
const copies = ["copyInResponse", "copyOutResponse", "copyData", "copyDone"] as const

/** How long the server may take to become ready again after an error, and to end the conversation. */
const readyMillis = 5_000
const endMillis = 1_000

/** How often a server may leave a question for its casts without an answer. */
const mostUnanswered = 3

/** One connection to a server, and what there is to know about it. */
export class Connection {
  /** When it was opened, for its pool. */
  openedAt = 0
  /** Which connections it was opened with, for its pool. */
  generation = 0
  /** When it was last given back, for its pool. */
  idleSince = 0
  /** What its users have left behind, that the next one must not find. */
  readonly traces = new Traces()
  /** The statements that are prepared on it, by their names. */
  readonly prepared = new Map<string, Prepared>()
  /** What texts mean on it. */
  readonly surroundings = new Surroundings()
  /** The types that casts of extensions lead away from, once that is known. */
  unsafeTypes: ReadonlySet<number> | undefined
  private unansweredCasts = 0
  /** Whether what runs may change a schema, until it is committed. */
  private isChangingSchema = false
  private readonly asked: Asked = { isPrepared: false }
  /** Whether the outcome of what runs must be known, so that it is never cancelled. */
  mustFinish = false
  /** The statements that run, for its pool, in the order in which they were sent. Not those of who has it to himself. */
  readonly pipeline: Array<Member> = []
  /** Whether what runs is being cancelled, for its pool. */
  isCancelling = false

  // Both have the password: no output of a connection may show it, nor may one with hidden properties.
  readonly #client: Pg.Client
  readonly #config: Config
  private running = 0
  // Every statement ends with one Sync, or is one simple query: the server becomes ready once for each.
  private unanswered = 0
  private status = "I"
  private isConnected = false
  private firstError: Error | undefined
  // The server's last word, while it has not become ready after it: why it closes the connection, if it does.
  private lastError: Error | undefined
  private waiting: Array<() => void> = []
  private isCorked = false
  private deadline: NodeJS.Timeout | undefined

  /** `ended` is called once, when the socket is closed. */
  constructor(config: Config, ended: (connection: Connection) => void) {
    this.#config = config
    this.#client = makeClient(config)
    // The driver lets a URL win, one without a password too.
    if (typeof config.password === "function") this.#internals.password = config.password
    const { connection } = this.#internals
    // A host that vanishes says nothing. Who waits for an answer sends nothing either, and would never learn of it.
    connection.stream.setKeepAlive?.(true, Duration.toMillis(limits.keepAlive))
    // These run before the driver's own listeners, and so before the callbacks of statements.
    connection.on("readyForQuery", ({ status }) => {
      this.status = status
      this.lastError = undefined
      if (status === "I") this.transactionEnded()
      if (this.unanswered > 0) this.unanswered--
      else if (this.isConnected) throw new ProtocolViolation("The server has become ready though nothing was asked")
      this.isConnected = true
    })
    connection.on("parameterStatus", ({ parameterName, parameterValue }) => {
      this.traces.hear(parameterName, parameterValue)
      this.surroundings.heard(parameterName, parameterValue)
    })
    for (const copy of copies) {
      connection.on(copy, () => {
        throw copyBegun(this.#internals._activeQuery?.text)
      })
    }
    connection.on("errorMessage", (error) => {
      this.lastError = error
    })
    connection.on("parameterDescription", (message) => {
      const { _activeQuery } = this.#internals
      if (_activeQuery instanceof Statement) _activeQuery.handleParameterDescription(message)
    })
    // When a backend is stopped at once, or waits with a commit for a standby, it says why in a warning.
    connection.on("notice", (notice) => {
      if (notice.code?.startsWith("57P") === true) this.lastError = Object.assign(new Error(notice.message), notice)
    })
    // Without a listener, a connection that breaks ends the process.
    this.#client.on("error", (error: Error) => this.fail(this.lastError ?? error))
    this.#client.on("drain", () => this.wake())
    this.#client.on("end", () => {
      this.transactionEnded()
      this.wake()
      ended(this)
    })
  }

  /** Tells of every notification. */
  onNotification(listener: (channel: string, payload: string) => void): void {
    this.#client.on("notification", ({ channel, payload }) => listener(channel, payload ?? ""))
  }

  connect(callback: (error: Error | undefined) => void): void {
    let hasEnded = false
    this.#client.connect((error: Error | null) => {
      // The driver goes on with what it has received after an error.
      if (hasEnded) return
      hasEnded = true
      this.traces.opened()
      this.surroundings.opened()
      callback(error ?? undefined)
    })
  }

  /** Whether it can run another statement. */
  get isUsable(): boolean {
    const { _ending, _queryable, connection } = this.#internals
    return _queryable && !_ending && !connection.stream.destroyed
  }

  /** Whether the server has finished with everything that was sent. */
  get isReady(): boolean {
    return this.unanswered === 0
  }

  /** Whether the server works on a statement, as far as is known. */
  get isBusy(): boolean {
    return this.running > 0
  }

  /** Whether the server was outside a transaction when it last became ready. */
  get isOutsideTransaction(): boolean {
    return this.status === "I"
  }

  /**
   * Whether it takes a statement behind those that run. The driver's own time limits begin when it sends a statement, which it
   * does not do then.
   */
  get takesBehind(): boolean {
    return (
      this.isUsable &&
      !this.isCancelling &&
      this.waiting.length === 0 &&
      this.surroundings.isHome &&
      !this.#internals.connectionParameters.query_timeout
    )
  }

  /** A text is about to be sent that does more than to read and write rows. */
  affects(effects: Effects, sql: string, params: ReadonlyArray<unknown>, now: number): void {
    if (effects === "call") this.surroundings.called(sql, params)
    else this.surroundings.sent(sql)
    if (effects !== "schema") return
    // A temporary table takes the place of another one for this connection alone.
    for (const prepared of this.prepared.values()) prepared.end()
    if (this.isChangingSchema) return
    this.isChangingSchema = true
    schema.begin(now)
  }

  private transactionEnded(): void {
    this.surroundings.ended()
    if (!this.isChangingSchema) return
    this.isChangingSchema = false
    schema.end()
  }

  /**
   * Runs a statement; one that `isShared` behind others, if there are any. With a `sampler` it asks for the server's position
   * right behind it, in the same packet: the statement is answered as ever, and the connection is ready when both are.
   */
  query(query: Query, callback: Callback): void {
    const { sampler } = query
    const { _queryQueue, connection } = this.#internals
    const { stream } = connection
    // While the driver has others to do first, it sends nothing.
    const isNow = query.isShared === true || this.isDriverFree
    let isOver = false
    const done = (error: Error | null | undefined, result: Result | undefined) => {
      if (isOver) return
      isOver = true
      this.running--
      if (error === null || error === undefined) callback(undefined, result)
      else callback(error, undefined)
    }
    this.running++
    this.unanswered++
    if (query.isShared === true) this.corkForNow()
    stream.cork()
    try {
      const { name, values } = query
      const hasTypes = name !== undefined && name !== "" && values !== undefined && values.length > 0
      const asksCasts = hasTypes && this.unsafeTypes === undefined
      if (asksCasts) this.submitAsking(query, isNow, done)
      else this.submit(query, done)
      if (sampler === undefined) return
      const question = new Question(sampler, this.asked, query.isNamed === true)
      if (!this.isUsable) {
        question.handleError(new Error("The connection has broken"))
        return
      }
      if (isNow) question.send(stream)
      this.unanswered++
      // `client.query` warns when a statement runs. This is where it puts what has to wait for that one.
      _queryQueue.push(question)
    } catch (cause) {
      done(this.unsent(cause), undefined)
    } finally {
      this.uncork()
    }
  }

  /** Asks for what makes types unsafe, behind the first statement that is prepared: that has ended when both are answered. */
  private submitAsking(query: Query, isNow: boolean, done: Done): void {
    const { _queryQueue, connection } = this.#internals
    let ended: (() => void) | undefined
    let isAnswered = false
    const question = new CastQuestion((types) => {
      isAnswered = true
      // In a transaction that has failed there is no answer. A server that never has one makes no type safe.
      this.unsafeTypes = types ?? (++this.unansweredCasts >= mostUnanswered ? new Set(known) : undefined)
      ended?.()
    })
    this.submit(query, (error, result) => {
      const isFailure = error !== null && error !== undefined && !isServerError({ cause: error })
      if (isAnswered || isFailure || !this.isUsable) done(error, result)
      else ended = () => done(error, result)
    })
    if (isNow) question.send(connection.stream)
    this.unanswered++
    _queryQueue.push(question)
  }

  /**
   * What was to be sent has thrown (a stream of the user's may): it has not run, as it ends with what makes the server run it.
   * Of the connection nothing is known any more; what runs there may run elsewhere.
   */
  private unsent(cause: unknown): NotSent {
    const message = cause instanceof Error ? cause.message : String(cause)
    this.fail(new Error(`Connection terminated, as a statement could not be sent: ${message}`, { cause }))
    return new NotSent(message, { cause })
  }

  private uncork(): void {
    try {
      this.#internals.connection.stream.uncork()
    } catch (cause) {
      this.unsent(cause)
    }
  }

  private submit({ asArrays, isShared, name, opening, text, values = [] }: Query, done: Done): void {
    if (name === undefined) {
      this.#client.query(new Plain(text, values, asArrays === true, done))
      return
    }
    const prepared = this.prepared.get(name)
    const statement = new Statement(name, text, values, asArrays === true, prepared, opening, done)
    if (isShared !== true || this.isDriverFree) {
      this.#client.query(statement)
      return
    }
    const { _queryQueue, _types, binary, connection } = this.#internals
    statement.prepareResult(_types, binary)
    statement.send(connection)
    _queryQueue.push(statement)
  }

  /** Whether the driver sends at once what it is given. */
  private get isDriverFree(): boolean {
    const { _queryQueue, readyForQuery } = this.#internals
    return readyForQuery === true && _queryQueue.length === 0
  }

  /** What is sent until the program has nothing else to do goes out in one packet. */
  private corkForNow(): void {
    if (this.isCorked) return
    const { stream } = this.#internals.connection
    this.isCorked = true
    stream.cork()
    process.nextTick(() => {
      this.isCorked = false
      this.uncork()
    })
  }

  /** Starts a statement whose rows are fetched in batches. No other statement can run until it is closed. */
  open(sql: string, values: ReadonlyArray<unknown>, batchSize: number): Portal {
    const portal = new Portal(sql, values, batchSize, (busy) => {
      this.running += busy ? 1 : -1
    })
    this.submitOwn(portal)
    return portal
  }

  /** Hands the driver a statement of our own. */
  private submitOwn(statement: Portal | Batch): void {
    this.unanswered++
    try {
      this.#client.query(statement)
    } catch (cause) {
      statement.handleError(this.unsent(cause))
    }
  }

  /** Fetches the next rows of a statement in a transaction. Other statements can run before the next ones are fetched. */
  fetch(
    progress: Progress,
    size: number,
    callback: (error: Error | undefined, rows: ReadonlyArray<object>) => void
  ): void {
    this.running++
    this.submitOwn(
      new Batch(progress, size, (error, rows) => {
        this.running--
        callback(error, rows)
      })
    )
  }

  /** Makes the server forget a portal, if it is there. Answered with the next statement. */
  closePortal(name: string): void {
    this.#internals.connection.close({ type: "P", name })
  }

  /** Makes the driver forget that it has parsed a prepared statement, and the server forget the statement, if it is there. */
  closeStatement(name: string): void {
    const { connection } = this.#internals
    delete connection.parsedStatements[name]
    // Unlike DEALLOCATE it never fails, so it cannot abort a transaction. It is answered with the next statement.
    connection.close({ type: "S", name })
  }

  /**
   * Takes away what its users have left behind; `initial` runs first on every connection. Calls back when that is done, or has
   * failed, and then the connection is not usable.
   */
  reset(initial: string | undefined, callback: () => void): void {
    const { reset } = this.traces
    if (reset === undefined || !this.isUsable) {
      callback()
      return
    }
    if (reset.isFull) this.forgetPrepared()
    this.query({ text: initial === undefined ? reset.text : `${reset.text}; ${initial}` }, (error) => {
      if (error !== undefined) return this.fail(error)
      this.traces.over()
      this.surroundings.reset()
    })
    this.whenReady(callback)
  }

  /** The server has forgotten, or is about to forget, all prepared statements. */
  private forgetPrepared(): void {
    const { parsedStatements } = this.#internals.connection
    for (const name of Object.keys(parsedStatements)) delete parsedStatements[name]
    this.prepared.clear()
    this.asked.isPrepared = false
  }

  /** Calls back when the server is ready again or the connection has failed. It fails if that takes too long. */
  whenReady(callback: () => void): void {
    if (this.isReady || !this.isUsable) {
      callback()
      return
    }
    this.waiting.push(callback)
    this.deadline ??= setTimeout(() => this.overdue(), readyMillis).unref()
  }

  /**
   * The error of a statement that was sent: why the connection broke, if that is what happened, else the statement's own.
   * Only a server that goes on with the connection has answered.
   */
  statementError(error: Error): SqlError {
    if (error instanceof NotSent) return unsendable(error)
    const { isUsable } = this
    const cause = isUsable ? error : (this.firstError ?? error)
    const Kind = isUsable && isServerError({ cause }) ? SqlError : Unanswered
    return new Kind({
      cause,
      message: RouterError.isRouterError(cause) ? cause.message : "Failed to execute statement"
    })
  }

  /** The error of a statement that cannot be sent, because the connection broke before it came. */
  get unsentError(): SqlError {
    return new SqlError({ cause: this.firstError ?? new Error("Connection terminated"), message: brokenBefore })
  }

  /**
   * Calls back when it is known whether the server goes on with the connection after an error. What is no answer of the
   * server's is known at once.
   */
  whenAnswered(error: Error, callback: () => void): void {
    if (isServerError({ cause: error }) && !isOnlyOfStatement(error)) this.whenReady(callback)
    else callback()
  }

  /** Closes the socket at once, for this reason. Whatever runs fails with it. */
  fail(reason: Error): void {
    this.firstError ??= reason
    this.destroy()
  }

  /** Closes the socket at once. */
  destroy(): void {
    this.#internals.connection.stream.destroy()
    this.wake()
  }

  /** Takes leave of the server, if that is possible. */
  end(): void {
    if (!this.isUsable || !this.isReady) {
      this.destroy()
      return
    }
    const timer = setTimeout(() => this.destroy(), endMillis).unref()
    this.#client.once("end", () => clearTimeout(timer))
    this.#client.end(() => {})
  }

  /** What a request to cancel has to say; `undefined` when the server has not said who it is. */
  get cancelTarget(): CancelTarget | undefined {
    const { connection, processID, secretKey, ssl, sslNegotiation } = this.#internals
    if (processID === null || secretKey === null) return undefined
    const { host, port } = this.#client
    const { stream } = this.#config
    const address = stream === undefined ? connection.stream.remoteAddress : undefined
    return { processID, secretKey, host, port, address, ssl, sslNegotiation, stream }
  }

  get #internals(): Internals {
    return this.#client as unknown as Internals
  }

  // Others that share the connection may take their time.
  private overdue(): void {
    this.deadline = undefined
    if (this.isBusy && this.pipeline.length > 0) this.deadline = setTimeout(() => this.overdue(), readyMillis).unref()
    else this.destroy()
  }

  private wake(): void {
    if (this.waiting.length === 0) return
    clearTimeout(this.deadline)
    this.deadline = undefined
    const callbacks = this.waiting
    this.waiting = []
    for (const callback of callbacks) callback()
  }
}
