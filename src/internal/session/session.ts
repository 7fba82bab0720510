import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Engine } from "../../Engine.js"
import * as RouterError from "../../RouterError.js"
import * as rules from "../context/rules.js"
import { acquireFailed } from "../driver/failure.js"
import { aborting, committing } from "../routing/commit.js"
import type { Router } from "../routing/router.js"
import type { Outcome } from "../telemetry/outcome.js"
import { Block } from "../transaction/block.js"
import { Hooks, type Outside } from "../transaction/hooks.js"
import { outcomeOf, Transaction, type Options as TransactionOptions } from "../transaction/transaction.js"
import type { SessionWork } from "../transaction/work.js"
import { nowOf } from "../util/clock.js"
import type { Restore } from "../util/restore.js"
import { Together } from "../util/together.js"
import * as Log from "../validation/log.js"

/** A session's options after validation. */
export interface SessionOptions {
  readonly isolation: string | undefined
  /** Whether reads need the transaction on the primary: standbys cannot read at that level, or what reads may write. */
  readonly readsOnPrimary: boolean
  readonly readOnly: boolean
  readonly deferrable: boolean
  readonly snapshot: boolean
  /** The time limits of its transactions, as settings. */
  readonly timeouts: ReadonlyArray<readonly [name: string, value: string]>
  /** Settings of every transaction of the session, and of what is composed inside it. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
  /** Whether the settings are part of what a read may see, so that reads on replicas need them. */
  readonly settingsForReads: boolean
}

/** The transaction of a session on a group. */
interface Root {
  readonly group: string
  readonly transaction: Transaction
}

type Roots = ReadonlyArray<Root>

/** A unit of work: at most one transaction a group, begun when first needed, ended together. */
export class Session implements SessionWork {
  ended = false
  /** Whether anything that it wrote is committed, or may be: then the flow around it has to know. */
  hasCommittedWrites = false
  readonly hooks: Hooks
  /** What holds for all that is composed inside it. */
  readonly rules: rules.Rules | undefined
  /** Whether it has ever begun a transaction. */
  private hasBegun = false
  private keptGroup: string | undefined
  private readonly roots = new Map<string, Root>()
  private readonly beginnings = new Map<string, Together<Transaction, SqlError>>()
  /** The last attempts to begin that have found no connection: since when, and why. */
  private readonly vain = new Map<string, { readonly since: number; readonly error: SqlError }>()
  /** What ends with the ROLLBACK that is under way on a group: what comes meanwhile begins anew, after it, as after a COMMIT. */
  private readonly endings = new Map<string, Effect.Latch>()
  /** The atomic block that is not whole yet. */
  private block: Block | undefined

  constructor(
    private readonly router: Router,
    private readonly options: SessionOptions,
    outside: Outside
  ) {
    this.hooks = new Hooks(outside)
    this.rules = rules.make(options.settings, options.readOnly)
  }

  get readOnly(): boolean {
    return this.options.readOnly
  }

  get isSerializable(): boolean {
    return this.options.isolation === "serializable"
  }

  get readsOnPrimary(): boolean {
    return this.options.readsOnPrimary
  }

  get readsInTransaction(): boolean {
    return this.options.snapshot || this.options.settingsForReads
  }

  get isSnapshot(): boolean {
    return this.options.snapshot && this.options.readOnly
  }

  get snapshotGroup(): string | undefined {
    return this.keptGroup
  }

  set snapshotGroup(group: string | undefined) {
    if (this.options.snapshot) this.keptGroup = group
  }

  get snapshot(): Transaction | undefined {
    if (!this.options.snapshot || this.roots.size === 0) return undefined
    const { defaultGroup, readGroup } = this.router
    const onPrimary = this.current(defaultGroup.name)
    // Its own writes are only there.
    return onPrimary?.wrote === true ? onPrimary : ((readGroup && this.current(readGroup.name)) ?? onPrimary)
  }

  get holder(): Transaction | undefined {
    if (this.roots.size === 0) return undefined
    const { defaultGroup, readGroup } = this.router
    const onPrimary = this.current(defaultGroup.name)
    if (onPrimary?.writes.binds === true) return onPrimary
    const onReplica = readGroup && this.current(readGroup.name)
    return onReplica?.writes.binds === true ? onReplica : undefined
  }

  /** Ends it if it has begun nothing, and nothing waits for its end. */
  unsafeEndUnused(fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean {
    if (this.hasBegun || this.block !== undefined || !this.hooks.unsafeCloseEmpty("committed")) return false
    this.ended = true
    this.router.telemetry?.sessionEnded(fiber, "committed", false)
    return true
  }

  get isActive(): boolean {
    return this.rootsOf(undefined).some((root) => !this.isReading(root.group))
  }

  /** Whether it has a connection of its own now. */
  get isHolding(): boolean {
    return this.rootsOf(undefined).some(({ transaction }) => !transaction.isSpent)
  }

  current(group: string): Transaction | undefined {
    const root = this.roots.get(group)
    return root === undefined || root.transaction.isSpent ? undefined : root.transaction
  }

  transaction(group: string, engine: Engine, waitedSince?: number): Effect.Effect<Transaction, SqlError> {
    return Effect.withFiberRuntime((fiber) => {
      const transaction = this.current(group)
      if (transaction !== undefined) return Effect.succeed(transaction)
      const ending = this.endings.get(group)
      if (ending !== undefined) return Effect.zipRight(ending.await, this.transaction(group, engine, waitedSince))
      const vain = this.vain.get(group)
      // What has waited for its turn all the while has waited for that, too.
      if (vain !== undefined && waitedSince !== undefined && waitedSince <= vain.since) return Effect.fail(vain.error)
      let beginning = this.beginnings.get(group)
      if (beginning === undefined) {
        beginning = new Together()
        this.beginnings.set(group, beginning)
      }
      const { settings, timeouts } = this.options
      // It takes a connection that is there, and nothing is sent.
      const isShort = this.roots.size + settings.length + timeouts.length === 0 && engine.poolStatus.idle > 0
      const since = nowOf(fiber)()
      return Effect.tapBoth(beginning.join(this.begin(group, engine), isShort), {
        onFailure: (error) =>
          Effect.sync(() => {
            if (error.message === acquireFailed) this.vain.set(group, { since, error })
          }),
        onSuccess: () => Effect.sync(() => this.vain.delete(group))
      })
    })
  }

  /** What comes before the COMMIT of its end. */
  get beforeCommit(): Effect.Effect<void, SqlError> {
    return Effect.suspend(() =>
      this.block === undefined ? this.hooks.beforeCommit : Effect.zipRight(this.stopBlock, this.hooks.beforeCommit)
    )
  }

  /** Ends the session: commits on success, else rolls back. The caller has run `beforeCommit`. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void, SqlError> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        // First of all, so that nothing begins behind its back.
        this.ended = true
        const close = (outcome: Outcome) => this.close(outcome)
        const undo = Effect.suspend(() => this.rollbackRootsThen(this.rootsOf(undefined), close))
        const end = Exit.isSuccess(exit)
          ? Effect.suspend(() => this.commitRoots(this.rootsOf(undefined), "now", close))
          : undo
        const isAlone = this.block === undefined && this.endings.size === 0
        if (isAlone) return end
        const due = Exit.isSuccess(exit) ? Effect.onError(this.stopBlock, () => undo) : Effect.void
        return Effect.zipRight(Effect.zipRight(due, this.undone), end)
      })
    )
  }

  /** Waits for the ROLLBACKs that are under way: what they take with them must not be told that it is committed. */
  private get undone(): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.endings.size === 0
        ? Effect.void
        : Effect.forEach([...this.endings.values()], (ending) => ending.await, { discard: true })
    )
  }

  private close(outcome: Outcome): Effect.Effect<void> {
    return Effect.withFiberRuntime((fiber) => {
      this.router.telemetry?.sessionEnded(fiber, outcome, this.hasBegun)
      return this.hooks.close(outcome)
    })
  }

  /** Fails, and rolls back all of it, when it is interrupted before the COMMIT is sent. */
  commit(group: string | undefined): Effect.Effect<void, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(
        this.check(group, "commit"),
        Effect.suspend(() => {
          // What was asked for around the commit of the whole waits for the rest of it.
          if (!this.isWhole(group)) return this.commitRoots(this.rootsOf(group), "settled", () => Effect.void)
          return Effect.onError(restore(this.hooks.beforeCommit), () => this.rollbackAll(undefined)).pipe(
            Effect.zipRight(this.undone),
            // It may have ended meanwhile.
            Effect.zipRight(this.refuseWhenEnded("commit")),
            Effect.zipRight(Effect.suspend(() => this.commitRoots(this.rootsOf(group), "settled", this.settle)))
          )
        })
      )
    )
  }

  private readonly settle = (outcome: Outcome): Effect.Effect<void> => this.hooks.take()(outcome)

  beginBlock(): Block {
    const block = new Block(this.isActive || !this.hooks.isEmpty)
    this.block = block
    return block
  }

  joins(block: Block | undefined, group?: string): void {
    if (this.block === undefined || this.block === block || (group !== undefined && this.isReading(group))) return
    this.block.isShared = true
  }

  endBlock(block: Block, exit: Exit.Exit<unknown, unknown>, restore: Restore): Effect.Effect<void, SqlError> {
    const hasEnded = () => this.ended || block.isStopped
    const end = () => {
      block.end()
      if (this.block === block) this.block = undefined
    }
    const undo = Effect.suspend(() => {
      if (hasEnded()) return Effect.void
      end()
      return this.rollbackAll(undefined)
    })
    if (Exit.isFailure(exit)) return undo
    const ended = RouterError.sessionClosed("the end of an atomic block")
    const commits = Effect.suspend(() => (hasEnded() ? Effect.fail(RouterError.toSqlError(ended)) : Effect.void))
    const whole = Effect.suspend(() => {
      const error = hasEnded() ? ended : block.parts.error
      if (error !== undefined) return Effect.fail(RouterError.toSqlError(error))
      end()
      return Effect.void
    })
    const prepared = Effect.zipRight(commits, restore(this.hooks.beforeCommit))
    const due = Effect.zipRight(prepared, Effect.zipRight(this.undone, whole))
    return Effect.onError(due, () => undo).pipe(
      Effect.zipRight(Effect.suspend(() => this.commitRoots(this.rootsOf(undefined), "settled", this.settle)))
    )
  }

  /**
   * Stops a block that is not whole, and rolls it back: a COMMIT must not take half of it with it. Fails when that takes with it
   * what is not the block's.
   */
  private readonly stopBlock: Effect.Effect<void, SqlError> = Effect.uninterruptible(
    Effect.suspend(() => {
      const { block } = this
      if (block === undefined) return Effect.void
      block.isStopped = true
      this.block = undefined
      const told = block.isShared
        ? Effect.fail(RouterError.toSqlError(RouterError.blockUnfinished()))
        : Log.warning(RouterError.blockUnfinished().message)
      return Effect.zipRight(this.rollbackAll(undefined), told)
    })
  )

  rollback(group: string | undefined, operation: string): Effect.Effect<void, SqlError> {
    return Effect.uninterruptible(Effect.zipRight(this.check(group, operation), this.rollbackAll(group)))
  }

  private begin(group: string, engine: Engine): Effect.Effect<Transaction, SqlError> {
    const refused = Effect.suspend(() => Effect.fail(RouterError.toSqlError(RouterError.sessionClosed("a statement"))))
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const begun = this.current(group)
        if (begun !== undefined) return Effect.succeed(begun)
        if (this.ended) return refused
        const begin = Effect.flatMap(
          Transaction.begin(group, engine, this.optionsOf(group, engine), restore),
          (transaction) => {
            const root = { group, transaction }
            this.roots.set(group, root)
            if (!this.hasBegun) this.router.telemetry?.sessionBegun()
            this.hasBegun = true
            // It may have ended while the connection was awaited.
            return this.ended ? Effect.zipRight(this.rollbackRoots([root]), refused) : Effect.succeed(transaction)
          }
        )
        // What waits for a connection to write keeps none, where it can do without, that others may wait for.
        const due = this.rootsOf(undefined).filter((root) => root.group === group || root.transaction.isDispensable)
        return due.length === 0 ? begin : Effect.zipRight(this.rollbackRoots(due), begin)
      })
    )
  }

  private optionsOf(group: string, engine: Engine): TransactionOptions {
    const { deferrable, isolation, readOnly, settings, snapshot, timeouts } = this.options
    const isReading = this.isReading(group)
    // What only reads reads one state, also on the primary.
    const isOne = snapshot && (isReading || isolation === undefined || (readOnly && isolation !== "serializable"))
    const level = isOne ? "repeatable read" : isolation
    return {
      begin: [
        "BEGIN",
        ...(level === undefined ? [] : [`ISOLATION LEVEL ${level.toUpperCase()}`]),
        ...(readOnly || isReading ? ["READ ONLY"] : []),
        ...(deferrable ? ["DEFERRABLE"] : [])
      ].join(" "),
      settings: [...timeouts, ...settings],
      movable: isReading,
      mark: isReading ? () => undefined : this.router.mark,
      anew: this.router.anew(group, engine),
      replaceable: isReading && !snapshot,
      // Where there is nothing to commit it ends by ROLLBACK, which would look like a failure.
      onEnd: isReading ? undefined : this.router.transactionEnded
    }
  }

  /** Whether a group's transaction is there for reads on replicas only: nothing in it has to be committed. */
  private isReading(group: string): boolean {
    return group === this.router.config.readGroup
  }

  /** Whether the end of a group's transaction, or of all, leaves none open that may have to be committed. */
  private isWhole(group: string | undefined): boolean {
    return (
      group === undefined || this.rootsOf(undefined).every((root) => root.group === group || this.isReading(root.group))
    )
  }

  private rootsOf(group: string | undefined): Roots {
    const roots = [...this.roots.values()]
    return group === undefined ? roots : roots.filter((root) => root.group === group)
  }

  private forget(root: Root): void {
    if (this.roots.get(root.group) !== root) return
    this.roots.delete(root.group)
    if (this.keptGroup === root.group) this.keptGroup = undefined
  }

  private rollbackAll(group: string | undefined): Effect.Effect<void> {
    return Effect.suspend(() => {
      const isWhole = this.isWhole(group)
      return this.undo(this.rootsOf(group), (outcome) => (isWhole ? this.settle(outcome) : Effect.void))
    })
  }

  /** Rolls back, while what comes to those groups waits. */
  private undo(roots: Roots, settle: (outcome: Outcome) => Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const ended = Effect.unsafeMakeLatch(false)
      for (const root of roots) this.endings.set(root.group, ended)
      return this.rollbackRootsThen(roots, (outcome) => {
        // At once, so that what follows the ROLLBACK asks for itself is not among it.
        const settled = settle(outcome)
        for (const root of roots) this.endings.delete(root.group)
        ended.unsafeOpen()
        return settled
      })
    })
  }

  private rollbackRootsThen(roots: Roots, settle: (outcome: Outcome) => Effect.Effect<void>): Effect.Effect<void> {
    return Effect.zipRight(
      this.rollbackRoots(roots),
      Effect.suspend(() => settle(mayStay(roots) ? "unknown" : "rolled back"))
    )
  }

  private rollbackRoots(roots: Roots): Effect.Effect<void> {
    if (roots.length === 0) return Effect.void
    return Effect.suspend(() => {
      for (const root of roots) this.forget(root)
      // Each ends, whatever becomes of those before it.
      return roots.reduceRight(
        (rest, { transaction }) =>
          Effect.ensuring(
            aborting(this.router, transaction, (outcome) => {
              if (outcome !== "rolled back" && transaction.wrote) this.hasCommittedWrites = true
            }),
            rest
          ),
        Effect.void
      )
    })
  }

  /** Commits group after group; what comes after a failure is rolled back. `settled`: once no savepoint is open any more. */
  private commitRoots(
    roots: Roots,
    when: "now" | "settled",
    settle: (outcome: Outcome) => Effect.Effect<void>
  ): Effect.Effect<void, SqlError> {
    const hasNothing = ({ group, transaction }: Root) => this.isReading(group) || transaction.neverBegan
    const others = roots.filter(hasNothing)
    // Those that have not written first: when they fail, the others have not been committed yet.
    const due = roots
      .filter((root) => !hasNothing(root))
      .sort((a, b) => Number(a.transaction.wrote) - Number(b.transaction.wrote))
    const committed: Array<string> = []
    const next = ([root, ...rest]: Roots): Effect.Effect<void, SqlError> => {
      if (root === undefined) {
        const outcome = due.every(({ transaction }) => transaction.committedAs === "committed")
          ? "committed"
          : "unknown"
        return others.length === 0
          ? settle(outcome)
          : Effect.zipRight(
              this.rollbackRoots(others),
              Effect.suspend(() => settle(outcome))
            )
      }
      return Effect.matchCauseEffect(this.commitRoot(root, when), {
        onSuccess: () => {
          if (root.transaction.wrote) committed.push(root.group)
          return next(rest)
        },
        onFailure: (cause) => {
          const isWhole = committed.length === 0
          return this.undo([root, ...rest, ...others], () =>
            settle(isWhole && !mayStay(rest) ? outcomeOf(cause) : "unknown")
          ).pipe(Effect.zipRight(isWhole ? Effect.failCause(cause) : partial(committed, root, rest, cause)))
        }
      })
    }
    return next(due)
  }

  private commitRoot(root: Root, when: "now" | "settled"): Effect.Effect<void, SqlError> {
    const { transaction } = root
    const followed = (commit: Effect.Effect<void, SqlError>) =>
      committing(this.router, transaction, commit, (outcome) => {
        if (outcome !== "rolled back" && transaction.wrote) this.hasCommittedWrites = true
      }).pipe(
        // The next transaction waits until now: it has to see what this one has committed.
        Effect.ensuring(Effect.sync(() => this.forget(root)))
      )
    return when === "now" ? followed(transaction.commit) : transaction.commitWhenSettled(followed)
  }

  private check(group: string | undefined, operation: string): Effect.Effect<void, SqlError> {
    const { groups } = this.router
    return group === undefined || groups.has(group)
      ? this.refuseWhenEnded(operation)
      : Effect.fail(RouterError.toSqlError(RouterError.unknownGroup(group, [...groups.keys()])))
  }

  private refuseWhenEnded(operation: string): Effect.Effect<void, SqlError> {
    return Effect.suspend(() =>
      this.ended ? Effect.fail(RouterError.toSqlError(RouterError.sessionClosed(operation))) : Effect.void
    )
  }
}

const mayStay = (roots: Roots): boolean => roots.some(({ transaction }) => transaction.mayStay)

const partial = (
  committed: ReadonlyArray<string>,
  failed: Root,
  rest: Roots,
  cause: Cause.Cause<SqlError>
): Effect.Effect<never, SqlError> => {
  const isUnknown = outcomeOf(cause) === "unknown"
  return Effect.fail(
    RouterError.toSqlError(
      RouterError.partialCommit({
        committed,
        rolledBack: [...(isUnknown ? [] : [failed]), ...rest].map(({ group }) => group),
        unknown: isUnknown ? [failed.group] : [],
        cause: Cause.squash(cause)
      })
    )
  )
}
