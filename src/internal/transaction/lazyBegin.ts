import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type { Engine, ExclusiveConnection } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import type { Leaves } from "../classifier/finding.js"
import { acquireFailed, isOfServer } from "../driver/failure.js"
import type { Request } from "../driver/pool.js"
import { refused } from "../driver/refused.js"
import type { Restore } from "../util/restore.js"
import type { Mark } from "../wal/lsnTracker.js"

/** How a transaction begins. */
export interface Begin {
  readonly begin: string
  /** Settings that hold until its end. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
  /** What hears of the engine's position after the COMMIT, if anybody wants to know. */
  readonly mark: (engine: Engine) => Mark | undefined
  /** Whether it may begin on another server than the one that it was to begin on. */
  readonly movable: boolean
  /** Begins something on an engine in place of the one that has failed: on the primary of then, if it was the primary. */
  readonly anew: Anew
}

export type Anew = <A>(begin: (engine: Engine) => Effect.Effect<A, SqlError>) => Effect.Effect<A, SqlError>

type Run<A> = (connection: ExclusiveConnection) => Effect.Effect<A, SqlError>

/** What sets settings: until the transaction ends, or on the connection. */
export const setting = (settings: Begin["settings"], isLocal: boolean): Request => ({
  sql: `SELECT ${settings.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, ${isLocal})`).join(", ")}`,
  params: settings.flat(),
  asArrays: false,
  prepare: true
})

/** The names that {@link setting} sets until the transaction ends; `undefined` for any other statement. */
export const settingNames = ({ params, sql }: Request): ReadonlyArray<string> | undefined =>
  /^SELECT (?:set_config\(\$\d+, \$\d+, true\)(?:, )?)+$/.test(sql)
    ? params.filter((_, i) => i % 2 === 0).map(String)
    : undefined

/** The connection of a transaction that the server begins with its first statement. Until then it may begin elsewhere. */
export class Beginning {
  /** What hears of the engine's position after its COMMIT. */
  mark: Mark | undefined
  /** Whether it was to begin elsewhere and could not: nothing has run in it, and nothing will. */
  neverBegan = false
  /** Whether what was to begin it has failed, or was interrupted: nothing of it is there, and nothing will be. */
  private hasFailed = false
  private isStopped = false
  /** Ends the waiting for another connection, while there is any. */
  private endWaiting = () => {}

  private constructor(
    public engine: Engine,
    public connection: ExclusiveConnection,
    private readonly options: Begin
  ) {
    this.mark = options.mark(engine)
  }

  /**
   * On a connection of the engine, which is the caller's to give back. He must be uninterruptible; `restore` makes the waiting
   * interruptible.
   */
  static make(engine: Engine, options: Begin, restore: Restore): Effect.Effect<Beginning, SqlError> {
    return Effect.map(
      engine.transaction(options.begin, restore, options.movable),
      (connection) => new Beginning(engine, connection, options)
    )
  }

  /** Whether its COMMIT may say that all is well: it has begun, or nothing was to run in it. */
  get isSound(): boolean {
    return this.connection.hasBegun || !(this.neverBegan || this.hasFailed)
  }

  /** Gives it the settings that it has, if it has any. That begins it, here or not at all. */
  get configured(): Effect.Effect<void, SqlError> {
    const { engine, options } = this
    return options.settings.length === 0
      ? Effect.void
      : Effect.asVoid(
          this.with(
            (connection) => connection.query(setting(options.settings, true)),
            () => {},
            (begin) => begin(engine)
          )
        )
  }

  /** Has the server begin it, if it has not yet. `moved` as for `with`. */
  begun(moved: (engine: Engine) => void): Effect.Effect<void, SqlError> {
    return this.with((connection) => connection.begun, moved)
  }

  /**
   * Runs what may begin it. When the connection breaks before the server has said that it has begun, nothing of it can have
   * been committed: it begins on another connection, and runs there. `moved` hears of another engine.
   */
  with<A>(run: Run<A>, moved: (engine: Engine) => void, anew = this.options.anew): Effect.Effect<A, SqlError> {
    return Effect.suspend(() => {
      const { connection } = this
      if (this.neverBegan || this.hasFailed) return this.lost
      if (connection.hasBegun) return run(connection)
      const isElsewhere = (error: SqlError) =>
        !(connection.hasBegun || connection.isUsable || this.isStopped) && isOfServer(error)
      return Effect.catchAll(run(connection), (error) =>
        isElsewhere(error) ? this.elsewhere(run, moved, anew) : Effect.fail(error)
      ).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            this.hasFailed = !this.connection.hasBegun
          })
        )
      )
    })
  }

  /** It ends, whatever still waits to begin it. */
  stop(): void {
    this.isStopped = true
    this.endWaiting()
  }

  /** Gives the connection back, with what was left behind on it. */
  giveBack(leaves?: Leaves): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (leaves !== undefined) this.connection.leave(leaves)
      return this.connection.giveBack
    })
  }

  private elsewhere<A>(run: Run<A>, moved: (engine: Engine) => void, anew: Anew): Effect.Effect<A, SqlError> {
    const { engine } = this
    this.neverBegan = true
    return Effect.flatMap(this.untilStopped(anew((engine) => this.beginOn(engine))), () => {
      if (this.engine !== engine) moved(this.engine)
      return this.isStopped ? refused : run(this.connection)
    })
  }

  // Not by a race: where nothing may interrupt the caller, the loser of one never ends.
  private untilStopped(effect: Effect.Effect<void, SqlError>): Effect.Effect<void, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.forkDaemon(Effect.interruptible(effect)), (fiber) => {
        this.endWaiting = () => fiber.unsafeInterruptAsFork(FiberId.none)
        if (this.isStopped) this.endWaiting()
        const ended = Effect.flatMap(Fiber.await(fiber), (exit) => (this.isStopped ? refused : exit))
        return Effect.onInterrupt(restore(ended), () => Fiber.interrupt(fiber))
      })
    )
  }

  private beginOn(engine: Engine): Effect.Effect<void, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.zipRight(this.giveBack(), engine.transaction(this.options.begin, restore)),
        (connection): Effect.Effect<void, SqlError> => {
          if (this.isStopped) return Effect.ensuring(refused, connection.giveBack)
          this.engine = engine
          this.connection = connection
          this.mark = this.options.mark(engine)
          return Effect.mapBoth(restore(connection.begun), {
            // It can begin on yet another one.
            onFailure: (error) =>
              connection.isUsable ? error : new SqlError({ cause: error.cause, message: acquireFailed }),
            onSuccess: () => {
              this.neverBegan = false
            }
          })
        }
      )
    )
  }

  private get lost(): Effect.Effect<never, SqlError> {
    return Effect.fail(RouterError.toSqlError(RouterError.connectionLost({ engine: this.engine.name })))
  }
}
