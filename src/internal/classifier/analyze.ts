import type { Verdict } from "./finding.js"
import { schemaChange, session, write } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import type { Parsed } from "./parser.js"
import { byTag } from "./statements.js"
import { findingOf } from "./walk.js"

type Fields = Readonly<Record<string, unknown>>

const none = session("no statement")

/** The whole text: a write if any statement is one, else a session statement if any is one. */
export const analyze = (parsed: Parsed, knowledge: Knowledge): Verdict => {
  const statements = parsed.stmts ?? []
  if (statements.length === 0) return none
  let verdict = analyzeStatement(statements[0]?.stmt, knowledge)
  for (let i = 1; i < statements.length; i++) verdict = worse(verdict, analyzeStatement(statements[i]?.stmt, knowledge))
  return verdict
}

const rank = { read: 0, session: 1, write: 2 }

const worse = (a: Verdict, b: Verdict): Verdict => {
  const isWorse = rank[b.kind] > rank[a.kind] || (b.kind === a.kind && a.guess !== undefined && b.guess === undefined)
  const worst = isWorse ? b : a
  return { ...worst, changesSchema: a.changesSchema || b.changesSchema }
}

const analyzeStatement = (statement: Fields | undefined, knowledge: Knowledge): Verdict => {
  for (const tag in statement) {
    const fields = statement[tag] as Fields
    switch (tag) {
      case "SelectStmt":
        return select(fields, knowledge)
      case "ExplainStmt":
        return explain(fields, knowledge)
      case "CopyStmt":
        return copy(fields, knowledge)
      case "DeclareCursorStmt":
        return runsElsewhere(fields.query, "DECLARE CURSOR", knowledge)
      case "TransactionStmt":
        return transaction(fields)
      default:
        return refined(tag, fields) ?? byTag.get(tag) ?? { ...schemaChange(`unknown statement ${tag}`), guess: "text" }
    }
  }
  return none
}

/** Where one tag stands for several statements. */
const refined = (tag: string, fields: Fields): Verdict | undefined => {
  switch (tag) {
    case "FetchStmt":
      return fields.ismove === true ? session("MOVE") : undefined
    case "GrantStmt":
    case "GrantRoleStmt":
      return fields.is_grant === true ? undefined : write("REVOKE")
    case "VacuumStmt":
      return fields.is_vacuumcmd === true ? undefined : write("ANALYZE")
    case "VariableSetStmt":
      return String(fields.kind).startsWith("VAR_RESET") ? session("RESET") : undefined
    default:
      return temporary.has(tag) ? ofTemporary(tag, fields) : undefined
  }
}

/** The field that names what is made. The catalog snapshot holds nothing temporary. */
const temporary: ReadonlyMap<string, string> = new Map([
  ["CreateSeqStmt", "sequence"],
  ["CreateStmt", "relation"],
  ["CreateTableAsStmt", "into"],
  ["ViewStmt", "view"]
])

const ofTemporary = (tag: string, fields: Fields): Verdict | undefined => {
  const made = fields[temporary.get(tag)!] as Fields | undefined
  const relation = (made?.rel ?? made) as Fields | undefined
  return relation?.relpersistence === "t" ? write(byTag.get(tag)!.reason) : undefined
}

const plainSelect: Verdict = { kind: "read", reason: "plain SELECT", changesSchema: false }
const plainValues: Verdict = { kind: "read", reason: "VALUES", changesSchema: false }

const select = (fields: Fields, knowledge: Knowledge): Verdict => {
  const finding = findingOf(fields, knowledge)
  return finding ?? (fields.valuesLists === undefined ? plainSelect : plainValues)
}

const explainRead: Verdict = { kind: "read", reason: "EXPLAIN of a read", changesSchema: false }

const explain = (fields: Fields, knowledge: Knowledge): Verdict => {
  const inner = analyzeStatement(fields.query as Fields | undefined, knowledge)
  if (isAnalyze(fields.options)) {
    return inner.kind === "write"
      ? { ...inner, reason: `EXPLAIN ANALYZE: ${inner.reason}` }
      : session("EXPLAIN ANALYZE")
  }
  return inner.kind === "read" ? explainRead : session(`EXPLAIN: ${inner.reason}`)
}

/** As the server reads a boolean option: absent, true, on and 1 (commands/define.c, defGetBoolean). */
const isAnalyze = (options: unknown): boolean => {
  if (!Array.isArray(options)) return false
  return options.some((option: { DefElem?: { defname?: string; arg?: DefinitionValue } }) => {
    if (option.DefElem?.defname !== "analyze") return false
    const arg = option.DefElem.arg
    if (arg === undefined) return true
    if (arg.Integer !== undefined) return (arg.Integer.ival ?? 0) !== 0
    const text = arg.String?.sval?.toLowerCase()
    return text !== "false" && text !== "off"
  })
}

interface DefinitionValue {
  readonly Integer?: { readonly ival?: number }
  readonly String?: { readonly sval?: string }
}

const copy = (fields: Fields, knowledge: Knowledge): Verdict => {
  if (fields.is_from === true) return write("COPY FROM")
  if (fields.is_program === true || fields.filename !== undefined) return write("COPY TO a file or program")
  return fields.query === undefined ? session("COPY TO") : runsElsewhere(fields.query, "COPY TO", knowledge)
}

/** A query whose rows do not come back as this statement's result: never a read, and a write if the query is one. */
const runsElsewhere = (query: unknown, label: string, knowledge: Knowledge): Verdict => {
  const inner = analyzeStatement(query as Fields | undefined, knowledge)
  return inner.kind === "write" ? { ...inner, reason: `${label}: ${inner.reason}` } : session(label)
}

const transaction = (fields: Fields): Verdict => {
  const kind = String(fields.kind).replace("TRANS_STMT_", "").replaceAll("_", " ")
  if (kind === "PREPARE") return write("PREPARE TRANSACTION")
  return kind.endsWith("PREPARED") ? write(kind) : session(kind)
}
