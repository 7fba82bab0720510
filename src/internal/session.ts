import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Engine } from "../Engine.js"
import * as RouterError from "../RouterError.js"
import { Hooks } from "./hooks.js"
import { Lock } from "./lock.js"
import type { Router } from "./router.js"
import { type Begin, Transaction } from "./transaction.js"
import type { SessionWork } from "./work.js"

/** A session's options after validation. */
export interface SessionOptions {
  readonly isolation: string | undefined
  readonly readOnly: boolean
  readonly deferrable: boolean
  readonly snapshot: boolean
  /** Settings of every transaction of the session, timeouts included. */
  readonly settings: ReadonlyArray<readonly [name: string, value: string]>
  /** Whether the settings are part of what a read may see, so that reads on replicas need them. */
  readonly settingsForReads: boolean
}

interface Root {
  readonly transaction: Transaction
  readonly scope: Scope.CloseableScope
}

type Roots = ReadonlyArray<readonly [group: string, root: Root]>

/** A unit of work: at most one transaction a group, begun when first needed, ended together. */
export class Session implements SessionWork {
  ended = false
  /** Whether anything that it wrote is committed: then the flow around it has to know. */
  hasCommittedWrites = false
  readonly hooks = new Hooks()
  private readonly roots = new Map<string, Root>()
  private readonly beginning = new Lock()

  constructor(
    private readonly router: Router,
    private readonly options: SessionOptions
  ) {}

  get readOnly(): boolean {
    return this.options.readOnly
  }

  get readsOnPrimary(): boolean {
    return this.options.isolation === "serializable"
  }

  get readsInTransaction(): boolean {
    return this.options.snapshot || this.options.settingsForReads
  }

  get isActive(): boolean {
    for (const group of this.roots.keys()) {
      if (group !== this.router.config.readGroup) return true
    }
    return false
  }

  current(group: string): Transaction | undefined {
    return this.roots.get(group)?.transaction
  }

  transaction(group: string, engine: Engine): Effect.Effect<Transaction, SqlError> {
    return Effect.suspend(() => {
      const root = this.roots.get(group)
      return root === undefined ? this.beginning.run(this.begin(group, engine)) : Effect.succeed(root.transaction)
    })
  }

  /** Ends the session: commits on success, else rolls back. The caller has run `hooks.beforeCommit`. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void, SqlError> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        // First of all, so that nothing begins behind its back.
        this.ended = true
        return Exit.isSuccess(exit) ? this.commitRoots(this.take(undefined), "now") : this.rollbackAll(undefined)
      })
    )
  }

  commit(group: string | undefined): Effect.Effect<void, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      this.refuseWhenEnded("commit").pipe(
        Effect.zipRight(Effect.onError(restore(this.hooks.beforeCommit), () => this.rollbackAll(undefined))),
        Effect.zipRight(Effect.suspend(() => this.commitRoots(this.take(group), "settled")))
      )
    )
  }

  rollback(group: string | undefined, operation: string): Effect.Effect<void, SqlError> {
    return Effect.uninterruptible(Effect.zipRight(this.refuseWhenEnded(operation), this.rollbackAll(group)))
  }

  private begin(group: string, engine: Engine): Effect.Effect<Transaction, SqlError> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function* () {
        const begun = this.roots.get(group)
        if (begun !== undefined) return begun.transaction
        yield* this.refuseWhenEnded("a statement")
        const scope = yield* Scope.make()
        const transaction = yield* restore(
          Scope.extend(Transaction.begin(group, engine, this.beginOf(group)), scope)
        ).pipe(Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))))
        this.roots.set(group, { transaction, scope })
        if (this.ended) {
          // It ended while the connection was awaited.
          yield* this.rollbackRoots(this.take(group))
          yield* this.refuseWhenEnded("a statement")
        }
        return transaction
      })
    )
  }

  private beginOf(group: string): Begin {
    const { deferrable, isolation, readOnly, settings, snapshot } = this.options
    const reading = group === this.router.config.readGroup
    const level = snapshot && (reading || readOnly) ? (isolation ?? "repeatable read") : isolation
    return {
      begin: [
        "BEGIN",
        ...(level === undefined ? [] : [`ISOLATION LEVEL ${level.toUpperCase()}`]),
        ...(readOnly || reading ? ["READ ONLY"] : []),
        ...(deferrable ? ["DEFERRABLE"] : [])
      ].join(" "),
      settings
    }
  }

  /** Takes transactions out of the session: nothing joins them any more. */
  private take(group: string | undefined): Roots {
    const taken = [...this.roots].filter(([name]) => group === undefined || name === group)
    for (const [name] of taken) this.roots.delete(name)
    return taken
  }

  private rollbackAll(group: string | undefined): Effect.Effect<void> {
    return Effect.suspend(() => Effect.zipRight(this.rollbackRoots(this.take(group)), this.hooks.afterRollback))
  }

  private rollbackRoots(roots: Roots): Effect.Effect<void> {
    return Effect.forEach(
      roots,
      ([, { scope, transaction }]) => Effect.zipRight(transaction.rollback, Scope.close(scope, Exit.void)),
      { discard: true }
    )
  }

  /** Commits group after group; what comes after a failure is rolled back. */
  private commitRoots(roots: Roots, when: "now" | "settled"): Effect.Effect<void, SqlError> {
    return Effect.gen(this, function* () {
      const committed: Array<string> = []
      for (const [i, [name, { scope, transaction }]] of roots.entries()) {
        const exit = yield* Effect.exit(when === "now" ? transaction.commit : transaction.commitWhenSettled)
        yield* Scope.close(scope, Exit.void)
        if (Exit.isFailure(exit)) {
          const rest = roots.slice(i + 1)
          yield* this.rollbackRoots(rest)
          if (committed.length === 0) yield* this.hooks.afterRollback
          return yield* Effect.mapError(exit, (error) =>
            committed.length === 0 ? error : partial(committed, name, rest, error)
          )
        }
        if (transaction.wrote) {
          committed.push(name)
          this.hasCommittedWrites = true
        }
        yield* this.router.afterCommit(transaction)
      }
      yield* this.hooks.afterCommit
    })
  }

  private refuseWhenEnded(operation: string): Effect.Effect<void, SqlError> {
    return Effect.suspend(() =>
      this.ended ? Effect.fail(RouterError.toSqlError(RouterError.sessionClosed(operation))) : Effect.void
    )
  }
}

const partial = (committed: ReadonlyArray<string>, failed: string, rest: Roots, cause: SqlError): SqlError => {
  const unknown = RouterError.reasonOf(cause)
  const isUnknown = unknown._tag === "Some" && unknown.value === "OutcomeUnknown"
  return RouterError.toSqlError(
    RouterError.partialCommit({
      committed,
      rolledBack: [...(isUnknown ? [] : [failed]), ...rest.map(([name]) => name)],
      unknown: isUnknown ? [failed] : [],
      cause
    })
  )
}
