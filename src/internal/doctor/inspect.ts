/**
 * Asks one server everything, on a connection of its own.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type * as Pg from "pg"
import * as Engine from "../../Engine.js"
import type * as Health from "../../Health.js"
import type { ResolvedEngine } from "../../RouterConfig.js"
import * as SqlClassifier from "../../SqlClassifier.js"
import { Connection, type Result } from "../driver/connection.js"
import { acquireFailed, ServerLost, saysSerializableDefault } from "../driver/failure.js"
import * as position from "../driver/position.js"
import { parseStart, startQuery } from "../driver/start.js"
import { Probe } from "../engine/probe.js"
import * as limits from "../util/limits.js"
import type { Answer as PositionAnswer } from "../wal/positionSample.js"
import * as questions from "./questions.js"
import type { Skew } from "./report.js"
import { type Told, told } from "./told.js"

/** An answer, or what the server has said instead. */
export type Answer<A> = Either.Either<A, Told>

export interface Answers {
  readonly identity: questions.Identity
  readonly roundTrip: number
  readonly skew: Skew
  /** What the router's own probe finds. */
  readonly probe: Answer<Health.Report>
  /** What the router asks behind statements. */
  readonly position: Answer<PositionAnswer>
  readonly capacity: Answer<questions.Capacity>
  readonly settings: Answer<questions.Settings>
  readonly privileges: Answer<questions.Privileges>
  /** Of a standby. */
  readonly replay: Answer<questions.Replay> | undefined
  /** Of a primary: how many standbys its commits can wait for. */
  readonly synchronous: Answer<number> | undefined
  /** Whether the server announced another process than the one that answers. */
  readonly isProxied: boolean
  /** How many servers have answered at its address: several behind a balancer. */
  readonly servers: number
  /** The catalog, which the router begins with. */
  readonly catalog: Answer<SqlClassifier.Catalog> | undefined
}

/** A server that answers, and can be asked more. */
export interface Inspected {
  readonly answers: Answers
  readonly askPosition: Effect.Effect<Answer<PositionAnswer>>
  readonly askReplayAge: Effect.Effect<Answer<number>>
}

/** How long connecting may take, and how long the answers to all questions. */
export const limitOf = ({ client: { connectTimeout } }: ResolvedEngine): Duration.Duration =>
  limits.connecting(connectTimeout)

/** The names of the connections that a router opens. */
const namesOf = ({ client: { applicationName } }: ResolvedEngine) => [applicationName, `${applicationName} health`]

const cannotOpen = (cause: unknown) => new SqlError({ cause, message: acquireFailed })

const open = (config: Pg.ClientConfig, limit: Duration.Duration): Effect.Effect<Connection, SqlError, Scope.Scope> =>
  Effect.gen(function* () {
    const connection = yield* Effect.acquireRelease(
      Effect.try({ try: () => new Connection(config, () => {}), catch: cannotOpen }),
      (connection) => Effect.sync(() => connection.end())
    )
    yield* Effect.async<void, SqlError>((resume) => {
      connection.connect((cause) => resume(cause === undefined ? Effect.void : Effect.fail(cannotOpen(cause))))
    }).pipe(
      Effect.timeoutFail({ duration: limit, onTimeout: () => cannotOpen(silent(limit)) }),
      Effect.onError(() => Effect.sync(() => connection.destroy()))
    )
    return connection
  })

const silent = (limit: Duration.Duration) => new ServerLost(`no answer within ${Duration.format(limit)}`)

const rowsOf = (connection: Connection, text: string, values?: ReadonlyArray<unknown>) =>
  Effect.async<ReadonlyArray<questions.Row>, SqlError>((resume) => {
    const query = { text, ...(values !== undefined && { values }), asArrays: true }
    connection.query(query, (error, result) =>
      resume(
        error === undefined
          ? Effect.succeed((result as Exclude<Result, ReadonlyArray<unknown>>).rows as unknown as Array<questions.Row>)
          : Effect.fail(connection.statementError(error))
      )
    )
  })

const serializable = "SET default_transaction_isolation = 'repeatable read'"

/** Who it is. A standby whose default isolation is serializable refuses every question, so there it is set first, as the router does. */
const identify = (connection: Connection) => {
  const ask = rowsOf(connection, questions.identity)
  return Effect.map(
    Effect.catchIf(
      Effect.map(ask, (rows) => ({ rows, initial: undefined as string | undefined })),
      saysSerializableDefault,
      () =>
        Effect.map(Effect.zipRight(rowsOf(connection, serializable), ask), (rows) => ({ rows, initial: serializable }))
    ),
    ({ initial, rows }) => ({ initial, identity: questions.identityOf(rows) })
  )
}

const samples = 3

/** The clock is asked several times; the quickest answer has the least room for error. */
const compareClocks = (connection: Connection) =>
  Effect.map(
    Effect.replicateEffect(
      Effect.gen(function* () {
        const clock = yield* Effect.clock
        const sent = clock.unsafeCurrentTimeMillis()
        const began = clock.unsafeCurrentTimeNanos()
        const [row = []] = yield* rowsOf(connection, questions.clock)
        const roundTrip = Number(clock.unsafeCurrentTimeNanos() - began) / 1e6
        return { roundTrip, millis: Number(row[0]) - (sent + roundTrip / 2) }
      }),
      samples
    ),
    (found) => {
      const { millis, roundTrip } = found.reduce((best, one) => (one.roundTrip < best.roundTrip ? one : best))
      // The clock of this machine tells whole milliseconds.
      const skew = { millis: Math.round(millis), uncertainty: Math.ceil(roundTrip / 2 + 1) }
      return { roundTrip: Math.round(roundTrip * 100) / 100, skew }
    }
  )

const probe = (engine: ResolvedEngine, limit: Duration.Duration, initial: string | undefined) => {
  const prober = new Probe(() => {})
  const { applicationName } = engine.client
  const config = { ...Engine.poolConfig(engine.client), application_name: `${applicationName} check` }
  return Effect.ensuring(
    prober.run(config, limit, true, initial),
    Effect.sync(() => prober.close())
  )
}

const askPosition = (connection: Connection): Effect.Effect<PositionAnswer, SqlError | Error> =>
  Effect.flatMap(rowsOf(connection, position.text), ([row = []]) => {
    const answer = position.answerOf(row)
    return answer instanceof Error ? Effect.fail(answer) : Effect.succeed(answer)
  })

/** So many connections at the same time show whether an address leads to one server: a balancer spreads them. */
const companions = 5

/** When each of the servers behind an address has started, as far as they tell it: that tells them apart. */
const startsOf = (config: Pg.ClientConfig, limit: Duration.Duration): Effect.Effect<ReadonlySet<number>> => {
  const one = Effect.gen(function* () {
    const connection = yield* open(config, limit)
    // Those of the others are there too, so that what counts connections counts them.
    const [row = []] = yield* rowsOf(connection, startQuery)
    return [parseStart(row[0])]
  })
  const all = Effect.forEach(Array.from({ length: companions }), () => Effect.orElseSucceed(one, () => []), {
    concurrency: "unbounded"
  })
  return Effect.map(
    Effect.orElseSucceed(
      Effect.timeoutFail(Effect.scoped(all), { duration: limit, onTimeout: () => silent(limit) }),
      () => []
    ),
    (found) => new Set(found.flat().filter((startedAt) => startedAt !== undefined))
  )
}

/**
 * Connects and asks. Fails when it cannot connect, or when the server does not say who it is; anything else that it refuses to
 * say is an answer too. The connection is there until the scope closes.
 */
export const inspect = (
  engine: ResolvedEngine,
  options: { readonly needsCatalog: boolean }
): Effect.Effect<Inspected, Told, Scope.Scope> => {
  const limit = limitOf(engine)
  const tell = told(engine)
  const attempt = <A>(ask: Effect.Effect<A, SqlError | Error>): Effect.Effect<Answer<A>> =>
    Effect.either(Effect.mapError(ask, tell))
  const { applicationName } = engine.client
  const config = { ...Engine.poolConfig(engine.client), application_name: `${applicationName} check` }
  const questioning = (connection: Connection, starts: ReadonlySet<number>) =>
    Effect.gen(function* () {
      const ask = <A>(text: string, read: (rows: ReadonlyArray<questions.Row>) => A, values?: ReadonlyArray<unknown>) =>
        attempt(Effect.map(rowsOf(connection, text, values), read))
      const { identity, initial } = yield* identify(connection)
      const { roundTrip, skew } = yield* compareClocks(connection)
      const announced = connection.cancelTarget?.processID
      const answers: Answers = {
        identity,
        roundTrip,
        skew,
        isProxied: announced !== identity.processId,
        servers: starts.size,
        capacity: yield* ask(questions.capacity, questions.capacityOf, [namesOf(engine)]),
        settings: yield* ask(questions.settings, questions.settingsOf),
        privileges: yield* ask(questions.privileges, questions.privilegesOf),
        position: yield* attempt(askPosition(connection)),
        replay: identity.isStandby ? yield* ask(questions.replay, questions.replayOf) : undefined,
        synchronous: identity.isStandby ? undefined : yield* ask(questions.synchronous, ([row = []]) => Number(row[0])),
        catalog: options.needsCatalog && !identity.isStandby ? yield* attempt(readCatalog(connection)) : undefined,
        probe: yield* attempt(probe(engine, limit, initial))
      }
      return answers
    })
  return Effect.gen(function* () {
    const connection = yield* open(config, limit)
    const starts = yield* startsOf(config, limit)
    const answers = yield* Effect.timeoutFail(questioning(connection, starts), {
      duration: limit,
      onTimeout: () => cannotOpen(silent(limit))
    })
    const later = <A>(ask: Effect.Effect<A, SqlError | Error>) =>
      attempt(Effect.timeoutFail(ask, { duration: limit, onTimeout: () => cannotOpen(silent(limit)) }))
    return {
      answers,
      askPosition: later(askPosition(connection)),
      askReplayAge: later(Effect.map(rowsOf(connection, questions.replayAge), ([row = []]) => Number(row[0] ?? 0)))
    }
  }).pipe(Effect.mapError(tell))
}

const readCatalog = (connection: Connection) =>
  SqlClassifier.readCatalog((sql) =>
    Effect.map(rowsOf(connection, sql), (rows) => rows.map(([catalog]) => ({ catalog })))
  ).pipe(
    // What is no catalog throws while it is read.
    Effect.catchAllDefect((cause) => Effect.fail(new SqlError({ cause, message: "The catalog cannot be read" })))
  )
