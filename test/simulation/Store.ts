/**
 * The rows of one server: versions by transaction, snapshots, row locks, and the write-ahead log that all of it follows from.
 */
import { PgError } from "./PgError.js"
import type { Type, Value } from "./Value.js"

export interface Column {
  readonly name: string
  readonly type: Type
}

export interface Table {
  readonly name: string
  readonly columns: ReadonlyArray<Column>
  /** The column that is the primary key; without one, rows are never the same. */
  readonly key: string | undefined
  /** Checked when the transaction commits: a column whose values are keys of another table. */
  readonly deferred?: { readonly column: string; readonly references: string; readonly constraint: string }
}

/** The tables that there are: another one whenever any of them changes. */
export type Catalog = ReadonlyArray<Table>

export type Row = Readonly<Record<string, Value>>

export interface Change {
  readonly table: string
  readonly key: string
  /** `undefined`: it is deleted. */
  readonly row: Row | undefined
}

export interface LogRecord {
  readonly end: number
  readonly timeline: number
  readonly kind: "data" | "commit" | "running" | "vacuum"
  readonly xid: number
  readonly changes: ReadonlyArray<Change>
  /** What the tables are from then on, where that changes. */
  readonly catalog?: Catalog | undefined
  /** When it was written, in virtual time: for what a delayed standby replays. */
  readonly at: number
}

interface Version {
  readonly xid: number
  readonly row: Row | undefined
}

export const segment = 16 * 1024 * 1024
const page = 8192

/** Where the next record would begin: past the header of a page, or of a segment. */
export const pastHeader = (position: number): number =>
  position % segment === 0 ? position + 40 : position % page === 0 ? position + 24 : position

/** Where a record of so many bytes ends that begins there. */
export const endOf = (position: number, bytes: number): number => {
  let at = pastHeader(position)
  let left = bytes
  while (true) {
    const room = page - (at % page)
    if (left <= room) return at + left
    left -= room
    at = pastHeader(at + room)
  }
}

export const logStart = 0x3000000

export class Store {
  private readonly rows = new Map<string, Map<string, Array<Version>>>()
  private readonly committed = new Map<number, number>()
  /** Goes up with each commit that becomes visible here. */
  sequence = 0

  constructor(
    /** The tables, as the last commit has left them. */
    public catalog: Catalog
  ) {}

  versions(table: string, key: string): Array<Version> {
    let rows = this.rows.get(table)
    if (rows === undefined) {
      rows = new Map()
      this.rows.set(table, rows)
    }
    let versions = rows.get(key)
    if (versions === undefined) {
      versions = []
      rows.set(key, versions)
    }
    return versions
  }

  keys(table: string): ReadonlyArray<string> {
    return [...(this.rows.get(table)?.keys() ?? [])]
  }

  /** The row that a snapshot sees. */
  read(table: string, key: string, snapshot: number, own: number | undefined): Row | undefined {
    const versions = this.rows.get(table)?.get(key)
    if (versions === undefined) return undefined
    for (let i = versions.length - 1; i >= 0; i--) {
      const version = versions[i]!
      if (version.xid === own) return version.row
      const at = this.committed.get(version.xid)
      if (at !== undefined && at <= snapshot) return version.row
    }
    return undefined
  }

  /** Whether a newer version was committed than a snapshot sees. */
  isNewer(table: string, key: string, snapshot: number): boolean {
    return this.versions(table, key).some(({ xid }) => (this.committed.get(xid) ?? 0) > snapshot)
  }

  add(change: Change, xid: number): void {
    this.versions(change.table, change.key).push({ xid, row: change.row })
  }

  /** Takes back the last version that a transaction has made of a row. */
  take(change: Change, xid: number): void {
    const versions = this.versions(change.table, change.key)
    for (let i = versions.length - 1; i >= 0; i--) {
      if (versions[i]!.xid !== xid) continue
      versions.splice(i, 1)
      return
    }
  }

  isCommitted(xid: number): boolean {
    return this.committed.has(xid)
  }

  commit(xid: number, catalog: Catalog | undefined): void {
    this.catalog = catalog ?? this.catalog
    this.committed.set(xid, ++this.sequence)
  }

  /** Replays a record. */
  apply({ catalog, changes, kind, xid }: LogRecord): void {
    if (kind !== "commit") return
    for (const change of changes) this.add(change, xid)
    this.commit(xid, catalog)
  }
}

export interface Waiter {
  readonly owner: object
  readonly wake: () => void
}

interface Lock {
  owner: object
  readonly waiters: Array<Waiter>
}

/** Row locks of transactions that run. */
export class Locks {
  private readonly locks = new Map<string, Lock>()
  private readonly waitsFor = new Map<object, string>()

  /** Whether it is the caller's now. */
  tryTake(name: string, owner: object): boolean {
    const lock = this.locks.get(name)
    if (lock === undefined) {
      this.locks.set(name, { owner, waiters: [] })
      return true
    }
    return lock.owner === owner
  }

  isMine(name: string, owner: object): boolean {
    return this.locks.get(name)?.owner === owner
  }

  wait(name: string, waiter: Waiter): () => void {
    const lock = this.locks.get(name)!
    lock.waiters.push(waiter)
    this.waitsFor.set(waiter.owner, name)
    return () => {
      const at = lock.waiters.indexOf(waiter)
      if (at >= 0) lock.waiters.splice(at, 1)
      this.waitsFor.delete(waiter.owner)
    }
  }

  /** Whether the one who waits waits for itself. */
  isDeadlock(start: object): boolean {
    let name = this.waitsFor.get(start)
    for (let i = 0; name !== undefined && i < 1000; i++) {
      const owner = this.locks.get(name)?.owner
      if (owner === undefined) return false
      if (owner === start) return true
      name = this.waitsFor.get(owner)
    }
    return false
  }

  release(name: string, owner: object): void {
    const lock = this.locks.get(name)
    if (lock?.owner !== owner) return
    this.locks.delete(name)
    for (const waiter of lock.waiters.splice(0)) {
      this.waitsFor.delete(waiter.owner)
      waiter.wake()
    }
  }
}

export const uniqueViolation = ({ key, name }: Table, row: Row): PgError =>
  new PgError("23505", `duplicate key value violates unique constraint "${name}_pkey"`, "_bt_check_unique", "ERROR", {
    detail: `Key (${key})=(${String(row[key!])}) already exists.`,
    schema: "public",
    table: name,
    constraint: `${name}_pkey`
  })

export const couldNotSerialize = (why: "update" | "delete", routine: string): PgError =>
  new PgError("40001", `could not serialize access due to concurrent ${why}`, routine)

export const deadlock = new PgError("40P01", "deadlock detected", "DeadLockReport")
