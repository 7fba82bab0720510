import { inspect } from "node:util"
import { type SqlError, SqlError as SqlErrors } from "@effect/sql"
import { afterAll, assert, beforeAll } from "@effect/vitest"
import { Chunk, Duration, Effect, type Either, Redacted, Schedule, type Scope, Stream } from "effect"
import { Engine, RouterConfig } from "effect-db-router"
import type { PgCluster } from "effect-db-router/testing"
import { Pace } from "../../src/internal/engine/pace.js"

export interface Options extends RouterConfig.EngineConfig {
  readonly maxPrepared?: number
  readonly planCacheMode?: RouterConfig.PlanCacheMode
  readonly shutdownTimeout?: Duration.DurationInput
  readonly waitForReplica?: Duration.DurationInput
}

/** An engine from its configuration, without a router around it. */
export const make = ({
  maxPrepared = 256,
  planCacheMode,
  shutdownTimeout = "5 seconds",
  waitForReplica = "1 second",
  ...config
}: Options) =>
  Effect.flatMap(RouterConfig.resolveEngine({ field: "test", name: "test" }, config), (resolved) =>
    Engine.make(resolved, {
      maxPrepared,
      planCacheMode,
      shutdownTimeout: Duration.decode(shutdownTimeout),
      waitForReplica: Duration.decode(waitForReplica),
      pace: new Pace(
        () => performance.now(),
        () => 0
      )
    })
  )

/** An engine on a node of a cluster. */
export const on = (
  node: PgCluster.Node,
  options?: Options
): Effect.Effect<Engine.Engine, Effect.Effect.Error<ReturnType<typeof make>>, Scope.Scope> =>
  make({ url: node.url, ...options })

/** The parts of a node's URL, to connect to it through something else. */
export const partsOf = (node: PgCluster.Node) => {
  const url = new URL(Redacted.value(node.url))
  return {
    username: decodeURIComponent(url.username),
    password: Redacted.make(decodeURIComponent(url.password)),
    database: decodeURIComponent(url.pathname.slice(1))
  }
}

/** Runs an effect with a clock that stands still, though everything else goes on: nothing is slow, and nothing ages. */
export const timeless = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) =>
    Effect.withClock(effect, Object.assign(Object.create(clock), { unsafeCurrentTimeNanos: () => 0n }))
  )

/** Runs an effect with a clock that moves only when it is told to, by so many milliseconds. */
export const stepped = <A, E, R>(
  effect: (advance: (millis: number) => void) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    let nanos = 0n
    const advance = (millis: number) => {
      nanos += BigInt(millis) * 1_000_000n
    }
    return Effect.withClock(
      effect(advance),
      Object.assign(Object.create(clock), { unsafeCurrentTimeNanos: () => nanos })
    )
  })

/** A statement as an engine takes it. */
export const statement = (sql: string, params: ReadonlyArray<unknown> = [], prepare = true) => ({
  sql,
  params,
  asArrays: false,
  prepare
})

interface Queries {
  readonly query: Engine.Engine["query"]
}

/** The rows of a statement that returns one result. */
export const rows = (
  on: Queries,
  sql: string,
  params?: ReadonlyArray<unknown>
): Effect.Effect<ReadonlyArray<Record<string, unknown>>, SqlError.SqlError> =>
  Effect.map(on.query(statement(sql, params)), (result) => (result as { rows: Array<Record<string, unknown>> }).rows)

/** The one value of the one row of a statement. */
export const value = (on: Queries, sql: string, params?: ReadonlyArray<unknown>) =>
  Effect.map(rows(on, sql, params), (all) => Object.values(all[0]!)[0])

export const collect = (engine: Pick<Engine.Engine, "stream">, sql: string, params: ReadonlyArray<unknown> = []) =>
  Effect.map(Stream.runCollect(engine.stream(sql, params)), Chunk.toReadonlyArray)

/** The SQLSTATE of a failed statement; what else the driver says where there is none. */
export const stateOf = (error: unknown): string => {
  const cause = error instanceof SqlErrors.SqlError ? error.cause : error
  return cause instanceof Error ? ((cause as { code?: string }).code ?? cause.message) : String(cause)
}

/** Runs an effect that is to fail, and tells with which SQLSTATE. */
export const failure = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, A, R> =>
  Effect.map(Effect.flip(effect), stateOf)

/** Waits until something is true, and fails after a while with what it is instead. */
export const eventually = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  isTrue: (value: A) => boolean
): Effect.Effect<A, E | Error, R> =>
  look.pipe(
    Effect.filterOrFail(isTrue, (value) => new Error(`It stayed ${inspect(value)}`)),
    Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 500 })
  )

/** Waits until no connection of an engine is in use or waited for, and returns the number of open ones. */
export const settled = (engine: Engine.Engine): Effect.Effect<number, Error> =>
  Effect.map(
    eventually(
      Effect.sync(() => ({ ...engine.poolStatus, inFlight: engine.inFlight })),
      ({ idle, inFlight, total, waiting }) => total === idle && waiting === 0 && inFlight === 0
    ),
    (status) => status.total
  )

/** What the sessions of routers and engines do on a server: those that are called so, or begin so. */
export const activity = (node: PgCluster.Node, application = "effect-db-router") =>
  node.query<{ readonly pid: number; readonly state: string; readonly query: string }>(
    "select pid, state, query from pg_stat_activity where application_name like $1",
    [application]
  )

export type Outcome<A> = Either.Either<A, SqlError.SqlError>

/** Fails the file when the process is warned of anything in it: listeners that pile up, what the driver is to drop. */
export const refuseWarnings = (): void => {
  const seen: Array<Error> = []
  const note = (warning: Error) => {
    // The driver reads ~/.pgpass where there is no password, and says that it should not.
    if (!warning.message.includes("pgpass")) seen.push(warning)
  }
  beforeAll(() => void process.on("warning", note))
  afterAll(() => {
    process.off("warning", note)
    assert.deepStrictEqual(seen, [])
  })
}

/** The warnings and uncaught errors of the process while an effect ran. */
export const troubles = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<ReadonlyArray<unknown>, E, R> =>
  Effect.suspend(() => {
    const seen: Array<unknown> = []
    const note = (trouble: unknown) => {
      seen.push(trouble)
    }
    const events = ["warning", "uncaughtExceptionMonitor"] as const
    for (const event of events) process.on(event, note)
    return effect.pipe(
      // Warnings are emitted on the next tick.
      Effect.zipRight(Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))),
      Effect.ensuring(
        Effect.sync(() => {
          for (const event of events) process.off(event, note)
        })
      ),
      Effect.as(seen)
    )
  })
