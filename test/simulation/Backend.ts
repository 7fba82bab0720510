/**
 * One session of a server: reads messages, runs statements, answers. A statement takes time, and may wait for a lock, a
 * standby or the disk; while it does it can be cancelled.
 */
import type { Chance } from "./Chance.js"
import type { Facts } from "./Expression.js"
import type { ServerEnd } from "./Network.js"
import { aborted, canceledByUser, duringRecovery, PgError, readOnly } from "./PgError.js"
import { schema } from "./Schema.js"
import { Scram } from "./Scram.js"
import { type Execution, type Plan, plansOf, type Steps, type Transactional, texts, type Wait } from "./Statement.js"
import { type Change, deadlock, type Locks, type LogRecord, type Row, type Store } from "./Store.js"
import type { Field } from "./Value.js"
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
  readonly changes: Array<Change & { readonly level: number }> = []
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
  nextXid(): number
  nextKey(): string
  logData(xid: number): void
  logCommit(xid: number, changes: ReadonlyArray<Change>): LogRecord
  flush(position: number): void
  needsStandbys(position: number): boolean
  onConfirmed(position: number, wake: () => void): () => void
}

interface Portal {
  readonly plan: Plan | undefined
  readonly sql: string
  readonly params: ReadonlyArray<string | null>
  left: ReadonlyArray<ReadonlyArray<string | null>> | undefined
  tag: string
  total: number
}

const parametersOf = (sql: string): number =>
  Math.max(0, ...[...sql.matchAll(/\$(\d+)/g)].map(([, number]) => Number(number)))

const noticeOf = (message: string) => new PgError("25P01", message, "EndTransactionBlock", "WARNING")

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
  params: ReadonlyArray<string | null> = []
  snapshot = 0
  private readonly frontend = new Wire.Frontend()
  private readonly inbox: Array<Wire.Message> = []
  private outbox: Array<Buffer> = []
  private readonly statements = new Map<string, { readonly sql: string; readonly plan: Plan | undefined }>()
  private readonly portals = new Map<string, Portal>()
  private readonly settings = new Map<string, string>()
  private readonly channels = new Set<string>()
  private readonly steps: Steps<void>
  private waiting:
    | { readonly end: () => void; readonly isCancellable: boolean; readonly isForMessage: boolean }
    | undefined
  private isDone = false
  private isSkipping = false
  private pending: PgError | undefined

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
      this.pending = error
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

  *sleep(millis: number): Steps<void> {
    yield (wake) => this.server.world.after(millis, wake)
  }

  private *read(): Steps<Wire.Message> {
    while (this.inbox.length === 0) {
      if (this.state === "active") this.state = "idle"
      this.isReading = true
      yield () => () => {}
      this.isReading = false
    }
    return this.inbox.shift()!
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

  private ready(): void {
    const { transaction } = this
    this.state = "idle"
    this.send(Wire.readyForQuery(transaction === undefined ? "I" : transaction.isFailed ? "E" : "T"))
    this.flush()
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
    for (const [name, value] of Object.entries(first.parameters)) this.settings.set(name.toLowerCase(), value)
    const refused = this.server.refusal
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
    if (verified === undefined)
      throw new PgError("28P01", `password authentication failed for user "${this.user}"`, "auth_failed", "FATAL")
    const full = this.server.refusalOf(this)
    if (full !== undefined) throw full
    this.send(Wire.authentication(12, verified), Wire.authentication(0))
    for (const [name, value] of [
      ["server_version", "18.4"],
      ["client_encoding", "UTF8"],
      ["standard_conforming_strings", "on"],
      ["DateStyle", "ISO, MDY"],
      ["TimeZone", "UTC"],
      ["in_hot_standby", this.server.isStandby ? "on" : "off"]
    ] as const) {
      this.send(Wire.parameterStatus(name, value))
    }
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
          yield* this.simple(message.sql)
          return
        case "parse":
          this.parse(message.name, message.sql)
          return
        case "bind":
          this.bind(message)
          return
        case "describe":
          this.describe(message.kind, message.name)
          return
        case "execute":
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
          this.sendNotifications()
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

  private sendNotifications(): void {
    if (this.transaction !== undefined) return
    for (const bytes of this.laterNotifications.splice(0)) this.end.send(bytes)
  }

  private fail(error: unknown): void {
    if (!(error instanceof PgError)) throw error
    this.isCancellable = true
    const { transaction } = this
    if (error.severity === "FATAL") throw error
    this.server.observer.failed(this, error)
    if (transaction?.isBlock === true) {
      this.undo(transaction, transaction.level)
      transaction.isFailed = true
    } else this.rollback()
    this.send(Wire.report(error))
  }

  /** The pending signal, if one has come. */
  private check(): void {
    const { pending } = this
    if (pending === undefined) return
    this.pending = undefined
    throw pending
  }

  private *simple(sql: string): Steps<void> {
    const plans = plansOf(sql)
    if (plans.length === 0) this.send(Wire.emptyQuery)
    for (const plan of plans) {
      this.params = []
      const { rows, tag } = yield* this.run(plan, sql)
      const fields = fieldsOf(plan)
      if (fields !== undefined) this.send(Wire.rowDescription(fields), ...rows.map(Wire.dataRow))
      this.send(Wire.commandComplete(tag))
    }
    yield* this.endImplicit()
    this.ready()
    this.sendNotifications()
  }

  private parse(name: string, sql: string): void {
    if (name !== "" && this.statements.has(name)) {
      throw new PgError("42P05", `prepared statement "${name}" already exists`, "StorePreparedStatement")
    }
    const plans = plansOf(sql)
    if (plans.length > 1) {
      throw new PgError("42601", "cannot insert multiple commands into a prepared statement", "exec_parse_message")
    }
    const [plan] = plans
    if (this.transaction?.isFailed === true && !isEnding(plan)) throw aborted
    this.statements.set(name, { sql, plan })
    this.send(Wire.parseComplete)
  }

  private bind({ params, portal, statement }: Extract<Wire.Message, { readonly _tag: "bind" }>): void {
    const found = this.statements.get(statement)
    if (found === undefined) {
      throw new PgError("26000", `prepared statement "${statement}" does not exist`, "FetchPreparedStatement")
    }
    if (this.transaction?.isFailed === true && !isEnding(found.plan)) throw aborted
    const wanted = parametersOf(found.sql)
    if (params.length !== wanted) {
      throw new PgError(
        "08P01",
        `bind message supplies ${params.length} parameters, but prepared statement "${statement}" requires ${wanted}`,
        "exec_bind_message"
      )
    }
    if (portal !== "" && this.portals.has(portal)) {
      throw new PgError("42P03", `cursor "${portal}" already exists`, "CreatePortal")
    }
    this.portals.set(portal, { ...found, params, left: undefined, tag: "", total: 0 })
    this.send(Wire.bindComplete)
  }

  private describe(kind: "S" | "P", name: string): void {
    const plan = kind === "S" ? this.statements.get(name)?.plan : this.portal(name).plan
    const fields = fieldsOf(plan)
    this.send(fields === undefined ? Wire.noData : Wire.rowDescription(fields))
  }

  private portal(name: string): Portal {
    const portal = this.portals.get(name)
    if (portal === undefined) throw new PgError("34000", `portal "${name}" does not exist`, "exec_execute_message")
    return portal
  }

  private *execute(name: string, max: number): Steps<void> {
    const portal = this.portal(name)
    if (portal.plan === undefined) {
      this.send(Wire.emptyQuery)
      return
    }
    if (portal.left === undefined) {
      this.params = portal.params
      const { rows, tag } = yield* this.run(portal.plan, portal.sql)
      portal.left = rows
      portal.tag = tag
      portal.total = rows.length
    } else if (this.transaction?.isFailed === true) throw aborted
    const rows = portal.left
    if (max > 0 && rows.length > max) {
      portal.left = rows.slice(max)
      this.send(...rows.slice(0, max).map(Wire.dataRow), Wire.portalSuspended)
    } else {
      portal.left = []
      // The tag counts what was fetched now.
      this.send(
        ...rows.map(Wire.dataRow),
        Wire.commandComplete(portal.tag.replace(/^SELECT \d+$/, `SELECT ${rows.length}`))
      )
    }
  }

  // ---- Statements

  private *run(
    plan: Plan,
    sql: string
  ): Steps<{ readonly rows: ReadonlyArray<ReadonlyArray<string | null>>; readonly tag: string }> {
    yield* this.sleep(this.server.cost(this.chance))
    this.check()
    if (this.transaction?.isFailed === true && !isEnding(plan)) throw aborted
    if (plan._tag === "transaction") return yield* this.control(plan.command)
    const transaction = this.begun()
    switch (plan._tag) {
      case "recorded":
        return { rows: plan.rows, tag: `SELECT ${plan.rows.length}` }
      case "query": {
        // An operation that the workload has marked, whatever becomes of it.
        this.server.observer.began(this, sql)
        if (plan.isWrite && this.server.isStandby) throw readOnly(sql.trimStart().split(/\s/)[0]!.toUpperCase())
        this.takeSnapshot(transaction)
        const { rows, tag } = yield* plan.run(this)
        this.check()
        this.server.observer.ran(this, sql)
        return { rows: plan.fields === undefined ? [] : texts(rows, plan.fields), tag }
      }
      case "set":
        this.setConfig(plan.name, plan.value ?? "", plan.isLocal && transaction.isBlock)
        return { rows: [], tag: plan.value === undefined ? "RESET" : "SET" }
      case "setTransaction":
        transaction.isolation = plan.isolation ?? transaction.isolation
        transaction.isReadOnly = plan.isReadOnly ?? transaction.isReadOnly
        return { rows: [], tag: "SET" }
      case "show": {
        const value = this.setting(plan.name)
        if (value === undefined) {
          throw new PgError("42704", `unrecognized configuration parameter "${plan.name}"`, "find_option")
        }
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
        this.statements.clear()
        this.channels.clear()
        this.settings.clear()
        return { rows: [], tag: "DISCARD ALL" }
      case "deallocate":
        if (plan.name === undefined) this.statements.clear()
        else if (!this.statements.delete(plan.name)) {
          throw new PgError("26000", `prepared statement "${plan.name}" does not exist`, "FetchPreparedStatement")
        }
        return { rows: [], tag: deallocated(plan.name) }
      case "copy":
        if (!plan.isFrom) throw new PgError("0A000", "COPY TO STDOUT is not simulated", "simulator")
        yield* this.copy()
        return { rows: [], tag: "COPY 0" }
    }
  }

  private *copy(): Steps<void> {
    this.send(Wire.copyIn)
    this.flush()
    while (true) {
      const message = yield* this.read()
      this.state = "active"
      if (message._tag === "copyDone") return
      if (message._tag === "copyFail") throw new PgError("57014", "COPY from stdin failed", "CopyGetData")
      if (message._tag === "terminate" || message._tag === "gone") throw over
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
      this.server.isStandby || (isReadOnly ?? this.setting("default_transaction_read_only") === "on"),
      isBlock
    )
  }

  private takeSnapshot(transaction: Transaction): void {
    if (transaction.isolation === "serializable" && this.server.isStandby) {
      throw new PgError("0A000", "cannot use serializable mode in a hot standby", "GetSerializableTransactionSnapshot")
    }
    const { sequence } = this.server.store
    if (isStrong(transaction)) transaction.snapshot ??= sequence
    this.snapshot = isStrong(transaction) ? transaction.snapshot! : sequence
  }

  private *control(command: Transactional): Steps<{ readonly rows: []; readonly tag: string }> {
    const { transaction } = this
    switch (command.kind) {
      case "begin":
        if (transaction?.isBlock === true) {
          this.send(
            Wire.report(
              new PgError("25001", "there is already a transaction in progress", "BeginTransactionBlock", "WARNING")
            )
          )
        } else if (transaction === undefined) {
          this.transaction = this.newTransaction(command.isolation, command.isReadOnly, true)
        } else transaction.isBlock = true
        return { rows: [], tag: "BEGIN" }
      case "commit": {
        if (transaction === undefined) this.send(Wire.report(noticeOf("there is no transaction in progress")))
        if (transaction?.isFailed === true) {
          this.rollback()
          return { rows: [], tag: "ROLLBACK" }
        }
        if (transaction !== undefined) yield* this.commit(transaction)
        return { rows: [], tag: "COMMIT" }
      }
      case "rollback":
        if (transaction === undefined) this.send(Wire.report(noticeOf("there is no transaction in progress")))
        this.rollback()
        return { rows: [], tag: "ROLLBACK" }
      case "savepoint":
        if (transaction?.isBlock !== true) {
          throw new PgError("25P01", "SAVEPOINT can only be used in transaction blocks", "RequireTransactionBlock")
        }
        transaction.savepoints.push(command.name)
        return { rows: [], tag: "SAVEPOINT" }
      case "release": {
        const at = this.savepoint(command.name)
        this.lower(transaction!, at)
        transaction!.savepoints.length = at
        return { rows: [], tag: "RELEASE" }
      }
      case "rollback to": {
        const at = this.savepoint(command.name)
        this.undo(transaction!, at + 1)
        transaction!.savepoints.length = at + 1
        transaction!.isFailed = false
        return { rows: [], tag: "ROLLBACK" }
      }
    }
  }

  private savepoint(name: string): number {
    const at = this.transaction?.savepoints.lastIndexOf(name) ?? -1
    if (at < 0) throw new PgError("3B001", `savepoint "${name}" does not exist`, "ReleaseSavepoint")
    return at
  }

  /** What was done in savepoints belongs to the level around them now. */
  private lower(transaction: Transaction, level: number): void {
    for (const all of [transaction.changes, transaction.locks, transaction.settings]) {
      all.forEach((one, i) => {
        if (one.level > level) (all as Array<{ readonly level: number }>)[i] = { ...one, level }
      })
    }
  }

  /** Takes back what was done from a level on. */
  private undo(transaction: Transaction, level: number): void {
    const { changes, locks, settings } = transaction
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
    for (let i = settings.length - 1; i >= 0; i--) if (settings[i]!.level >= level) settings.splice(i, 1)
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
    this.checkDeferred(transaction)
    let position: { readonly timeline: number; readonly end: number } | undefined
    if (transaction.xid !== undefined && transaction.changes.length > 0) {
      const { store } = this.server
      const record = this.server.logCommit(transaction.xid, transaction.changes)
      position = record
      this.server.observer.logged(this, transaction, record)
      if (this.setting("synchronous_commit") !== "off" && !this.server.isAsynchronous) {
        this.isCancellable = false
        yield* this.sleep(this.server.flushCost(this.chance))
        this.isCancellable = true
        this.server.flush(record.end)
        yield* this.awaitStandbys(record.end)
      }
      store.commit(transaction.xid)
    }
    for (const { name } of transaction.locks) this.server.locks.release(name, this)
    for (const { isLocal, name, value } of transaction.settings) {
      if (!isLocal) this.settings.set(name, value)
      else if (name.includes(".") && !this.settings.has(name)) this.settings.set(name, "")
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
      const text = isFatal ? "terminating connection" : "user request"
      this.send(
        Wire.report(
          new PgError(
            isFatal ? "57P01" : "01000",
            isFatal
              ? "canceling the wait for synchronous replication and terminating connection due to administrator command"
              : `canceling wait for synchronous replication due to ${text}`,
            "SyncRepWaitForLSN",
            "WARNING"
          )
        )
      )
      if (isFatal) {
        this.server.store.commit(this.transaction!.xid!)
        const { transaction } = this
        for (const { name } of transaction!.locks) this.server.locks.release(name, this)
        this.transaction = undefined
        this.server.observer.ended(this, transaction!, { timeline: this.server.timeline, end: position })
        this.flush()
        throw over
      }
    }
  }

  private checkDeferred(transaction: Transaction): void {
    for (const { row, table: name } of transaction.changes) {
      const deferred = schema.find((table) => table.name === name)?.deferred
      if (deferred === undefined || row === undefined || row[deferred.column] === null) continue
      if (this.rowAt(deferred.references, String(row[deferred.column]), this.latest) !== undefined) continue
      throw new PgError(
        "23503",
        `insert or update on table "${name}" violates foreign key constraint "${deferred.constraint}"`,
        "ri_ReportViolation"
      )
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

  get isReadOnly(): boolean {
    return this.server.isStandby || this.server.isReadOnly || this.transaction?.isReadOnly === true
  }

  get latest(): number {
    return this.server.store.sequence
  }

  setting(name: string): string | undefined {
    const lower = name.toLowerCase()
    const local = this.transaction?.settings.findLast((one) => one.name === lower)
    if (local !== undefined) return local.value
    if (lower === "transaction_isolation") return this.transaction?.isolation ?? "read committed"
    if (lower === "transaction_read_only") return this.isReadOnly ? "on" : "off"
    if (lower === "in_hot_standby") return this.server.isStandby ? "on" : "off"
    return this.settings.get(lower) ?? defaults[lower]
  }

  setConfig(name: string, value: string, isLocal: boolean): void {
    const transaction = this.begun()
    transaction.settings.push({ name: name.toLowerCase(), value, isLocal, level: transaction.level })
  }

  notify(channel: string, payload: string): void {
    this.begun().notifications.push({ channel, payload })
  }

  signal(pid: number, how: "cancel" | "terminate"): boolean {
    return this.server.signal(pid, how)
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

  *lock(table: string, key: string): Steps<void> {
    const name = `${table}/${key}`
    const { locks, world } = this.server
    while (!locks.tryTake(name, this)) {
      yield (wake) => {
        const end = locks.wait(name, { owner: this, wake: () => wake() })
        const check = world.after(this.server.deadlockTimeout, () => {
          if (!locks.isDeadlock(this)) return
          end()
          wake(deadlock)
        })
        return () => {
          end()
          check()
        }
      }
      this.check()
    }
    const transaction = this.transaction!
    if (!transaction.locks.some((lock) => lock.name === name))
      transaction.locks.push({ name, level: transaction.level })
    transaction.xid ??= this.server.nextXid()
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

const defaults: Readonly<Record<string, string>> = {
  server_version_num: "180004",
  server_version: "18.4",
  standard_conforming_strings: "on",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  synchronous_commit: "on",
  search_path: '"$user", public',
  timezone: "UTC",
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  application_name: "",
  max_connections: "100"
}

const isStrong = ({ isolation }: Transaction): boolean =>
  isolation === "repeatable read" || isolation === "serializable"

/** Whether it may run in a transaction that has failed. */
const isEnding = (plan: Plan | undefined): boolean =>
  plan?._tag === "transaction" && ["commit", "rollback", "rollback to"].includes(plan.command.kind)
