import type { Finding } from "./finding.js"
import { schemaChange, write } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import { dataModifying } from "./statements.js"

type Fields = Readonly<Record<string, unknown>>

/** The names of the common table expressions that a place in the statement sees. */
interface Scope {
  readonly name: string
  readonly outer: Scope | undefined
}

/** One walk over one SELECT. It goes on after a `session` finding, because a `write` outranks it, and one that was shown outranks a guess. */
interface Walk {
  readonly knowledge: Knowledge
  finding: Finding | undefined
  /** A function in FROM can make an alias stand for a value that is not a row. */
  functionInFrom: boolean
  scalarAttribute: Finding | undefined
}

/** Returns whether the walk is over. */
type Visit = (fields: Fields, walk: Walk, scope: Scope | undefined) => boolean

/** Why this SELECT (the fields of a SelectStmt node) is not a read; `undefined` if it is one. */
export const findingOf = (select: Fields, knowledge: Knowledge): Finding | undefined => {
  if (knowledge.everywhere !== undefined) return knowledge.everywhere
  const walk: Walk = { knowledge, finding: undefined, functionInFrom: false, scalarAttribute: undefined }
  visitSelect(select, walk, undefined)
  if (walk.functionInFrom) report(walk, walk.scalarAttribute)
  return walk.finding
}

const report = (walk: Walk, finding: Finding | undefined): boolean => {
  if (finding === undefined) return false
  if (finding.kind === "write") {
    const isShown = finding.guess === undefined
    if (isShown || walk.finding?.kind !== "write") walk.finding = finding
    return isShown
  }
  walk.finding ??= finding
  return false
}

/**
 * Everything below a node. A key that starts with a capital is the tag of a node; a tag that is unknown here is not shown to
 * be harmless.
 */
const visitFields: Visit = (fields, walk, scope) => {
  for (const key in fields) {
    const value = fields[key]
    if (typeof value === "object" && value !== null && visitBelow(key)(value as Fields, walk, scope)) return true
  }
  return false
}

const visitBelow = (key: string): Visit => {
  const code = key.charCodeAt(0)
  if (code >= 65 && code <= 90) return visitors.get(key) ?? visitUnknown(key)
  return key === "typeName" ? visitTypeName : visitValue
}

/** What a field holds: a list of nodes, a node, or the fields of one. */
const visitValue: Visit = (value, walk, scope) => {
  if (!Array.isArray(value)) return visitFields(value, walk, scope)
  for (let i = 0; i < value.length; i++) if (visitFields(value[i], walk, scope)) return true
  return false
}

const visitUnknown =
  (tag: string): Visit =>
  (_, walk) =>
    report(walk, { ...write(`unknown syntax ${tag}`), guess: "text" })

const leaf: Visit = () => false

const visitSelect: Visit = (fields, walk, outer) => {
  const into = fields.intoClause as { readonly rel?: { readonly relpersistence?: string } } | undefined
  if (into !== undefined) {
    return report(walk, into.rel?.relpersistence === "t" ? write("SELECT INTO") : schemaChange("SELECT INTO"))
  }
  const withClause = fields.withClause as WithClause | undefined
  let scope = outer
  if (withClause?.ctes !== undefined) {
    const all = withClause.ctes.map((cte) => cte.CommonTableExpr)
    if (withClause.recursive === true) scope = all.reduce(within, scope)
    for (const cte of all) {
      if (visitFields(cte as unknown as Fields, walk, scope)) return true
      if (withClause.recursive !== true) scope = within(scope, cte)
    }
  }
  for (const key in fields) {
    const value = fields[key]
    if (typeof value !== "object" || value === null || key === "withClause") continue
    // The arms of a set operation are bare SelectStmt fields; those of a JoinExpr are nodes.
    const visit = key === "larg" || key === "rarg" ? visitSelect : visitBelow(key)
    if (visit(value as Fields, walk, scope)) return true
  }
  return false
}

interface CommonTableExpr {
  readonly ctename: string
}

interface WithClause {
  readonly recursive?: boolean
  readonly ctes?: ReadonlyArray<{ readonly CommonTableExpr: CommonTableExpr }>
}

const within = (outer: Scope | undefined, cte: CommonTableExpr): Scope => ({ name: cte.ctename, outer })

type NameList = ReadonlyArray<{ readonly String?: { readonly sval?: string } }>

const part = (names: unknown, fromEnd: number): string | undefined => {
  if (!Array.isArray(names)) return undefined
  return (names as NameList)[names.length - fromEnd]?.String?.sval
}

const visitFunction: Visit = (fields, walk, scope) => {
  const name = part(fields.funcname, 1) ?? ""
  const args = Array.isArray(fields.args) ? fields.args.length : 0
  if (report(walk, walk.knowledge.function(part(fields.funcname, 2), name, args))) return true
  return visitFields(fields, walk, scope)
}

const visitRelation: Visit = (fields, walk, scope) => {
  const schema = fields.schemaname as string | undefined
  const name = fields.relname as string
  if (schema === undefined) {
    for (let cte = scope; cte !== undefined; cte = cte.outer) if (cte.name === name) return false
  }
  return report(walk, walk.knowledge.relation(schema, name))
}

const visitTypeName: Visit = (fields, walk, scope) => {
  const name = part(fields.names, 1)
  if (name !== undefined && report(walk, walk.knowledge.type(part(fields.names, 2), name))) return true
  return visitFields(fields, walk, scope)
}

const checkOperator = (names: unknown, walk: Walk): boolean => {
  const name = part(names, 1)
  return name !== undefined && report(walk, walk.knowledge.operator(part(names, 2), name))
}

const checkEquals = (walk: Walk) => report(walk, walk.knowledge.operator(undefined, "="))

const visitOperator: Visit = (fields, walk, scope) => {
  const kind = fields.kind as string
  if (kind.includes("BETWEEN")) {
    if (report(walk, walk.knowledge.operator(undefined, ">="))) return true
    if (report(walk, walk.knowledge.operator(undefined, "<="))) return true
    if (report(walk, walk.knowledge.operator(undefined, "<"))) return true
    if (report(walk, walk.knowledge.operator(undefined, ">"))) return true
  } else if (checkOperator(fields.name, walk)) return true
  return visitFields(fields, walk, scope)
}

const visitSubLink: Visit = (fields, walk, scope) => {
  if (fields.operName !== undefined && checkOperator(fields.operName, walk)) return true
  return (fields.testexpr !== undefined && checkEquals(walk)) || visitFields(fields, walk, scope)
}

const visitSort: Visit = (fields, walk, scope) => checkOperator(fields.useOp, walk) || visitFields(fields, walk, scope)

/** JOIN ... USING, NATURAL JOIN and CASE x WHEN y compare with `=`. */
const visitComparing: Visit = (fields, walk, scope) => checkEquals(walk) || visitFields(fields, walk, scope)

/** Functional notation (PostgreSQL manual, 4.2.4): `(value).f`. */
const visitIndirection: Visit = (fields, walk, scope) => {
  for (const step of fields.indirection as NameList) {
    const name = step.String?.sval
    if (name !== undefined && report(walk, walk.knowledge.attribute(name)?.finding)) return true
  }
  return visitFields(fields, walk, scope)
}

/** `t.f` where `t` has no column `f` calls f(t). */
const visitColumn: Visit = (fields, walk) => {
  const names = fields.fields as NameList
  const name = names.length > 1 ? part(names, 1) : undefined
  const attribute = name === undefined ? undefined : walk.knowledge.attribute(name)
  if (attribute === undefined) return false
  if (!attribute.scalar) return report(walk, attribute.finding)
  walk.scalarAttribute ??= attribute.finding
  return false
}

const visitFunctionInFrom: Visit = (fields, walk, scope) => {
  walk.functionInFrom = true
  return visitFields(fields, walk, scope)
}

/** A constructor of JSON: PostgreSQL before 16 and 17 calls a user's function of that name. */
const visitJson =
  (name: string): Visit =>
  (fields, walk, scope) =>
    report(walk, walk.knowledge.syntax(name)) || visitFields(fields, walk, scope)

/** `op` is JSON_EXISTS_OP, JSON_QUERY_OP or JSON_VALUE_OP. */
const visitJsonQuery: Visit = (fields, walk, scope) =>
  visitJson(String(fields.op).replace(/_OP$/, "").toLowerCase())(fields, walk, scope)

const visitSample: Visit = (fields, walk, scope) =>
  report(walk, walk.knowledge.samplingMethod(part(fields.method, 2), part(fields.method, 1) ?? "")) ||
  visitFields(fields, walk, scope)

const strengths: Readonly<Record<string, string>> = {
  LCS_FORKEYSHARE: "FOR KEY SHARE",
  LCS_FORSHARE: "FOR SHARE",
  LCS_FORNOKEYUPDATE: "FOR NO KEY UPDATE",
  LCS_FORUPDATE: "FOR UPDATE"
}

const visitLocking: Visit = (fields, walk) =>
  report(walk, write(`locking clause ${strengths[fields.strength as string] ?? "FOR UPDATE"}`))

const visitors: ReadonlyMap<string, Visit> = new Map<string, Visit>([
  ...["A_Const", "A_Star", "BitString", "Boolean", "Float", "Integer", "ParamRef", "SQLValueFunction", "String"].map(
    (tag) => [tag, leaf] as const
  ),
  ...[
    ...["A_ArrayExpr", "A_Indices", "BoolExpr", "BooleanTest", "CTECycleClause", "CTESearchClause", "CoalesceExpr"],
    ...["CaseWhen", "CollateClause", "ColumnDef", "GroupingFunc", "GroupingSet"],
    ...["JsonAggConstructor", "JsonArgument", "JsonBehavior", "JsonFormat", "JsonIsPredicate", "JsonKeyValue"],
    ...["JsonOutput", "JsonReturning", "JsonTable", "JsonTableColumn"],
    ...["JsonTablePathSpec", "JsonValueExpr", "List", "MinMaxExpr", "NamedArgExpr", "NullTest", "RangeSubselect"],
    ...["RangeTableFunc", "RangeTableFuncCol", "ResTarget", "RowExpr", "SetToDefault", "TypeCast", "WindowDef"],
    ...["XmlExpr", "XmlSerialize"]
  ].map((tag) => [tag, visitFields] as const),
  ...[...dataModifying].map(
    ([tag, label]) =>
      [tag, ((_, walk) => report(walk, write(`data-modifying CTE (${label})`))) satisfies Visit] as const
  ),
  ["A_Expr", visitOperator],
  ["A_Indirection", visitIndirection],
  ["CaseExpr", visitComparing],
  ["ColumnRef", visitColumn],
  ["FuncCall", visitFunction],
  ["JoinExpr", visitComparing],
  ["JsonArrayAgg", visitJson("json_arrayagg")],
  ["JsonArrayConstructor", visitJson("json_array")],
  ["JsonArrayQueryConstructor", visitJson("json_array")],
  ["JsonFuncExpr", visitJsonQuery],
  ["JsonObjectAgg", visitJson("json_objectagg")],
  ["JsonObjectConstructor", visitJson("json_object")],
  ["JsonParseExpr", visitJson("json")],
  ["JsonScalarExpr", visitJson("json_scalar")],
  ["JsonSerializeExpr", visitJson("json_serialize")],
  ["LockingClause", visitLocking],
  ["RangeFunction", visitFunctionInFrom],
  ["RangeTableSample", visitSample],
  ["RangeVar", visitRelation],
  ["SelectStmt", visitSelect],
  ["SortBy", visitSort],
  ["SubLink", visitSubLink],
  ["TypeName", visitTypeName]
])
