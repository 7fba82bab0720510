/**
 * One session of a server: reads messages, runs statements, answers. A statement takes time, and may wait for a lock, a
 * standby or the disk; while it does it can be cancelled.
 */
import type { Chance } from "./Chance.js"
import type { Execution, Lock, Plan, Steps, Transactional, Wait } from "./Compiled.js"
import type { Activity, Facts } from "./Expression.js"
import type { ServerEnd } from "./Network.js"
import { aborted, canceled, canceledByUser, duringRecovery, PgError, type Refusing, readOnly } from "./PgError.js"
import { database, role } from "./Schema.js"
import { Scram } from "./Scram.js"
import { checked, isCustom, millisOf, Settings, unknownSetting } from "./Settings.js"
import { type Prepared, statementsOf, texts } from "./Statement.js"
import { type Catalog, type Change, deadlock, type Locks, type LogRecord, type Row, type Store } from "./Store.js"
import { type Field, oidOf, read, type Type, toText, typeOfOid, type Value } from "./Value.js"
import * as Wire from "./Wire.js"
import type { World } from "./World.js"

/** Thrown inside a session that ends without a word. */
const over = Symbol("over")

interface Setting {
  readonly name: string
  readonly value: string
  readonly isLocal: boolean
  readonly level: number
}

/** A transaction that runs. */
export class Transaction {
  xid: number | undefined
  /** Of a repeatable read, once it has read. */
  snapshot: number | undefined
  isolation: string
  isReadOnly: boolean
  /** Whether a query has run in it. */
  hasRead = false
  readonly changes: Array<Change & { readonly level: number }> = []
  /** The tables, as it has changed them. */
  readonly catalogs: Array<{ readonly catalog: Catalog; readonly level: number }> = []
  readonly locks: Array<{ readonly name: string; readonly level: number }> = []
  readonly savepoints: Array<string> = []
  readonly notifications: Array<{ readonly channel: string; readonly payload: string }> = []
  readonly settings: Array<Setting> = []
  readonly listening: Array<{ readonly channel: string | undefined; readonly isOn: boolean }> = []
  /** What the workload's statements in it have said they were. */
  readonly operations: Array<string> = []
  isFailed = false

  constructor(
    isolation: string,
    isReadOnly: boolean,
    /** Begun by BEGIN; else it ends with its statement. */
    public isBlock: boolean
  ) {
    this.isolation = isolation
    this.isReadOnly = isReadOnly
  }

  get level(): number {
    return this.savepoints.length
  }
}

/** What looks on, for the checks. */
export interface Observer {
  readonly began: (backend: Backend, sql: string) => void
  readonly ran: (backend: Backend, sql: string) => void
  readonly failed: (backend: Backend, error: PgError) => void
  /** A commit is in the log, and not yet visible. */
  readonly logged: (backend: Backend, transaction: Transaction, record: LogRecord) => void
  readonly ended: (
    backend: Backend,
    transaction: Transaction,
    position: { readonly timeline: number; readonly end: number } | undefined
  ) => void
}

/** What a session has of its server. */
export interface Host {
  readonly world: World
  readonly host: string
  readonly observer: Observer
  readonly isStandby: boolean
  readonly isReadOnly: boolean
  readonly isAsynchronous: boolean
  readonly timeline: number
  readonly deadlockTimeout: number
  readonly store: Store
  readonly locks: Locks
  readonly refusal: PgError | undefined
  refusalOf(backend: Backend): PgError | undefined
  facts(user: string): Facts
  /** Runs a step of the session, when the server's process may run. */
  step(run: () => void): void
  forget(backend: Backend): void
  cancel(pid: number, key: number): void
  signal(pid: number, how: "cancel" | "terminate"): boolean
  notify(pid: number, channel: string, payload: string): void
  cost(chance: Chance): number
  flushCost(chance: Chance): number
  /** It is about to commit. */
  committing(backend: Backend): void
  nextXid(): number
  nextKey(): string
  logData(xid: number): void
  logCommit(xid: number, changes: ReadonlyArray<Change>, catalog: Catalog | undefined): LogRecord
  flush(position: number): void
  needsStandbys(position: number): boolean
  onConfirmed(position: number, wake: () => void): () => void
}

interface Statement {
  readonly sql: string
  /** As the client has said them. */
  readonly types: ReadonlyArray<Type | undefined>
  /** The tables that it was read with. */
  readonly catalog: Catalog
  /** `undefined` for a text without a statement. */
  readonly prepared: Prepared | undefined
}

interface Portal {
  readonly plan: Plan | undefined
  readonly sql: string
  readonly params: ReadonlyArray<Value>
  left: ReadonlyArray<ReadonlyArray<string | null>> | undefined
  tag: string
}

const noTransaction = (routine: string) =>
  new PgError("25P01", "there is no transaction in progress", routine, "WARNING")

const needsBlock = (what: string, severity: "ERROR" | "WARNING" = "ERROR", routine = "CheckTransactionBlock") =>
  new PgError("25P01", `${what} can only be used in transaction blocks`, routine, severity)

const fieldsOf = (plan: Plan | undefined): ReadonlyArray<Field> | undefined =>
  plan?._tag === "query" || plan?._tag === "show" || plan?._tag === "recorded" ? plan.fields : undefined

const deallocated = (name: string | undefined) => (name === undefined ? "DEALLOCATE ALL" : "DEALLOCATE")

export class Backend implements Execution {
  readonly key: number
  application = ""
  user = ""
  /** What runs, for who looks. */
  state: "starting" | "idle" | "active" = "starting"
  transaction: Transaction | undefined
  params: ReadonlyArray<Value> = []
  snapshot = 0
  private readonly frontend = new Wire.Frontend()
  private readonly inbox: Array<Wire.Message> = []
  private outbox: Array<Buffer> = []
  private readonly statements = new Map<string, Statement>()
  private readonly portals = new Map<string, Portal>()
  private readonly settings = new Settings((name) => this.live(name))
  private readonly channels = new Set<string>()
  private readonly steps: Steps<void>
  private waiting:
    | { readonly end: () => void; readonly isCancellable: boolean; readonly isForMessage: boolean }
    | undefined
  private isDone = false
  private isSkipping = false
  private isOneOfSeveral = false
  private pending: PgError | undefined
  private endTimeout: (() => void) | undefined

  /** The host that the connection comes from. */
  get client(): string {
    return this.end.client
  }

  constructor(
    readonly server: Host,
    readonly pid: number,
    private readonly end: ServerEnd,
    private readonly chance: Chance
  ) {
    this.key = chance.below(2 ** 31)
    this.steps = this.main()
    end.onData = (bytes) => {
      for (const message of this.frontend.read(bytes)) this.receive(message)
    }
    end.onEnd = () => this.receive({ _tag: "gone" })
    end.onClose = () => this.receive({ _tag: "gone" })
    this.advance(() => this.steps.next())
  }

  // ---- Waiting

  private receive(message: Wire.Message): void {
    if (this.isDone) return
    this.inbox.push(message)
    if (this.waiting?.isForMessage !== true) return
    const { end } = this.waiting
    this.waiting = undefined
    end()
    this.server.step(() => this.advance(() => this.steps.next()))
  }

  private isAdvancing = false

  private advance(resume: () => IteratorResult<Wait, void>): void {
    if (this.isDone) return
    if (this.isAdvancing) {
      this.server.world.after(0, () => this.advance(resume))
      return
    }
    this.isAdvancing = true
    try {
      const step = resume()
      if (step.done === true) this.close()
      else this.await(step.value)
    } finally {
      this.isAdvancing = false
    }
  }

  private await(wait: Wait): void {
    let isOver = false
    const end = wait((error) => {
      if (isOver || this.isDone) return
      isOver = true
      this.waiting = undefined
      this.server.step(() => this.advance(() => (error === undefined ? this.steps.next() : this.steps.throw(error))))
    })
    // It may be over already.
    if (isOver) return
    this.waiting = {
      end: () => {
        isOver = true
        end()
      },
      isCancellable: this.isCancellable,
      isForMessage: this.isReading
    }
  }

  private isCancellable = true
  private isReading = false

  /** A request to cancel what runs; without effect while nothing does. */
  cancel(error = canceledByUser): boolean {
    if (this.state !== "active" || this.isDone) return false
    this.interrupt(error)
    return true
  }

  /** Ends the session with an error. */
  terminate(error: PgError): void {
    if (this.isDone) return
    this.interrupt(error)
  }

  private interrupt(error: PgError): void {
    const { waiting } = this
    if (waiting === undefined || !waiting.isCancellable) {
      if (this.pending?.severity !== "FATAL") this.pending = error
      return
    }
    this.waiting = undefined
    waiting.end()
    this.server.step(() => this.advance(() => this.steps.throw(error)))
  }

  /** Ends at once: the server has crashed. */
  kill(): void {
    if (this.isDone) return
    this.isDone = true
    this.waiting?.end()
    this.server.forget(this)
  }

  private close(): void {
    if (this.isDone) return
    this.rollback()
    this.isDone = true
    this.flush()
    this.end.end()
    this.server.forget(this)
  }

  /** What kind of thing the statement waits for, as the server calls it. */
  private waitsFor: string | undefined

  private *waitingFor<A>(what: string, steps: Steps<A>): Steps<A> {
    this.waitsFor = what
    try {
      return yield* steps
    } finally {
      this.waitsFor = undefined
    }
  }

  pause(millis: number): Steps<void> {
    return this.waitingFor("Timeout", this.sleep(millis))
  }

  get activity(): Activity {
    const { application, pid, state, transaction, user } = this
    const idle = transaction === undefined ? "idle" : `idle in transaction${transaction.isFailed ? " (aborted)" : ""}`
    const shown = state === "active" ? "active" : state === "idle" ? idle : undefined
    return { pid, user, application, state: shown, waitsFor: state === "active" ? this.waitsFor : "Client" }
  }

  private *sleep(millis: number): Steps<void> {
    yield (wake) => this.server.world.after(millis, wake)
  }

  private *read(): Steps<Wire.Message> {
    while (this.inbox.length === 0) {
      if (this.state === "active") this.state = "idle"
      this.isReading = true
      yield () => this.idleTimeout()
      this.isReading = false
    }
    return this.inbox.shift()!
  }

  /** Ends a session that is idle for too long. Returns what ends the waiting. */
  private idleTimeout(): () => void {
    const isInTransaction = this.transaction !== undefined
    const millis = this.timeout(isInTransaction ? "idle_in_transaction_session_timeout" : "idle_session_timeout")
    if (millis === 0 || this.state !== "idle") return () => {}
    const error = isInTransaction
      ? new PgError("25P03", "terminating connection due to idle-in-transaction timeout", "ProcessInterrupts", "FATAL")
      : new PgError("57P05", "terminating connection due to idle-session timeout", "ProcessInterrupts", "FATAL")
    return this.server.world.after(millis, () => this.terminate(error))
  }

  private timeout(name: string): number {
    return millisOf(this.setting(name) ?? "0")
  }

  /** Cancels what runs until the server is ready again, if that takes too long. */
  private limitTime(): void {
    if (this.endTimeout !== undefined) return
    const millis = this.timeout("statement_timeout")
    if (millis === 0) return
    this.endTimeout = this.server.world.after(millis, () => this.cancel(canceled("statement timeout")))
  }

  // ---- Answers

  private send(...parts: ReadonlyArray<Buffer>): void {
    this.outbox.push(...parts)
  }

  private flush(): void {
    if (this.outbox.length === 0) return
    const bytes = Buffer.concat(this.outbox)
    this.outbox = []
    this.end.send(bytes)
  }

  /** Says a notice, or what will be an error. */
  private report(error: PgError): void {
    this.send(Wire.report(error))
    this.flush()
  }

  private ready(): void {
    const { transaction } = this
    this.endTimeout?.()
    this.endTimeout = undefined
    this.state = "idle"
    if (transaction === undefined) this.send(...this.laterNotifications.splice(0))
    this.tellSettings()
    this.send(Wire.readyForQuery(transaction === undefined ? "I" : transaction.isFailed ? "E" : "T"))
    this.flush()
  }

  private tellSettings(): void {
    for (const [name, value] of this.settings.changes((name) => this.setting(name))) {
      this.send(Wire.parameterStatus(name, value))
    }
  }

  listensTo(channel: string): boolean {
    return this.channels.has(channel)
  }

  /** What was notified on a channel. */
  notified(pid: number, channel: string, payload: string): void {
    if (!this.channels.has(channel) || this.isDone) return
    if (this.state === "idle" && this.transaction === undefined) this.end.send(Wire.notification(pid, channel, payload))
    else this.laterNotifications.push(Wire.notification(pid, channel, payload))
  }

  private readonly laterNotifications: Array<Buffer> = []

  // ---- The conversation

  private *main(): Steps<void> {
    try {
      if (!(yield* this.begin())) return
      while (true) {
        const message = yield* this.read()
        this.dropCancel()
        if (message._tag === "terminate" || message._tag === "gone") return
        yield* this.handle(message)
        if (this.pending?.severity === "FATAL") throw this.pending
      }
    } catch (error) {
      if (error === over) return
      if (!(error instanceof PgError)) throw error
      this.send(Wire.report(error))
    }
  }

  private *begin(): Steps<boolean> {
    let first = yield* this.read()
    if (first._tag === "ssl") {
      this.send(Wire.sslRefused)
      this.flush()
      first = yield* this.read()
    }
    if (first._tag === "cancel") {
      yield* this.sleep(this.chance.between(0.05, 0.5))
      this.server.cancel(first.pid, first.key)
      return false
    }
    if (first._tag !== "startup") return false
    this.application = first.parameters.application_name ?? ""
    this.user = first.parameters.user ?? ""
    const refused = this.server.refusal ?? this.server.refusalOf(this)
    if (refused !== undefined) throw refused
    this.send(Wire.authentication(10, "SCRAM-SHA-256\0\0"))
    this.flush()
    const scram = new Scram()
    const initial = yield* this.read()
    if (initial._tag !== "password") return false
    this.send(Wire.authentication(11, scram.first(initial.body, String(this.chance.below(2 ** 31)))))
    this.flush()
    const proof = yield* this.read()
    if (proof._tag !== "password") return false
    const verified = scram.last(proof.body)
    if (verified === undefined || this.user !== role)
      throw new PgError("28P01", `password authentication failed for user "${this.user}"`, "auth_failed", "FATAL")
    this.send(Wire.authentication(12, verified), Wire.authentication(0))
    const wanted = first.parameters.database ?? this.user
    if (wanted !== database) {
      throw new PgError("3D000", `database "${wanted}" does not exist`, "InitPostgres", "FATAL")
    }
    try {
      this.settings.begin(first.parameters)
    } catch (error) {
      throw error instanceof PgError ? new PgError(error.code, error.message, error.routine, "FATAL") : error
    }
    this.tellSettings()
    this.send(Wire.backendKey(this.pid, this.key))
    yield* this.sleep(this.chance.between(0.5, 3))
    this.ready()
    return true
  }

  private *handle(message: Wire.Message): Steps<void> {
    if (this.isSkipping && message._tag !== "sync") return
    this.state = "active"
    try {
      switch (message._tag) {
        case "query":
          this.limitTime()
          yield* this.simple(message.sql)
          return
        case "parse":
          this.limitTime()
          this.parse(message)
          return
        case "bind":
          this.limitTime()
          this.bind(message)
          return
        case "describe":
          this.describe(message.kind, message.name)
          return
        case "execute":
          this.limitTime()
          yield* this.execute(message.portal, message.max)
          return
        case "close":
          if (message.kind === "S") this.statements.delete(message.name)
          else this.portals.delete(message.name)
          this.send(Wire.closeComplete)
          return
        case "flush":
          this.flush()
          return
        case "sync":
          this.isSkipping = false
          yield* this.endImplicit()
          this.ready()
          return
        default:
          return
      }
    } catch (error) {
      this.fail(error)
      if (message._tag === "query" || message._tag === "sync") this.ready()
      else this.isSkipping = true
    }
  }

  private fail(error: unknown): void {
    if (!(error instanceof PgError)) throw error
    this.isCancellable = true
    const { transaction } = this
    if (error.severity === "FATAL") throw error
    this.dropCancel()
    this.server.observer.failed(this, error)
    if (transaction?.isBlock === true) {
      this.undo(transaction, transaction.level)
      transaction.isFailed = true
    } else this.rollback()
    this.report(error)
  }

  /** A cancel that has come too late for what ran: the server forgets it when it reads the next message, or after an error. */
  private dropCancel(): void {
    if (this.pending?.severity !== "FATAL") this.pending = undefined
  }

  /** The pending signal, if one has come. */
  private check(): void {
    const { pending } = this
    if (pending === undefined) return
    this.pending = undefined
    throw pending
  }

  private *simple(sql: string): Steps<void> {
    const statements = statementsOf(sql, this.catalog)
    if (statements.length === 0) this.send(Wire.emptyQuery)
    this.isOneOfSeveral = statements.length > 1
    for (const index of statements.keys()) {
      // A statement before it may have changed the tables.
      const prepared = this.allowed(() => statementsOf(sql, this.catalog)[index]!(), "exec_simple_query")
      this.params = []
      const fields = fieldsOf(prepared.plan)
      const describe = () => {
        if (fields !== undefined) this.send(Wire.rowDescription(fields))
      }
      const isSelect = prepared.plan._tag === "query" && prepared.plan.isSelect
      const { rows, tag } = yield* this.run(prepared, sql, isSelect ? describe : () => {})
      if (!isSelect) describe()
      this.send(...rows.map(Wire.dataRow))
      // The last one is answered when all are committed.
      if (index === statements.length - 1) yield* this.endImplicit()
      this.send(Wire.commandComplete(tag))
    }
    this.ready()
  }

  /** What may run in a transaction that has failed. */
  private allowed(make: () => Prepared, routine: Refusing): Prepared {
    if (this.transaction?.isFailed !== true) return make()
    let prepared: Prepared | undefined
    try {
      prepared = make()
    } catch (error) {
      if (!(error instanceof PgError)) throw error
    }
    if (!isEnding(prepared?.plan)) throw aborted(routine)
    return prepared!
  }

  /** The tables, as this session sees them. */
  private get catalog(): Catalog {
    return this.transaction?.catalogs.at(-1)?.catalog ?? this.server.store.catalog
  }

  private prepare(sql: string, types: ReadonlyArray<Type | undefined>): Statement {
    const { catalog } = this
    const statements = statementsOf(sql, catalog, types)
    if (statements.length > 1) {
      throw new PgError("42601", "cannot insert multiple commands into a prepared statement", "exec_parse_message")
    }
    const [make] = statements
    const prepared = make === undefined ? undefined : this.allowed(make, "exec_parse_message")
    return { sql, types, catalog, prepared }
  }

  private parse({ name, sql, types }: Extract<Wire.Message, { readonly _tag: "parse" }>): void {
    // The unnamed one is gone, whatever comes of the new one.
    if (name === "") this.statements.delete("")
    const statement = this.prepare(sql, types.map(typeOfOid))
    if (name !== "" && this.statements.has(name)) {
      throw new PgError("42P05", `prepared statement "${name}" already exists`, "StorePreparedStatement")
    }
    this.statements.set(name, statement)
    this.send(Wire.parseComplete)
  }

  private statement(name: string): Statement {
    const found = this.statements.get(name)
    if (found !== undefined) return found
    const [message, routine] =
      name === ""
        ? ["unnamed prepared statement does not exist", "exec_bind_message"]
        : [`prepared statement "${name}" does not exist`, "FetchPreparedStatement"]
    throw new PgError("26000", message, routine)
  }

  /** A statement with the tables as they are now: what it returns may not have changed. */
  private current(name: string): Statement {
    const found = this.statement(name)
    if (found.catalog === this.catalog || found.prepared === undefined || this.transaction?.isFailed === true) {
      return found
    }
    const next = this.prepare(found.sql, found.prepared.params)
    if (JSON.stringify(fieldsOf(next.prepared?.plan)) !== JSON.stringify(fieldsOf(found.prepared.plan))) {
      throw new PgError("0A000", "cached plan must not change result type", "RevalidateCachedQuery")
    }
    this.statements.set(name, next)
    return next
  }

  private bind({ params, portal, statement }: Extract<Wire.Message, { readonly _tag: "bind" }>): void {
    const found = this.current(statement)
    const { prepared, sql } = found
    if (this.transaction?.isFailed === true && prepared !== undefined && !isEnding(prepared.plan)) {
      throw aborted("exec_bind_message")
    }
    const types = prepared?.params ?? []
    if (params.length !== types.length) {
      throw new PgError(
        "08P01",
        `bind message supplies ${params.length} parameters, but prepared statement "${statement}" requires ${types.length}`,
        "exec_bind_message"
      )
    }
    if (portal === "") this.portals.delete("")
    else if (this.portals.has(portal)) {
      throw new PgError("42P03", `cursor "${portal}" already exists`, "CreatePortal")
    }
    this.begun()
    this.params = params.map((param, i) => (param === null ? null : read(param, types[i]!)))
    prepared?.fold({ env: this, rows: [] })
    this.portals.set(portal, { plan: prepared?.plan, sql, params: this.params, left: undefined, tag: "" })
    this.send(Wire.bindComplete)
  }

  private describe(kind: "S" | "P", name: string): void {
    const isFailed = this.transaction?.isFailed === true
    if (kind === "S") {
      const { prepared } = this.statement(name)
      if (isFailed && fieldsOf(prepared?.plan) !== undefined) throw aborted("exec_describe_statement_message")
      this.send(Wire.parameterDescription((prepared?.params ?? []).map(oidOf)))
      const fields = fieldsOf(this.current(name).prepared?.plan)
      this.send(fields === undefined ? Wire.noData : Wire.rowDescription(fields))
      return
    }
    const fields = fieldsOf(this.portal(name, "exec_describe_portal_message").plan)
    if (isFailed && fields !== undefined) throw aborted("exec_describe_portal_message")
    this.send(fields === undefined ? Wire.noData : Wire.rowDescription(fields))
  }

  private portal(name: string, routine: string): Portal {
    const portal = this.portals.get(name)
    if (portal === undefined) throw new PgError("34000", `portal "${name}" does not exist`, routine)
    return portal
  }

  private *execute(name: string, max: number): Steps<void> {
    const portal = this.portal(name, "exec_execute_message")
    const { params, plan, sql } = portal
    if (plan === undefined) {
      this.send(Wire.emptyQuery)
      return
    }
    if (this.transaction?.isFailed === true && !isEnding(plan)) throw aborted("exec_execute_message")
    const isQuery = fieldsOf(plan) !== undefined
    if (portal.left === undefined) {
      this.params = params
      const { rows, tag } = yield* this.run({ plan, params: [], fold: () => {} }, sql)
      portal.left = rows
      portal.tag = tag
    } else if (!isQuery) throw new PgError("55000", `portal "${name}" cannot be run`, "MarkPortalActive")
    const rows = portal.left
    if (max > 0 && rows.length >= max) {
      portal.left = rows.slice(max)
      this.send(...rows.slice(0, max).map(Wire.dataRow), Wire.portalSuspended)
      return
    }
    portal.left = []
    // The tag counts what was fetched now.
    const tag = portal.tag.replace(/^SELECT \d+$/, `SELECT ${rows.length}`)
    this.send(...rows.map(Wire.dataRow), Wire.commandComplete(tag))
  }

  // ---- Statements

  private *run(
    { fold, plan }: Prepared,
    sql: string,
    begins: () => void = () => {}
  ): Steps<{ readonly rows: ReadonlyArray<ReadonlyArray<string | null>>; readonly tag: string }> {
    yield* this.sleep(this.server.cost(this.chance))
    this.check()
    if (plan._tag === "transaction") return yield* this.control(plan.command)
    const transaction = this.begun()
    switch (plan._tag) {
      case "recorded":
        return { rows: plan.rows, tag: `SELECT ${plan.rows.length}` }
      case "query": {
        // An operation that the workload has marked, whatever becomes of it.
        this.server.observer.began(this, sql)
        this.takeSnapshot(transaction)
        fold({ env: this, rows: [] })
        if (plan.writes !== undefined && this.isReadOnly) throw readOnly(plan.writes)
        begins()
        const { rows, tag } = yield* plan.run(this)
        this.check()
        this.server.observer.ran(this, sql)
        return { rows: plan.fields === undefined ? [] : texts(rows, plan.fields), tag }
      }
      case "set":
        return { rows: [], tag: this.set(plan, transaction) }
      case "setTransaction":
        this.setModes(plan, transaction)
        return { rows: [], tag: "SET" }
      case "setConstraints":
        if (!transaction.isBlock) this.report(needsBlock("SET CONSTRAINTS", "WARNING"))
        if (!plan.isDeferred) this.checkDeferred(transaction)
        return { rows: [], tag: "SET CONSTRAINTS" }
      case "define":
        if (this.isReadOnly) throw readOnly(plan.tag)
        transaction.xid ??= this.server.nextXid()
        transaction.catalogs.push({ catalog: plan.catalog, level: transaction.level })
        return { rows: [], tag: plan.tag }
      case "show": {
        const value = this.setting(plan.name)
        if (value === undefined) throw unknownSetting(plan.name)
        return { rows: [[value]], tag: "SHOW" }
      }
      case "listen":
      case "unlisten":
        if (plan._tag === "listen" && this.server.isStandby) throw duringRecovery("LISTEN")
        transaction.listening.push({ channel: plan.channel, isOn: plan._tag === "listen" })
        return { rows: [], tag: plan._tag.toUpperCase() }
      case "notify":
        if (this.server.isStandby) throw duringRecovery("NOTIFY")
        this.notify(plan.channel, plan.payload)
        return { rows: [], tag: "NOTIFY" }
      case "discard":
        if (plan.tag !== "DISCARD ALL") return { rows: [], tag: plan.tag }
        if (transaction.isBlock) {
          const message = "DISCARD ALL cannot run inside a transaction block"
          throw new PgError("25001", message, "PreventInTransactionBlock")
        }
        this.statements.clear()
        this.channels.clear()
        this.settings.clear()
        return { rows: [], tag: plan.tag }
      case "deallocate":
        if (plan.name === undefined) this.statements.clear()
        else if (!this.statements.delete(plan.name)) {
          throw new PgError("26000", `prepared statement "${plan.name}" does not exist`, "FetchPreparedStatement")
        }
        return { rows: [], tag: deallocated(plan.name) }
      case "copyOut": {
        this.takeSnapshot(transaction)
        const rows = plan.rows(this)
        const line = (row: ReadonlyArray<Value>) =>
          `${row.map((value, i) => toText(value, plan.fields[i]!.type) ?? "\\N").join("\t")}\n`
        this.send(Wire.copyOut(plan.fields.length), ...rows.map((row) => Wire.copyData(line(row))), Wire.copyDone)
        return { rows: [], tag: `COPY ${rows.length}` }
      }
      case "copyIn": {
        if (this.server.isStandby) throw duringRecovery("COPY")
        if (this.isReadOnly) throw readOnly("COPY FROM")
        this.takeSnapshot(transaction)
        const lines = yield* this.copyIn(plan.columns)
        for (const line of lines) {
          yield* plan.add(
            this,
            line.split("\t").map((value) => (value === "\\N" ? null : value))
          )
        }
        return { rows: [], tag: `COPY ${lines.length}` }
      }
    }
  }

  /** The lines that the client sends. */
  private *copyIn(columns: number): Steps<ReadonlyArray<string>> {
    this.send(Wire.copyIn(columns))
    this.flush()
    let text = ""
    while (true) {
      const message = yield* this.read()
      this.state = "active"
      if (message._tag === "copyDone") return text.split("\n").filter((line) => line !== "")
      if (message._tag === "copyData") text += message.text
      if (message._tag === "copyFail") {
        throw new PgError("57014", `COPY from stdin failed: ${message.why}`, "CopyGetData")
      }
      if (message._tag === "terminate" || message._tag === "gone") throw over
    }
  }

  private set(
    { isLocal, name, value }: Extract<Plan, { readonly _tag: "set" }>,
    transaction: Transaction
  ): "SET" | "RESET" {
    const lower = name.toLowerCase()
    if (isLocal && !transaction.isBlock) this.report(needsBlock("SET LOCAL", "WARNING"))
    this.setConfig(lower, value ?? this.settings.reset(lower) ?? "", isLocal)
    return value === undefined ? "RESET" : "SET"
  }

  private setModes(
    { isDefault, isolation, isReadOnly }: Extract<Plan, { readonly _tag: "setTransaction" }>,
    transaction: Transaction
  ): void {
    if (isDefault) {
      if (isolation !== undefined) this.setConfig("default_transaction_isolation", isolation, false)
      if (isReadOnly !== undefined) this.setConfig("default_transaction_read_only", isReadOnly ? "on" : "off", false)
      return
    }
    if (!transaction.isBlock) this.report(needsBlock("SET TRANSACTION", "WARNING"))
    this.checkModes(isolation, isReadOnly)
    if (isolation !== undefined && isolation !== transaction.isolation && transaction.hasRead) {
      const message = "SET TRANSACTION ISOLATION LEVEL must be called before any query"
      throw new PgError("25001", message, "call_enum_check_hook")
    }
    if (isReadOnly === false && transaction.isReadOnly && transaction.hasRead) {
      const message = "transaction read-write mode must be set before any query"
      throw new PgError("25001", message, "call_bool_check_hook")
    }
    transaction.isolation = isolation ?? transaction.isolation
    transaction.isReadOnly = isReadOnly ?? transaction.isReadOnly
  }

  /** What a standby does not have. */
  private checkModes(isolation: string | undefined, isReadOnly: boolean | undefined): void {
    if (!this.server.isStandby) return
    if (isolation === "serializable") {
      throw new PgError("0A000", "cannot use serializable mode in a hot standby", "call_enum_check_hook", "ERROR", {
        hint: "You can use REPEATABLE READ instead."
      })
    }
    if (isReadOnly === false) {
      const message = "cannot set transaction read-write mode during recovery"
      throw new PgError("0A000", message, "call_bool_check_hook")
    }
  }

  /** The transaction, or one for this statement alone. */
  private begun(): Transaction {
    this.transaction ??= this.newTransaction(undefined, undefined, false)
    return this.transaction
  }

  private newTransaction(
    isolation: string | undefined,
    isReadOnly: boolean | undefined,
    isBlock: boolean
  ): Transaction {
    return new Transaction(
      isolation ?? this.setting("default_transaction_isolation") ?? "read committed",
      isReadOnly ?? this.isReadOnlyByDefault,
      isBlock
    )
  }

  private takeSnapshot(transaction: Transaction): void {
    if (transaction.isolation === "serializable" && this.server.isStandby) {
      throw new PgError(
        "0A000",
        "cannot use serializable mode in a hot standby",
        "GetSerializableTransactionSnapshot",
        "ERROR",
        {
          detail: '"default_transaction_isolation" is set to "serializable".',
          hint: "You can use \"SET default_transaction_isolation = 'repeatable read'\" to change the default."
        }
      )
    }
    transaction.hasRead = true
    const { sequence } = this.server.store
    if (isStrong(transaction)) transaction.snapshot ??= sequence
    this.snapshot = isStrong(transaction) ? transaction.snapshot! : sequence
  }

  private *control(command: Transactional): Steps<{ readonly rows: []; readonly tag: string }> {
    const { transaction } = this
    switch (command.kind) {
      case "begin":
        if (transaction?.isBlock === true) {
          const message = "there is already a transaction in progress"
          this.report(new PgError("25001", message, "BeginTransactionBlock", "WARNING"))
          return { rows: [], tag: command.tag }
        }
        this.checkModes(command.isolation, command.isReadOnly)
        if (transaction === undefined) {
          this.transaction = this.newTransaction(command.isolation, command.isReadOnly, true)
        } else {
          transaction.isolation = command.isolation ?? transaction.isolation
          transaction.isReadOnly = command.isReadOnly ?? transaction.isReadOnly
          transaction.isBlock = true
        }
        return { rows: [], tag: command.tag }
      case "commit": {
        if (transaction?.isBlock !== true) this.report(noTransaction("EndTransactionBlock"))
        if (transaction?.isFailed === true) {
          this.rollback()
          return { rows: [], tag: "ROLLBACK" }
        }
        if (transaction !== undefined) yield* this.commit(transaction)
        return { rows: [], tag: "COMMIT" }
      }
      case "rollback":
        if (transaction?.isBlock !== true) this.report(noTransaction("UserAbortTransactionBlock"))
        this.rollback()
        return { rows: [], tag: "ROLLBACK" }
      case "savepoint":
        this.checkBlock("SAVEPOINT", "DefineSavepoint")
        if (transaction === undefined) return { rows: [], tag: "SAVEPOINT" }
        transaction.savepoints.push(command.name)
        return { rows: [], tag: "SAVEPOINT" }
      case "release": {
        const at = this.savepoint(command.name, "RELEASE SAVEPOINT", "ReleaseSavepoint")
        this.lower(transaction!, at)
        transaction!.savepoints.length = at
        return { rows: [], tag: "RELEASE" }
      }
      case "rollback to": {
        const at = this.savepoint(command.name, "ROLLBACK TO SAVEPOINT", "RollbackToSavepoint")
        this.undo(transaction!, at + 1)
        transaction!.savepoints.length = at + 1
        transaction!.isFailed = false
        return { rows: [], tag: "ROLLBACK" }
      }
    }
  }

  /** Several statements of one text are a transaction already, though no block. */
  private checkBlock(what: string, routine: string): void {
    if (this.transaction?.isBlock === true) return
    throw needsBlock(what, "ERROR", this.isOneOfSeveral ? routine : "CheckTransactionBlock")
  }

  private savepoint(name: string, what: string, routine: string): number {
    this.checkBlock(what, routine)
    const at = this.transaction?.savepoints.lastIndexOf(name) ?? -1
    if (at < 0) throw new PgError("3B001", `savepoint "${name}" does not exist`, routine)
    return at
  }

  /** What was done in savepoints belongs to the level around them now. */
  private lower(transaction: Transaction, level: number): void {
    for (const all of [transaction.changes, transaction.catalogs, transaction.locks, transaction.settings]) {
      all.forEach((one, i) => {
        if (one.level > level) (all as Array<{ readonly level: number }>)[i] = { ...one, level }
      })
    }
  }

  /** Takes back what was done from a level on. */
  private undo(transaction: Transaction, level: number): void {
    const { catalogs, changes, locks, settings } = transaction
    while ((catalogs.at(-1)?.level ?? -1) >= level) catalogs.pop()
    for (let i = changes.length - 1; i >= 0; i--) {
      if (changes[i]!.level < level) continue
      this.server.store.take(changes[i]!, transaction.xid!)
      changes.splice(i, 1)
    }
    for (let i = locks.length - 1; i >= 0; i--) {
      if (locks[i]!.level < level) continue
      this.server.locks.release(locks[i]!.name, this)
      locks.splice(i, 1)
    }
    for (let i = settings.length - 1; i >= 0; i--) {
      const { level: at, name } = settings[i]!
      if (at < level) continue
      settings.splice(i, 1)
      // It has no value now, and is there.
      if (isCustom(name) && !this.settings.has(name)) this.settings.set(name, this.settings.reset(name) ?? "")
    }
  }

  private *endImplicit(): Steps<void> {
    const { transaction } = this
    if (transaction === undefined || transaction.isBlock) return
    yield* this.commit(transaction)
  }

  rollback(): void {
    const { transaction } = this
    if (transaction === undefined) return
    this.undo(transaction, 0)
    this.closePortals()
    this.transaction = undefined
    this.server.observer.ended(this, transaction, undefined)
  }

  private *commit(transaction: Transaction): Steps<void> {
    try {
      this.checkDeferred(transaction)
    } catch (error) {
      // It ends, an explicit transaction as well as an implicit one.
      this.rollback()
      throw error
    }
    const catalog = transaction.catalogs.at(-1)?.catalog
    let position: { readonly timeline: number; readonly end: number } | undefined
    if (transaction.xid !== undefined && (transaction.changes.length > 0 || catalog !== undefined)) {
      const { store } = this.server
      this.server.committing(this)
      const record = this.server.logCommit(transaction.xid, transaction.changes, catalog)
      position = record
      this.server.observer.logged(this, transaction, record)
      if (this.setting("synchronous_commit") !== "off" && !this.server.isAsynchronous) {
        this.isCancellable = false
        yield* this.sleep(this.server.flushCost(this.chance))
        this.isCancellable = true
        this.server.flush(record.end)
        if (this.setting("synchronous_commit") !== "local")
          yield* this.waitingFor("IPC", this.awaitStandbys(record.end))
      }
      store.commit(transaction.xid, catalog)
    }
    for (const { name } of transaction.locks) this.server.locks.release(name, this)
    for (const { isLocal, name, value } of transaction.settings) {
      if (!isLocal) this.settings.set(name, value)
      else if (isCustom(name) && !this.settings.has(name)) this.settings.set(name, "")
    }
    for (const { channel, isOn } of transaction.listening) {
      if (channel === undefined) this.channels.clear()
      else if (isOn) this.channels.add(channel)
      else this.channels.delete(channel)
    }
    this.transaction = undefined
    this.closePortals()
    this.server.observer.ended(this, transaction, position)
    for (const { channel, payload } of transaction.notifications) this.server.notify(this.pid, channel, payload)
  }

  /** Waits until enough standbys have it. A cancel ends the wait, not the commit. */
  private *awaitStandbys(position: number): Steps<void> {
    if (!this.server.needsStandbys(position)) return
    try {
      yield (wake) => this.server.onConfirmed(position, wake)
    } catch (error) {
      if (!(error instanceof PgError)) throw error
      const isFatal = error.severity === "FATAL"
      this.report(
        new PgError(
          isFatal ? "57P01" : "01000",
          isFatal
            ? "canceling the wait for synchronous replication and terminating connection due to administrator command"
            : "canceling wait for synchronous replication due to user request",
          "SyncRepWaitForLSN",
          "WARNING",
          {
            detail: "The transaction has already committed locally, but might not have been replicated to the standby."
          }
        )
      )
      if (isFatal) {
        const { transaction } = this
        this.server.store.commit(transaction!.xid!, transaction!.catalogs.at(-1)?.catalog)
        for (const { name } of transaction!.locks) this.server.locks.release(name, this)
        this.transaction = undefined
        this.server.observer.ended(this, transaction!, { timeline: this.server.timeline, end: position })
        this.flush()
        throw over
      }
    }
  }

  private checkDeferred(transaction: Transaction): void {
    const { catalog, latest } = this
    for (const { key, row, table: name } of transaction.changes) {
      const table = catalog.find((table) => table.name === name)
      const deferred = table?.deferred
      const value = row?.[deferred?.column ?? ""] ?? null
      if (deferred !== undefined && value !== null && this.rowAt(name, key, latest) === row) {
        if (this.rowAt(deferred.references, String(value), latest) === undefined)
          throw missingKey(name, deferred, value)
      }
      if (row !== undefined || this.rowAt(name, key, latest) !== undefined) continue
      for (const { deferred, name: other } of catalog) {
        if (deferred?.references !== name) continue
        const isUsed = this.keysOf(other).some(
          (one) => String(this.rowAt(other, one, latest)?.[deferred.column] ?? "") === key
        )
        if (isUsed) throw usedKey(name, table!.key!, other, deferred, key)
      }
    }
  }

  private closePortals(): void {
    this.portals.clear()
  }

  // ---- What statements reach

  get facts(): Facts {
    return this.server.facts(this.user)
  }

  get xid(): number | undefined {
    return this.transaction?.xid
  }

  get isRepeatable(): boolean {
    return this.transaction !== undefined && isStrong(this.transaction)
  }

  /** Of a transaction that was begun on a standby, and that a promotion has left as it was, too. */
  get isReadOnly(): boolean {
    return this.server.isStandby || this.transaction?.isReadOnly === true
  }

  private get isReadOnlyByDefault(): boolean {
    return this.server.isStandby || this.setting("default_transaction_read_only") === "on"
  }

  get latest(): number {
    return this.server.store.sequence
  }

  /** Settings that are what the server, or the transaction, is. */
  private live(name: string): string | undefined {
    switch (name) {
      case "in_hot_standby":
        return this.server.isStandby ? "on" : "off"
      case "default_transaction_read_only":
        return this.server.isReadOnly ? "on" : undefined
      default:
        return undefined
    }
  }

  setting(name: string): string | undefined {
    const lower = name.toLowerCase()
    const own = this.transaction?.settings.findLast((one) => one.name === lower)
    if (own !== undefined) return own.value
    if (lower === "transaction_isolation")
      return this.transaction?.isolation ?? this.setting("default_transaction_isolation")
    if (lower === "transaction_read_only") {
      return (this.transaction === undefined ? this.isReadOnlyByDefault : this.isReadOnly) ? "on" : "off"
    }
    return this.settings.get(lower)
  }

  setConfig(name: string, value: string, isLocal: boolean): void {
    const lower = name.toLowerCase()
    const transaction = this.begun()
    transaction.settings.push({ name: lower, value: checked(lower, value), isLocal, level: transaction.level })
  }

  notice(error: PgError): void {
    this.report(error)
  }

  notify(channel: string, payload: string): void {
    const { notifications } = this.begun()
    // The same one is sent once.
    if (!notifications.some((one) => one.channel === channel && one.payload === payload)) {
      notifications.push({ channel, payload })
    }
  }

  signal(pid: number, how: "cancel" | "terminate"): boolean {
    if (this.server.signal(pid, how)) return true
    const message = `PID ${pid} is not a PostgreSQL backend process`
    this.notice(new PgError("01000", message, "pg_signal_backend", "WARNING"))
    return false
  }

  rowAt(table: string, key: string, snapshot: number): Row | undefined {
    return this.server.store.read(table, key, snapshot, this.transaction?.xid)
  }

  keysOf(table: string): ReadonlyArray<string> {
    return this.server.store.keys(table)
  }

  scan(table: string): ReadonlyArray<Row> {
    return this.keysOf(table)
      .map((key) => this.rowAt(table, key, this.snapshot))
      .filter((row) => row !== undefined)
  }

  isNewer(table: string, key: string): boolean {
    return this.server.store.isNewer(table, key, this.snapshot)
  }

  lock(table: string, key: string, how: Lock): Steps<boolean> {
    return this.waitingFor("Lock", this.takeLock(table, key, how))
  }

  private *takeLock(table: string, key: string, how: Lock): Steps<boolean> {
    const name = `${table}/${key}`
    const { locks, world } = this.server
    const limit = this.timeout("lock_timeout")
    while (!locks.tryTake(name, this)) {
      if (how === "skip") return false
      if (how === "fail") {
        throw new PgError("55P03", `could not obtain lock on row in relation "${table}"`, "heap_lock_tuple")
      }
      yield (wake) => {
        const end = locks.wait(name, { owner: this, wake: () => wake() })
        const check = world.after(this.server.deadlockTimeout, () => {
          if (!locks.isDeadlock(this)) return
          end()
          wake(deadlock)
        })
        const expire =
          limit === 0
            ? () => {}
            : world.after(limit, () => {
                end()
                wake(new PgError("55P03", "canceling statement due to lock timeout", "ProcessInterrupts"))
              })
        return () => {
          end()
          check()
          expire()
        }
      }
      this.check()
    }
    const transaction = this.transaction!
    if (!transaction.locks.some((lock) => lock.name === name))
      transaction.locks.push({ name, level: transaction.level })
    transaction.xid ??= this.server.nextXid()
    return true
  }

  write(change: Change): void {
    const transaction = this.transaction!
    transaction.xid ??= this.server.nextXid()
    transaction.changes.push({ ...change, level: transaction.level })
    this.server.store.add(change, transaction.xid)
    this.server.logData(transaction.xid)
  }

  nextKey(): string {
    return this.server.nextKey()
  }
}

type Deferred = NonNullable<Catalog[number]["deferred"]>

const missingKey = (table: string, { column, constraint, references }: Deferred, value: Value): PgError =>
  new PgError(
    "23503",
    `insert or update on table "${table}" violates foreign key constraint "${constraint}"`,
    "ri_ReportViolation",
    "ERROR",
    {
      detail: `Key (${column})=(${String(value)}) is not present in table "${references}".`,
      schema: "public",
      table,
      constraint
    }
  )

const usedKey = (table: string, column: string, other: string, { constraint }: Deferred, value: string): PgError =>
  new PgError(
    "23503",
    `update or delete on table "${table}" violates foreign key constraint "${constraint}" on table "${other}"`,
    "ri_ReportViolation",
    "ERROR",
    {
      detail: `Key (${column})=(${value}) is still referenced from table "${other}".`,
      schema: "public",
      table: other,
      constraint
    }
  )

const isStrong = ({ isolation }: Transaction): boolean =>
  isolation === "repeatable read" || isolation === "serializable"

/** Whether it may run in a transaction that has failed. */
const isEnding = (plan: Plan | undefined): boolean =>
  plan?._tag === "transaction" && ["commit", "rollback", "rollback to"].includes(plan.command.kind)
