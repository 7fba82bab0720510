/**
 * Queries, and statements that change rows, compiled: what they return, and how they run. One table at a time, no joins.
 */
import { constant, type Fields, inner, lastName, list, open, text } from "./Ast.js"
import { type Base, type Execution, type Lock, type Plan, type Steps, tableOf } from "./Compiled.js"
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
import { errorAt, PgError, unsupported } from "./PgError.js"
import { couldNotSerialize, type Row, type Table, uniqueViolation } from "./Store.js"
import { type Field, read, type Value } from "./Value.js"

interface Compiled {
  readonly sources: ReadonlyArray<Source>
  readonly fields: ReadonlyArray<Field>
  /** All but the locking. */
  readonly rows: (env: Env, given?: ReadonlyArray<Row>) => ReadonlyArray<ReadonlyArray<Value>>
  readonly table: Table | undefined
  /** FOR UPDATE, and what it does about rows that others have. */
  readonly lock: Lock | undefined
  readonly where: Expression | undefined
  readonly sleep: ((scope: Scope) => number) | undefined
}

type From = (env: Env) => ReadonlyArray<Row>

const fromOf = (
  base: Base,
  node: unknown
): { readonly source: Source; readonly rows: From; readonly table?: Table } => {
  const [tag, fields] = open(node)
  const alias = text(inner(fields, "alias") ?? {}, "aliasname")
  if (tag === "RangeVar") {
    const name = text(fields, "relname") ?? ""
    const view = ["pg_stat_wal_receiver", "pg_stat_activity"].includes(name) ? rowFunctions[name] : undefined
    if (view !== undefined) return { source: { name: alias ?? name, columns: view.columns }, rows: view.rows }
    const table = tableOf(base, fields)
    return { source: { name: alias ?? name, columns: table.columns }, rows: (env) => env.scan(name), table }
  }
  if (tag === "RangeSubselect") {
    const select = compileSelect(base, open(fields.subquery)[1])
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
      const [from, to] = list(call, "args").map((arg) => as(compile(arg, contextOf(base, [])), "int4"))
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

const contextOf = (base: Base, sources: ReadonlyArray<Source>): Context => ({
  statement: base,
  sources,
  subselect: (fields) => {
    const select = compileSelect(base, fields)
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
    const found = compile(fields.val, context)
    // What has no type yet is text.
    const expression = found.type === "unknown" ? as(found, "text") : found
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

const lockOf = (clause: unknown): Lock | undefined => {
  if (clause === undefined) return undefined
  const { strength, waitPolicy } = open(clause)[1]
  if (strength !== "LCS_FORUPDATE" && strength !== "LCS_FORNOKEYUPDATE") throw unsupported(String(strength))
  return waitPolicy === "LockWaitError" ? "fail" : waitPolicy === "LockWaitSkip" ? "skip" : "wait"
}

export const compileSelect = (base: Base, fields: Fields): Compiled => {
  if (fields.withClause !== undefined || (fields.op ?? "SETOP_NONE") !== "SETOP_NONE")
    throw unsupported("WITH or UNION")
  if (list(fields, "valuesLists").length > 0) throw unsupported("VALUES")
  const froms = list(fields, "fromClause").map((from) => fromOf(base, from))
  const sources = froms.map(({ source }) => source)
  const context = contextOf(base, sources)
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
  const limit = fields.limitCount === undefined ? undefined : as(compile(fields.limitCount, context), "int8")
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
    lock: lockOf(list(fields, "lockingClause")[0]),
    where,
    sleep: sleepOf(list(fields, "targetList"), context)
  }
}

/** The rows of a table that a statement changes or locks, each locked first, as they are then. */
function* lockRows(
  execution: Execution,
  table: Table,
  where: Expression | undefined,
  lock: Lock,
  routine: string
): Steps<ReadonlyArray<{ readonly key: string; readonly row: Row }>> {
  const holds = (row: Row) => where === undefined || where.run({ env: execution, rows: [row] }) === true
  const locked: Array<{ readonly key: string; readonly row: Row }> = []
  for (const key of execution.keysOf(table.name)) {
    const seen = execution.rowAt(table.name, key, execution.snapshot)
    if (seen === undefined || !holds(seen)) continue
    if (!(yield* execution.lock(table.name, key, lock))) continue
    const latest = execution.rowAt(table.name, key, execution.latest)
    if (execution.isRepeatable && execution.isNewer(table.name, key)) {
      throw couldNotSerialize(latest === undefined && routine !== "ExecLockRows" ? "delete" : "update", routine)
    }
    if (latest !== undefined && holds(latest)) locked.push({ key, row: latest })
  }
  return locked
}

export const select = (base: Base, fields: Fields): Plan => {
  const compiled = compileSelect(base, fields)
  const { lock, sleep, table, where } = compiled
  return {
    _tag: "query",
    fields: compiled.fields,
    writes: lock === undefined || table === undefined ? undefined : "SELECT FOR UPDATE",
    isSelect: true,
    *run(execution) {
      if (sleep !== undefined) yield* execution.pause(sleep({ env: execution, rows: [] }))
      let rows: ReadonlyArray<ReadonlyArray<Value>>
      if (lock !== undefined && table !== undefined) {
        const locked = yield* lockRows(execution, table, where, lock, "ExecLockRows")
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
    const { location, name, val } = open(target)[1]
    const column = table.columns.find((column) => column.name === name)
    if (column === undefined) {
      const message = `column "${String(name)}" of relation "${table.name}" does not exist`
      throw errorAt(location, "42703", message, "transformUpdateTargetList")
    }
    return { name: column.name, value: as(compile(val, context), column.type) }
  })

/** A row that no key may be missing in. */
const checkKey = ({ columns, key, name }: Table, row: Row): void => {
  if (key === undefined || row[key] !== null) return
  const values = columns.map((column) => (row[column.name] === null ? "null" : String(row[column.name]))).join(", ")
  const message = `null value in column "${key}" of relation "${name}" violates not-null constraint`
  const details = { detail: `Failing row contains (${values}).`, schema: "public", table: name, column: key }
  throw new PgError("23502", message, "ReportNotNullViolationError", "ERROR", details)
}

type Resolve = (execution: Execution, key: string, old: Row) => Row | undefined

/** Adds a row. `resolve` says what becomes of one that is there; without it, that is an error. */
export function* insertRow(
  execution: Execution,
  table: Table,
  made: Row,
  resolve: Resolve | undefined
): Steps<Row | undefined> {
  checkKey(table, made)
  const key = table.key === undefined ? execution.nextKey() : String(made[table.key])
  yield* execution.lock(table.name, key, "wait")
  const old = execution.rowAt(table.name, key, execution.latest)
  if (old !== undefined && resolve === undefined) throw uniqueViolation(table, made)
  const row = old === undefined ? made : resolve!(execution, key, old)
  if (row !== undefined) execution.write({ table: table.name, key, row })
  return row
}

export const insert = (base: Base, fields: Fields): Plan => {
  const table = tableOf(base, inner(fields, "relation"))
  const values = list(open(fields.selectStmt)[1], "valuesLists")
  const named = list(fields, "cols").map((target) => {
    const { location, name } = open(target)[1]
    const column = table.columns.find((column) => column.name === name)
    if (column === undefined) {
      const message = `column "${String(name)}" of relation "${table.name}" does not exist`
      throw errorAt(location, "42703", message, "checkInsertTargets")
    }
    return column
  })
  const columns = named.length === 0 ? table.columns : named
  const none = contextOf(base, [])
  const rows = values.map((row) =>
    list(open(row)[1], "items").map((item, i) => as(compile(item, none), columns[i]!.type))
  )
  const sources = [{ name: table.name, columns: table.columns }]
  const conflict = inner(fields, "onConflictClause")
  const isIgnored = conflict?.action === "ONCONFLICT_NOTHING"
  const context = contextOf(base, [...sources, { name: "excluded", columns: table.columns }])
  const sets = conflict === undefined || isIgnored ? [] : setsOf(list(conflict, "targetList"), table, context)
  const returning = returningOf(fields, contextOf(base, sources))
  const resolve = (made: Row): Resolve | undefined =>
    conflict === undefined
      ? undefined
      : (execution, key, old) => {
          if (isIgnored) return undefined
          if (execution.isRepeatable && execution.isNewer(table.name, key)) {
            throw couldNotSerialize("update", "ExecOnConflictUpdate")
          }
          const scope = { env: execution, rows: [old, made] }
          return { ...old, ...Object.fromEntries(sets.map(({ name, value }) => [name, value.run(scope)])) }
        }
  return {
    _tag: "query",
    fields: returning.fields,
    writes: "INSERT",
    isSelect: false,
    *run(execution) {
      const done: Array<Row> = []
      for (const row of rows) {
        const made: Record<string, Value> = Object.fromEntries(table.columns.map(({ name }) => [name, null]))
        columns.forEach(({ name }, i) => {
          made[name] = row[i]!.run({ env: execution, rows: [] })
        })
        const result = yield* insertRow(execution, table, made, resolve(made))
        if (result !== undefined) done.push(result)
      }
      return { tag: `INSERT 0 ${done.length}`, rows: done.map((row) => returning.row(execution, row)) }
    }
  }
}

export const change = (base: Base, fields: Fields, verb: "UPDATE" | "DELETE"): Plan => {
  const table = tableOf(base, inner(fields, "relation"))
  const context = contextOf(base, [{ name: table.name, columns: table.columns }])
  const where = fields.whereClause === undefined ? undefined : compile(fields.whereClause, context)
  const sets = setsOf(list(fields, "targetList"), table, context)
  const returning = returningOf(fields, context)
  return {
    _tag: "query",
    fields: returning.fields,
    writes: verb,
    isSelect: false,
    *run(execution) {
      const locked = yield* lockRows(execution, table, where, "wait", verb === "UPDATE" ? "ExecUpdate" : "ExecDelete")
      const rows: Array<Row> = []
      for (const { key, row } of locked) {
        const scope = { env: execution, rows: [row] }
        const next: Row | undefined =
          verb === "DELETE"
            ? undefined
            : { ...row, ...Object.fromEntries(sets.map(({ name, value }) => [name, value.run(scope)])) }
        if (next !== undefined) checkKey(table, next)
        const isMoved = next !== undefined && table.key !== undefined && String(next[table.key]) !== key
        execution.write({ table: table.name, key, row: isMoved ? undefined : next })
        if (isMoved) yield* insertRow(execution, table, next, undefined)
        rows.push(next ?? row)
      }
      return { tag: `${verb} ${rows.length}`, rows: rows.map((row) => returning.row(execution, row)) }
    }
  }
}

/** What COPY moves: rows of a table, or of a query. */
export const copy = (base: Base, fields: Fields): Plan => {
  const isFrom = fields.is_from === true
  const query = inner(fields, "query")
  if (query !== undefined) {
    const compiled = compileSelect(base, open(query)[1])
    return { _tag: "copyOut", fields: compiled.fields, rows: compiled.rows }
  }
  const table = tableOf(base, inner(fields, "relation"), "RangeVarGetRelidExtended")
  const names = list(fields, "attlist").map((name) => text(open(name)[1], "sval"))
  const columns = names.length === 0 ? table.columns : table.columns.filter(({ name }) => names.includes(name))
  if (!isFrom) {
    const rows = (env: Env) => env.scan(table.name).map((row) => columns.map(({ name }) => row[name] ?? null))
    return { _tag: "copyOut", fields: columns, rows }
  }
  return {
    _tag: "copyIn",
    columns: columns.length,
    *add(execution, values) {
      const made: Record<string, Value> = Object.fromEntries(table.columns.map(({ name }) => [name, null]))
      columns.forEach(({ name, type }, i) => {
        const value = values[i] ?? null
        made[name] = value === null ? null : read(value, type)
      })
      yield* insertRow(execution, table, made, undefined)
    }
  }
}
