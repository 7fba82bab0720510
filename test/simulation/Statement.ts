/**
 * Statements, compiled once for each text: what they return, and how they run. One table at a time, no joins.
 */
import { constant, type Fields, inner, isFields, lastName, list, open, parse, text } from "./Ast.js"
import {
  as,
  type Context,
  compile,
  type Env,
  type Expression,
  rowFunctions,
  type Scope,
  type Source
} from "./Expression.js"
import { PgError, readOnly, unsupported, unsupportedCode } from "./PgError.js"
import { schema } from "./Schema.js"
import { type Change, couldNotSerialize, type Row, type Table, uniqueViolation } from "./Store.js"
import { type Field, toText, type Value } from "./Value.js"

/** Something to wait for. Calls back once; what it returns ends the waiting. */
export type Wait = (wake: (error?: PgError) => void) => () => void

export type Steps<A> = Generator<Wait, A, void>

export interface Outcome {
  readonly tag: string
  readonly rows: ReadonlyArray<ReadonlyArray<Value>>
}

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
  lock(table: string, key: string): Steps<void>
  write(change: Change): void
  sleep(millis: number): Steps<void>
  /** A key for a row of a table that has none. */
  nextKey(): string
}

export type Transactional =
  | { readonly kind: "begin"; readonly isolation: string | undefined; readonly isReadOnly: boolean | undefined }
  | { readonly kind: "commit" | "rollback" }
  | { readonly kind: "savepoint" | "release" | "rollback to"; readonly name: string }

export type Plan =
  | {
      readonly _tag: "query"
      readonly fields: ReadonlyArray<Field> | undefined
      readonly isWrite: boolean
      readonly run: (execution: Execution) => Steps<Outcome>
    }
  | { readonly _tag: "transaction"; readonly command: Transactional }
  | { readonly _tag: "set"; readonly name: string; readonly value: string | undefined; readonly isLocal: boolean }
  | {
      readonly _tag: "setTransaction"
      readonly isolation: string | undefined
      readonly isReadOnly: boolean | undefined
    }
  | { readonly _tag: "show"; readonly name: string; readonly fields: ReadonlyArray<Field> }
  | { readonly _tag: "listen" | "unlisten"; readonly channel: string | undefined }
  | { readonly _tag: "notify"; readonly channel: string; readonly payload: string }
  | { readonly _tag: "discard" }
  | { readonly _tag: "deallocate"; readonly name: string | undefined }
  | { readonly _tag: "copy"; readonly isFrom: boolean }
  | {
      readonly _tag: "recorded"
      readonly fields: ReadonlyArray<Field>
      readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
    }

/** Answers that were recorded on a real server, by the exact text. */
export interface Recording {
  readonly sql: string
  readonly fields: ReadonlyArray<Field>
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
}

const tableOf = (relation: Fields | undefined): Table => {
  const name = text(relation ?? {}, "relname") ?? ""
  const table = schema.find((table) => table.name === name)
  // The catalog's own are recorded.
  if (table === undefined && name.startsWith("pg_")) throw unsupported(name)
  if (table === undefined) throw new PgError("42P01", `relation "${name}" does not exist`, "parserOpenTable")
  return table
}

interface Compiled {
  readonly sources: ReadonlyArray<Source>
  readonly fields: ReadonlyArray<Field>
  /** All but the locking. */
  readonly rows: (env: Env, given?: ReadonlyArray<Row>) => ReadonlyArray<ReadonlyArray<Value>>
  readonly table: Table | undefined
  readonly isLocking: boolean
  readonly where: Expression | undefined
  readonly sleep: ((scope: Scope) => number) | undefined
}

type From = (env: Env) => ReadonlyArray<Row>

const fromOf = (node: unknown): { readonly source: Source; readonly rows: From; readonly table?: Table } => {
  const [tag, fields] = open(node)
  const alias = text(inner(fields, "alias") ?? {}, "aliasname")
  if (tag === "RangeVar") {
    const name = text(fields, "relname") ?? ""
    const view = name === "pg_stat_wal_receiver" ? rowFunctions[name] : undefined
    if (view !== undefined) return { source: { name: alias ?? name, columns: view.columns }, rows: view.rows }
    const table = tableOf(fields)
    return { source: { name: alias ?? name, columns: table.columns }, rows: (env) => env.scan(name), table }
  }
  if (tag === "RangeSubselect") {
    const select = compileSelect(open(fields.subquery)[1])
    const columns = select.fields
    return {
      source: { name: alias ?? "", columns },
      rows: (env) =>
        select.rows(env).map((row) => Object.fromEntries(columns.map(({ name }, i) => [name, row[i] ?? null])))
    }
  }
  if (tag === "RangeFunction") {
    const [item] = list(open(list(fields, "functions")[0])[1], "items")
    const call = open(item)[1]
    const name = lastName(list(call, "funcname"))
    if (name === "generate_series") {
      const column = alias ?? name
      const [from, to] = list(call, "args").map((arg) => as(compile(arg, contextOf([])), "int4"))
      return {
        source: { name: column, columns: [{ name: column, type: "int4" }] },
        rows: (env) => {
          const first = Number(from!.run({ env, rows: [] }))
          const length = Number(to!.run({ env, rows: [] })) - first + 1
          return Array.from({ length: Math.max(0, length) }, (_, i) => ({ [column]: first + i }))
        }
      }
    }
    const found = rowFunctions[name]
    if (found !== undefined) return { source: { name: alias ?? name, columns: found.columns }, rows: found.rows }
    throw unsupported(`the function ${name} in FROM`)
  }
  throw unsupported(`FROM ${tag}`)
}

const contextOf = (sources: ReadonlyArray<Source>, found = new Set<string>()): Context => ({
  sources,
  found,
  subselect: (fields) => {
    const select = compileSelect(fields)
    const [field] = select.fields
    return { type: field!.type, name: field!.name, run: (env) => select.rows(env)[0]?.[0] ?? null }
  }
})

const targetsOf = (targets: ReadonlyArray<unknown>, context: Context): ReadonlyArray<Expression> =>
  targets.flatMap((target) => {
    const fields = open(target)[1]
    const [tag, value] = open(fields.val)
    if (tag === "ColumnRef" && list(value, "fields").some((part) => open(part)[0] === "A_Star")) {
      return context.sources.flatMap(({ columns, name }) =>
        columns.map((column) =>
          compile({ ColumnRef: { fields: [name, column.name].map((sval) => ({ String: { sval } })) } }, context)
        )
      )
    }
    const expression = compile(fields.val, context)
    return [{ ...expression, name: text(fields, "name") ?? expression.name }]
  })

/** The argument of a `pg_sleep` among the targets, in milliseconds. */
const sleepOf = (targets: ReadonlyArray<unknown>, context: Context): ((scope: Scope) => number) | undefined => {
  for (const target of targets) {
    const [tag, fields] = open(open(target)[1].val)
    const call = tag === "TypeCast" ? open(fields.arg) : ([tag, fields] as const)
    if (call[0] !== "FuncCall" || lastName(list(call[1], "funcname")) !== "pg_sleep") continue
    const seconds = as(compile(list(call[1], "args")[0], context), "float8")
    return (scope) => Number(seconds.run(scope)) * 1000
  }
  return undefined
}

const order = (one: Value, other: Value): number => {
  if (one === other) return 0
  if (one === null || other === null) return one === null ? 1 : -1
  return one < other ? -1 : 1
}

const compileSelect = (fields: Fields): Compiled => {
  if (fields.withClause !== undefined || (fields.op ?? "SETOP_NONE") !== "SETOP_NONE")
    throw unsupported("WITH or UNION")
  if (list(fields, "valuesLists").length > 0) throw unsupported("VALUES")
  const froms = list(fields, "fromClause").map(fromOf)
  const sources = froms.map(({ source }) => source)
  const context = contextOf(sources)
  const targets = targetsOf(list(fields, "targetList"), context)
  const where = fields.whereClause === undefined ? undefined : compile(fields.whereClause, context)
  const sorts = list(fields, "sortClause").map((sort) => {
    const sortBy = open(sort)[1]
    const [tag, node] = open(sortBy.node)
    const ordinal = tag === "A_Const" ? constant(node)?.text : undefined
    return {
      by: ordinal === undefined ? compile(sortBy.node, context) : targets[Number(ordinal) - 1]!,
      sign: sortBy.sortby_dir === "SORTBY_DESC" ? -1 : 1
    }
  })
  const limit = fields.limitCount === undefined ? undefined : as(compile(fields.limitCount, context), "int4")
  const isAggregate = targets.some((target) => target.isAggregate === true)
  const rows = (env: Env, given?: ReadonlyArray<Row>): ReadonlyArray<ReadonlyArray<Value>> => {
    let scopes: ReadonlyArray<Scope> = [{ env, rows: [] }]
    for (const [i, from] of froms.entries()) {
      const found = i === 0 && given !== undefined ? given : from.rows(env)
      scopes = scopes.flatMap((scope) => found.map((row) => ({ env, rows: [...scope.rows, row] })))
    }
    if (where !== undefined) scopes = scopes.filter((scope) => where.run(scope) === true)
    if (isAggregate)
      return [
        targets.map((target) => target.run({ env, rows: scopes[0]?.rows ?? froms.map(() => ({})), group: scopes }))
      ]
    if (sorts.length > 0) {
      scopes = [...scopes].sort((a, b) => {
        for (const { by, sign } of sorts) {
          const result = order(by.run(a), by.run(b))
          if (result !== 0) return sign * result
        }
        return 0
      })
    }
    const count = limit === undefined ? scopes.length : Number(limit.run({ env, rows: [] }))
    return scopes.slice(0, count).map((scope) => targets.map((target) => target.run(scope)))
  }
  return {
    sources,
    fields: targets.map(({ name, type }) => ({ name, type })),
    rows,
    table: froms[0]?.table,
    isLocking: list(fields, "lockingClause").length > 0,
    where,
    sleep: sleepOf(list(fields, "targetList"), context)
  }
}

/** The rows of a table that a statement changes or locks, each locked first, as they are then. */
function* lockRows(
  execution: Execution,
  table: Table,
  where: Expression | undefined
): Steps<ReadonlyArray<{ readonly key: string; readonly row: Row }>> {
  const holds = (row: Row) => where === undefined || where.run({ env: execution, rows: [row] }) === true
  const locked: Array<{ readonly key: string; readonly row: Row }> = []
  for (const key of execution.keysOf(table.name)) {
    const seen = execution.rowAt(table.name, key, execution.snapshot)
    if (seen === undefined || !holds(seen)) continue
    yield* execution.lock(table.name, key)
    if (execution.isRepeatable && execution.isNewer(table.name, key)) throw couldNotSerialize
    const row = execution.rowAt(table.name, key, execution.latest)
    if (row !== undefined && holds(row)) locked.push({ key, row })
  }
  return locked
}

const select = (fields: Fields): Plan => {
  const compiled = compileSelect(fields)
  const { isLocking, sleep, table, where } = compiled
  return {
    _tag: "query",
    fields: compiled.fields,
    isWrite: false,
    *run(execution) {
      if (sleep !== undefined) yield* execution.sleep(sleep({ env: execution, rows: [] }))
      let rows: ReadonlyArray<ReadonlyArray<Value>>
      if (isLocking && table !== undefined) {
        if (execution.isReadOnly) throw readOnly("SELECT FOR UPDATE")
        const locked = yield* lockRows(execution, table, where)
        rows = compiled.rows(
          execution,
          locked.map(({ row }) => row)
        )
      } else rows = compiled.rows(execution)
      return { tag: `SELECT ${rows.length}`, rows }
    }
  }
}

const returningOf = (fields: Fields, context: Context) => {
  const targets = targetsOf(list(inner(fields, "returningClause") ?? {}, "exprs"), context)
  return {
    fields: targets.length === 0 ? undefined : targets.map(({ name, type }) => ({ name, type })),
    row: (env: Env, row: Row) => targets.map((target) => target.run({ env, rows: [row, row] }))
  }
}

/** Assignments to columns. */
const setsOf = (targets: ReadonlyArray<unknown>, table: Table, context: Context) =>
  targets.map((target) => {
    const { name, val } = open(target)[1]
    const column = table.columns.find((column) => column.name === name)
    if (column === undefined)
      throw new PgError("42703", `column "${String(name)}" does not exist`, "errorMissingColumn")
    return { name: column.name, value: as(compile(val, context), column.type) }
  })

const insert = (fields: Fields): Plan => {
  const table = tableOf(inner(fields, "relation"))
  const values = list(open(fields.selectStmt)[1], "valuesLists")
  const named = list(fields, "cols").map((column) => text(open(column)[1], "name") ?? "")
  const columns = (named.length === 0 ? table.columns.map(({ name }) => name) : named).map((name) => {
    const column = table.columns.find((column) => column.name === name)
    if (column === undefined) throw new PgError("42703", `column "${name}" does not exist`, "checkInsertTargets")
    return column
  })
  const none = contextOf([])
  const rows = values.map((row) =>
    list(open(row)[1], "items").map((item, i) => as(compile(item, none), columns[i]!.type))
  )
  const sources = [{ name: table.name, columns: table.columns }]
  const conflict = inner(fields, "onConflictClause")
  const isIgnored = conflict?.action === "ONCONFLICT_NOTHING"
  const context = contextOf([...sources, { name: "excluded", columns: table.columns }])
  const sets = conflict === undefined || isIgnored ? [] : setsOf(list(conflict, "targetList"), table, context)
  const returning = returningOf(fields, contextOf(sources))
  return {
    _tag: "query",
    fields: returning.fields,
    isWrite: true,
    *run(execution) {
      if (execution.isReadOnly) throw readOnly("INSERT")
      const done: Array<Row> = []
      for (const row of rows) {
        const made: Record<string, Value> = Object.fromEntries(table.columns.map(({ name }) => [name, null]))
        columns.forEach(({ name }, i) => {
          made[name] = row[i]!.run({ env: execution, rows: [] })
        })
        const { key: keyColumn } = table
        const key = keyColumn === undefined ? execution.nextKey() : String(made[keyColumn])
        yield* execution.lock(table.name, key)
        const old = execution.rowAt(table.name, key, execution.latest)
        if (old === undefined) {
          execution.write({ table: table.name, key, row: made })
          done.push(made)
          continue
        }
        if (conflict === undefined) throw uniqueViolation(table)
        if (isIgnored) continue
        if (execution.isRepeatable && execution.isNewer(table.name, key)) throw couldNotSerialize
        const scope = { env: execution, rows: [old, made] }
        const next = { ...old, ...Object.fromEntries(sets.map(({ name, value }) => [name, value.run(scope)])) }
        execution.write({ table: table.name, key, row: next })
        done.push(next)
      }
      return { tag: `INSERT 0 ${done.length}`, rows: done.map((row) => returning.row(execution, row)) }
    }
  }
}

const change = (fields: Fields, verb: "UPDATE" | "DELETE"): Plan => {
  const table = tableOf(inner(fields, "relation"))
  const context = contextOf([{ name: table.name, columns: table.columns }])
  const where = fields.whereClause === undefined ? undefined : compile(fields.whereClause, context)
  const sets = setsOf(list(fields, "targetList"), table, context)
  const returning = returningOf(fields, context)
  return {
    _tag: "query",
    fields: returning.fields,
    isWrite: true,
    *run(execution) {
      if (execution.isReadOnly) throw readOnly(verb)
      const locked = yield* lockRows(execution, table, where)
      const rows = locked.map(({ key, row }) => {
        const scope = { env: execution, rows: [row] }
        const next =
          verb === "DELETE"
            ? undefined
            : { ...row, ...Object.fromEntries(sets.map(({ name, value }) => [name, value.run(scope)])) }
        execution.write({ table: table.name, key, row: next })
        return next ?? row
      })
      return { tag: `${verb} ${rows.length}`, rows: rows.map((row) => returning.row(execution, row)) }
    }
  }
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
      return command({ kind: "begin", ...modesOf(list(fields, "options")) })
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
    return { _tag: "setTransaction", ...modesOf(list(fields, "args")) }
  }
  const isReset = kind !== "VAR_SET_VALUE"
  const value = list(fields, "args")
    .map((arg) => constant(open(arg)[1])?.text ?? "")
    .join(", ")
  return { _tag: "set", name, value: isReset ? undefined : value, isLocal: fields.is_local === true }
}

const compileOne = ([tag, fields]: readonly [string, Fields]): Plan => {
  switch (tag) {
    case "SelectStmt":
      return select(fields)
    case "InsertStmt":
      return insert(fields)
    case "UpdateStmt":
      return change(fields, "UPDATE")
    case "DeleteStmt":
      return change(fields, "DELETE")
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
      return { _tag: "discard" }
    case "DeallocateStmt":
      return { _tag: "deallocate", name: text(fields, "name") }
    case "CopyStmt":
      return { _tag: "copy", isFrom: fields.is_from === true }
    default:
      throw unsupported(tag)
  }
}

const recordings = new Map<string, Plan>()

export const useRecordings = (all: ReadonlyArray<Recording>): void => {
  for (const { fields, rows, sql } of all) recordings.set(sql, { _tag: "recorded", fields, rows })
  for (const { sql } of all) {
    unknownTexts.delete(sql)
    cache.delete(sql)
  }
}

/** Texts that nothing here understands: they have to be recorded. */
export const unknownTexts = new Set<string>()

const cache = new Map<string, ReadonlyArray<Plan> | PgError>()

/** The plans of a text's statements. What does not parse, or names something that is not there, is an error of the server's. */
export const plansOf = (sql: string): ReadonlyArray<Plan> => {
  let plans = cache.get(sql)
  if (plans === undefined) {
    const recorded = recordings.get(sql)
    try {
      plans = recorded === undefined ? parse(sql).map(compileOne) : [recorded]
    } catch (error) {
      if (error instanceof PgError && error.code === unsupportedCode) unknownTexts.add(sql)
      plans = error instanceof PgError ? error : new PgError("42601", (error as Error).message, "scanner_yyerror")
    }
    cache.set(sql, plans)
  }
  if (plans instanceof PgError) throw plans
  return plans
}

export const texts = (rows: ReadonlyArray<ReadonlyArray<Value>>, fields: ReadonlyArray<Field>) =>
  rows.map((row) => row.map((value, i) => toText(value, fields[i]!.type)))
