/** What a statement is compiled to, and what it runs in. */
import { type Fields, text } from "./Ast.js"
import type { Env, Statement } from "./Expression.js"
import { errorAt, PgError, unsupported } from "./PgError.js"
import type { Catalog, Change, Row, Table } from "./Store.js"
import type { Field, Value } from "./Value.js"

/** Something to wait for. Calls back once; what it returns ends the waiting. */
export type Wait = (wake: (error?: PgError) => void) => () => void

export type Steps<A> = Generator<Wait, A, void>

export interface Outcome {
  readonly tag: string
  readonly rows: ReadonlyArray<ReadonlyArray<Value>>
}

export type Lock = "wait" | "skip" | "fail"

/** What a running statement has of its backend. */
export interface Execution extends Env {
  /** What the statement sees: a number of commits. */
  readonly snapshot: number
  readonly isRepeatable: boolean
  readonly isReadOnly: boolean
  rowAt(table: string, key: string, snapshot: number): Row | undefined
  keysOf(table: string): ReadonlyArray<string>
  /** Everything that is committed, and its own. */
  readonly latest: number
  isNewer(table: string, key: string): boolean
  /** Whether the row is locked now; `skip` does without those that others have, to `fail` they are an error. */
  lock(table: string, key: string, how: Lock): Steps<boolean>
  write(change: Change): void
  /** What `pg_sleep` does. */
  pause(millis: number): Steps<void>
  /** A key for a row of a table that has none. */
  nextKey(): string
}

export type Transactional =
  | {
      readonly kind: "begin"
      readonly isolation: string | undefined
      readonly isReadOnly: boolean | undefined
      readonly tag: string
    }
  | { readonly kind: "commit" | "rollback" }
  | { readonly kind: "savepoint" | "release" | "rollback to"; readonly name: string }

export type Plan =
  | {
      readonly _tag: "query"
      readonly fields: ReadonlyArray<Field> | undefined
      /** What a read-only transaction calls it when it refuses it. */
      readonly writes: string | undefined
      /** Its rows are sent while it runs, and what they are before. */
      readonly isSelect: boolean
      readonly run: (execution: Execution) => Steps<Outcome>
    }
  | { readonly _tag: "transaction"; readonly command: Transactional }
  | { readonly _tag: "set"; readonly name: string; readonly value: string | undefined; readonly isLocal: boolean }
  | {
      readonly _tag: "setTransaction"
      readonly isolation: string | undefined
      readonly isReadOnly: boolean | undefined
      /** From the next transaction on. */
      readonly isDefault: boolean
    }
  | { readonly _tag: "setConstraints"; readonly isDeferred: boolean }
  | { readonly _tag: "show"; readonly name: string; readonly fields: ReadonlyArray<Field> }
  | { readonly _tag: "listen" | "unlisten"; readonly channel: string | undefined }
  | { readonly _tag: "notify"; readonly channel: string; readonly payload: string }
  | { readonly _tag: "discard"; readonly tag: string }
  | { readonly _tag: "deallocate"; readonly name: string | undefined }
  | {
      readonly _tag: "copyIn"
      readonly columns: number
      readonly add: (execution: Execution, values: ReadonlyArray<string | null>) => Steps<void>
    }
  | {
      readonly _tag: "copyOut"
      readonly fields: ReadonlyArray<Field>
      readonly rows: (env: Env) => ReadonlyArray<ReadonlyArray<Value>>
    }
  | {
      /** What the tables are after it. */
      readonly _tag: "define"
      readonly catalog: Catalog
      readonly tag: string
    }
  | {
      readonly _tag: "recorded"
      readonly fields: ReadonlyArray<Field>
      readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
    }

/** What compiling a statement begins with. */
export interface Base extends Statement {
  readonly catalog: Catalog
}

export const tableOf = ({ catalog }: Base, relation: Fields | undefined, routine = "parserOpenTable"): Table => {
  const name = text(relation ?? {}, "relname") ?? ""
  const table = catalog.find((table) => table.name === name)
  // The catalog's own are recorded.
  if (table === undefined && name.startsWith("pg_")) throw unsupported(name)
  if (table === undefined) {
    const message = `relation "${name}" does not exist`
    // A command of its own does not say where.
    if (routine !== "parserOpenTable") throw new PgError("42P01", message, routine)
    throw errorAt(relation?.location, "42P01", message, routine)
  }
  return table
}
