/**
 * Faults that are put into a copy of the library, each one that a change could bring in unnoticed. The simulator has to find every
 * one of them, and says by which invariant and after how many seeds.
 */
import type { Invariant } from "./Truth.js"
import { type Patch, Workers } from "./Workers.js"

export interface Planted {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
}

const plant = (name: string, file: string, find: string, replace: string): Planted => ({
  name,
  patches: [{ file, find, replace }]
})

export const planted: ReadonlyArray<Planted> = [
  plant(
    "a position that was asked for before the end of a statement counts",
    "internal/wal/lsnTracker.ts",
    "if (!this.hasEnded) this.since = this.tracker.questions",
    "if (!this.hasEnded) this.since = this.tracker.questions - 2"
  ),
  plant(
    "timelines are ignored when positions are compared",
    "Position.ts",
    "a.timeline === b.timeline && a.system === b.system",
    "a.system === b.system"
  ),
  plant(
    "what a flow has read does not bind its later reads",
    "RoutingContext.ts",
    "now.unsafeSet(change(now.seen))",
    "void change"
  ),
  plant(
    "what a fiber has written is forgotten when it is joined",
    "RoutingContext.ts",
    "join: (parent, child) => (child === parent || child.seen === parent.seen ? parent : parent.absorb(child.seen))",
    "join: (parent) => parent"
  ),
  plant(
    "a replica gets a read whatever it has replayed",
    "Position.ts",
    "  isComparable(replayed, wanted) && (",
    "  replayed.system === wanted.system || ("
  ),
  plant(
    "the answers to two statements behind one another are exchanged",
    "internal/driver/connection.ts",
    "    statement.send(connection)\n    _queryQueue.push(statement)",
    "    statement.send(connection)\n    _queryQueue.unshift(statement)"
  ),
  plant(
    "a cancel goes to a connection that others share",
    "internal/driver/pipelines.ts",
    "    if (connection.pipeline.some(({ isWanted }) => isWanted)) return Effect.void\n",
    ""
  ),
  plant(
    "a connection is used again while its cancel is on its way",
    "internal/driver/cancel.ts",
    "          sent = true\n          wire.cancel(processID, secretKey)",
    "          sent = true\n          wire.cancel(processID, secretKey)\n          resume(Effect.succeed(true))"
  ),
  plant(
    "a session that fails is committed",
    "internal/transaction/transaction.ts",
    'ending === undefined ? this.endAs("rollback", this.undo("ROLLBACK"))',
    'ending === undefined ? this.endAs("rollback", this.undo("COMMIT"))'
  ),
  plant(
    "a COMMIT that was answered with ROLLBACK counts as done",
    "internal/transaction/transaction.ts",
    'if (tag === "COMMIT") return Effect.void',
    "if (tag !== undefined) return Effect.void"
  ),
  plant(
    "a COMMIT without an answer counts as not done",
    "internal/transaction/transaction.ts",
    "error instanceof Unanswered || !this.connection.isUsable ? this.unknown(error) : Effect.fail(error)",
    "Effect.fail(error)"
  ),
  plant(
    "a write without an answer counts as not done",
    "internal/driver/failure.ts",
    'return RouterError.toSqlError(RouterError.outcomeUnknown("statement", { group, engine: engine.name, cause }))',
    "return cause"
  ),
  plant(
    "the settings of a session are not set",
    "internal/transaction/transaction.ts",
    "if (options.settings.length === 0) return Effect.succeed(transaction)",
    "if (options.settings.length >= 0) return Effect.succeed(transaction)"
  ),
  plant(
    "reads of a session leave its transaction after a write",
    "internal/routing/decide.ts",
    "if (session?.current(this.defaultGroup.name)?.wrote === true)",
    "if (session?.current(this.defaultGroup.name)?.wrote === undefined && session !== undefined && false)"
  ),
  plant(
    "a read-only session has no snapshot",
    "Session.ts",
    'newSession(self, { readOnly: true, reads: "snapshot" })',
    "newSession(self, { readOnly: true })"
  ),
  plant(
    "a lock that comes together with an interruption is lost",
    "internal/util/lock.ts",
    "          if (waiter.granted) this.unlock()\n          else this.waiters.delete(waiter)",
    "          this.waiters.delete(waiter)"
  ),
  plant(
    "what waits for a connection is not served when one has broken",
    "internal/driver/connections.ts",
    "    if (index >= 0) this.free.splice(index, 1)\n    this.open()",
    "    if (index >= 0) this.free.splice(index, 1)"
  ),
  plant(
    "afterCommit runs after a rollback",
    "internal/transaction/hooks.ts",
    '      outcome === "committed"\n',
    '      outcome !== "unknown"\n'
  ),
  plant(
    "afterRollback runs after a commit, too",
    "internal/transaction/hooks.ts",
    '? ["afterCommit", afterCommits]',
    '? ["afterCommit", [...afterCommits, ...afterRollbacks]]'
  ),
  plant(
    "texts that begin alike share a prepared statement",
    "internal/driver/prepared.ts",
    'createHash("sha256").update(sql)',
    'createHash("sha256").update(sql.slice(0, 40))'
  ),
  plant(
    "an older timeline may take the writes",
    "internal/health/election.ts",
    "mayWrite && report!.timeline === era?.timeline)",
    "mayWrite && era !== undefined && report !== undefined)"
  ),
  plant(
    "afterRollback runs when the outcome of a COMMIT is unknown",
    "internal/transaction/hooks.ts",
    'outcome === "rolled back" ? afterRollbacks : []',
    "afterRollbacks"
  ),
  {
    name: "a ROLLBACK is forgotten, and its connection is used again",
    patches: [
      {
        file: "internal/transaction/transaction.ts",
        find: 'ending === undefined ? this.endAs("rollback", this.undo("ROLLBACK"))',
        replace: 'ending === undefined ? this.endAs("rollback", this.endUnbegun)'
      },
      {
        file: "internal/driver/connections.ts",
        find: "connection.isUsable && connection.isOutsideTransaction && this.isGood(connection)",
        replace: "connection.isUsable && this.isGood(connection)"
      }
    ]
  },
  {
    name: "a write whose connection has broken is sent again",
    patches: [
      {
        file: "internal/driver/pool.ts",
        find: "import { acquireFailed, cameTooLate } from",
        replace: "import { acquireFailed, cameTooLate, Unanswered } from"
      },
      {
        file: "internal/driver/pool.ts",
        find: "return cameTooLate(error) || (",
        replace: "return cameTooLate(error) || error instanceof Unanswered || ("
      }
    ]
  },
  plant(
    "what a server has told before its restart counts after it",
    "internal/wal/lsnTracker.ts",
    "    this.epoch++\n    this.known = undefined\n    this.answered = this.asked",
    "    this.answered = this.asked"
  ),
  {
    name: "reads of a session leave its transaction after SET LOCAL",
    patches: [
      {
        file: "internal/routing/decide.ts",
        find: "const holder = work?.holder\n    if (work?.level !== undefined)",
        replace: "const holder = undefined\n    if (work?.level !== undefined)"
      }
    ]
  },
  plant(
    "the settings of a session do not hold for what is detached inside it",
    "Session.ts",
    'options.settings === "none" ? [] : now.settings',
    'options.settings === "none" ? [] : now.settings.slice(0, 0)'
  ),
  plant(
    "a lock is kept when what it guards fails",
    "internal/util/lock.ts",
    "const running = Effect.ensuring(restore(effect), this.release)",
    "const running = Effect.zipLeft(restore(effect), this.release)"
  ),
  plant(
    "a connection that comes together with an interruption is lost",
    "internal/driver/pool.ts",
    "Effect.onError(restore(wait), () => withdraw)",
    "restore(wait)"
  ),
  {
    name: "a connection is given back before its ROLLBACK is answered",
    patches: [
      {
        file: "internal/driver/connections.ts",
        find: "    connection.whenReady(() => {\n      if (connection.traces.reset",
        replace: "    queueMicrotask(() => {\n      if (connection.traces.reset"
      },
      {
        file: "internal/driver/connections.ts",
        find: "connection.isUsable && connection.isOutsideTransaction && this.isGood(connection)",
        replace: "connection.isUsable && this.isGood(connection)"
      },
      {
        file: "internal/transaction/transaction.ts",
        find: "Effect.flatMap((fiber) => this.orDestroy(fiber)),\n      Effect.uninterruptible",
        replace: "Effect.asVoid,\n      Effect.uninterruptible"
      }
    ]
  },
  plant(
    "LISTEN stays with a server that takes the writes no more",
    "internal/client/listen.ts",
    "    const { name } = engine\n    if (engine.binding",
    "    const { name } = engine\n    if (!engine.isDrained) return\n    if (engine.binding"
  ),
  {
    name: "what waits for a server that has been lost goes on waiting",
    patches: [
      { file: "internal/driver/pool.ts", find: "    this.connections.refuseAll(reason)\n", replace: "" },
      {
        file: "internal/driver/connections.ts",
        find: "const others = isDown ? this.waiters.takeAll() : []",
        replace: "const others: Array<Wish> = isDown ? [] : []"
      }
    ]
  },
  {
    name: "listening tries a primary that refuses without a pause",
    patches: [
      {
        file: "internal/routing/primaryWait.ts",
        find: "deadline === undefined ? there : Effect.delay(there, Math.min(pause, Math.max(0, left)))",
        replace: "there"
      },
      {
        file: "internal/client/listen.ts",
        find: "if (engine.binding === listening.binding && !isAbandoned) engine.heard(error)",
        replace: ""
      }
    ]
  },
  plant(
    "a standby that does not follow the primary is used",
    "Health.ts",
    "  if (report.timeline === era.timeline) return undefined\n",
    "  if (era.timeline >= 1) return undefined\n"
  ),
  plant(
    "a savepoint that has failed is kept",
    "internal/transaction/transaction.ts",
    "Exit.isSuccess(exit) ? level.releaseSavepoint : level.rollbackSavepoint",
    "Exit.isSuccess(exit) ? level.releaseSavepoint : Effect.ignore(level.releaseSavepoint)"
  ),
  plant(
    "atomic blocks of a session do not take turns",
    "internal/transaction/work.ts",
    "this.lock ??= new Lock()",
    "this.lock ??= { run: (effect: unknown) => effect } as never"
  ),
  plant(
    "an early end does not wait for the atomic block of another fiber",
    "Session.ts",
    ": inTurn(runner, work, () => end(session, group))",
    ": end(session, group)"
  ),
  plant(
    "the end of a session commits what an atomic block of another fiber has half done",
    "internal/session/session.ts",
    "      if (block === undefined) return Effect.void\n      block.isStopped = true\n",
    "      return Effect.void\n      block.isStopped = true\n"
  ),
  plant(
    "what begins while a ROLLBACK of its session is under way has the hooks of that",
    "internal/session/session.ts",
    "      if (ending !== undefined) return Effect.zipRight(ending.await, this.transaction(group, engine, waitedSince))\n",
    ""
  ),
  plant(
    "closing the router leaves connections open",
    "internal/driver/connections.ts",
    '      this.state = "closing"\n      this.reason = reason\n      clearTimeout(this.timer)\n      this.closeIdle()',
    '      this.state = "closing"\n      this.reason = reason\n      clearTimeout(this.timer)'
  )
]

export interface Found {
  /** `undefined`: not found. */
  readonly by: Invariant | undefined
  /** How many it took. */
  readonly seeds: number
}

/** Looks for one planted fault in one process, with the seeds from 1 on. */
const find = async ({ patches }: Planted, most: number): Promise<Found> => {
  const workers = await Workers.start(1, patches)
  let found: Found = { by: undefined, seeds: 0 }
  const jobs = function* () {
    for (let i = 1; i <= most; i++) yield { seed: String(i) }
  }
  try {
    await workers.run(jobs(), ({ violations: [first] }) => {
      found = { by: first?.invariant, seeds: found.seeds + 1 }
      return first === undefined
    })
  } finally {
    await workers.stop()
  }
  return found
}

/** Looks for faults, so many at a time, and tells of each in their order. */
export const findAll = async (
  faults: ReadonlyArray<Planted>,
  most: number,
  processes: number,
  each: (fault: Planted, found: Found) => void
): Promise<void> => {
  const all: Array<Found> = []
  let next = 0
  let told = 0
  const work = async () => {
    for (let i = next++; i < faults.length; i = next++) {
      all[i] = await find(faults[i]!, most)
      for (let found = all[told]; found !== undefined; found = all[told]) each(faults[told++]!, found)
    }
  }
  await Promise.all(Array.from({ length: processes }, work))
}
