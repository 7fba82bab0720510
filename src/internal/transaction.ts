import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Engine, ExclusiveConnection } from "../Engine.js"
import * as RouterError from "../RouterError.js"
import type { Request, Result } from "./driver/pool.js"
import { Lock } from "./lock.js"

/** How long an interruption waits for the answer to a COMMIT before it closes the connection. */
const commitTimeout = Duration.seconds(5)

const command = (sql: string): Request => ({ sql, params: [], asArrays: false, prepare: false })

/** How a transaction begins. */
export interface Begin {
  readonly begin: string
  /** Settings that hold until its end. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
}

const setLocal = (settings: Begin["settings"]): Request => ({
  ...command(`SELECT ${settings.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`).join(", ")}`),
  params: settings.flat()
})

/** What a whole transaction shares with all its savepoints. */
interface Shared {
  /** One statement at a time on the connection. */
  readonly statements: Lock
  names: number
  ended: boolean
  wrote: boolean
  changedSchema: boolean
}

/**
 * A transaction, or a savepoint inside one: a place where statements run. Siblings on one connection cannot overlap,
 * because PostgreSQL's savepoints are a stack: rolling one back takes with it what came later. So while a savepoint is
 * open, whoever else uses the level above it waits.
 */
export class Transaction {
  private readonly siblings = new Lock()
  private ended = false
  /** The savepoint that is open directly inside this level. */
  private inner: string | undefined

  private constructor(
    readonly group: string,
    readonly engine: Engine,
    private readonly connection: ExclusiveConnection,
    private readonly shared: Shared,
    private readonly parent: Transaction | undefined,
    private readonly savepoint: string | undefined
  ) {}

  /** Whether a statement that ran in it, or in a savepoint of it, may have written. */
  get wrote(): boolean {
    return this.shared.wrote
  }

  /** Whether a statement that ran in it changed the schema. */
  get changedSchema(): boolean {
    return this.shared.changedSchema
  }

  /** Notes what a statement that is about to run may do. */
  note(classification: { readonly kind: string; readonly changesSchema: boolean }): void {
    if (classification.kind === "write") this.shared.wrote = true
    if (classification.changesSchema) this.shared.changedSchema = true
  }

  /** Whether nothing runs in it any more. */
  get isEnded(): boolean {
    return this.ended || this.shared.ended || (this.parent?.isEnded ?? false)
  }

  /** Begins a transaction on a connection of the engine. The connection goes back when the scope closes. */
  static begin(group: string, engine: Engine, options: Begin): Effect.Effect<Transaction, SqlError, Scope.Scope> {
    return Effect.flatMap(engine.reserve, (connection) => {
      const shared: Shared = { statements: new Lock(), names: 0, ended: false, wrote: false, changedSchema: false }
      const transaction = new Transaction(group, engine, connection, shared, undefined, undefined)
      const begun = connection.query(command(options.begin))
      return Effect.as(
        options.settings.length === 0 ? begun : Effect.zipRight(begun, connection.query(setLocal(options.settings))),
        transaction
      )
    })
  }

  /** Runs a statement. An error of it, and an interruption, abort the transaction, as always in PostgreSQL. */
  query(request: Request): Effect.Effect<Result, SqlError> {
    return this.alone(this.connection.query(request))
  }

  /**
   * The rows of a statement, fetched as they are consumed. Other statements may run between two batches. A batch that is
   * pulled in a savepoint of this level, which `levelOf` finds, does not wait for that savepoint to end.
   */
  stream(
    sql: string,
    params: ReadonlyArray<unknown>,
    levelOf: (fiber: Fiber.RuntimeFiber<unknown, unknown>) => Transaction | undefined
  ): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(
      Effect.suspend(() => {
        const cursor = this.connection.cursor(`edr_cursor_${++this.shared.names}`, sql, params)
        const fetch = Effect.withFiberRuntime<ReadonlyArray<object>, SqlError>((fiber) => {
          const level = levelOf(fiber)
          return (level?.isInside(this) === true ? level : this).alone(cursor.fetch)
        })
        const pull = Effect.flatMap(Effect.mapError(fetch, Option.some), (rows) =>
          rows.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(rows))
        )
        return Effect.as(
          Effect.addFinalizer(() => cursor.close),
          Stream.repeatEffectChunkOption(pull)
        )
      })
    )
  }

  /**
   * Opens a savepoint: a level of its own, for as long as the effect runs. Released on success, rolled back to on failure,
   * defect and interruption, and when a failed statement inside it was not let through.
   */
  within<A, E, R>(use: (level: Transaction) => Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(
        this.siblings.take(restore),
        Effect.ensuring(
          Effect.suspend(() => {
            const name = `edr_${++this.shared.names}`
            const level = new Transaction(this.group, this.engine, this.connection, this.shared, this, name)
            return restore(this.send(this.connection.query(command(`SAVEPOINT ${name}`)))).pipe(
              Effect.tap(() => Effect.sync(() => (this.inner = name))),
              Effect.zipRight(Effect.exit(restore(use(level)))),
              Effect.flatMap((exit) =>
                Effect.zipRight(Exit.isSuccess(exit) ? level.releaseSavepoint : level.rollbackSavepoint, exit)
              )
            )
          }),
          Effect.suspend(() => {
            this.inner = undefined
            return this.siblings.release
          })
        )
      )
    )
  }

  /**
   * Commits. Fails when the server refuses, answers ROLLBACK (a statement had failed), or goes away; then nothing is left
   * open. An interruption waits for the answer, never cancels it: a COMMIT that waits for a synchronous standby and is
   * cancelled has been carried out all the same.
   */
  readonly commit: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (this.end()) return Effect.fail(RouterError.toSqlError(RouterError.sessionClosed("commit")))
    const { inner } = this
    const dropped = inner === undefined ? Effect.void : this.rollbackUnfinished(inner)
    return Effect.zipRight(dropped, this.shared.statements.run(this.finish))
  })

  /** `commit`, once no savepoint is open any more. */
  readonly commitWhenSettled: Effect.Effect<void, SqlError> = Effect.suspend(() => this.siblings.run(this.commit))

  private readonly finish: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    // A connection that has broken before never takes the COMMIT.
    const failed = this.connection.isUsable
      ? (cause: SqlError) => RouterError.outcomeUnknown("commit", { ...this.where, cause })
      : (cause: SqlError) => RouterError.connectionLost({ ...this.where, cause })
    return Effect.matchEffect(this.connection.finish(command("COMMIT"), commitTimeout), {
      onSuccess: (result) =>
        "command" in result && result.command === "COMMIT"
          ? Effect.void
          : Effect.fail(RouterError.toSqlError(RouterError.commitRolledBack(this.where))),
      onFailure: (cause) => Effect.fail(this.connection.isUsable ? cause : RouterError.toSqlError(failed(cause)))
    })
  })

  // A savepoint that somebody has left open (a fiber that nobody waited for) is unfinished work: it must not be committed.
  private rollbackUnfinished(name: string): Effect.Effect<void, SqlError> {
    return Effect.zipRight(
      this.connection.cancel,
      Effect.asVoid(this.shared.statements.run(this.connection.query(command(`ROLLBACK TO SAVEPOINT ${name}`))))
    )
  }

  /** Rolls back. Cancels what still runs. A connection on which that fails is destroyed. Never fails. */
  readonly rollback: Effect.Effect<void> = Effect.suspend(() => {
    if (this.end() || !this.connection.isUsable) return Effect.void
    return this.connection.cancel.pipe(
      Effect.zipRight(this.shared.statements.run(this.connection.query(command("ROLLBACK")))),
      Effect.catchAllCause(() => this.connection.destroy),
      Effect.uninterruptible
    )
  })

  private readonly releaseSavepoint: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (this.isEnded) return Effect.fail(RouterError.toSqlError(RouterError.sessionClosed()))
    return Effect.tapError(this.sendLast(`RELEASE SAVEPOINT ${this.savepoint}`), () => this.rollbackToSavepoint).pipe(
      Effect.mapError((cause) =>
        this.connection.isUsable
          ? RouterError.toSqlError(RouterError.commitRolledBack({ ...this.where, cause }))
          : RouterError.toSqlError(RouterError.connectionLost({ ...this.where, cause }))
      )
    )
  })

  private readonly rollbackSavepoint: Effect.Effect<void> = Effect.suspend(() =>
    this.isEnded ? Effect.void : Effect.zipRight(this.connection.cancel, this.rollbackToSavepoint)
  )

  private readonly rollbackToSavepoint: Effect.Effect<void> = Effect.suspend(() =>
    this.sendLast(`ROLLBACK TO SAVEPOINT ${this.savepoint}; RELEASE SAVEPOINT ${this.savepoint}`).pipe(
      Effect.catchAllCause(() => this.connection.destroy)
    )
  )

  private readonly refuseWhenEnded: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    this.isEnded ? Effect.fail(RouterError.toSqlError(RouterError.sessionClosed())) : Effect.void
  )

  private alone<A>(statement: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return this.siblings.run(this.send(statement))
  }

  private send<A>(statement: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return this.shared.statements.run(Effect.zipRight(this.refuseWhenEnded, statement))
  }

  private isInside(level: Transaction): boolean {
    return this === level || (this.parent?.isInside(level) ?? false)
  }

  /** Sends what ends this level; nothing else runs in it afterwards. */
  private sendLast(sql: string): Effect.Effect<void, SqlError> {
    this.ended = true
    return Effect.asVoid(this.shared.statements.run(this.connection.query(command(sql))))
  }

  /** Ends the whole transaction; returns whether it had ended before. */
  private end(): boolean {
    const before = this.shared.ended
    this.shared.ended = true
    return before
  }

  private get where() {
    return { group: this.group, engine: this.engine.name }
  }
}
