/**
 * Asks a server what it is and how far it is: on a free connection of the pool, else on one of the probe's own.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Pg from "pg"
import type * as Health from "../../Health.js"
import { Connection, type Query, type Result } from "../driver/connection.js"
import { acquireFailed, ServerLost } from "../driver/failure.js"
import * as bounded from "../util/bounded.js"
import { timelineOf } from "../wal/timeline.js"

/**
 * For primaries and standbys, and for a role without any privilege, which sees no `received_tli`: what counts for it is the
 * timeline up to which the standby has to recover, which is right, or one too early for a while after a promotion.
 */
const statement = `SELECT r.standby, (SELECT system_identifier::text FROM pg_control_system()) AS system,
  CASE WHEN r.standby THEN coalesce(
    (SELECT received_tli FROM pg_stat_wal_receiver),
    (SELECT nullif(min_recovery_end_timeline, 0) FROM pg_control_recovery()))
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline,
  (CASE WHEN r.standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_insert_lsn() END
    - '0/0'::pg_lsn)::text AS position,
  (extract(epoch FROM pg_postmaster_start_time()) * 1000)::text AS started,
  (SELECT received_tli IS NOT NULL FROM pg_stat_wal_receiver) IS TRUE AS receives,
  current_setting('default_transaction_read_only') AS read_only, current_database() AS database
FROM (SELECT pg_is_in_recovery() AS standby) AS r`

/** Why what a server has answered to a probe is no answer. */
class OddAnswer extends Error {
  override readonly name = "OddAnswer"
}

const odd = (what: string, told: unknown) =>
  new OddAnswer(`It has answered the probe with an odd ${what}: ${JSON.stringify(told)}`)

const booleans = new Map<unknown, boolean>([
  [true, true],
  ["t", true],
  ["true", true],
  ["on", true],
  [false, false],
  ["f", false],
  ["false", false],
  ["off", false]
])

const maxPosition = 2n ** 64n - 1n

const isDigits = (told: unknown): told is string => typeof told === "string" && /^\d{1,20}$/.test(told)

/** Rows are read as arrays, so that no parser of the user's matters: everything is text, a boolean or a small number. */
const reportOf = (row: ReadonlyArray<unknown> | undefined): Health.Report | Error => {
  if (row === undefined) return new OddAnswer("It has answered the probe without a row")
  const [standby, system, told, position, started, receives, readOnly, database] = row
  const isStandby = booleans.get(standby)
  if (isStandby === undefined) return odd("role", standby)
  if (!isDigits(system)) return odd("system identifier", system)
  const timeline = timelineOf(told)
  if (timeline instanceof Error) return odd("timeline", told)
  if (!isDigits(position) || BigInt(position) > maxPosition) return odd("position", position)
  const startedAt = typeof started === "string" && /^\d+(?:\.\d+)?$/.test(started) ? Number(started) : Number.NaN
  if (!Number.isFinite(startedAt)) return odd("start time", started)
  return {
    role: isStandby ? "replica" : "primary",
    system,
    timeline,
    position: BigInt(position),
    startedAt,
    receives: booleans.get(receives),
    isReadOnly: booleans.get(readOnly),
    database: typeof database === "string" ? database : undefined
  }
}

/** The probes of one server, one at a time. They keep their connection from one to the next. */
export class Probe {
  private connection: Connection | undefined
  /** Those that have not broken, and are not needed any more. */
  private readonly left = new WeakSet<Connection>()

  /** `ended` hears of every connection that has broken, or was closed for a new one. */
  constructor(private readonly ended: () => void) {}

  /** Whether the next probe has a connection of before, unless it is to connect anew. */
  get isConnected(): boolean {
    return this.connection?.isUsable === true
  }

  /**
   * One probe on a connection of its own. `fresh` lets it connect anew, since a server may keep what it has and take nothing
   * more. It never waits for a server that is silent: what has not answered by `limit` is cut off. An answer that has come
   * counts, even if this process was too busy to read it. `initial` runs first.
   */
  run(
    config: Pg.ClientConfig,
    limit: Duration.Duration,
    fresh: boolean,
    initial: string | undefined
  ): Effect.Effect<Health.Report, SqlError> {
    return Effect.suspend(() => {
      if (fresh) this.close()
      return Effect.flatMap(this.connect(config, limit), (connection) =>
        initial === undefined ? ask(connection) : Effect.zipRight(send(connection, { text: initial }), ask(connection))
      ).pipe(
        within(limit),
        Effect.onError(() =>
          Effect.sync(() => {
            this.connection?.destroy()
            this.connection = undefined
          })
        )
      )
    })
  }

  /**
   * The same on a connection that is not its own, which is as good. Its own is not needed then: a process has no connection to
   * a server that is for probes alone.
   */
  ride(connection: Connection, limit: Duration.Duration): Effect.Effect<Health.Report, SqlError> {
    return Effect.suspend(() => {
      this.leave()
      return within(limit)(ask(connection))
    })
  }

  /** Closes the connection, which is not needed now. */
  leave(): void {
    if (this.connection === undefined) return
    this.left.add(this.connection)
    this.close()
  }

  /** Closes the connection. */
  close(): void {
    const { connection } = this
    this.connection = undefined
    connection?.end()
  }

  private connect(config: Pg.ClientConfig, limit: Duration.Duration): Effect.Effect<Connection, SqlError> {
    return Effect.async<Connection, SqlError>((resume) => {
      if (this.connection?.isUsable === true) return resume(Effect.succeed(this.connection))
      let connection: Connection
      try {
        connection = new Connection({ ...config, connectionTimeoutMillis: Duration.toMillis(limit) }, (ended) => {
          if (!this.left.has(ended)) this.ended()
        })
      } catch (cause) {
        return resume(Effect.fail(new SqlError({ cause, message: acquireFailed })))
      }
      this.connection = connection
      connection.connect((cause) => {
        if (cause === undefined) return resume(Effect.succeed(connection))
        connection.destroy()
        resume(Effect.fail(new SqlError({ cause, message: acquireFailed })))
      })
    })
  }
}

/** Cuts off what has not ended by a limit. */
const within =
  (limit: Duration.Duration) =>
  <A>(probe: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> => {
    const silent = Effect.suspend(() => {
      const cause = new ServerLost(`No answer within ${Duration.toMillis(limit)} ms`)
      return Effect.fail(new SqlError({ cause, message: acquireFailed }))
    })
    // The one that loses is interrupted, which it can be in a fiber of its own alone: a layer may be built where nothing interrupts.
    const raced = Effect.raceFirst(probe, Effect.delay(Effect.zipRight(heard, silent), limit))
    return Effect.flatMap(bounded.within(raced, Duration.times(limit, 2)), (answer) =>
      answer.state === "late" ? silent : answer.exit
    )
  }

/** Ends once everything was read that was there. Node looks at what is due before it looks at what has come. */
const heard = Effect.async<void>((resume) => {
  const turn = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(turn))
})

const send = (connection: Connection, query: Query): Effect.Effect<Result, SqlError> =>
  Effect.async<Result, SqlError>((resume) => {
    connection.query(query, (error, result) =>
      resume(error === undefined ? Effect.succeed(result!) : Effect.fail(connection.statementError(error)))
    )
  })

const ask = (connection: Connection): Effect.Effect<Health.Report, SqlError> =>
  Effect.flatMap(send(connection, { text: statement, asArrays: true }), (result) => {
    const rows = "rows" in result ? (result.rows as unknown as ReadonlyArray<ReadonlyArray<unknown>>) : []
    const report = reportOf(rows[0])
    return report instanceof Error
      ? Effect.fail(new SqlError({ cause: report, message: report.message }))
      : Effect.succeed(report)
  })
