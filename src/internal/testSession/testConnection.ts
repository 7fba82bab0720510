import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Stream from "effect/Stream"
import type { Engine, ExclusiveConnection } from "../../Engine.js"
import type { Cursor } from "../driver/cursor.js"
import type { Request, Result } from "../driver/pool.js"
import { command } from "../driver/run.js"
import { currentNode, Node } from "../routing/engineOverride.js"
import { setting, settingNames } from "../transaction/lazyBegin.js"
import type { Restore } from "../util/restore.js"

const set = /^\s*SET\s+(?:(?:LOCAL|SESSION)\s+)?(?:(ROLE)\b|(TIME\s+ZONE)\b|"?([\w.]+)"?\s*(?:=|TO\b))/i
const configured = /\bset_config\s*\(\s*'([\w.]+)'/gi

/** They cannot be set back in a transaction. */
const lasting = /^(?:transaction_|session_authorization$|seed$)/i

/** The settings that a text sets, as far as it shows their names. */
const namesIn = (sql: string): ReadonlyArray<string> => {
  const [, role, zone, name] = set.exec(sql) ?? []
  const names = [...sql.matchAll(configured)].map(([, name]) => name!)
  if (role !== undefined) names.push("role")
  if (zone !== undefined) names.push("TimeZone")
  if (name !== undefined) names.push(name)
  return [...new Set(names)].filter((name) => !lasting.test(name))
}

/** Something that is open on the connection: what would be a transaction is a savepoint. */
interface Open {
  readonly node: Node
  readonly savepoint: string
  /** What its settings were before it: releasing a savepoint keeps them, a COMMIT does not. */
  readonly before: Map<string, string>
}

interface Waiter {
  granted: boolean
  readonly isReady: () => boolean
  readonly take: () => void
  wake: () => void
}

/**
 * One connection in one transaction, shared by what would have connections of their own. What begins inside something open
 * is nested in it; what begins beside it waits for its end, because savepoints are a stack.
 */
export class TestConnection {
  private readonly stack: Array<Open> = []
  private readonly waiters = new Set<Waiter>()
  private isBusy = false
  private running: Open | undefined
  private names = 0

  constructor(private readonly connection: ExclusiveConnection) {}

  /** Begins what would be a transaction. */
  begin(node: Node): Effect.Effect<Open, SqlError> {
    const open = this.open(node)
    return this.turn(
      () => this.accepts(node),
      Effect.suspend(() => {
        const outside = this.outside
        this.stack.push(open)
        const begun = this.run(`SAVEPOINT ${open.savepoint}`)
        if (outside.length === 0) return Effect.onError(begun, () => Effect.sync(() => this.remove(open)))
        const names = outside.map(([name]) => name)
        const cleared = Effect.zipRight(this.keep(open, names), this.set(outside))
        return Effect.onError(
          Effect.zipRight(
            begun,
            Effect.onError(cleared, () => Effect.exit(this.undo(open)))
          ),
          () => Effect.sync(() => this.remove(open))
        )
      })
    ).pipe(Effect.as(open))
  }

  /** Runs a statement in it. */
  query(open: Open, request: Request): Effect.Effect<Result, SqlError> {
    const run = Effect.suspend(() => {
      this.running = open
      const names = settingNames(request) ?? namesIn(request.sql)
      const query = this.connection.query(request)
      return names.length === 0 ? query : Effect.zipRight(this.keep(open, names), query)
    })
    return this.turn(
      () => this.isInnermost(open),
      Effect.ensuring(
        run,
        Effect.sync(() => {
          this.running = undefined
        })
      )
    )
  }

  /**
   * Ends it: what would be COMMIT keeps the work in what is around, what would be ROLLBACK undoes it. Answers with what
   * happened: as PostgreSQL does, a COMMIT after a failed statement is a ROLLBACK.
   */
  end(open: Open, how: "commit" | "rollback"): Effect.Effect<"COMMIT" | "ROLLBACK", SqlError> {
    const { savepoint } = open
    const undo = Effect.as(this.undo(open), "ROLLBACK" as const)
    const keep = Effect.as(
      Effect.zipRight(this.run(`RELEASE ${savepoint}`), this.restoreSettings(open)),
      "COMMIT" as const
    )
    return this.turn(
      () => this.isInnermost(open),
      Effect.ensuring(
        how === "rollback" ? undo : Effect.catchAll(keep, () => undo),
        Effect.sync(() => this.remove(open))
      )
    )
  }

  /** Runs a statement that would commit by itself. */
  autocommit(node: Node, request: Request): Effect.Effect<Result, SqlError> {
    return Effect.acquireUseRelease(
      this.begin(node),
      (open) => this.query(open, request),
      (open, exit) => Effect.exit(this.end(open, Exit.isSuccess(exit) ? "commit" : "rollback"))
    )
  }

  /** Cancels what runs in it, and nothing else. */
  cancel(open: Open): Effect.Effect<void> {
    return Effect.suspend(() => (this.running === open ? this.connection.cancel : Effect.void))
  }

  private open(node: Node): Open {
    return { node, savepoint: `edr_test_${++this.names}`, before: new Map() }
  }

  private keep(open: Open, names: ReadonlyArray<string>): Effect.Effect<void, SqlError> {
    const sql = `SELECT ${names.map((_, i) => `current_setting($${i + 1}, true)`).join(", ")}`
    return Effect.map(this.connection.query({ sql, params: names, asArrays: true, prepare: false }), (result) => {
      const [values = []] = objectsOf(result) as ReadonlyArray<ReadonlyArray<string | null>>
      names.forEach((name, i) => {
        // As after a COMMIT, one that was never set is empty.
        if (!open.before.has(name)) open.before.set(name, values[i] ?? "")
      })
    })
  }

  private restoreSettings({ before }: Open): Effect.Effect<void, SqlError> {
    return before.size === 0 ? Effect.void : this.set([...before])
  }

  /** What the settings were outside of all that is open: a transaction of its own, on a connection of its own, has those. */
  private get outside(): ReadonlyArray<readonly [name: string, value: string]> {
    const outside = new Map<string, string>()
    for (const { before } of this.stack) {
      for (const [name, value] of before) if (!outside.has(name)) outside.set(name, value)
    }
    return [...outside]
  }

  private set(settings: ReadonlyArray<readonly [name: string, value: string]>): Effect.Effect<void, SqlError> {
    // The role first: it may be one that may not set the others.
    const sorted = [...settings].sort(([a], [b]) => Number(b === "role") - Number(a === "role"))
    return Effect.asVoid(this.connection.query({ ...setting(sorted, true), prepare: false }))
  }

  private undo({ savepoint }: Open): Effect.Effect<void, SqlError> {
    return this.run(`ROLLBACK TO ${savepoint}; RELEASE ${savepoint}`)
  }

  private run(sql: string): Effect.Effect<void, SqlError> {
    return Effect.asVoid(this.connection.query(command(sql)))
  }

  private accepts(node: Node): boolean {
    const innermost = this.stack[this.stack.length - 1]
    return innermost === undefined || node.isInside(innermost.node)
  }

  private isInnermost(open: Open): boolean {
    return this.stack[this.stack.length - 1] === open
  }

  private remove(open: Open): void {
    this.stack.splice(this.stack.indexOf(open), 1)
  }

  /** Runs an effect once it is ready and the connection is free. */
  private turn<A, E>(isReady: () => boolean, effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(this.take(isReady, restore), Effect.ensuring(restore(effect), this.give))
    )
  }

  private take(isReady: () => boolean, restore: Restore): Effect.Effect<void> {
    return Effect.suspend(() => {
      const waiter: Waiter = {
        granted: false,
        isReady: () => !this.isBusy && isReady(),
        take: () => {
          this.isBusy = true
        },
        wake: () => {}
      }
      if (waiter.isReady()) {
        waiter.take()
        return Effect.void
      }
      const wait = Effect.async<void>((resume) => {
        waiter.wake = () => resume(Effect.void)
        this.waiters.add(waiter)
      })
      return Effect.onError(restore(wait), () =>
        Effect.suspend(() => {
          if (waiter.granted) return this.give
          this.waiters.delete(waiter)
          return Effect.void
        })
      )
    })
  }

  private readonly give: Effect.Effect<void> = Effect.sync(() => {
    this.isBusy = false
    for (const waiter of this.waiters) {
      if (!waiter.isReady()) continue
      this.waiters.delete(waiter)
      waiter.granted = true
      waiter.take()
      waiter.wake()
      return
    }
  })
}

/** A connection of one's own, as far as one can be had: `begin`, COMMIT and ROLLBACK become a savepoint and its end. */
class TestExclusive implements ExclusiveConnection {
  private open: Open | undefined
  readonly isUsable = true
  readonly isOver = false
  readonly settled = Effect.void
  readonly begun = Effect.void
  readonly giveBack = Effect.void
  /** The connection of a test is never used again as it is. */
  readonly leave = () => {}
  readonly cancel: Effect.Effect<void> = Effect.suspend(() =>
    this.open === undefined ? Effect.void : this.connection.cancel(this.open)
  )
  readonly destroy: Effect.Effect<void> = Effect.void

  constructor(
    private readonly connection: TestConnection,
    private readonly node: Node
  ) {}

  get hasBegun(): boolean {
    return this.open !== undefined
  }

  readonly begin: Effect.Effect<this, SqlError> = Effect.suspend(() =>
    Effect.map(this.connection.begin(this.node), (open) => {
      this.open = open
      return this
    })
  )

  query(request: Request): Effect.Effect<Result, SqlError> {
    const { open } = this
    if (open === undefined) return this.connection.autocommit(this.node, request)
    return request.sql === "ROLLBACK" ? this.end(open, "rollback") : this.connection.query(open, request)
  }

  finish(): Effect.Effect<Result, SqlError> {
    const { open } = this
    return open === undefined ? Effect.succeed([]) : Effect.uninterruptible(this.end(open, "commit"))
  }

  stream(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return streamOf(this.query({ sql, params, asArrays: false, prepare: false }))
  }

  /** All rows are one batch: a portal would not survive what is nested in between. */
  cursor(_portal: string, sql: string, params: ReadonlyArray<unknown>): Cursor {
    let command = ""
    let fetched = false
    const all = Effect.map(this.query({ sql, params, asArrays: false, prepare: false }), (result) => {
      if ("command" in result) command = result.command
      return objectsOf(result)
    })
    const fetch = Effect.suspend(() => {
      if (fetched) return Effect.succeed([])
      fetched = true
      return all
    })
    return {
      fetch,
      close: Effect.void,
      get command() {
        return command
      }
    }
  }

  private end(open: Open, how: "commit" | "rollback"): Effect.Effect<Result, SqlError> {
    this.open = undefined
    return Effect.map(this.connection.end(open, how), (command) => ({
      command,
      rowCount: null,
      oid: 0,
      fields: [],
      rows: []
    }))
  }
}

const streamOf = (query: Effect.Effect<Result, SqlError>): Stream.Stream<object, SqlError> =>
  Stream.fromIterableEffect(Effect.map(query, objectsOf))

const objectsOf = (result: Result): ReadonlyArray<object> =>
  "rows" in result ? (result.rows as ReadonlyArray<object>) : []

/** An engine whose connections are all the one of a test. */
export const engineOf = (engine: Engine, connection: TestConnection): Engine => {
  const here = Effect.map(FiberRef.get(currentNode), (node) => new Node(node))
  const reserve = Effect.map(
    FiberRef.get(currentNode),
    (node) => new TestExclusive(connection, node ?? new Node(undefined))
  )
  const query = (request: Request) => Effect.flatMap(here, (node) => connection.autocommit(node, request))
  return {
    name: engine.name,
    weight: engine.weight,
    zone: engine.zone,
    inFlight: 0,
    waiting: 0,
    latency: 0,
    address: engine.address,
    client: engine.client,
    isWritable: engine.isWritable,
    isDrained: false,
    health: engine.health,
    poolStatus: engine.poolStatus,
    hasRoom: true,
    isStuck: false,
    warmth: 1,
    positions: engine.positions,
    binding: engine.binding,
    query,
    begin: (request, callback) => {
      const answered = Effect.match(query(request), {
        onFailure: (error) => callback(error, undefined),
        onSuccess: (result) => callback(undefined, result)
      })
      return Fiber.interrupt(Effect.runFork(answered))
    },
    stream: (sql, params) => streamOf(query({ sql, params, asArrays: false, prepare: false })),
    reserve,
    transaction: (_, restore) => Effect.flatMap(reserve, ({ begin }) => restore(begin)),
    answered: 0,
    isSilent: () => false,
    trial: () => Effect.void,
    observeLatency: () => {},
    probe: engine.probe,
    proven: () => {},
    avoidSerializable: () => false,
    restoreIsolation: () => {},
    renew: () => {},
    drop: () => Effect.void,
    unsettle: () => {},
    warmUp: () => {},
    setHealth: () => {},
    onError: () => {},
    heard: () => {},
    lose: () => {},
    setShare: () => {},
    setWritable: () => {},
    setDrained: () => {},
    rebind: () => Effect.void
  }
}
