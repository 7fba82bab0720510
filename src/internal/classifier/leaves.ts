/** What a statement leaves behind for the statements after it on its connection. */
import type { Leaves } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import { builtinFunction } from "./knowledge.js"
import type { Parsed } from "./parser.js"

/** That of a text of which nothing is known. */
export const unknown: Leaves = { until: "unknown", sets: false, controls: false, prepares: false }

/** That of a `session` statement of a classifier that does not say. */
export const ofSession: Leaves = { until: "connection", sets: true, controls: false, prepares: true }

/** That of a `session` statement that leaves no more than a reason to stay in its transaction. */
export const inTransaction: Leaves = { until: "transaction", sets: false, controls: false, prepares: false }
const setsLocally: Leaves = { ...inTransaction, sets: true }
const onConnection: Leaves = { ...inTransaction, until: "connection" }
const sets: Leaves = { ...onConnection, sets: true }
const prepares: Leaves = { ...onConnection, prepares: true }
const ends: Leaves = { ...inTransaction, controls: true }
const begins: Leaves = { ...onConnection, controls: true }

const rank = { transaction: 0, unknown: 1, connection: 2 }

/** What two leave together. */
export const both = (a: Leaves | undefined, b: Leaves | undefined): Leaves | undefined => {
  if (a === undefined || b === undefined || a === b) return a ?? b
  return {
    until: rank[a.until] < rank[b.until] ? b.until : a.until,
    sets: a.sets || b.sets,
    controls: a.controls || b.controls,
    prepares: a.prepares || b.prepares
  }
}

type Fields = Readonly<Record<string, unknown>>

/** What all statements of a text leave behind; `undefined` for nothing. */
export const leavesOf = (parsed: Parsed, knowledge: Knowledge): Leaves | undefined => {
  let found: Leaves | undefined
  for (const { stmt } of parsed.stmts ?? []) {
    for (const tag in stmt) found = both(found, ofStatement(tag, stmt[tag] as Fields, knowledge))
  }
  return found
}

const ofStatement = (tag: string, fields: Fields, knowledge: Knowledge): Leaves | undefined => {
  const statement = statements[tag]
  if (statement !== undefined) return typeof statement === "function" ? statement(fields) : statement
  return inside(fields, knowledge)
}

/** By the tag of the statement. What is not here leaves what its functions and temporary objects do. */
const statements: Readonly<Record<string, Leaves | ((fields: Fields) => Leaves | undefined) | undefined>> = {
  CallStmt: unknown,
  ClosePortalStmt: inTransaction,
  ConstraintsSetStmt: inTransaction,
  DeallocateStmt: prepares,
  // CURSOR_OPT_HOLD
  DeclareCursorStmt: ({ options }) => ((Number(options ?? 0) & 0x20) === 0 ? inTransaction : onConnection),
  DiscardStmt: { ...prepares, sets: true },
  DoStmt: unknown,
  ExecuteStmt: unknown,
  FetchStmt: inTransaction,
  ListenStmt: onConnection,
  LoadStmt: onConnection,
  LockStmt: inTransaction,
  PrepareStmt: prepares,
  TransactionStmt: ({ kind }) => transactions[String(kind)],
  UnlistenStmt: onConnection,
  VariableSetStmt: ({ is_local, kind, name }) =>
    is_local === true || (kind === "VAR_SET_MULTI" && name !== "SESSION CHARACTERISTICS") ? setsLocally : sets
}

const transactions: Readonly<Record<string, Leaves | undefined>> = {
  TRANS_STMT_BEGIN: begins,
  TRANS_STMT_START: begins,
  TRANS_STMT_COMMIT: ends,
  TRANS_STMT_ROLLBACK: ends,
  TRANS_STMT_PREPARE: ends,
  TRANS_STMT_SAVEPOINT: inTransaction,
  TRANS_STMT_RELEASE: inTransaction,
  TRANS_STMT_ROLLBACK_TO: inTransaction
}

/** What the parts of a statement leave behind: functions that it calls, temporary objects that it makes. */
const inside = (fields: Fields, knowledge: Knowledge): Leaves | undefined => {
  let found: Leaves | undefined
  for (const key in fields) {
    const value = fields[key]
    if (typeof value === "object" && value !== null) {
      if (key === "FuncCall") found = both(found, ofCall(value as Fields, knowledge))
      else if (key === "PrepareStmt") continue
      found = both(found, inside(value as Fields, knowledge))
    } else if (key === "relpersistence" && value === "t") {
      found = both(found, sets)
    } else if ((key === "schemaname" || key === "sval") && value === "pg_temp") {
      found = both(found, sets)
    }
  }
  return found
}

const advisory = /^pg_(try_)?advisory_/

const isInTransaction = /^pg_(try_)?advisory_xact_|^lo(_|read$|write$)|^pg_export_snapshot$/

const stateful = new Set(["pg_replication_origin_session_setup", "setseed"])

const ofCall = ({ args, funcname }: Fields, knowledge: Knowledge): Leaves | undefined => {
  const names = (funcname as ReadonlyArray<Name>).map(({ String: text }) => text?.sval ?? "")
  const name = names[names.length - 1]!
  const given = (args ?? []) as ReadonlyArray<Argument>
  const schema = names.length > 1 ? names[names.length - 2] : undefined
  if (builtinFunction(schema, name) !== undefined) {
    if (name === "set_config") return given[2]?.A_Const?.boolval?.boolval === true ? setsLocally : sets
    if (isInTransaction.test(name)) return inTransaction
    return advisory.test(name) || stateful.has(name) ? onConnection : undefined
  }
  // One that is fine in a read is not volatile: it leaves nothing.
  return knowledge.function(schema, name, given.length) === undefined ? undefined : unknown
}

interface Name {
  readonly String?: { readonly sval?: string }
}

interface Argument {
  readonly A_Const?: { readonly boolval?: { readonly boolval?: boolean } }
}
