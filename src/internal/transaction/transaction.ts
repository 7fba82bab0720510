import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Engine, ExclusiveConnection } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import type { Cursor } from "../driver/cursor.js"
import { ProtocolViolation, Unanswered } from "../driver/failure.js"
import type { Request, Result } from "../driver/pool.js"
import { refused } from "../driver/refused.js"
import { command } from "../driver/run.js"
import type { Outcome } from "../telemetry/outcome.js"
import * as bounded from "../util/bounded.js"
import * as limits from "../util/limits.js"
import { Lock } from "../util/lock.js"
import type { Restore } from "../util/restore.js"
import type { Mark } from "../wal/lsnTracker.js"
import { Course } from "./course.js"
import { type Begin, Beginning } from "./lazyBegin.js"
import { Writes } from "./writeTracking.js"

/** How a transaction begins and ends. */
export interface Options extends Begin {
  /** Whether it ends with a statement that fails, because each stands for itself: another one takes its place. */
  readonly replaceable: boolean
  /** Hears how it has ended, once, in the fiber that ends it, if anybody wants to know. */
  readonly onEnd: OnEnd | undefined
}

export type OnEnd = (transaction: Transaction, outcome: Outcome) => Effect.Effect<void>

/** What became of a transaction whose COMMIT failed. */
export const outcomeOf = (cause: Cause.Cause<unknown>): Outcome =>
  Option.contains(Option.flatMap(Cause.failureOption(cause), RouterError.reasonOf), "OutcomeUnknown")
    ? "unknown"
    : "rolled back"

/** The COMMIT or ROLLBACK of a transaction. */
interface Ending {
  readonly how: "commit" | "rollback"
  readonly done: Deferred.Deferred<void, SqlError>
}

/** What a whole transaction shares with all its savepoints. */
interface Shared {
  readonly beginning: Beginning
  /** One statement at a time on the connection. */
  readonly statements: Lock
  readonly options: Options
  /** Statements that run or wait, and streams that have not ended: counted where it matters. */
  uses: number
  names: number
  /** Nothing runs in it any more. */
  ended: boolean
  ending: Ending | undefined
  readonly writes: Writes
  /** What texts of the program have done to it. */
  readonly course: Course
}

/**
 * A transaction, or a savepoint inside one: a place where statements run. Siblings on one connection cannot overlap,
 * because PostgreSQL's savepoints are a stack: rolling one back takes with it what came later. So while a savepoint is open,
 * other uses of the level above it wait.
 */
export class Transaction {
  private readonly siblings = new Lock()
  private ended = false
  /** The savepoint is no more. */
  private closed = false
  /** Whether it is a savepoint whose work is part of what is around it now. */
  isReleased = false
  /** The savepoint that was last opened directly inside this level. */
  private inner: Transaction | undefined

  private constructor(
    readonly group: string,
    private readonly shared: Shared,
    private readonly parent: Transaction | undefined,
    private readonly savepoint: string | undefined
  ) {}

  /** What is known of the writes of its statements, and those of its savepoints. */
  get writes(): Writes {
    return this.shared.writes
  }

  /** Whether a statement that ran in it, or in a savepoint of it, may have written. */
  get wrote(): boolean {
    return this.shared.writes.any
  }

  /** What hears of the engine's position after its COMMIT. */
  get mark(): Mark | undefined {
    return this.shared.beginning.mark
  }

  /** Whether a text has committed or prepared what it did, or may have, so that a rollback leaves it there. */
  get mayStay(): boolean {
    return this.shared.course.mayStay
  }

  /** What became of it when its COMMIT has succeeded. */
  get committedAs(): Outcome {
    return this.shared.course.isPrepared ? "unknown" : "committed"
  }

  /** What became of it when it was rolled back. */
  get rolledBackAs(): Outcome {
    return this.mayStay ? "unknown" : "rolled back"
  }

  /** Whether nothing runs in it any more. */
  get isEnded(): boolean {
    return this.ended || this.shared.ended || (this.parent?.isEnded ?? false)
  }

  /** Whether another transaction can stand in for it: a statement failed, or it could not begin. */
  get isSpent(): boolean {
    return (this.shared.ended && this.isReplaceable) || this.neverBegan
  }

  /** It could not begin: nothing has run in it, and nothing will. */
  get neverBegan(): boolean {
    return this.shared.beginning.neverBegan
  }

  /** Another transaction can take its place now without a difference to its users. */
  get isDispensable(): boolean {
    return this.isReplaceable && this.shared.uses === 0
  }

  /** Each statement stands for itself: none has left anything behind for another. */
  private get isReplaceable(): boolean {
    return this.shared.options.replaceable && !this.shared.writes.binds
  }

  /**
   * A transaction on a connection of the engine, which the caller has to give back. The server begins it with its first
   * statement. The caller must be uninterruptible; `restore` makes the waiting interruptible.
   */
  static begin(
    group: string,
    engine: Engine,
    options: Options,
    restore: Restore
  ): Effect.Effect<Transaction, SqlError> {
    return Effect.flatMap(Beginning.make(engine, options, restore), (beginning) => {
      const shared: Shared = {
        beginning,
        statements: new Lock(),
        options,
        uses: 0,
        names: 0,
        ended: false,
        ending: undefined,
        writes: new Writes(),
        course: new Course()
      }
      const transaction = new Transaction(group, shared, undefined, undefined)
      if (options.settings.length === 0) return Effect.succeed(transaction)
      return Effect.as(
        Effect.onError(restore(beginning.configured), () => transaction.abort),
        transaction
      )
    })
  }

  /** Rolls back, and gives the connection back. */
  get abort(): Effect.Effect<void> {
    return Effect.ensuring(this.rollback, this.giveBack)
  }

  /** Gives the connection back: the last thing that happens, once it has ended. */
  get giveBack(): Effect.Effect<void> {
    return Effect.suspend(() => this.shared.beginning.giveBack(this.shared.writes.leaves))
  }

  /** Where it runs. Once it has begun that does not change. */
  get engine(): Engine {
    return this.shared.beginning.engine
  }

  private get connection(): ExclusiveConnection {
    return this.shared.beginning.connection
  }

  /**
   * Runs a statement. An error of it, and an interruption, abort the transaction, as always in PostgreSQL. `moved` hears where
   * the transaction begins in the end, if not where it was to.
   */
  query(request: Request, moved: (engine: Engine) => void): Effect.Effect<Result, SqlError> {
    const { beginning, course, writes } = this.shared
    const { sql } = request
    writes.begin()
    const run = (connection: ExclusiveConnection) => {
      course.begin(sql)
      return Effect.matchEffect(connection.query(request), {
        onFailure: (error) => this.failed(connection, sql, error),
        onSuccess: (result) => {
          writes.hear(result)
          course.hear(connection, sql, result)
          return Effect.succeed(result)
        }
      })
    }
    return this.alone(beginning.with(run, moved))
  }

  /**
   * The rows of a statement, fetched as they are consumed. Other statements may run between two batches. A batch that is
   * pulled in a savepoint of this level, which `levelOf` finds, does not wait for that savepoint to end.
   */
  stream(
    sql: string,
    params: ReadonlyArray<unknown>,
    levelOf: (fiber: Fiber.RuntimeFiber<unknown, unknown>) => Transaction | undefined,
    moved: (engine: Engine) => void
  ): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(
      Effect.suspend(() => {
        const name = `edr_cursor_${++this.shared.names}`
        let cursor: Cursor | undefined
        const next = Effect.zipRight(
          this.shared.beginning.begun(moved),
          Effect.suspend(() => {
            if (this.isEnded) return refused
            const { connection } = this
            const { course } = this.shared
            cursor ??= connection.cursor(name, sql, params)
            const opened = cursor
            course.begin(sql)
            return Effect.matchEffect(opened.fetch, {
              onFailure: (error) => this.failed(connection, sql, error),
              onSuccess: (rows) => {
                course.hear(connection, sql, opened)
                return Effect.succeed(rows)
              }
            })
          })
        )
        const fetch = Effect.withFiberRuntime<ReadonlyArray<object>, SqlError>((fiber) => {
          const level = levelOf(fiber)
          return (level?.isInside(this) === true ? level : this).alone(next)
        })
        const pull = Effect.flatMap(Effect.mapError(fetch, Option.some), (rows) =>
          rows.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(rows))
        )
        const open = Effect.sync(() => {
          this.shared.writes.begin()
          this.shared.uses++
        })
        const close = Effect.suspend(() => {
          this.shared.uses--
          return cursor?.close ?? Effect.void
        })
        return Effect.as(
          Effect.acquireRelease(open, () => close),
          Stream.repeatEffectChunkOption(pull)
        )
      })
    )
  }

  /**
   * Opens a savepoint: a level of its own, for as long as the effect runs. Released on success, rolled back to on failure,
   * defect and interruption, and when a failed statement inside it was not let through. Runs `otherwise` instead when this
   * level has ended.
   */
  within<A, E, R>(
    use: (level: Transaction) => Effect.Effect<A, E, R>,
    otherwise: Effect.Effect<A, E | SqlError, R> = refused
  ): Effect.Effect<A, E | SqlError, R> {
    const { siblings } = this
    const { statements } = this.shared
    return Effect.uninterruptibleMask((restore) =>
      siblings.take(restore).pipe(
        Effect.zipRight(Effect.onError(statements.take(restore), () => siblings.release)),
        Effect.zipRight(
          Effect.suspend(() => {
            if (this.isEnded) {
              return Effect.zipRight(Effect.ensuring(statements.release, siblings.release), restore(otherwise))
            }
            const name = `edr_${++this.shared.names}`
            const level = new Transaction(this.group, this.shared, this, name)
            const open = Effect.suspend(() =>
              this.isEnded
                ? refused
                : this.hasLeftCourse
                  ? this.shared.course.refuse(this.where)
                  : this.connection.query(command(`SAVEPOINT ${name}`))
            )
            const begun = this.shared.beginning.begun(() => {})
            return Effect.zipRight(restore(begun), this.insist(open)).pipe(
              Effect.ensuring(statements.release),
              Effect.tap(() => Effect.sync(() => (this.inner = level))),
              Effect.zipRight(Effect.exit(restore(use(level)))),
              Effect.flatMap((exit) =>
                Effect.zipRight(Exit.isSuccess(exit) ? level.releaseSavepoint : level.rollbackSavepoint, exit)
              ),
              Effect.ensuring(siblings.release)
            )
          })
        )
      )
    )
  }

  /**
   * Commits. Fails when the server refuses, answers ROLLBACK (a statement had failed), or goes away; then nothing is left
   * open. An interruption waits for the answer, never cancels it: a COMMIT that waits for a synchronous standby and is
   * cancelled has been carried out all the same. While the COMMIT still waits for statements of other fibers, an
   * interruption rolls back. Of several calls, all have the answer to one COMMIT.
   */
  readonly commit: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    const { ending } = this.shared
    if (ending?.how === "commit") return this.insist(Deferred.await(ending.done))
    if (this.shared.ended) return Effect.fail(RouterError.toSqlError(RouterError.sessionClosed("commit")))
    this.shared.ended = true
    return this.endAs(
      "commit",
      Effect.onError(this.conclude(this.finish), () => this.undo("ROLLBACK"))
    )
  })

  /**
   * `commit`, once no savepoint is open any more. Statements that wait for this level go on after what `followed` adds. An
   * interruption ends the waiting, with nothing done.
   */
  commitWhenSettled(
    followed: (commit: Effect.Effect<void, SqlError>) => Effect.Effect<void, SqlError>
  ): Effect.Effect<void, SqlError> {
    return Effect.uninterruptible(
      Effect.zipRight(
        this.siblings.take(Effect.interruptible),
        Effect.ensuring(followed(this.commit), this.siblings.release)
      )
    )
  }

  private readonly finish: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (this.hasLeftCourse) return Effect.zipRight(this.closeOther, this.shared.course.end(this.where))
    const { isSound } = this.shared.beginning
    // Nothing was to run in it, so the server knows nothing of it.
    if (isSound && !this.connection.hasBegun) return this.endUnbegun
    // A connection that has broken before never takes the COMMIT.
    if (!isSound || !this.connection.isUsable)
      return Effect.fail(RouterError.toSqlError(RouterError.connectionLost(this.where)))
    this.closed = true
    const { mark } = this
    const { writes } = this.shared
    // The question has a Sync of its own: an error of it comes after the COMMIT was answered, and is none of the COMMIT.
    const commit = mark?.tracker.isTelling === true ? { ...command("COMMIT"), sampler: mark } : command("COMMIT")
    const savepoint = `edr_${++this.shared.names}`
    return Effect.matchEffect(writes.commit(this.engine, this.connection, commit, savepoint, limits.end), {
      onSuccess: (result) => {
        const tag = "command" in result ? result.command : undefined
        if (tag === "COMMIT") return Effect.void
        return tag === "ROLLBACK"
          ? Effect.fail(RouterError.toSqlError(RouterError.commitRolledBack(this.where)))
          : this.unknown(
              new ProtocolViolation(`The server has answered COMMIT with ${JSON.stringify(tag ?? "")}`),
              "odd answer"
            )
      },
      // Only an error of the server's says that nothing is there.
      onFailure: (error) =>
        error instanceof Unanswered || !this.connection.isUsable ? this.unknown(error) : Effect.fail(error)
    })
  })

  /** A COMMIT was sent, and it is not known what the server has made of it. Nor is anything else of the connection. */
  private unknown(cause: Error, what: "commit" | "odd answer" = "commit"): Effect.Effect<never, SqlError> {
    const error = RouterError.outcomeUnknown(what, { ...this.where, cause })
    return Effect.zipRight(this.connection.destroy, Effect.fail(RouterError.toSqlError(error)))
  }

  /**
   * Rolls back. Cancels what still runs. A connection on which that fails, or takes too long, is destroyed. Never fails.
   * Waits for a COMMIT that was sent before.
   */
  readonly rollback: Effect.Effect<void> = Effect.suspend(() => {
    const { beginning, ending } = this.shared
    this.shared.ended = true
    beginning.stop()
    return Effect.asVoid(
      Effect.exit(
        ending === undefined ? this.endAs("rollback", this.undo("ROLLBACK")) : this.insist(Deferred.await(ending.done))
      )
    )
  })

  private endAs(how: Ending["how"], end: Effect.Effect<void, SqlError>): Effect.Effect<void, SqlError> {
    const done = Deferred.unsafeMake<void, SqlError>(FiberId.none)
    this.shared.ending = { how, done }
    return Effect.onExit(Effect.uninterruptible(end), (exit) => {
      const outcome = Exit.isFailure(exit)
        ? outcomeOf(exit.cause)
        : how === "commit"
          ? this.committedAs
          : this.rolledBackAs
      return Effect.zipRight(
        this.shared.options.onEnd?.(this, outcome) ?? Effect.void,
        // An interruption is for the one who was interrupted; the others learn that nothing was committed.
        Exit.isInterrupted(exit)
          ? Deferred.fail(done, RouterError.toSqlError(RouterError.sessionClosed("commit")))
          : Deferred.done(done, exit)
      )
    })
  }

  private readonly releaseSavepoint: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (this.isEnded) return refused
    this.ended = true
    const release = Effect.suspend(() =>
      this.isOutlived
        ? refused
        : this.hasLeftCourse
          ? this.shared.course.end(this.where)
          : this.insist(this.close(`RELEASE SAVEPOINT ${this.savepoint}`))
    )
    return Effect.onError(this.conclude(release), () => this.undoSavepoint).pipe(
      Effect.tap(() => Effect.sync(() => (this.isReleased = true))),
      Effect.mapError((cause) =>
        RouterError.isRouterError(cause.cause)
          ? cause
          : this.connection.isUsable
            ? RouterError.toSqlError(RouterError.commitRolledBack({ ...this.where, cause }))
            : RouterError.toSqlError(RouterError.connectionLost({ ...this.where, cause }))
      )
    )
  })

  private readonly rollbackSavepoint: Effect.Effect<void> = Effect.suspend(() => {
    if (this.isEnded) return Effect.void
    this.ended = true
    return this.undoSavepoint
  })

  private readonly undoSavepoint: Effect.Effect<void> = Effect.suspend(() =>
    this.undo(`ROLLBACK TO SAVEPOINT ${this.savepoint}; RELEASE SAVEPOINT ${this.savepoint}`)
  )

  /**
   * Ends this level with its last command, once the statements that still run in it have ended. A savepoint that is still open
   * inside it (of a fiber that was not joined) is unfinished work: it is stopped and undone.
   */
  private conclude(last: Effect.Effect<void, SqlError>): Effect.Effect<void, SqlError> {
    const { statements } = this.shared
    const undoInner = Effect.suspend(() =>
      this.inner === undefined || this.inner.closed || this.hasLeftCourse
        ? Effect.void
        : this.insist(this.connection.query(command(`ROLLBACK TO SAVEPOINT ${this.inner.savepoint}`)))
    )
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const isFree = this.inner === undefined && statements.tryTake()
        // Nearly always.
        if (isFree) return Effect.ensuring(last, statements.release)
        return (this.inner === undefined || this.inner.ended ? Effect.void : this.connection.cancel).pipe(
          Effect.zipRight(statements.take(Effect.interruptible)),
          Effect.zipRight(Effect.ensuring(Effect.zipRight(undoInner, last), statements.release))
        )
      })
    )
  }

  /** Cancels what runs in this level, and undoes it. Destroys the connection when that fails or takes too long. */
  private undo(sql: string): Effect.Effect<void> {
    const isClosed = () => this.closed || this.isOutlived
    const isDone = () => isClosed() || !this.connection.isUsable
    const isGone = () => this.hasLeftCourse && (this.savepoint !== undefined || this.connection.isOver)
    const undone = Effect.suspend(() =>
      // Where the connection has broken too: what ran there last tells whether anything may stay.
      isClosed() || isGone() || isDone() ? Effect.void : this.connection.hasBegun ? this.close(sql) : this.endUnbegun
    )
    return Effect.suspend(() => (isDone() ? Effect.void : this.connection.cancel)).pipe(
      Effect.zipRight(
        Effect.forkDaemon(Effect.catchAllCause(this.shared.statements.run(undone), () => this.connection.destroy))
      ),
      Effect.flatMap((fiber) => this.orDestroy(fiber)),
      Effect.uninterruptible
    )
  }

  private readonly endUnbegun: Effect.Effect<void> = Effect.sync(() => {
    this.closed = true
  })

  /** The error of a statement, once the server is ready again and the course has heard of it. */
  private failed(connection: ExclusiveConnection, sql: string, error: SqlError): Effect.Effect<never, SqlError> {
    const { course } = this.shared
    return Effect.zipRight(
      connection.settled,
      Effect.suspend(() => {
        course.fail(connection, sql, error)
        // The error of a text that may have committed must not tell that nothing is there.
        return course.hasEnded(connection) && course.mayStay ? course.refuse(this.where, error) : Effect.fail(error)
      })
    )
  }

  /** Whether a text of the program's has ended the transaction: what is open on the connection, if anything, is another one. */
  private get hasLeftCourse(): boolean {
    return this.shared.course.hasEnded(this.connection)
  }

  /** Rolls back what a text has begun in place of the transaction. */
  private readonly closeOther: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    return this.connection.isOver || !this.connection.isUsable
      ? Effect.void
      : Effect.catchAll(this.insist(this.close("ROLLBACK")), () => this.connection.destroy)
  })

  /** Sends what closes this level. */
  private close(sql: string): Effect.Effect<void, SqlError> {
    return Effect.map(this.connection.query(command(sql)), () => {
      this.closed = true
    })
  }

  /** Whether something around this level has ended, and this level with it. */
  private get isOutlived(): boolean {
    return this.parent?.isEnded === true
  }

  /**
   * Waits for what must not be cancelled half-way. An interruption goes on waiting, but only so long: then the connection is
   * closed, which ends it.
   */
  private insist<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.uninterruptible(
      Effect.flatMap(Effect.forkDaemon(effect), (fiber) =>
        bounded.sinceInterruption(Fiber.await(fiber), limits.end).pipe(
          Effect.flatMap((answer) => (answer.state === "late" ? this.connection.destroy : Effect.void)),
          Effect.zipRight(Fiber.join(fiber))
        )
      )
    )
  }

  /** Waits for a fiber, but only so long: then the connection is closed. */
  private orDestroy(fiber: Fiber.RuntimeFiber<unknown, unknown>): Effect.Effect<void> {
    return Effect.flatMap(bounded.fiber(fiber, limits.end, "continue"), ({ state }) =>
      state === "late" ? this.connection.destroy : Effect.void
    )
  }

  /** Runs something of this level while nothing else runs on the connection. */
  private alone<A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    const { statements } = this.shared
    const run = (effect: Effect.Effect<A, SqlError>) =>
      this.siblings.runWith(
        statements,
        Effect.suspend(() => {
          if (this.isEnded) return refused
          return this.hasLeftCourse ? this.shared.course.refuse(this.where) : effect
        })
      )
    return this.isReplaceable ? this.counted(run(this.endingWhenFailed(effect))) : run(effect)
  }

  private endingWhenFailed<A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.onError(effect, () => Effect.sync(() => (this.shared.ended = true)))
  }

  private counted<A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.acquireUseRelease(
      Effect.sync(() => this.shared.uses++),
      () => effect,
      () => Effect.sync(() => this.shared.uses--)
    )
  }

  private isInside(other: Transaction): boolean {
    return this === other || (this.parent?.isInside(other) ?? false)
  }

  private get where() {
    return { group: this.group, engine: this.engine.name }
  }
}
