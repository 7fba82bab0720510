/** What a statement leaves behind for the statements after it on its connection. */
import type { Leaves } from "./finding.js"
import { both } from "./finding.js"
import type { Knowledge } from "./knowledge.js"
import { builtinFunction } from "./knowledge.js"
import type { Parsed } from "./parser.js"
import { hiddenSql } from "./rules.js"
import { byTag } from "./statements.js"

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
  const own = typeof statement === "function" ? statement(fields) : statement
  const { leftBehind } = knowledge
  const found =
    statement === undefined || calling.has(tag) ? both(own, inside(fields, knowledge, !reading.has(tag))) : own
  if (leftBehind === undefined) return found
  const beyond = tag === "TruncateStmt" && fields.behavior === "DROP_CASCADE" ? leftBehind.anyWrite : undefined
  return both(found, byTag.get(tag)?.changesSchema === true ? both(beyond, leftBehind.schemaChange) : beyond)
}

/** Statements of the table below that call functions. */
const calling = new Set(["CallStmt", "DeclareCursorStmt"])

/** Statements that only read what is not their `relation`. Others may write to all that they name. */
const reading = new Set([
  ...[
    "CopyStmt",
    "DeclareCursorStmt",
    "DeleteStmt",
    "ExplainStmt",
    "InsertStmt",
    "LockStmt",
    "MergeStmt",
    "SelectStmt"
  ],
  "UpdateStmt"
])

/** By the tag of the statement. What is not here leaves what its functions and temporary objects do. */
const statements: Readonly<Record<string, Leaves | ((fields: Fields) => Leaves | undefined) | undefined>> = {
  CallStmt: unknown,
  ClosePortalStmt: inTransaction,
  ConstraintsSetStmt: inTransaction,
  DeallocateStmt: prepares,
  // CURSOR_OPT_HOLD
  DeclareCursorStmt: ({ options }) => ((Number(options ?? 0) & 0x20) === 0 ? inTransaction : onConnection),
  DiscardStmt: { ...prepares, sets: true },
  DoStmt: ({ args }) => (preparing.test(JSON.stringify(args)) ? prepares : unknown),
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

/**
 * What the parts of a statement leave behind: functions that it calls, temporary objects that it makes, triggers of what it
 * writes to.
 */
const inside = (fields: Fields, knowledge: Knowledge, isWritten: boolean): Leaves | undefined => {
  const { leftBehind } = knowledge
  let found: Leaves | undefined
  for (const key in fields) {
    const value = fields[key]
    if (typeof value === "object" && value !== null) {
      if (key === "PrepareStmt") continue
      if (key === "A_Const") {
        if ((value as Constant).sval?.sval === "pg_temp") found = both(found, sets)
        continue
      }
      if (key === "FuncCall") found = both(found, ofCall(value as Fields, knowledge))
      found = both(found, inside(value as Fields, knowledge, key === "relation" || (isWritten && key !== "SelectStmt")))
    } else if (key === "relpersistence" && value === "t") {
      found = both(found, sets)
    } else if ((key === "schemaname" || key === "sval") && value === "pg_temp") {
      found = both(found, sets)
    } else if (key === "relname" && isWritten && value === "pg_settings") {
      // Its rule calls set_config.
      found = both(found, sets)
    } else if (leftBehind !== undefined && typeof value === "string") {
      if (key === "relname") found = both(found, leftBehind.relation(value, isWritten))
      else if (key === "sval") found = both(found, leftBehind.name(value))
    }
  }
  return found
}

interface Constant {
  readonly sval?: { readonly sval?: string }
}

/** Has a block that is executed make a prepared statement, or drop all. */
const preparing = /\b(?:prepare|deallocate)\b/i

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
    if (hiddenSql.has(name)) return unknown
    return advisory.test(name) || stateful.has(name) ? onConnection : undefined
  }
  // One that is fine in a read is not volatile: it leaves nothing.
  return knowledge.function(schema, name, given.length) === undefined
    ? undefined
    : both(knowledge.leftBehind?.call(name), unknown)
}

interface Name {
  readonly String?: { readonly sval?: string }
}

interface Argument {
  readonly A_Const?: { readonly boolval?: { readonly boolval?: boolean } }
}
