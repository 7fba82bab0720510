/** Runs the flows of a plan against routers, and compares what they learn with what really happened. */
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type { SqlError } from "@effect/sql/SqlError"
import * as SqlResolver from "@effect/sql/SqlResolver"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Option, type Runtime, Schema, Stream } from "effect"
import { Consistency, DbRouter, HttpSession, RouterError } from "effect-db-router"
import type { Cluster } from "./Cluster.js"
import { type Op, registers, type Sibling } from "./Plan.js"
import { Seen, type Truth } from "./Truth.js"

export interface Handle {
  readonly name: string
  readonly router: DbRouter.DbRouter
  readonly cluster: Cluster
  /** Under the scope "process": what any flow of it has written. */
  readonly written: Seen | undefined
  /** All routers of its system. */
  readonly peers: ReadonlyArray<Handle>
}

/** What an HTTP client keeps. */
interface Client {
  token: string | undefined
  /** What the token stands for. */
  seen: Seen
}

/** Why an effect of the workload ends a session. */
class Refused extends Error {
  readonly _tag = "Refused"
}

type Failure = SqlError | Refused

interface Hook {
  commits: number
  rollbacks: number
}

/** A transaction, or a savepoint, of the workload. */
interface Level {
  /** What it has written and not committed yet. */
  readonly own: Map<number, string>
  readonly ops: Array<string>
  readonly hooks: Array<Hook>
  tenant: string | undefined
  mark: string | undefined
  /** Of a repeatable read: what was seen before it began. */
  readonly base: Seen | undefined
}

/** What was inserted, and what was asked for right after it. */
interface Inserted {
  readonly op: string
  readonly hook: Hook
}

interface Context {
  readonly handle: Handle
  readonly flow: number
  readonly seen: Seen
  readonly level: Level | undefined
  /** Of what is outside of a level. */
  readonly tenant: string | undefined
  /** `replica`: reads need not see what the flow has written. */
  readonly isStale: boolean
  /** Something may interrupt it. */
  readonly mayStop: boolean
  /** `statementTimeout`, in milliseconds. */
  readonly limit: number | undefined
  readonly client: Client
}

type Row = Readonly<Record<string, unknown>>

type RunQuery = (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<Row>, SqlError>

const Register = Schema.Struct({ op: Schema.String, id: Schema.Number, value: Schema.String })

const oneRegister = "SELECT $1::text AS op, id, value FROM register WHERE id = $2"

type Run = Effect.Effect<void, Failure>

const codeOf = (error: unknown): string | undefined => {
  for (let at = error; typeof at === "object" && at !== null; at = (at as { readonly cause?: unknown }).cause) {
    const { code } = at as { readonly code?: unknown }
    if (typeof code === "string") return code
  }
  return undefined
}

/** What a `statementTimeout` has ended. */
const isOverdue = (error: Failure): boolean =>
  codeOf(error) === "57014" && messageOf(error).includes("statement timeout")

const tokenHeader = "x-token"

/** Codes that no fault brings about: prepared statements, portals and savepoints that are not there, texts that are wrong. */
const strange = new Set([
  "XX999",
  "26000",
  "42P05",
  "42P03",
  "34000",
  "3B001",
  "42601",
  "08P01",
  "25001",
  "42883",
  "42P01"
])

export class Workload {
  operations = 0
  /** How many steps of each kind have begun. */
  readonly kinds = new Map<string, number>()
  private ids = 0
  /** Errors that have told what became of a unit of work, or of a statement in none. */
  private readonly told = new WeakSet<Failure>()
  /** What flows have begun in other processes, and requests that are answered. */
  private readonly away = new Set<Promise<unknown>>()

  constructor(
    private readonly truth: Truth,
    /** Of another system. */
    private readonly others: ReadonlyArray<Handle>,
    /** What requests are answered in. */
    private readonly runtime: Runtime.Runtime<never>
  ) {}

  /** One flow, an operation after the other, whatever becomes of each. */
  flow(flow: number, handle: Handle, ops: ReadonlyArray<Op>): Effect.Effect<void> {
    const context: Context = {
      handle,
      flow,
      seen: new Seen(),
      level: undefined,
      tenant: undefined,
      isStale: false,
      mayStop: false,
      limit: undefined,
      client: { token: undefined, seen: new Seen() }
    }
    return Effect.forEach(ops, (op) => this.report(op, this.op(op, context), context), { discard: true })
  }

  /** Ends with what flows have begun elsewhere: it goes on where the flow that waits for it is interrupted. */
  readonly awayEnded: Effect.Effect<void> = Effect.suspend(() =>
    this.away.size === 0
      ? Effect.void
      : Effect.zipRight(
          Effect.promise(() => Promise.allSettled(this.away)),
          this.awayEnded
        )
  )

  private goesOn<A>(promise: Promise<A>): Promise<A> {
    this.away.add(promise)
    const over = () => this.away.delete(promise)
    promise.then(over, over)
    return promise
  }

  private report(op: Op, run: Run, { flow, mayStop }: Context): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.operations++
      this.truth.world.tell(`flow ${flow}: ${op._tag}`)
      return Effect.catchAllCause(run, (cause) => Effect.sync(() => this.tellFailure(op, cause, flow, mayStop)))
    })
  }

  private tellFailure(op: Op, cause: Cause.Cause<Failure>, flow: number, mayStop: boolean): void {
    for (const error of Cause.failures(cause)) this.judge(error, mayStop)
    for (const defect of Cause.defects(cause)) {
      if (!(defect instanceof Refused))
        this.truth.violate("no crash", `a defect: ${String(defect instanceof Error ? defect.stack : defect)}`)
    }
    this.truth.world.tell(`flow ${flow}: ${op._tag} ends with ${textOf(cause)}`)
  }

  /** Errors that nothing in the plan brings about. */
  private judge(error: Failure, mayStop: boolean): void {
    const code = codeOf(error)
    if (code === undefined) return
    this.truth.check(
      "no foreign cancel",
      code !== "57014" || mayStop,
      () => `a statement that nothing has cancelled fails with 57014: ${messageOf(error)}`
    )
    this.truth.check(
      "no strange error",
      !strange.has(code),
      () => `a statement fails with ${code}: ${messageOf(error)}`
    )
  }

  private each(ops: ReadonlyArray<Op>, context: Context): Run {
    return Effect.forEach(ops, (op) => this.op(op, context), { discard: true })
  }

  private nextOp({ flow, level, tenant }: Context): string {
    const op = `f${flow}.${++this.ids}`
    this.truth.expected.set(op, { tenant: level === undefined ? tenant : level.tenant, mark: level?.mark })
    return op
  }

  private query(context: Context, sql: string, params: ReadonlyArray<unknown>) {
    return context.handle.router.client.unsafe<Row>(sql, params)
  }

  private op(op: Op, context: Context): Run {
    const { handle, level } = context
    this.kinds.set(op._tag, (this.kinds.get(op._tag) ?? 0) + 1)
    const within = (change: Partial<Context>) => ({ ...context, ...change })
    switch (op._tag) {
      case "pause":
        return Effect.sleep(op.millis)
      case "write":
        return Effect.suspend(() =>
          this.write(context, "UPDATE register SET value = $1, writes = writes + 1 WHERE id = $2", op.register)
        )
      case "insert":
        return Effect.suspend(() => this.write(context, "INSERT INTO entry (op, flow) VALUES ($1, $2)", undefined))
      case "mistake":
        return Effect.suspend(() => {
          const fails = this.query(context, "INSERT INTO account (id, balance) VALUES (1, 1 / 0)", [])
          return op.isCaught ? Effect.ignore(fails) : Effect.asVoid(fails)
        })
      case "read":
        return Effect.asVoid(this.readOne(context, op.register))
      case "poll":
        return Effect.asVoid(
          Effect.repeatN(Effect.zipLeft(this.readOne(context, op.register), Effect.sleep(op.millis)), op.times - 1)
        )
      case "burst":
        return this.burst(op, context)
      case "crowd":
        return this.crowd(op, context)
      case "readAll":
        return Effect.asVoid(this.read(context, "SELECT $1::text AS op, id, value FROM register ORDER BY id", []))
      case "rows":
        return this.rows(context, op.count, op.take)
      case "notify":
        return handle.router.client.notify("news", `from ${context.flow}`)
      case "copy":
        return this.copy(op.isCaught, context)
      case "sleep":
        return Effect.map(this.query(context, `SELECT pg_sleep(${op.millis / 1000})`, []), () =>
          this.truth.check(
            "settings",
            context.limit === undefined || op.millis <= context.limit,
            () => `a statement of ${op.millis} ms has ended where statementTimeout is ${context.limit} ms`
          )
        )
      case "batch":
        return op.isWrite ? this.insertTogether(op.count, context) : this.readTogether(op.count, context)
      case "jostle":
        return this.jostle(op, context)
      case "setLocal":
        return Effect.suspend(() => {
          const mark = `m${++this.ids}`
          return Effect.map(this.query(context, `SET LOCAL app.mark = '${mark}'`, []), () => {
            if (level !== undefined) level.mark = mark
          })
        })
      case "hooks":
        return Effect.suspend(() => {
          const hook: Hook = { commits: 0, rollbacks: 0 }
          level?.hooks.push(hook)
          return this.provide(
            context,
            Effect.zipRight(
              DbRouter.afterCommit(Effect.sync(() => hook.commits++)),
              DbRouter.afterRollback(Effect.sync(() => hook.rollbacks++))
            )
          )
        })
      case "session":
        return this.session(op, context)
      case "siblings":
        return this.siblings(op, context)
      case "snapshot":
        return this.snapshot(op, context)
      case "tenantReads":
        return Effect.suspend(() => {
          const tenant = `t${++this.ids}`
          const inner: Level = { own: new Map(), ops: [], hooks: [], tenant, mark: undefined, base: undefined }
          return this.provide(
            context,
            DbRouter.session(this.each(op.ops, within({ level: inner })), { settings: { "app.tenant": tenant } })
          )
        })
      case "detached":
        return DbRouter.detached(
          this.each(op.ops, within({ level: undefined, tenant: level?.tenant, limit: undefined }))
        )
      case "fresh":
        return DbRouter.maxStaleness(this.each(op.ops, context), "1 second")
      case "reserve":
        return Effect.scoped(
          Effect.flatMap(handle.router.client.reserve, (connection) =>
            Effect.asVoid(
              this.read(context, oneRegister, [op.register], (sql, params) =>
                connection.execute(sql, params, undefined)
              )
            )
          )
        )
      case "primary":
        return DbRouter.primary(this.each(op.ops, context))
      case "replica":
        return DbRouter.replica(this.each(op.ops, within({ isStale: true })))
      case "fork":
        return this.fork(op.how, op.branches, context)
      case "race":
        return this.race(op.branches, context)
      case "timeout": {
        const seen = context.seen.copy()
        const inner = Effect.timeoutOption(this.each(op.ops, within({ seen, mayStop: true })), op.millis)
        return Effect.map(
          op.outer === undefined ? Effect.map(inner, Option.some) : Effect.timeoutOption(inner, op.outer),
          (done) => {
            if (Option.isSome(Option.flatten(done))) context.seen.absorb(seen)
          }
        )
      }
      case "interrupt":
        return Effect.gen(this, function* () {
          const seen = context.seen.copy()
          const fiber = yield* Effect.fork(this.each(op.ops, within({ seen, mayStop: true })))
          yield* Effect.sleep(Duration.millis(op.millis))
          yield* Fiber.interruptFork(fiber)
          if (op.again !== undefined) {
            yield* Effect.sleep(Duration.millis(op.again))
            yield* Fiber.interruptFork(fiber)
          }
          const exit = yield* Fiber.await(fiber)
          if (Exit.isSuccess(exit)) {
            yield* Fiber.inheritAll(fiber)
            context.seen.absorb(seen)
          } else if (!Exit.isInterrupted(exit)) return yield* exit
        })
      case "token":
        return Effect.gen(this, function* () {
          const token = yield* this.provide(context, Consistency.currentToken)
          const there = handle.peers[op.router % handle.peers.length]!
          const seen = context.seen.of(there.cluster)
          if (Option.isNone(token)) return
          // A new flow, as in another process: what it knows, it knows from the token.
          const done = yield* Deferred.make<Exit.Exit<void, Failure>>()
          const other: Context = { ...context, handle: there, seen, ...(there === handle ? {} : { tenant: undefined }) }
          const fiber = yield* Effect.forkDaemon(
            Effect.flatMap(
              Effect.exit(
                DbRouter.reset.pipe(
                  Effect.zipRight(Consistency.withToken(this.each(op.ops, other), token.value)),
                  Effect.provideService(DbRouter.DbRouter, there.router)
                )
              ),
              (exit) => Deferred.succeed(done, exit)
            )
          )
          void this.goesOn(new Promise((ended) => fiber.addObserver(ended)))
          yield* yield* Deferred.await(done)
        })
      case "request":
        return this.request(op, context)
      case "elsewhere":
        return this.elsewhere(op, context)
    }
  }

  private provide<A, E>({ handle }: Context, effect: Effect.Effect<A, E, DbRouter.DbRouter>): Effect.Effect<A, E> {
    return Effect.provideService(effect, DbRouter.DbRouter, handle.router)
  }

  private write(context: Context, sql: string, register: number | undefined): Run {
    const { level } = context
    const op = this.nextOp(context)
    const params = register === undefined ? [op, String(context.flow)] : [op, register]
    return this.query(context, sql, params).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (level === undefined) this.failed(op, error)
        })
      ),
      Effect.map(() => this.wrote(context, op, register))
    )
  }

  private wrote(context: Context, op: string, register: number | undefined): void {
    const { level, seen } = context
    if (level !== undefined) {
      level.ops.push(op)
      if (register !== undefined) level.own.set(register, op)
      return
    }
    this.truth.done(op, "a statement")
    if (register !== undefined) this.saw(context, seen, register, op)
  }

  private saw({ handle }: Context, seen: Seen, register: number, op: string): void {
    const commit = this.truth.commits.get(op)
    if (commit === undefined) return
    seen.add(register, commit)
    handle.written?.add(register, commit)
  }

  private failed(op: string, error: Failure): void {
    this.told.add(error)
    const outcome = RouterError.outcomeOf(error)
    if (outcome === "not done") this.truth.notDone(op, messageOf(error))
  }

  private read(
    context: Context,
    sql: string,
    params: ReadonlyArray<unknown>,
    run: RunQuery = (sql, params) => this.query(context, sql, params)
  ): Effect.Effect<ReadonlyMap<number, string>, SqlError> {
    return Effect.suspend(() => {
      const { handle, isStale, level, seen } = context
      const op = this.nextOp(context)
      const before = (level?.base ?? seen).copy()
      if (handle.written !== undefined && level === undefined) before.absorb(handle.written)
      return Effect.map(run(sql, [op, ...params]), (rows) => {
        const values = new Map<number, string>()
        for (const row of rows) {
          const register = Number(row.id)
          const value = String(row.value)
          values.set(register, value)
          this.truth.check("no foreign rows", row.op === op, () => `${op} got a row of ${String(row.op)}`)
          this.compare(context, op, before, register, value, isStale)
        }
        this.truth.check("no foreign rows", rows.length > 0, () => `${op} got no row`)
        return values
      })
    })
  }

  private compare(context: Context, op: string, before: Seen, register: number, value: string, isStale: boolean): void {
    const { level, seen } = context
    const own = level?.own.get(register)
    if (own === value) return
    if (own !== undefined && !isStale) {
      this.truth.check(
        "own writes",
        own === value,
        () => `${op} read ${value} of register ${register} in a transaction that has written ${own}`
      )
      return
    }
    const shown = this.truth.commits.get(value)
    if (shown === undefined) {
      this.truth.violate("own writes", `${op} read ${value}, which is not committed`)
      return
    }
    if (!isStale) {
      const missing = before.missing(register, shown, context.handle.name)
      this.truth.check(
        "own writes",
        missing === undefined,
        () =>
          `${op} read ${value} of register ${register} (${shown.end} on timeline ${shown.timeline}), and the flow has seen what was committed at ${missing!.end} on timeline ${missing!.timeline}`
      )
    }
    seen.add(register, shown)
  }

  private readOne(context: Context, register: number) {
    return this.read(context, oneRegister, [register])
  }

  private burst({ count, interrupted, millis }: Extract<Op, { readonly _tag: "burst" }>, context: Context): Run {
    return Effect.gen(this, function* () {
      const branches = Array.from({ length: count }, (_, i) => ({
        register: 1 + (i % registers),
        seen: context.seen.copy(),
        isStopped: i < interrupted
      }))
      const fibers = yield* Effect.forEach(branches, ({ isStopped, register, seen }) =>
        Effect.fork(this.readOne({ ...context, seen, mayStop: context.mayStop || isStopped }, register))
      )
      yield* Effect.sleep(millis)
      yield* Effect.forEach(fibers.slice(0, interrupted), Fiber.interruptFork, { discard: true })
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      for (const [i, exit] of exits.entries()) {
        if (Exit.isSuccess(exit)) {
          yield* Fiber.inheritAll(fibers[i]!)
          context.seen.absorb(branches[i]!.seen)
        } else if (!Exit.isInterrupted(exit)) return yield* Effect.asVoid(exit)
      }
    })
  }

  private crowd({ count, millis }: Extract<Op, { readonly _tag: "crowd" }>, context: Context): Run {
    const one = Effect.exit(this.query(context, `SELECT pg_sleep(${millis / 1000})`, []))
    return Effect.flatMap(
      Effect.all(
        Array.from({ length: count }, () => one),
        { concurrency: "unbounded" }
      ),
      (exits) => Effect.asVoid(exits.find(Exit.isFailure) ?? Effect.void)
    )
  }

  private copy(isCaught: boolean, context: Context): Run {
    const copied = Effect.flip(this.query(context, "COPY entry FROM STDIN", []))
    return Effect.flatMap(
      Effect.mapError(copied, () => new Refused("COPY has ended without an error")),
      (error) => {
        // It says so with the code of a cancel.
        const failure = codeOf(error) === "57014" && messageOf(error).includes("COPY") ? new Refused("copies") : error
        return isCaught ? Effect.void : Effect.fail(failure)
      }
    )
  }

  private insertTogether(count: number, context: Context): Run {
    return Effect.gen(this, function* () {
      const { client } = context.handle.router
      const insert = yield* SqlResolver.void("insert", {
        Request: Schema.String,
        execute: (ops) => client`INSERT INTO entry ${client.insert(ops.map((op) => ({ op, flow: `${context.flow}` })))}`
      })
      const ops = Array.from({ length: count }, () => this.nextOp(context))
      yield* Effect.forEach(ops, insert.execute, { batching: true, discard: true }).pipe(
        Effect.catchTag("ParseError", Effect.die),
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (context.level === undefined) for (const op of ops) this.failed(op, error)
          })
        )
      )
      for (const op of ops) this.wrote(context, op, undefined)
      // One statement has done all of them.
      if (context.level === undefined) this.truth.atomic("a batch", ops)
    })
  }

  private readTogether(count: number, context: Context): Run {
    const { client } = context.handle.router
    const run: RunQuery = (_, [op]) =>
      Effect.gen(function* () {
        const byId = yield* SqlResolver.findById("register", {
          Id: Schema.Number,
          Result: Register,
          ResultId: ({ id }) => id,
          execute: (ids) =>
            client`SELECT ${String(op)}::text AS op, id, value FROM register WHERE ${client.in("id", ids)}`
        })
        const ids = Array.from({ length: count }, (_, i) => i + 1)
        const found = yield* Effect.forEach(ids, byId.execute, { batching: true })
        return found.flatMap(Option.toArray)
      }).pipe(Effect.catchTag("ParseError", Effect.die))
    return Effect.asVoid(this.read(context, "", [], run))
  }

  private elsewhere({ ops, withToken }: Extract<Op, { readonly _tag: "elsewhere" }>, context: Context): Run {
    const [handle] = this.others
    if (handle === undefined) return Effect.void
    const run = Effect.suspend(() =>
      this.each(ops, { ...context, handle, level: undefined, tenant: undefined, limit: undefined })
    )
    if (!withToken) return run
    return Effect.flatMap(this.provide(context, Consistency.currentToken), (token) =>
      Effect.provideService(
        // It says nothing there.
        Consistency.withToken(
          run,
          Option.getOrElse(token, () => "")
        ),
        DbRouter.DbRouter,
        handle.router
      )
    )
  }

  private request(op: Extract<Op, { readonly _tag: "request" }>, context: Context): Run {
    return Effect.gen(this, function* () {
      const { client, flow } = context
      const handle = context.handle.peers[op.router % context.handle.peers.length]!
      const name = `request ${++this.ids} of flow ${flow}`
      const tenant = op.tenant ? `t${this.ids}` : undefined
      const level: Level = { own: new Map(), ops: [], hooks: [], tenant, mark: undefined, base: undefined }
      const seen = client.seen.of(handle.cluster)
      const inner: Context = {
        ...context,
        handle,
        seen,
        level,
        tenant: undefined,
        isStale: false,
        mayStop: op.hangsUp !== undefined,
        limit: undefined
      }
      let ran: Exit.Exit<void, Failure> | undefined
      const app = Effect.as(
        Effect.onExit(this.each(op.ops, inner), (exit) =>
          Effect.sync(() => {
            ran = exit
          })
        ),
        HttpServerResponse.empty({ status: op.status })
      )
      const withSession = HttpSession.middleware({
        token: HttpSession.tokenHeader({ request: tokenHeader }),
        ...(tenant === undefined ? {} : { session: { settings: { "app.tenant": tenant } } })
      })
      const handler = HttpApp.toWebHandlerRuntime(this.runtime)(
        Effect.provideService(withSession(app), DbRouter.DbRouter, handle.router)
      )
      const hangUp = new AbortController()
      const asked = new Request("http://app/", {
        headers: client.token === undefined ? {} : { [tokenHeader]: client.token },
        signal: hangUp.signal
      })
      if (op.hangsUp !== undefined)
        yield* Effect.fork(
          Effect.delay(
            Effect.sync(() => hangUp.abort()),
            Duration.millis(op.hangsUp)
          )
        )
      const response = yield* Effect.promise(() => this.goesOn(handler(asked)))
      const { status } = response
      const token = response.headers.get(tokenHeader)
      if (ran !== undefined && Exit.isFailure(ran))
        for (const error of Cause.failures(ran.cause)) this.judge(error, inner.mayStop)
      const exit: Exit.Exit<void, Failure> =
        status === op.status && ran !== undefined && Exit.isSuccess(ran)
          ? status < 400
            ? Exit.void
            : Exit.fail(new Refused(`${status}`))
          : ran !== undefined && Exit.isFailure(ran) && !Cause.isInterrupted(ran.cause)
            ? Exit.fail(new Refused(`fails with ${status}`))
            : // Of a client that is gone, or a COMMIT that has failed.
              Exit.failCause(Cause.empty)
      this.ended(name, { ...inner, level: undefined }, level, false, exit)
      if (token === null) return
      client.token = token
      client.seen = seen.of(handle.cluster)
    })
  }

  private jostle({ count, register }: Extract<Op, { readonly _tag: "jostle" }>, context: Context): Run {
    return Effect.gen(this, function* () {
      const id = yield* Effect.fiberId
      const others = yield* Effect.forEach(Array.from({ length: count }), () =>
        Effect.fork(this.readOne({ ...context, seen: context.seen.copy(), mayStop: true }, register))
      )
      // In the same moment as the next one gets its turn.
      yield* Effect.ensuring(
        this.readOne({ ...context, mayStop: true }, register),
        Effect.forEach(others, Fiber.interruptAsFork(id), { discard: true })
      )
      yield* Effect.forEach(others, Fiber.await, { discard: true })
    })
  }

  private rows(context: Context, count: number, take: number): Run {
    return Effect.suspend(() => {
      const op = this.nextOp(context)
      const { client } = context.handle.router
      const all = client.unsafe<{ readonly op: string; readonly n: number }>(
        `SELECT $1::text AS op, n FROM generate_series(1, ${count}) AS n`,
        [op]
      ).stream
      return Effect.map(Stream.runCollect(Stream.take(all, take)), (rows) => {
        const numbers = [...rows].map(({ n }) => n)
        this.truth.check(
          "no foreign rows",
          [...rows].every((row) => row.op === op) &&
            numbers.length === Math.min(count, take) &&
            numbers.every((n, i) => n === i + 1),
          () =>
            `${op} got ${numbers.length} rows of ${take}, from ${[...new Set([...rows].map((row) => row.op))].join(", ")}`
        )
      })
    })
  }

  private session(op: Extract<Op, { readonly _tag: "session" }>, context: Context): Run {
    return Effect.suspend(() => {
      const around = context.level
      const name = `${op.how} ${++this.ids} of flow ${context.flow}`
      const isInner = around !== undefined && op.how !== "newSession"
      const tenant = op.tenant ? `t${this.ids}` : (around ?? context).tenant
      const level: Level = {
        own: new Map(isInner ? around.own : []),
        ops: [],
        hooks: [],
        tenant,
        mark: isInner ? around.mark : undefined,
        base: op.isolation === "repeatable read" ? context.seen.copy() : isInner ? around.base : undefined
      }
      // A session inside a session is the same one: what fails in it, fails the whole.
      const isJoined = isInner && (op.how === "session" || op.how === "atomic")
      const limit = isInner ? context.limit : op.limit
      const inner: Context = { ...context, level: isJoined ? around : level, limit }
      const end: Run =
        op.end === "succeed"
          ? Effect.void
          : op.end === "fail"
            ? Effect.fail(new Refused("fails"))
            : Effect.die(new Refused("dies"))
      const body = Effect.zipRight(this.each(op.ops, inner), end)
      if (isJoined) return this.provide(context, DbRouter.session(body))
      const options = {
        ...(op.isolation === undefined ? {} : { isolation: op.isolation }),
        ...(op.tenant ? { settings: { "app.tenant": tenant! } } : {}),
        ...(op.limit === undefined ? {} : { statementTimeout: op.limit })
      }
      const run: Effect.Effect<void, Failure, DbRouter.DbRouter> =
        op.how === "transaction"
          ? context.handle.router.client.withTransaction(body)
          : op.how === "newSession"
            ? DbRouter.newSession(body, options)
            : op.how === "atomic"
              ? DbRouter.atomic(body)
              : DbRouter.session(body, options)
      const ended = Effect.onExit(this.provide(context, run), (exit) =>
        Effect.sync(() => this.ended(name, context, level, isInner, exit))
      )
      if (op.limit !== undefined) return Effect.catchIf(ended, isOverdue, () => Effect.void)
      // The transaction goes on after a savepoint that was rolled back.
      return isInner && op.how === "transaction"
        ? Effect.catchIf(
            ended,
            (error) => error instanceof Refused,
            () => Effect.void
          )
        : ended
    })
  }

  /** What the end of a unit of work says of what it has done. */
  private saidOf(cause: Cause.Cause<Failure>): { readonly isNotDone: boolean; readonly isUnknown: boolean } {
    const failures = [...Cause.failures(cause)]
    const isRefused = failures.some((error) => error instanceof Refused) || [...Cause.defects(cause)].length > 0
    // What a unit of its own inside has failed with says nothing of this one, which it has ended.
    const outcomes = failures.map((error) => (this.told.has(error) ? "not done" : RouterError.outcomeOf(error)))
    for (const error of failures) this.told.add(error)
    return {
      isUnknown: outcomes.includes("unknown"),
      isNotDone: isRefused || (outcomes.length > 0 && outcomes.every((outcome) => outcome === "not done"))
    }
  }

  private siblings(step: Extract<Op, { readonly _tag: "siblings" }>, context: Context): Run {
    return Effect.suspend(() => {
      const name = `session ${++this.ids} of flow ${context.flow}`
      const level: Level = {
        own: new Map(),
        ops: [],
        hooks: [],
        tenant: context.tenant,
        mark: undefined,
        base: undefined
      }
      // What one of them rolls back may be a statement of another one.
      const inner: Context = { ...context, level, mayStop: true }
      const inserted: Array<Inserted> = []
      const fibers: Array<Fiber.RuntimeFiber<void, Failure>> = []
      const begin = (sibling: Sibling, i: number) => {
        const run = Effect.delay(
          this.sibling(`${sibling.what} ${i + 1} of ${name}`, sibling, inner, inserted),
          Duration.millis(sibling.begin)
        )
        return Effect.flatMap(sibling.isLeft ? Effect.forkDaemon(run) : Effect.fork(run), (fiber) => {
          fibers.push(fiber)
          return sibling.interrupted === undefined
            ? Effect.void
            : Effect.forkDaemon(Effect.delay(Fiber.interruptFork(fiber), Duration.millis(sibling.interrupted)))
        })
      }
      const body = Effect.forEach(step.siblings, begin).pipe(
        Effect.zipRight(Effect.suspend(() => Fiber.awaitAll(fibers.filter((_, i) => !step.siblings[i]!.isLeft)))),
        Effect.zipRight(step.end === "fail" ? Effect.fail(new Refused("fails")) : Effect.void)
      )
      const run: Run = this.provide(context, DbRouter.session(body))
      return Effect.flatMap(
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(Effect.exit(restore(run)), (exit) =>
            Effect.map(Fiber.awaitAll(fibers), (exits) => {
              for (const one of [exit, ...exits])
                if (Exit.isFailure(one)) this.tellFailure(step, one.cause, context.flow, true)
              this.siblingsEnded(name, step.siblings, inserted, exit, exits)
              return exit
            })
          )
        ),
        (exit) => (Exit.isInterrupted(exit) ? exit : Effect.void)
      )
    })
  }

  private sibling(name: string, sibling: Sibling, context: Context, inserted: Array<Inserted>): Run {
    return Effect.suspend((): Run => {
      const own: Array<Inserted> = []
      const insert = Effect.zipRight(this.insertWithHook(context, own, inserted), Effect.sleep(sibling.millis))
      const end: Run =
        sibling.end === "succeed"
          ? Effect.void
          : sibling.end === "fail"
            ? Effect.fail(new Refused("fails"))
            : Effect.die(new Refused("dies"))
      const inserts = Effect.repeatN(insert, sibling.inserts - 1)
      const unit = (run: Effect.Effect<void, Failure, DbRouter.DbRouter>, isCommitted: boolean) =>
        Effect.onExit(this.provide(context, run), (exit) =>
          Effect.sync(() => {
            const ops = own.map(({ op }) => op)
            this.truth.atomic(name, ops)
            if (Exit.isSuccess(exit)) {
              if (isCommitted) for (const op of ops) this.truth.done(op, name)
            } else if (this.saidOf(exit.cause).isNotDone) {
              for (const op of ops) this.truth.notDone(op, `${name}: ${textOf(exit.cause)}`)
            }
          })
        )
      switch (sibling.what) {
        case "atomic": {
          const { current } = sibling
          // A savepoint waits for the end of what is around it.
          return unit(DbRouter.atomic(Effect.zipRight(inserts, end), { current }), current !== "savepoint")
        }
        case "transaction":
          return unit(context.handle.router.client.withTransaction(Effect.zipRight(inserts, end)), false)
        case "bare":
          return inserts
        case "commit":
          return this.provide(context, DbRouter.commit)
        case "rollback":
          return this.provide(context, DbRouter.rollback)
        case "close":
          return this.provide(context, DbRouter.close)
        case "mistake":
          return Effect.ignore(this.query(context, "INSERT INTO account (id, balance) VALUES (1, 1 / 0)", []))
        case "read":
          return Effect.asVoid(this.readOne({ ...context, seen: context.seen.copy() }, 1))
      }
    })
  }

  private insertWithHook(context: Context, own: Array<Inserted>, all: Array<Inserted>): Run {
    return Effect.suspend(() => {
      const op = this.nextOp(context)
      const hook: Hook = { commits: 0, rollbacks: 0 }
      return this.query(context, "INSERT INTO entry (op, flow) VALUES ($1, $2)", [op, String(context.flow)]).pipe(
        Effect.tapError((error) => Effect.sync(() => this.failed(op, error))),
        Effect.flatMap(() => {
          own.push({ op, hook })
          all.push({ op, hook })
          return this.provide(
            context,
            Effect.zipRight(
              DbRouter.afterCommit(Effect.sync(() => hook.commits++)),
              DbRouter.afterRollback(Effect.sync(() => hook.rollbacks++))
            )
          )
        })
      )
    })
  }

  /** Which transaction a statement is in depends on the others; its hooks are of the same one, and tell what became of it. */
  private siblingsEnded(
    name: string,
    siblings: ReadonlyArray<Sibling>,
    inserted: ReadonlyArray<Inserted>,
    exit: Exit.Exit<void, Failure>,
    exits: ReadonlyArray<Exit.Exit<void, Failure>>
  ): void {
    const { truth } = this
    const all = [exit, ...exits]
    const mayBeUnknown = all.some(
      (one) => Exit.isFailure(one) && (Cause.isInterrupted(one.cause) || isOutcomeUnknown(one.cause))
    )
    const undoes = ({ current, what }: Sibling) =>
      what === "rollback" || what === "close" || what === "mistake" || (what === "atomic" && current === "rollback")
    const isDone = all.every(Exit.isSuccess) && !siblings.some(undoes)
    for (const { hook, op } of inserted) {
      const { commits, rollbacks } = hook
      const isCommitted = truth.commits.has(op)
      if (isDone) truth.done(op, name)
      if (rollbacks > 0) truth.notDone(op, `afterRollback ran in ${name}`)
      truth.check(
        "hooks",
        commits + rollbacks === 1 || (commits + rollbacks === 0 && mayBeUnknown),
        () => `of ${op} in ${name} afterCommit ran ${commits} times, afterRollback ${rollbacks} times`
      )
      truth.check(
        "hooks",
        isCommitted ? rollbacks === 0 : commits === 0,
        () =>
          `${op} in ${name} is ${isCommitted ? "" : "not "}committed, and ${commits > 0 ? "afterCommit" : "afterRollback"} ran`
      )
    }
  }

  private ended(name: string, context: Context, level: Level, isInner: boolean, exit: Exit.Exit<void, Failure>): void {
    const { truth } = this
    if (isInner) {
      const around = context.level!
      if (Exit.isFailure(exit)) {
        // What a savepoint has done is undone; when it cannot be, the transaction around fails.
        for (const hook of level.hooks)
          truth.check("hooks", hook.commits === 0, () => `afterCommit ran in a savepoint that failed (${name})`)
        return
      }
      around.ops.push(...level.ops)
      around.hooks.push(...level.hooks)
      around.mark = level.mark
      for (const [register, op] of level.own) around.own.set(register, op)
      return
    }
    truth.atomic(name, level.ops)
    const isCommitted = level.ops.some((op) => truth.commits.has(op))
    if (Exit.isSuccess(exit)) {
      for (const op of level.ops) truth.done(op, name)
      for (const [register, op] of level.own) this.saw(context, context.seen, register, op)
      for (const hook of level.hooks) {
        truth.check(
          "hooks",
          hook.commits === 1 && hook.rollbacks === 0,
          () =>
            `after the commit of ${name} afterCommit ran ${hook.commits} times, afterRollback ${hook.rollbacks} times`
        )
      }
      return
    }
    const { isNotDone, isUnknown } = this.saidOf(exit.cause)
    if (isNotDone) for (const op of level.ops) truth.notDone(op, `${name}: ${textOf(exit.cause)}`)
    for (const hook of level.hooks) {
      truth.check(
        "hooks",
        hook.commits + hook.rollbacks <= 1,
        () => `of ${name} afterCommit ran ${hook.commits} times, afterRollback ${hook.rollbacks} times`
      )
      truth.check(
        "hooks",
        !isUnknown || hook.commits + hook.rollbacks === 0,
        () => `${hook.commits > 0 ? "afterCommit" : "afterRollback"} ran though the outcome of ${name} is unknown`
      )
      truth.check("hooks", !isNotDone || hook.commits === 0, () => `afterCommit ran though ${name} was not done`)
      truth.check("hooks", hook.rollbacks === 0 || !isCommitted, () => `afterRollback ran though ${name} is committed`)
    }
  }

  private snapshot({ millis, registers }: Extract<Op, { readonly _tag: "snapshot" }>, context: Context): Run {
    const read = (inner: Context) =>
      Effect.gen(this, function* () {
        const values = new Map<number, string>()
        for (const register of registers) {
          const found = yield* this.readOne(inner, register)
          yield* Effect.sleep(millis)
          const value = found.get(register)!
          const before = values.get(register)
          this.truth.check(
            "one snapshot",
            before === undefined || before === value,
            () => `a read-only session of flow ${context.flow} read ${before} and then ${value} of register ${register}`
          )
          values.set(register, value)
        }
      })
    return Effect.suspend(() => {
      const level: Level = {
        own: new Map(),
        ops: [],
        hooks: [],
        tenant: (context.level ?? context).tenant,
        mark: undefined,
        base: context.seen.copy()
      }
      return this.provide(context, DbRouter.readOnly(read({ ...context, level })))
    })
  }

  private fork(how: "all" | "join", branches: ReadonlyArray<ReadonlyArray<Op>>, context: Context): Run {
    return Effect.suspend(() => {
      const copies = branches.map(() => context.seen.copy())
      const runs = branches.map((ops, i) => this.each(ops, { ...context, seen: copies[i]! }))
      const all =
        how === "all"
          ? Effect.all(runs, { concurrency: "unbounded", discard: true })
          : Effect.flatMap(Effect.forEach(runs, Effect.fork), (fibers) =>
              Effect.forEach(fibers, Fiber.join, { discard: true })
            )
      return Effect.map(all, () => {
        for (const copy of copies) context.seen.absorb(copy)
      })
    })
  }

  private race(branches: ReadonlyArray<ReadonlyArray<Op>>, context: Context): Run {
    return Effect.suspend(() => {
      const copies = branches.map(() => context.seen.copy())
      const runs = branches.map((ops, i) =>
        Effect.as(this.each(ops, { ...context, seen: copies[i]!, mayStop: true }), i)
      )
      return Effect.map(Effect.raceAll(runs), (winner) => context.seen.absorb(copies[winner]!))
    })
  }
}

const isOutcomeUnknown = (cause: Cause.Cause<Failure>): boolean =>
  [...Cause.failures(cause)].some((error) => RouterError.outcomeOf(error) === "unknown")

const messageOf = (error: unknown): string => {
  const parts: Array<string> = []
  for (let at = error; typeof at === "object" && at !== null; at = (at as { readonly cause?: unknown }).cause) {
    const { message } = at as { readonly message?: unknown }
    if (typeof message === "string" && !parts.includes(message)) parts.push(message)
  }
  return parts.join(": ")
}

const textOf = (cause: Cause.Cause<unknown>): string => {
  const failures = [...Cause.failures(cause)].map(messageOf)
  const defects = [...Cause.defects(cause)].map(messageOf)
  return [...failures, ...defects, ...(Cause.isInterrupted(cause) ? ["interruption"] : [])].join("; ")
}
