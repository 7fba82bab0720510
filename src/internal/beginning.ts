import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Engine, ExclusiveConnection } from "../Engine.js"
import type { Request } from "./driver/pool.js"
import { acquireFailed, isOfServer } from "./failure.js"
import type { Restore } from "./restore.js"
import type { Mark } from "./tracker.js"

/** How a transaction begins. */
export interface Begin {
  readonly begin: string
  /** Settings that hold until its end. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
  /** What hears of the engine's position after the COMMIT, if anybody wants to know. */
  readonly mark: (engine: Engine) => Mark | undefined
  /** Begins something on an engine in place of the one that has failed: on the primary of then, if it was the primary. */
  readonly anew: Anew
}

export type Anew = <A>(begin: (engine: Engine) => Effect.Effect<A, SqlError>) => Effect.Effect<A, SqlError>

const setLocal = (settings: Begin["settings"]): Request => ({
  sql: `SELECT ${settings.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`).join(", ")}`,
  params: settings.flat(),
  asArrays: false,
  prepare: true
})

/** The connection of a transaction that the server begins with its first statement. Until then it may begin elsewhere. */
export class Beginning {
  /** What hears of the engine's position after its COMMIT. */
  mark: Mark | undefined

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
      engine.transaction(options.begin, restore),
      (connection) => new Beginning(engine, connection, options)
    )
  }

  /** Gives it the settings that it has, if it has any. That begins it. */
  get configured(): Effect.Effect<void, SqlError> {
    const { settings } = this.options
    return settings.length === 0
      ? Effect.void
      : Effect.asVoid(this.with((connection) => connection.query(setLocal(settings))))
  }

  /** Has the server begin it, if it has not yet. */
  readonly begun: Effect.Effect<void, SqlError> = Effect.suspend(() => this.with((connection) => connection.begun))

  /**
   * Runs what may begin it. When the connection breaks before the server has said that it has begun, nothing of it can have
   * been committed: it begins on another connection, and runs there.
   */
  with<A>(run: (connection: ExclusiveConnection) => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.suspend(() => {
      const { connection } = this
      const running = run(connection)
      if (connection.hasBegun) return running
      return Effect.catchAll(running, (error) =>
        connection.hasBegun || connection.isUsable || !isOfServer(error)
          ? Effect.fail(error)
          : Effect.zipRight(
              this.anew,
              Effect.suspend(() => run(this.connection))
            )
      )
    })
  }

  readonly giveBack: Effect.Effect<void> = Effect.suspend(() => this.connection.giveBack)

  private readonly anew: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    this.options.anew((engine) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          Effect.zipRight(this.giveBack, engine.transaction(this.options.begin, restore)),
          (connection) => {
            this.engine = engine
            this.connection = connection
            this.mark = this.options.mark(engine)
            return Effect.mapError(restore(connection.begun), (error) =>
              // It can begin on yet another one.
              connection.isUsable ? error : new SqlError({ cause: error.cause, message: acquireFailed })
            )
          }
        )
      )
    )
  )
}
