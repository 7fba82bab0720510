import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Engine } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import type { Rules } from "../context/rules.js"
import { Lock } from "../util/lock.js"
import type { Restore } from "../util/restore.js"
import { type Block, Parts } from "./block.js"
import { Hooks } from "./hooks.js"
import type { Transaction } from "./transaction.js"

/** What the router needs to know of a session. */
export interface SessionWork {
  /** Whether it has ended: nothing runs in it any more. */
  readonly ended: boolean
  /** What holds for all that is composed inside it. */
  readonly rules: Rules | undefined
  /** Whether statements that may write are refused. */
  readonly readOnly: boolean
  /** Whether standbys have no such isolation. */
  readonly isSerializable: boolean
  /** Whether its reads need the primary. */
  readonly readsOnPrimary: boolean
  /** Whether its reads on replicas need a transaction there: for one snapshot, or for its settings. */
  readonly readsInTransaction: boolean
  /** Whether all that it does is to read one state of the data. */
  readonly isSnapshot: boolean
  /** Where its snapshot is to be, from the first read on; `undefined` where there is none. */
  snapshotGroup: string | undefined
  /** The transaction in which it reads one state of the data, once it does. */
  readonly snapshot: Transaction | undefined
  /**
   * Its transaction on the primary or on a replica that what comes next belongs in, because of what a statement in it has left
   * behind. What was left behind in that of a bind group is for what is bound to it.
   */
  readonly holder: Transaction | undefined
  /** The session's transaction on a group, if it has one now. */
  readonly current: (group: string) => Transaction | undefined
  /** Whether a transaction is open that may have to be committed. */
  readonly isActive: boolean
  /** Commits what is open, of one group or of all; the next statement begins anew. */
  readonly commit: (group: string | undefined) => Effect.Effect<void, SqlError>
  /** Rolls back what is open, of one group or of all; the next statement begins anew. */
  readonly rollback: (group: string | undefined, operation: string) => Effect.Effect<void, SqlError>
  /** An atomic block begins. */
  readonly beginBlock: () => Block
  /** Ends an atomic block: commits it, with `restore` interruptibly before the COMMIT, or rolls it back. */
  readonly endBlock: (
    block: Block,
    exit: Exit.Exit<unknown, unknown>,
    restore: Restore
  ) => Effect.Effect<void, SqlError>
  /** Something uses the session's transaction on a group, or waits for its end: in the block that runs, or beside it. */
  readonly joins: (block: Block | undefined, group?: string) => void
  /**
   * The session's transaction on a group, begun on the engine when there is none. It may be about to end. What has waited for its
   * turn since before an attempt to begin that has failed, fails with that.
   */
  readonly transaction: (group: string, engine: Engine, waitedSince?: number) => Effect.Effect<Transaction, SqlError>
}

/** The hooks of what was rolled back. */
const rolledBack = new Hooks()
rolledBack.unsafeCloseEmpty("rolled back")

/** The transactions and the session around a statement, innermost first. */
export class Work {
  private lock: Lock | undefined
  /** The place around an atomic block. */
  private around: Work | undefined
  private partsOfLevel: Parts | undefined
  /** Since when it has waited for its turn, in milliseconds of the clock that never goes back, if it has. */
  waitedSince: number | undefined

  constructor(
    readonly session: SessionWork | undefined,
    readonly level: Transaction | undefined,
    private readonly own: Hooks,
    private readonly outer: Work | undefined,
    /** The atomic block that it is in. */
    readonly block: Block | undefined = outer?.block
  ) {
    this.waitedSince = outer?.waitedSince
  }

  get hooks(): Hooks {
    return this.block?.isStopped === true ? rolledBack : this.own
  }

  /** Whether nothing runs in it any more. */
  get hasEnded(): boolean {
    return this.session !== undefined && (this.session.ended || this.block?.isStopped === true)
  }

  /** The blocks that are part of the innermost transaction or block that runs, where there is one that is not the session's. */
  get parts(): Parts | undefined {
    if (this.level === undefined) return this.block?.isOver === false ? this.block.parts : undefined
    this.partsOfLevel ??= new Parts()
    return this.partsOfLevel
  }

  /** Fails where a block that is part of this transaction has failed, or still runs. */
  get whole(): Effect.Effect<void, SqlError> {
    const error = this.partsOfLevel?.error
    return error === undefined ? Effect.void : Effect.fail(RouterError.toSqlError(error))
  }

  /** Whose turn it is, of those beside each other that end the session's transaction by themselves. */
  get turns(): Lock {
    // What has outlived a block is beside those that come after it.
    if (this.around !== undefined && this.block?.isOver === true) return this.around.turns
    this.lock ??= new Lock()
    return this.lock
  }

  /** The same place within a turn: those in there take turns of their own. */
  get inTurn(): Work {
    return new Work(this.session, this.level, this.own, this.outer, this.block)
  }

  /** The same place within an atomic block, whose turn it may have waited for. */
  within(block: Block, waitedSince: number | undefined): Work {
    const inside = new Work(this.session, this.level, this.own, this.outer, block)
    inside.around = this
    inside.waitedSince = waitedSince
    return inside
  }

  /** What holds for all that is composed inside. */
  get rules(): Rules | undefined {
    return this.session?.rules
  }

  /** The innermost transaction that holds what statements have left behind for those after them. */
  get holder(): Transaction | undefined {
    return this.level?.writes.binds === true
      ? this.level
      : this.outer === undefined
        ? this.session?.holder
        : this.outer.holder
  }

  /** The innermost transaction on a group. */
  transaction(group: string): Transaction | undefined {
    return this.level?.group === group ? this.level : this.outer?.transaction(group)
  }
}
