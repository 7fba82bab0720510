/**
 * Units of work that are interrupted at every stage of their life, on servers that answer as late as a seed says; and what is
 * wrong afterwards.
 */
import { HttpServerError } from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Option,
  Redacted,
  Schedule,
  type Scope,
  Stream,
  Utils
} from "effect"
import { Consistency, DbRouter, type RouterConfig, RouterError, Session } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import * as delayedServer from "./delayedServer.js"
import * as fakeServer from "./fakeServer.js"
import * as requests from "./requestUnits.js"

/** How many times as fast as in truth the router's time goes by on simulated servers: its limits of 5 seconds are 100 ms. */
const speed = 50

/** On real servers everything takes so many times as long. */
const scaleOfReal = 8

const clockOf = (scale: number): Clock.Clock => {
  const real = Clock.make()
  return Object.assign(Object.create(real) as Clock.Clock, {
    sleep: (duration: Duration.Duration) => real.sleep(Duration.times(duration, scale / speed))
  })
}

const inRealTime = Effect.withClock(Clock.make())
const pause = (millis: number) => inRealTime(Effect.sleep(millis))

/** Answers, in milliseconds: at once, in time, after the router's limits, never. */
const answers = { fast: 0, slow: 3, late: 160, never: Number.POSITIVE_INFINITY } as const
type Late = keyof typeof answers

const stages = {
  connecting: undefined,
  waiting: undefined,
  begin: /^BEGIN/,
  statement: /^insert/,
  between: /^insert/,
  read: /^select/,
  many: /^select many/,
  listen: /^(?:UN)?LISTEN/,
  savepoint: /^(?:RELEASE )?SAVEPOINT/,
  beforeCommit: /beforeCommit/,
  commit: /COMMIT$/,
  rollback: /^ROLLBACK/,
  hooks: undefined
} as const
type Stage = keyof typeof stages

type Services = DbRouter.Services
/** What is done in a unit of work, for a key that it inserts. */
type Body = requests.Body

const query = (sql: string) => Effect.flatMap(SqlClient.SqlClient, (client) => client.unsafe(sql))
const transaction = (body: Effect.Effect<unknown, unknown, Services>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(body))
const after = (first: Effect.Effect<unknown, unknown, Services>, next: Effect.Effect<unknown, unknown, Services>) =>
  Effect.zipRight(first, next)

const reserved = (key: string, end: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* (yield* SqlClient.SqlClient).reserve
      for (const sql of ["BEGIN", `insert into t values ('${key}')`, end]) {
        yield* connection.executeUnprepared(sql, [], undefined)
      }
    })
  )

const rows = Effect.flatMap(SqlClient.SqlClient, (sql) => Stream.runDrain(sql.unsafe("select many from t").stream))

const heard = Effect.flatMap(PgClient.PgClient, (pg) => Stream.runHead(pg.listen("news")))

const atomic = (current: Session.Current) => (body: Body) =>
  DbRouter.session()(after(body("one"), Effect.exit(DbRouter.atomic(body("two"), { current }))))

/** A unit of work. The first key's fate is that of the unit where it `isWhole`. */
interface Unit {
  /** `told` hears what a client is told before the unit is over. */
  readonly run: (body: Body, told: (value: unknown) => void) => Effect.Effect<unknown, unknown, Services>
  readonly isWhole?: true
  /** Whether its first key is never committed. */
  readonly isUndone?: true
  /** Whether no interruption from outside ends its statements. */
  readonly isInsistent?: true
  /** Whether what interrupts it is a client that hangs up. */
  readonly isRequest?: true
}

const units: Readonly<Record<string, Unit>> = {
  readOnly: { run: () => DbRouter.readOnly(after(query("select 1"), query("select 2"))) },
  session: { run: (body) => DbRouter.session()(body("one")), isWhole: true },
  "session with settings": {
    run: (body) => DbRouter.session({ settings: { "app.user": "1" } })(body("one")),
    isWhole: true
  },
  "session of a snapshot": { run: (body) => DbRouter.session({ reads: "snapshot" })(body("one")), isWhole: true },
  "serializable session": {
    run: (body) => DbRouter.session({ isolation: "serializable" })(body("one")),
    isWhole: true
  },
  newSession: { run: (body) => DbRouter.session()(after(body("one"), DbRouter.newSession(body("two")))) },
  "session, committed early": {
    run: (body) => DbRouter.session()(after(body("one"), after(DbRouter.commit, body("two"))))
  },
  "session, rolled back early": {
    run: (body) => DbRouter.session()(after(body("one"), after(DbRouter.rollback, body("two"))))
  },
  "atomic, commit": { run: atomic("commit") },
  "atomic, rollback": { run: atomic("rollback") },
  "atomic, append": { run: atomic("append") },
  "atomic, savepoint": { run: atomic("savepoint") },
  "atomic, fail": { run: atomic("fail") },
  "Session.scoped": { run: (body) => Effect.scoped(after(Session.scoped() as never, body("one"))) },
  withTransaction: { run: (body) => transaction(body("one")), isWhole: true },
  "withTransaction, nested": { run: (body) => transaction(after(body("one"), Effect.exit(transaction(body("two"))))) },
  "withTransaction in a session": { run: (body) => DbRouter.session()(after(body("one"), transaction(body("two")))) },
  reserve: { run: () => reserved("three", "COMMIT") },
  "reserve, left open": { run: () => reserved("three", "select 1") },
  stream: { run: () => rows },
  "stream in a session": { run: (body) => DbRouter.session()(after(body("one"), rows)) },
  "stream that is not interrupted": { run: () => Effect.uninterruptible(rows), isInsistent: true },
  "session that is not interrupted": {
    run: (body) => Effect.uninterruptible(DbRouter.session()(body("one"))),
    isWhole: true,
    isInsistent: true
  },
  listen: { run: () => heard },
  "listen, two at once": { run: () => Effect.all([heard, heard], { concurrency: 2 }) },
  "listen in a session": { run: (body) => DbRouter.session()(after(body("one"), heard)) },
  ...requests.units
}

export const unitNames: ReadonlyArray<string> = Object.keys(units)

type Kind = "from outside" | "of the unit" | "of the body"

/** What a seed says. */
export interface Combination {
  readonly seed: number
  readonly unit: string
  readonly stage: Stage
  readonly late: Late
  readonly part: "work" | "answer"
  readonly cancel: Late
  /** Whether a connection breaks once, before or after what the stage is for. */
  readonly cut: "before" | "after" | undefined
  readonly connections: number
  readonly ending: "success" | "failure" | "defect"
  readonly interruptions: ReadonlyArray<{ readonly kind: Kind; readonly gap: number }>
}

export const combinationOf = (seed: number): Combination => {
  const chance = new Utils.PCGRandom(seed)
  chance.number()
  const of = <A>(all: ReadonlyArray<A>): A => all[chance.integer(all.length)]!
  const lateness = (): Late => of(["fast", "fast", "fast", "slow", "slow", "slow", "slow", "slow", "late", "never"])
  const unit = of(unitNames)
  const late = lateness()
  return {
    seed,
    unit,
    stage: of(Object.keys(stages) as Array<Stage>),
    // Without an end by the server it would have none.
    late: late === "never" && units[unit]!.isInsistent === true ? "late" : late,
    part: of(["work", "answer"]),
    cancel: lateness(),
    cut: of([undefined, undefined, undefined, undefined, undefined, undefined, "before", "after"]),
    connections: of([1, 2]),
    ending: of(["success", "success", "failure", "defect"]),
    interruptions: Array.from({ length: chance.integer(4) }, () => ({
      kind: of<Kind>(["from outside", "of the unit", "of the body"]),
      gap: of([0, 0, 1, 2, 4, 8])
    }))
  }
}

/** A router with its servers, of which nothing else knows. */
export interface Rig {
  readonly servers: ReadonlyArray<fakeServer.Server>
  /** How many times as long as on simulated servers everything takes. */
  readonly scale: number
  /** Asks the servers what they do, and what they have. */
  readonly look: Effect.Effect<void>
  readonly services: Context.Context<Services>
}

const rigOn = (
  servers: ReadonlyArray<fakeServer.Server>,
  connections: number,
  scale: number,
  look: Effect.Effect<void>,
  user: RouterConfig.EngineConfig
): Effect.Effect<Rig, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const [primary, replica] = servers.map(({ port }, index) => ({
      ...user,
      host: "127.0.0.1",
      port,
      name: `server${index}`,
      maxConnections: connections,
      connectTimeout: "3 seconds" as const
    }))
    const services = yield* Layer.build(
      DbRouter.layer({
        groups: { default: [primary!], read: [replica!] },
        consistency: Consistency.sticky(),
        health: false,
        shutdownTimeout: "1 second"
      }).pipe(Layer.provide(Logger.minimumLogLevel(LogLevel.None)))
    )
    return { servers, services, scale, look }
  }).pipe(Effect.withClock(clockOf(scale)))

/** How a router and its servers are made, with so many connections. */
export type MakeRig = (connections: number) => Effect.Effect<Rig, unknown, Scope.Scope>

/** On simulated servers. */
export const rigOf: MakeRig = (connections) =>
  Effect.flatMap(Effect.all([fakeServer.make, fakeServer.make]), (servers) =>
    rigOn(servers, connections, 1, Effect.void, { username: "u", database: "d" })
  )

/** What the units of work need on a real server. */
export const prepare = ({ awaitReplayed, primary }: PgCluster.Cluster) =>
  Effect.zipRight(primary.query("CREATE TABLE IF NOT EXISTS t (v text, many int)"), awaitReplayed)

const userOf = (node: PgCluster.Node): RouterConfig.EngineConfig => {
  const { password, pathname, username } = new URL(Redacted.value(node.url))
  return {
    username: decodeURIComponent(username),
    password: Redacted.make(decodeURIComponent(password)),
    database: pathname.slice(1)
  }
}

let rigs = 0

/** On a real primary and a replica, behind proxies that delay what is said. */
export const realRigOf =
  ({ primary, replicas }: PgCluster.Cluster): MakeRig =>
  (connections) =>
    Effect.gen(function* () {
      const applicationName = `endings-${process.pid}-${++rigs}`
      // A server that is slow by itself may be later than the router's limits, which are short here.
      const onSlow = (millis: number) => {
        if (millis > scaleOfReal * stillness.limit) stillness.at = performance.now()
      }
      const servers = yield* Effect.forEach([primary, replicas[0]!], (node) =>
        delayedServer.make(node, applicationName, onSlow)
      )
      const look = Effect.forEach(servers, (server) => server.look, { discard: true }).pipe(Effect.orDie, inRealTime)
      return yield* rigOn(servers, connections, scaleOfReal, look, { ...userOf(primary), applicationName })
    })

/** When this process last stood still for so long that the router's limits, which are short here, may have passed meanwhile. */
const stillness = { at: Number.NEGATIVE_INFINITY, limit: 40 }

const watchStillness = Effect.acquireRelease(
  Effect.sync(() => {
    let before = performance.now()
    return setInterval(() => {
      const now = performance.now()
      if (now - before > stillness.limit) stillness.at = now
      before = now
    }, 5)
  }),
  (timer) => Effect.sync(() => clearInterval(timer))
)

/** Waits until something holds, in real time. */
const until = (millis: number, holds: () => boolean): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    for (const began = performance.now(); ; ) {
      if (holds()) return true
      if (performance.now() - began >= millis) return false
      yield* pause(1)
    }
  })

const brokenBy = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

/** Runs a combination, and says what is wrong after it. */
export const violations = (rig: Rig, combination: Combination): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const { ending, interruptions, late, part, seed, stage, unit } = combination
    const { look, scale, servers, services } = rig
    const latenessOf = (late: Late) => scale * answers[late]
    const began = performance.now()
    const found: Array<string> = []
    const keyOf = (key: string) => `${seed}-${key}-${Math.floor(Number(process.hrtime.bigint()))}`
    const keys = new Map<
      string,
      { readonly key: string; commits: number; rollbacks: number; isRegistered: boolean; isInserted: boolean }
    >()
    const reached = yield* Deferred.make<void>()
    const signals = yield* Effect.forEach(interruptions, () => Deferred.make<void>())
    const pattern = stages[stage]
    let mayCut = combination.cut !== undefined
    for (const server of servers) {
      server.delayOf = (sql) => ({
        work: 0,
        answer: 0,
        ...(pattern?.test(sql) === true && stage !== "between" ? { [part]: latenessOf(late) } : {})
      })
      server.cutOf = (sql) => {
        if (!mayCut || pattern?.test(sql) !== true) return undefined
        mayCut = false
        return combination.cut
      }
      server.cancelDelay = latenessOf(combination.cancel)
      server.connectDelay = stage === "connecting" ? latenessOf(late) : 0
      server.onStatement = (sql) => {
        if (pattern?.test(sql) === true) Deferred.unsafeDone(reached, Effect.void)
      }
    }
    const ofKind = (kind: Kind) => signals.filter((_, index) => interruptions[index]!.kind === kind)
    const endedBy =
      (all: ReadonlyArray<Deferred.Deferred<void>>) =>
      (self: Effect.Effect<unknown, unknown, Services>): Effect.Effect<unknown, unknown, Services> =>
        all.reduce((self, signal) => Effect.raceFirst(self, Effect.as(Deferred.await(signal), "ended")), self)
    const atHooks =
      stage === "hooks"
        ? Effect.zipRight(Deferred.succeed(reached, undefined), pause(late === "fast" ? 0 : 5))
        : Effect.void
    const body: Body = (name) =>
      Effect.gen(function* () {
        const entry = { key: keyOf(name), commits: 0, rollbacks: 0, isRegistered: false, isInserted: false }
        keys.set(name, entry)
        yield* Effect.uninterruptible(
          Effect.gen(function* () {
            yield* DbRouter.afterCommit(
              Effect.zipRight(
                Effect.sync(() => entry.commits++),
                atHooks
              )
            )
            yield* DbRouter.afterRollback(
              Effect.zipRight(
                Effect.sync(() => entry.rollbacks++),
                atHooks
              )
            )
            entry.isRegistered = true
          })
        )
        // Outside every session it runs at once.
        if (stage === "beforeCommit") yield* DbRouter.beforeCommit(query("select 'beforeCommit'"))
        yield* query(`insert into t values ('${entry.key}')`)
        entry.isInserted = true
        if (stage === "between") yield* pause(4)
        yield* query("select 1")
        if (ending === "failure") yield* Effect.fail("on purpose")
        if (ending === "defect") yield* Effect.die("on purpose")
        return "done"
      }).pipe(endedBy(ofKind("of the body")))
    let told: unknown
    const running = units[unit]!.run(body, (value) => {
      told ??= value
    }).pipe(endedBy(ofKind("of the unit")), Effect.provide(services))
    // For "waiting": everything is taken for a while.
    const held = stage === "waiting" ? Math.min(latenessOf(late), 200 * scale) : undefined
    const holder =
      held === undefined
        ? undefined
        : yield* Effect.forkDaemon(
            Effect.scoped(
              Effect.flatMap(
                Effect.replicateEffect(
                  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.reserve),
                  combination.connections
                ),
                () => Effect.zipRight(Deferred.succeed(reached, undefined), pause(held))
              )
            ).pipe(Effect.provide(services), Effect.exit)
          )
    if (holder !== undefined) yield* inRealTime(Effect.timeoutOption(Deferred.await(reached), 300 * scale))
    const fiber = yield* Effect.forkDaemon(running)
    if (interruptions.length > 0) {
      yield* inRealTime(Effect.timeoutOption(Deferred.await(reached), 25 * scale))
      for (const [index, { gap, kind }] of interruptions.entries()) {
        if (gap > 0) yield* pause(gap * scale)
        if (kind === "from outside") {
          if (units[unit]!.isRequest === true) fiber.unsafeInterruptAsFork(HttpServerError.clientAbortFiberId)
          else yield* Fiber.interruptFork(fiber)
        } else yield* Deferred.succeed(signals[index]!, undefined)
      }
    }
    let exit: Exit.Exit<unknown, unknown> | undefined
    fiber.addObserver((ended) => {
      exit = ended
    })
    const isOver = yield* until(400 * scale, () => exit !== undefined)
    // A statement that is never answered, and not interrupted, has no limit of its own.
    if (!isOver) yield* Fiber.interruptFork(fiber)
    if (!(yield* until(20_000, () => exit !== undefined))) {
      found.push("it does not end")
      return found
    }
    for (const server of servers)
      Object.assign(server, { delayOf: () => ({ work: 2, answer: 0 }), cutOf: () => undefined, connectDelay: 0 })
    const bystander = yield* inRealTime(
      Effect.timeoutOption(Effect.either(Effect.provide(query("select 'bystander'"), services)), 15_000)
    )
    if (bystander._tag === "None") found.push("a read of another fiber gets no answer")
    else if (bystander.value._tag === "Left") {
      const { cause } = bystander.value.left as {
        readonly cause?: { readonly code?: string; readonly message?: string }
      }
      found.push(`a read of another fiber fails: ${cause?.code ?? cause?.message}`)
    }
    if (holder !== undefined) yield* Fiber.await(holder)
    const { status } = Context.get(services, DbRouter.DbRouter)
    let engines = yield* status
    const isWhole = () =>
      engines.every(({ inFlight, pool }) => inFlight === 0 && pool.waiting === 0 && pool.total === pool.idle)
    for (let waited = 0; waited < 5_000 && !isWhole(); waited++) {
      yield* pause(1)
      engines = yield* status
    }
    if (!isWhole()) {
      found.push(
        ...engines.map(
          ({ inFlight, name, pool }) =>
            `${name}: ${pool.idle} of ${pool.total} idle, ${inFlight} in flight, ${pool.waiting} wait`
        )
      )
    }
    const connected = () => servers.reduce((sum, server) => sum + server.connections(), 0)
    const total = engines.reduce((sum, { pool }) => sum + pool.total, 0)
    if (!(yield* until(8_000, () => connected() <= total)))
      found.push(`${connected()} connections at the servers, ${total} in pools`)
    yield* look
    if (!(yield* until(8_000, () => servers.every((server) => server.open() === 0))))
      found.push("a transaction is open")
    yield* until(8_000, () => servers.every((server) => server.isQuiet()))
    const committed = (key: string) => servers.some((server) => server.committed.has(key))
    const mayBeUnknown =
      !isOver ||
      stillness.at >= began ||
      combination.cut !== undefined ||
      late === "late" ||
      late === "never" ||
      combination.cancel === "late" ||
      combination.cancel === "never"
    for (const [name, { commits, isInserted, isRegistered, key, rollbacks }] of keys) {
      const isThere = committed(key)
      const ran = `${isThere ? "committed" : "not committed"}; afterCommit ran ${commits}, afterRollback ${rollbacks}`
      if (commits + rollbacks > 1 || (isThere ? rollbacks : isInserted ? commits : 0) > 0)
        found.push(`${name} is ${ran}`)
      // The outer key of a session whose inner transaction only has rolled back is in no doubt either.
      if (isRegistered && commits + rollbacks === 0 && !mayBeUnknown) found.push(`${name} is ${ran}`)
    }
    const one = keys.get("one")
    if (units[unit]!.isUndone === true && one !== undefined && committed(one.key)) found.push("it is committed")
    if (units[unit]!.isWhole === true && one !== undefined) {
      const isThere = committed(one.key)
      const error = brokenBy(exit!)
      const isDone = told === "done" || (Exit.isSuccess(exit!) && exit.value === "done")
      if (isDone && !isThere) found.push("it succeeded and is not committed")
      if (error !== undefined && RouterError.outcomeOf(error) === "not done" && isThere) {
        found.push(`it is committed, and outcomeOf says "not done": ${error}`)
      }
      if (isDone && one.commits !== 1) found.push("it succeeded without its afterCommit")
    }
    return found
  }).pipe(Effect.withClock(clockOf(rig.scale)))

/** What a run of combinations has shown. */
export interface Result {
  /** How many combinations each unit has had. */
  readonly counts: ReadonlyMap<string, number>
  readonly failures: ReadonlyArray<{ readonly combination: Combination; readonly found: ReadonlyArray<string> }>
}

/** Runs combinations, so many at the same time, each on servers that nothing else uses. */
export const run = (
  combinations: ReadonlyArray<Combination>,
  workers: number,
  progress: (done: number) => void = () => {},
  make: MakeRig = rigOf
): Effect.Effect<Result, unknown> =>
  Effect.gen(function* () {
    yield* watchStillness
    const failures: Array<Result["failures"][number]> = []
    const counts = new Map<string, number>()
    let next = 0
    const attempt = (combination: Combination, rigs: Map<number, Rig>) =>
      Effect.gen(function* () {
        const { connections, unit } = combination
        const rig = rigs.get(connections) ?? (yield* Effect.retry(make(connections), Schedule.spaced("1 second")))
        rigs.set(connections, rig)
        const found = yield* violations(rig, combination)
        // What is broken is not to break the next one.
        if (found.length > 0) {
          rigs.delete(connections)
          failures.push({ combination, found })
        }
        counts.set(unit, (counts.get(unit) ?? 0) + 1)
      })
    const worker = Effect.scoped(
      Effect.suspend(() => {
        const rigs = new Map<number, Rig>()
        return Effect.whileLoop({
          while: () => next < combinations.length,
          body: () => attempt(combinations[next++]!, rigs),
          step: () => progress(next)
        })
      })
    )
    yield* Effect.all(
      Array.from({ length: workers }, () => worker),
      { concurrency: "unbounded", discard: true }
    )
    return { counts, failures }
  }).pipe(Effect.scoped)

/** A failure in a line. */
export const lineOf = ({ combination, found }: Result["failures"][number]): string =>
  `${JSON.stringify(combination)}: ${found.join("; ")}`
