/**
 * The expressions that the texts of a run are made of, as functions. Not SQL: what is not here is an error that says so, so that
 * nothing passes by being misunderstood.
 */
import { constant, type Fields, inner, isFields, lastName, list, open, text, word } from "./Ast.js"
import { duringRecovery, errorAt, PgError, recoveryInProgress, unsupported } from "./PgError.js"
import type { Column, Row } from "./Store.js"
import { convert, longName, read, type Type, typeNamed, type Value } from "./Value.js"

/** What a server says of itself. */
export interface Facts {
  readonly isInRecovery: boolean
  readonly replayed: number
  readonly received: number
  /** What a server that was promoted goes on to say, too; `undefined` where there never was any. */
  readonly lastReplayed: number | undefined
  readonly lastReceived: number | undefined
  readonly inserted: number
  readonly written: number
  readonly timeline: number
  /** `undefined` without a receiver, or for a role that may not see it. */
  readonly receivedTimeline: number | undefined
  readonly hasReceiver: boolean
  readonly minRecoveryEndTimeline: number
  readonly checkpointTimeline: number
  readonly system: string
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly now: number
  readonly host: string
  readonly activity: ReadonlyArray<Activity>
}

/** What a session does, for `pg_stat_activity`. */
export interface Activity {
  readonly pid: number
  readonly user: string
  readonly application: string
  readonly state: string | undefined
  /** What kind of thing it waits for. */
  readonly waitsFor: string | undefined
}

/** What an expression can reach. */
export interface Env {
  readonly facts: Facts
  /** As values of the types that the statement has for them. */
  readonly params: ReadonlyArray<Value>
  readonly pid: number
  setting(name: string): string | undefined
  setConfig(name: string, value: string, isLocal: boolean): void
  notify(channel: string, payload: string): void
  notice(error: PgError): void
  readonly xid: number | undefined
  signal(pid: number, how: "cancel" | "terminate"): boolean
  /** The rows of a subselect. */
  scan(table: string): ReadonlyArray<Row>
}

export interface Scope {
  readonly env: Env
  /** One row of each source. */
  readonly rows: ReadonlyArray<Row>
  /** The rows that an aggregate is over. */
  readonly group?: ReadonlyArray<Scope> | undefined
}

export interface Source {
  readonly name: string
  readonly columns: ReadonlyArray<Column>
}

export interface Expression {
  readonly type: Type
  readonly name: string
  readonly run: (scope: Scope) => Value
  readonly isAggregate?: boolean
  /** Of a record: its columns. */
  readonly columns?: ReadonlyArray<Column>
  /** It is the same for every row. */
  readonly isConstant?: boolean
  /** Of a parameter whose type is not known yet: hears of it. */
  readonly resolve?: ((type: Type) => void) | undefined
  /** Of a constant in quotes, which has no type of its own. */
  readonly literal?: { readonly text: string; readonly location: unknown } | undefined
}

/** What is found out of a statement while its expressions are compiled. */
export interface Statement {
  /** The types of its parameters. */
  readonly params: Array<Type | undefined>
  /** What the planner works out before the statement runs. */
  readonly folds: Array<(scope: Scope) => Value>
}

/** What compiling one expression needs to know. */
export interface Context {
  readonly statement: Statement
  readonly sources: ReadonlyArray<Source>
  readonly subselect: (fields: Fields) => {
    readonly type: Type
    readonly name: string
    readonly run: (env: Env) => Value
  }
}

const readLiteral = (text: string, type: Type, location: unknown): Value => {
  try {
    return read(text, type)
  } catch (error) {
    if (!(error instanceof PgError)) throw error
    const { code, details, message, routine } = error
    throw new PgError(code, message, routine, "ERROR", { ...details, position: Number(location ?? 0) + 1 })
  }
}

export const as = (expression: Expression, type: Type): Expression => {
  if (expression.type === type) return expression
  const { literal, resolve, run, ...rest } = expression
  if (type === "unknown") return expression
  if (resolve !== undefined) {
    // Its value is bound as one of this type.
    resolve(type)
    return { ...rest, type, run }
  }
  if (literal !== undefined) {
    const value = readLiteral(literal.text, type, literal.location)
    return { ...rest, type, run: () => value }
  }
  return { ...rest, type, run: (scope) => convert(run(scope), expression.type, type) }
}

const fileName = (facts: Facts, position: number): string => {
  const hex = (n: number) => n.toString(16).toUpperCase().padStart(8, "0")
  const segments = Math.floor(position / (16 * 1024 * 1024))
  return hex(facts.timeline) + hex(Math.floor(segments / 256)) + hex(segments % 256)
}

interface Builtin {
  readonly type: Type
  readonly args?: ReadonlyArray<Type>
  readonly run: (env: Env, ...args: ReadonlyArray<Value>) => Value
  readonly columns?: ReadonlyArray<Column>
  /** What it returns depends on its arguments alone, so that the planner may call it. */
  readonly isImmutable?: boolean
}

const receiverColumns: ReadonlyArray<Column> = [
  { name: "pid", type: "int4" },
  { name: "status", type: "text" },
  { name: "received_tli", type: "int4" },
  { name: "flushed_lsn", type: "pg_lsn" },
  { name: "sender_host", type: "text" }
]

const receiver = ({ facts }: Env): Row => {
  const isSeen = facts.hasReceiver && facts.receivedTimeline !== undefined
  return {
    pid: facts.hasReceiver ? 77 : null,
    status: isSeen ? "streaming" : null,
    received_tli: facts.receivedTimeline ?? null,
    flushed_lsn: isSeen ? facts.received : null,
    sender_host: null
  }
}

/** Functions that return rows. */
export const rowFunctions: Readonly<
  Record<string, { readonly columns: ReadonlyArray<Column>; readonly rows: (env: Env) => ReadonlyArray<Row> }>
> = {
  pg_control_system: {
    columns: [
      { name: "pg_control_version", type: "int4" },
      { name: "system_identifier", type: "int8" }
    ],
    rows: ({ facts }) => [{ pg_control_version: 1800, system_identifier: facts.system }]
  },
  pg_control_recovery: {
    columns: [
      { name: "min_recovery_end_lsn", type: "pg_lsn" },
      { name: "min_recovery_end_timeline", type: "int4" }
    ],
    rows: ({ facts }) => [
      {
        min_recovery_end_lsn: facts.isInRecovery ? facts.replayed : 0,
        min_recovery_end_timeline: facts.isInRecovery ? facts.minRecoveryEndTimeline : 0
      }
    ]
  },
  pg_control_checkpoint: {
    columns: [
      { name: "timeline_id", type: "int4" },
      { name: "prev_timeline_id", type: "int4" }
    ],
    rows: ({ facts }) => [{ timeline_id: facts.checkpointTimeline, prev_timeline_id: facts.checkpointTimeline }]
  },
  pg_stat_wal_receiver: {
    columns: receiverColumns,
    rows: (env) => (env.facts.hasReceiver ? [receiver(env)] : [])
  },
  pg_stat_activity: {
    columns: [
      { name: "pid", type: "int4" },
      { name: "usename", type: "name" },
      { name: "application_name", type: "text" },
      { name: "state", type: "text" },
      { name: "wait_event_type", type: "text" }
    ],
    rows: ({ facts }) =>
      facts.activity.map(({ application, pid, state, user, waitsFor }) => ({
        pid,
        usename: user,
        application_name: application,
        state: state ?? null,
        wait_event_type: waitsFor ?? null
      }))
  },
  pg_stat_get_wal_receiver: { columns: receiverColumns, rows: (env) => [receiver(env)] }
}

const primaryOnly = (name: string, read: (facts: Facts, ...args: ReadonlyArray<Value>) => Value): Builtin["run"] =>
  function run({ facts }, ...args) {
    if (facts.isInRecovery) throw recoveryInProgress(name)
    return read(facts, ...args)
  }

const builtins: Readonly<Record<string, Builtin>> = {
  pg_is_in_recovery: { type: "bool", run: ({ facts }) => facts.isInRecovery },
  pg_last_wal_replay_lsn: { type: "pg_lsn", run: ({ facts }) => facts.lastReplayed ?? null },
  pg_last_wal_receive_lsn: { type: "pg_lsn", run: ({ facts }) => facts.lastReceived ?? null },
  pg_current_wal_insert_lsn: {
    type: "pg_lsn",
    run: primaryOnly("pg_current_wal_insert_lsn", ({ inserted }) => inserted)
  },
  pg_current_wal_lsn: { type: "pg_lsn", run: primaryOnly("pg_current_wal_lsn", ({ written }) => written) },
  pg_current_wal_flush_lsn: { type: "pg_lsn", run: primaryOnly("pg_current_wal_flush_lsn", ({ written }) => written) },
  pg_walfile_name: {
    type: "text",
    isImmutable: true,
    args: ["pg_lsn"],
    run: primaryOnly("pg_walfile_name", (facts, position) => fileName(facts, Number(position)))
  },
  pg_postmaster_start_time: { type: "timestamptz", run: ({ facts }) => facts.startedAt },
  pg_backend_pid: { type: "int4", run: ({ pid }) => pid },
  now: { type: "timestamptz", run: ({ facts }) => facts.now },
  clock_timestamp: { type: "timestamptz", run: ({ facts }) => facts.now },
  transaction_timestamp: { type: "timestamptz", run: ({ facts }) => facts.now },
  version: { type: "text", run: () => "PostgreSQL 18.4 (simulated)" },
  current_database: { type: "name", run: () => "shop" },
  inet_server_addr: { type: "text", run: ({ facts }) => facts.host },
  pg_current_xact_id_if_assigned: { type: "xid8", run: ({ xid }) => xid ?? null },
  extract: {
    type: "numeric",
    args: ["text", "timestamptz"],
    run: (_, field, value) => {
      if (field !== "epoch") throw unsupported(`extract(${String(field)})`)
      return value === null ? null : Number(value) / 1000
    }
  },
  substr: {
    type: "text",
    isImmutable: true,
    args: ["text", "int4", "int4"],
    run: (_, value, from, length) =>
      value === null
        ? null
        : String(value).slice(Number(from) - 1, length === undefined ? undefined : Number(from) - 1 + Number(length))
  },
  repeat: {
    type: "text",
    isImmutable: true,
    args: ["text", "int4"],
    run: (_, value, times) => String(value).repeat(Number(times))
  },
  current_setting: {
    type: "text",
    args: ["text", "bool"],
    run: (env, name, isMissingOk) => {
      const value = env.setting(String(name))
      if (value === undefined && isMissingOk !== true) {
        throw new PgError("42704", `unrecognized configuration parameter "${String(name)}"`, "find_option")
      }
      return value ?? null
    }
  },
  set_config: {
    type: "text",
    args: ["text", "text", "bool"],
    run: (env, name, value, isLocal) => {
      env.setConfig(String(name), String(value ?? ""), isLocal === true)
      return String(value ?? "")
    }
  },
  pg_notify: {
    type: "void",
    args: ["text", "text"],
    run: (env, channel, payload) => {
      if (env.facts.isInRecovery) throw duringRecovery("NOTIFY")
      env.notify(String(channel), String(payload ?? ""))
      return ""
    }
  },
  pg_sleep: { type: "void", args: ["float8"], run: () => "" },
  pg_cancel_backend: { type: "bool", args: ["int4"], run: (env, pid) => env.signal(Number(pid), "cancel") },
  pg_terminate_backend: { type: "bool", args: ["int4"], run: (env, pid) => env.signal(Number(pid), "terminate") }
}

const aggregates: Readonly<
  Record<string, { readonly type: Type | undefined; readonly run: (values: ReadonlyArray<Value>) => Value }>
> = {
  count: { type: "int8", run: (values) => values.length },
  sum: {
    type: "int8",
    run: (values) => (values.length === 0 ? null : values.reduce<number>((sum, one) => sum + Number(one), 0))
  },
  max: {
    type: undefined,
    run: (values) => values.reduce<Value>((best, one) => (best === null || one! > best ? one : best), null)
  },
  min: {
    type: undefined,
    run: (values) => values.reduce<Value>((best, one) => (best === null || one! < best ? one : best), null)
  }
}

const numeric = new Set<Type>(["int4", "int8", "float8", "numeric"])

/** What two sides of an operator have in common. */
const common = (left: Type, right: Type): Type => {
  if (left === right) return left
  if (left === "unknown") return right
  if (right === "unknown") return left
  if (numeric.has(left) && numeric.has(right)) {
    return (["float8", "numeric", "int8", "int4"] as const).find((type) => type === left || type === right)!
  }
  return left === "name" ? "text" : left
}

const isNumber = (value: Value): value is number | bigint => typeof value === "number" || typeof value === "bigint"

const isComparable = (left: Type, right: Type): boolean =>
  left === right ||
  left === "unknown" ||
  right === "unknown" ||
  (numeric.has(left) && numeric.has(right)) ||
  (["text", "name"].includes(left) && ["text", "name"].includes(right)) ||
  left === "record" ||
  right === "record" ||
  (left === "pg_lsn" && numeric.has(right))

const compare = (one: Value, other: Value): number =>
  one === other ? 0 : isNumber(one) && isNumber(other) ? (one < other ? -1 : 1) : String(one) < String(other) ? -1 : 1

const comparisons: Readonly<Record<string, (order: number) => boolean>> = {
  "=": (order) => order === 0,
  "<>": (order) => order !== 0,
  "<": (order) => order < 0,
  ">": (order) => order > 0,
  "<=": (order) => order <= 0,
  ">=": (order) => order >= 0
}

const arithmetic: Readonly<Record<string, (one: number, other: number) => number>> = {
  "+": (one, other) => one + other,
  "-": (one, other) => one - other,
  "*": (one, other) => one * other
}

const dividers: Partial<Record<Type, string>> = {
  int4: "int4div",
  int8: "int8div",
  float8: "float_zero_divide_error",
  numeric: "div_var"
}

const mixedDividers: Readonly<Record<string, string>> = { "int4/int8": "int48div", "int8/int4": "int84div" }

const divide = (one: number, other: number, type: Type, routine: string | undefined): number => {
  if (other === 0) throw new PgError("22012", "division by zero", routine ?? dividers[type] ?? "")
  return type === "int4" || type === "int8" ? Math.trunc(one / other) : one / other
}

const overflows: Readonly<Record<string, string>> = { "+": "int4pl", "-": "int4mi", "*": "int4mul" }

const inRange = (value: number, type: Type, operator: string): number => {
  if (type === "int4" && (value > 2147483647 || value < -2147483648)) {
    throw new PgError("22003", "integer out of range", overflows[operator]!)
  }
  return value
}

const operator = (
  name: string,
  left: Expression,
  right: Expression,
  context: Context,
  location: unknown
): Expression => {
  if (name === "||") {
    const [one, other] = [as(left, "text"), as(right, "text")]
    return {
      type: "text",
      name: "?column?",
      run: (scope) => {
        const [a, b] = [one.run(scope), other.run(scope)]
        return a === null || b === null ? null : `${String(a)}${String(b)}`
      }
    }
  }
  const found = common(left.type, right.type)
  const shared = found === "unknown" ? "text" : found
  if (!isComparable(left.type, right.type)) {
    const types = `${longName(left.type)} ${name} ${longName(right.type)}`
    throw new PgError("42883", `operator does not exist: ${types}`, "op_error", "ERROR", {
      hint: "No operator matches the given name and argument types. You might need to add explicit type casts.",
      position: Number(location ?? 0) + 1
    })
  }
  const [one, other] = [as(left, shared), as(right, shared)]
  const isConstant = left.isConstant === true && right.isConstant === true
  const both = (type: Type, compute: (a: Value, b: Value) => Value): Expression => {
    const run = (scope: Scope) => {
      const [a, b] = [one.run(scope), other.run(scope)]
      return a === null || b === null ? null : compute(a, b)
    }
    if (isConstant) context.statement.folds.push(run)
    const isAggregate = left.isAggregate === true || right.isAggregate === true
    return { type, name: "?column?", isAggregate, isConstant, run }
  }
  const holds = comparisons[name]
  if (holds !== undefined) return both("bool", (a, b) => holds(compare(a, b)))
  if (name === "/") {
    const routine = mixedDividers[`${left.type}/${right.type}`]
    return both(shared, (a, b) => divide(Number(a), Number(b), shared, routine))
  }
  const compute = arithmetic[name]
  if (compute === undefined) throw unsupported(`the operator ${name}`)
  return both(shared === "pg_lsn" ? "numeric" : shared, (a, b) => inRange(compute(Number(a), Number(b)), shared, name))
}

const not = (value: Value): Value => (value === null ? null : value !== true)

const isNamed = (node: unknown): boolean => ["ColumnRef", "FuncCall", "TypeCast"].includes(open(node)[0])

const nullOf = (name: string): Expression => ({ type: "unknown", name, run: () => null })

export const compile = (node: unknown, context: Context): Expression => {
  const [tag, fields] = open(node)
  switch (tag) {
    case "A_Const": {
      const value = constant(fields)
      if (value === undefined) return nullOf("?column?")
      const type = ({ text: "unknown", int: "int4", float: "numeric", bool: "bool" } as const)[value.kind]
      const result = convert(value.text, "unknown", type)
      return {
        type,
        name: "?column?",
        isConstant: true,
        literal: type === "unknown" ? { text: value.text, location: fields.location } : undefined,
        run: () => result
      }
    }
    case "ParamRef": {
      const index = Number(fields.number ?? 0) - 1
      const { params } = context.statement
      while (params.length <= index) params.push(undefined)
      const known = params[index]
      return {
        type: known ?? "unknown",
        name: "?column?",
        isConstant: true,
        resolve:
          known === undefined
            ? (type) => {
                params[index] ??= type
              }
            : undefined,
        run: ({ env }) => env.params[index] ?? null
      }
    }
    case "ColumnRef":
      return column(list(fields, "fields").map(word), context, fields.location)
    case "TypeCast": {
      const arg = compile(fields.arg, context)
      const target = inner(fields, "typeName") ?? {}
      const name = lastName(list(target, "names"))
      const element = typeNamed(name)
      const type = element !== undefined && list(target, "arrayBounds").length > 0 ? (`${element}[]` as Type) : element
      if (type === undefined) throw unsupported(`the type ${name}`)
      return { ...as(arg, type), name: isNamed(fields.arg) ? arg.name : name }
    }
    case "FuncCall":
      return call(fields, context)
    case "CoalesceExpr": {
      const args = list(fields, "args").map((arg) => compile(arg, context))
      const found = args.reduce<Type>((type, arg) => common(type, arg.type), "unknown")
      const type = found === "unknown" ? "text" : found
      const same = args.map((arg) => as(arg, type))
      return {
        type,
        name: "coalesce",
        isAggregate: args.some((arg) => arg.isAggregate === true),
        run: (scope) => {
          for (const arg of same) {
            const value = arg.run(scope)
            if (value !== null) return value
          }
          return null
        }
      }
    }
    case "CaseExpr":
      return caseOf(fields, context)
    case "NullTest": {
      const arg = compile(fields.arg, context)
      const isNull = fields.nulltesttype === "IS_NULL"
      return { type: "bool", name: "?column?", run: (scope) => (arg.run(scope) === null) === isNull }
    }
    case "BooleanTest": {
      const arg = compile(fields.arg, context)
      const wanted = fields.booltesttype === "IS_TRUE"
      return { type: "bool", name: "?column?", run: (scope) => (arg.run(scope) === true) === wanted }
    }
    case "BoolExpr": {
      const args = list(fields, "args").map((arg) => compile(arg, context))
      const kind = fields.boolop
      return {
        type: "bool",
        name: "?column?",
        run: (scope) => {
          if (kind === "NOT_EXPR") return not(args[0]!.run(scope))
          // What decides, whatever is unknown.
          const decisive = kind === "OR_EXPR"
          let isKnown = true
          for (const arg of args) {
            const value = arg.run(scope)
            if (value === decisive) return decisive
            if (value === null) isKnown = false
          }
          return isKnown ? !decisive : null
        }
      }
    }
    case "A_Expr":
      return expression(fields, context)
    case "A_Indirection": {
      const arg = compile(fields.arg, context)
      const name = word(list(fields, "indirection")[0])
      const found = arg.columns?.find((column) => column.name === name)
      if (found === undefined) throw unsupported(`the field ${name} of a record`)
      return {
        type: found.type,
        name,
        run: (scope) => {
          const row = arg.run(scope) as unknown
          return isFields(row) ? (row[name] as Value) : null
        }
      }
    }
    case "SubLink": {
      const select = context.subselect(open(fields.subselect)[1])
      if (fields.subLinkType === "EXISTS_SUBLINK") throw unsupported("EXISTS")
      return { type: select.type, name: select.name, run: ({ env }) => select.run(env) }
    }
    case "SQLValueFunction":
      return { type: "text", name: "current_user", run: () => "app" }
    default:
      throw unsupported(`an expression ${tag}`)
  }
}

const column = (names: ReadonlyArray<string>, { sources }: Context, location: unknown): Expression => {
  const name = names[names.length - 1]!
  const found = sources.flatMap((source, index) => {
    if (names.length > 1 && names[names.length - 2] !== source.name) return []
    const column = source.columns.find((column) => column.name === name)
    return column === undefined ? [] : [{ index, type: column.type }]
  })
  // Columns of the row that is there, and of the one that would be, have the same names.
  if (found.length > 1 && sources[1]?.name !== "excluded") {
    throw errorAt(location, "42702", `column reference "${name}" is ambiguous`, "colNameToVar")
  }
  if (found.length > 0) {
    const { index, type } = found[0]!
    return { type, name, run: ({ rows }) => rows[index]![name] ?? null }
  }
  const isQualified = names.length > 1
  if (isQualified && !sources.some((source) => source.name === names[names.length - 2])) {
    const message = `missing FROM-clause entry for table "${names[names.length - 2]}"`
    throw errorAt(location, "42P01", message, "errorMissingRTE")
  }
  const what = isQualified ? `column ${names.join(".")}` : `column "${name}"`
  throw errorAt(location, "42703", `${what} does not exist`, "errorMissingColumn")
}

const call = (fields: Fields, context: Context): Expression => {
  const name = lastName(list(fields, "funcname"))
  const args = list(fields, "args").map((arg) => compile(arg, context))
  const aggregate = aggregates[name]
  if (aggregate !== undefined) {
    const [arg] = args
    return {
      type: aggregate.type ?? arg?.type ?? "int8",
      name,
      isAggregate: true,
      run: ({ group = [] }) =>
        aggregate.run(arg === undefined ? group.map(() => 1) : group.map(arg.run).filter((one) => one !== null))
    }
  }
  const rows = rowFunctions[name]
  if (rows !== undefined) {
    return {
      type: "record",
      name,
      columns: rows.columns,
      run: ({ env }) => (rows.rows(env)[0] ?? null) as unknown as Value
    }
  }
  const builtin = Object.hasOwn(builtins, name) ? builtins[name] : undefined
  if (builtin === undefined) {
    const types = args.map(({ type }) => longName(type)).join(", ")
    throw new PgError("42883", `function ${name}(${types}) does not exist`, "ParseFuncOrColumn", "ERROR", {
      hint: "No function matches the given name and argument types. You might need to add explicit type casts.",
      position: Number(fields.location ?? 0) + 1
    })
  }
  const typed = args.map((arg, i) => as(arg, builtin.args?.[i] ?? arg.type))
  const run = (scope: Scope) => builtin.run(scope.env, ...typed.map((arg) => arg.run(scope)))
  const isConstant = builtin.isImmutable === true && typed.every((arg) => arg.isConstant === true)
  if (isConstant) context.statement.folds.push(run)
  return { type: builtin.type, name, isConstant, run }
}

const caseOf = (fields: Fields, context: Context): Expression => {
  const branches = list(fields, "args").map((arg) => {
    const when = open(arg)[1]
    return { when: compile(when.expr, context), result: compile(when.result, context) }
  })
  const otherwise = fields.defresult === undefined ? nullOf("case") : compile(fields.defresult, context)
  const type = branches.reduce<Type>((type, { result }) => common(type, result.type), otherwise.type)
  const typed = branches.map(({ result, when }) => ({ when, result: as(result, type) }))
  const last = as(otherwise, type)
  return {
    type,
    name: "case",
    run: (scope) => (typed.find(({ when }) => when.run(scope) === true)?.result ?? last).run(scope)
  }
}

const expression = (fields: Fields, context: Context): Expression => {
  const name = lastName(list(fields, "name"))
  const left = compile(fields.lexpr ?? { A_Const: { ival: {} } }, context)
  if (fields.kind === "AEXPR_BETWEEN") {
    const [from, to] = list(open(fields.rexpr)[1], "items").map((item) => compile(item, context))
    const lower = operator(">=", left, from!, context, fields.location)
    const upper = operator("<=", left, to!, context, fields.location)
    return {
      type: "bool",
      name: "?column?",
      run: (scope) => {
        const both = [lower.run(scope), upper.run(scope)]
        return both.includes(false) ? false : both.includes(null) ? null : true
      }
    }
  }
  if (fields.kind === "AEXPR_IN") {
    const items = list(open(fields.rexpr)[1], "items").map((item) =>
      operator("=", left, compile(item, context), context, fields.location)
    )
    return {
      type: "bool",
      name: "?column?",
      run: (scope) => {
        const found = items.map((item) => item.run(scope))
        const isIn = found.includes(true) ? true : found.includes(null) ? null : false
        return name === "=" ? isIn : not(isIn)
      }
    }
  }
  const right = compile(fields.rexpr, context)
  if (fields.kind === "AEXPR_NULLIF") {
    const same = operator("=", left, right, context, fields.location)
    return { type: left.type, name: "nullif", run: (scope) => (same.run(scope) === true ? null : left.run(scope)) }
  }
  if (fields.kind === "AEXPR_OP_ANY") {
    const array = as(right, left.type === "int4" ? "int4[]" : "text[]")
    return {
      type: "bool",
      name: "?column?",
      run: (scope) => {
        const value = left.run(scope)
        const items = array.run(scope)
        return Array.isArray(items) && items.some((item) => compare(item as Value, value) === 0)
      }
    }
  }
  if (fields.kind !== "AEXPR_OP") throw unsupported(`an expression ${text(fields, "kind")}`)
  return operator(name, left, right, context, fields.location)
}
