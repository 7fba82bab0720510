/** Statements, compiled once for each text and the tables that it is read with. */
import { constant, type Fields, isFields, list, open, parse, text } from "./Ast.js"
import type { Base, Plan, Transactional } from "./Compiled.js"
import { define } from "./Definition.js"
import type { Scope } from "./Expression.js"
import { PgError, unsupported, unsupportedCode } from "./PgError.js"
import { change, copy, insert, select } from "./Query.js"
import type { Catalog } from "./Store.js"
import { type Field, type Type, toText, type Value } from "./Value.js"

/** Answers that were recorded on a real server, by the exact text. */
export interface Recording {
  readonly sql: string
  readonly fields: ReadonlyArray<Field>
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
}

const modesOf = (options: ReadonlyArray<unknown>) => {
  let isolation: string | undefined
  let isReadOnly: boolean | undefined
  for (const option of options) {
    const { arg, defname } = open(option)[1]
    const value = isFields(arg) ? constant(open(arg)[1]) : undefined
    if (defname === "transaction_isolation") isolation = value?.text
    if (defname === "transaction_read_only") isReadOnly = value?.text === "1"
  }
  return { isolation, isReadOnly }
}

const transaction = (fields: Fields): Plan => {
  const kind = text(fields, "kind") ?? ""
  const name = text(fields, "savepoint_name") ?? ""
  const command = (command: Transactional): Plan => ({ _tag: "transaction", command })
  switch (kind) {
    case "TRANS_STMT_BEGIN":
    case "TRANS_STMT_START":
      return command({
        kind: "begin",
        tag: kind === "TRANS_STMT_BEGIN" ? "BEGIN" : "START TRANSACTION",
        ...modesOf(list(fields, "options"))
      })
    case "TRANS_STMT_COMMIT":
      return command({ kind: "commit" })
    case "TRANS_STMT_ROLLBACK":
      return command({ kind: "rollback" })
    case "TRANS_STMT_SAVEPOINT":
      return command({ kind: "savepoint", name })
    case "TRANS_STMT_RELEASE":
      return command({ kind: "release", name })
    case "TRANS_STMT_ROLLBACK_TO":
      return command({ kind: "rollback to", name })
    default:
      throw unsupported(kind)
  }
}

const set = (fields: Fields): Plan => {
  const name = text(fields, "name") ?? ""
  const kind = text(fields, "kind")
  if (kind === "VAR_SET_MULTI") {
    if (name !== "TRANSACTION" && name !== "SESSION CHARACTERISTICS") throw unsupported(`SET ${name}`)
    return { _tag: "setTransaction", isDefault: name !== "TRANSACTION", ...modesOf(list(fields, "args")) }
  }
  const isReset = kind !== "VAR_SET_VALUE"
  const value = list(fields, "args")
    .map((arg) => constant(open(arg)[1])?.text ?? "")
    .join(", ")
  return { _tag: "set", name, value: isReset ? undefined : value, isLocal: fields.is_local === true }
}

const compileOne = ([tag, fields]: readonly [string, Fields], base: Base): Plan => {
  switch (tag) {
    case "SelectStmt":
      return select(base, fields)
    case "InsertStmt":
      return insert(base, fields)
    case "UpdateStmt":
      return change(base, fields, "UPDATE")
    case "DeleteStmt":
      return change(base, fields, "DELETE")
    case "TransactionStmt":
      return transaction(fields)
    case "VariableSetStmt":
      return set(fields)
    case "VariableShowStmt": {
      const name = text(fields, "name") ?? ""
      return { _tag: "show", name, fields: [{ name, type: "text" }] }
    }
    case "ListenStmt":
      return { _tag: "listen", channel: text(fields, "conditionname") }
    case "UnlistenStmt":
      return { _tag: "unlisten", channel: text(fields, "conditionname") }
    case "NotifyStmt":
      return { _tag: "notify", channel: text(fields, "conditionname") ?? "", payload: text(fields, "payload") ?? "" }
    case "DiscardStmt":
      return { _tag: "discard", tag: (text(fields, "target") ?? "").replace("_", " ") }
    case "DeallocateStmt":
      return { _tag: "deallocate", name: text(fields, "name") }
    case "CopyStmt":
      return copy(base, fields)
    case "ConstraintsSetStmt":
      return { _tag: "setConstraints", isDeferred: fields.deferred === true }
    case "CreateStmt":
    case "AlterTableStmt":
    case "DropStmt":
      return define(base, tag, fields)
    default:
      throw unsupported(tag)
  }
}

/** A statement of a text, ready to be run. */
export interface Prepared {
  readonly plan: Plan
  /** The types of its parameters. */
  readonly params: ReadonlyArray<Type>
  /** Works out what is the same for all rows; throws what comes of it. */
  readonly fold: (scope: Scope) => void
}

const recordings = new Map<string, Prepared>()

export const useRecordings = (all: ReadonlyArray<Recording>): void => {
  for (const { fields, rows, sql } of all) {
    recordings.set(sql, { plan: { _tag: "recorded", fields, rows }, params: [], fold: () => {} })
  }
  cache = new WeakMap()
}

/** Texts that nothing here understands: they have to be recorded, and what was run without is worth nothing. */
export const unknownTexts = new Set<string>()

type Parsed = ReadonlyArray<() => Prepared> | PgError

let cache = new WeakMap<Catalog, Map<string, Parsed>>()

const syntaxError = (error: unknown): PgError => {
  const { message, sqlDetails } = error as Error & { readonly sqlDetails?: { readonly cursorPosition: number } }
  const position = sqlDetails === undefined ? {} : { position: sqlDetails.cursorPosition + 1 }
  return new PgError("42601", message, "scanner_yyerror", "ERROR", position)
}

const prepare = (
  sql: string,
  statement: readonly [string, Fields],
  catalog: Catalog,
  types: ReadonlyArray<Type | undefined>
): Prepared => {
  const base: Base = { catalog, params: [...types], folds: [] }
  try {
    const plan = compileOne(statement, base)
    const { folds, params } = base
    return {
      plan,
      params: params.map((type) => type ?? "text"),
      fold: (scope) => {
        for (const fold of folds) fold(scope)
      }
    }
  } catch (error) {
    if (error instanceof PgError && error.code === unsupportedCode) unknownTexts.add(sql)
    throw error
  }
}

/** The first call does it, and every later one ends as that has. */
const once = <A>(make: () => A): (() => A) => {
  let made: { readonly value: A } | { readonly error: unknown } | undefined
  return () => {
    if (made === undefined) {
      try {
        made = { value: make() }
      } catch (error) {
        made = { error }
      }
    }
    if ("error" in made) throw made.error
    return made.value
  }
}

const parsed = (sql: string, catalog: Catalog, types: ReadonlyArray<Type | undefined>): Parsed => {
  const recorded = recordings.get(sql)
  if (recorded !== undefined) return [() => recorded]
  if (/^[\s;]*$/.test(sql)) return []
  try {
    return parse(sql).map((statement) => once(() => prepare(sql, statement, catalog, types)))
  } catch (error) {
    return syntaxError(error)
  }
}

/**
 * The statements of a text. One that names something that is not there fails when it is its turn; a text that does not parse
 * fails as a whole. `types` are those of parameters, where the client says them.
 */
export const statementsOf = (
  sql: string,
  catalog: Catalog,
  types: ReadonlyArray<Type | undefined> = []
): ReadonlyArray<() => Prepared> => {
  let texts = cache.get(catalog)
  if (texts === undefined) {
    texts = new Map()
    cache.set(catalog, texts)
  }
  const key = types.length === 0 ? sql : `${types.join(",")} ${sql}`
  let found = texts.get(key)
  if (found === undefined) {
    found = parsed(sql, catalog, types)
    texts.set(key, found)
  }
  if (found instanceof PgError) throw found
  return found
}

export const texts = (rows: ReadonlyArray<ReadonlyArray<Value>>, fields: ReadonlyArray<Field>) =>
  rows.map((row) => row.map((value, i) => toText(value, fields[i]!.type)))
