/** Whether a text ends the transaction that it runs in. For texts whose answer leaves that open, which are few. */
import { isTooDeep } from "./depth.js"
import * as Parser from "./parser.js"

/** Every text that ends a transaction has one of them, and many others do. */
const words = /\b(?:abort|commit|end|prepare|rollback)\b/i

/** Whether a text has a statement that ends a transaction, and one after it that does not run in it. */
export const goesOn = (sql: string): boolean => {
  const parsed = Parser.isThere() ? Parser.parse(sql) : "unavailable"
  if (typeof parsed === "string") return mayEnd(sql)
  const statements = parsed.stmts ?? []
  return statements.slice(0, -1).some(isEnd)
}

const ends: ReadonlySet<unknown> = new Set(["TRANS_STMT_COMMIT", "TRANS_STMT_PREPARE", "TRANS_STMT_ROLLBACK"])

/**
 * Whether a text has a statement that ends a transaction: `COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`; not `ROLLBACK TO`. A
 * text with such words that cannot be parsed may have one.
 */
export const mayEnd = (sql: string): boolean => {
  if (!words.test(sql)) return false
  // A program with a classifier of its own never loads the parser.
  if (!Parser.isThere() || sql.length > Parser.maxLength || isTooDeep(sql)) return true
  // With standard_conforming_strings off a string of it ends elsewhere.
  if (sql.includes("\\")) return true
  const parsed = Parser.parse(sql)
  if (typeof parsed === "string") return true
  return (parsed.stmts ?? []).some(isEnd)
}

const isEnd = ({ stmt }: NonNullable<Parser.Parsed["stmts"]>[number]): boolean =>
  ends.has((stmt?.TransactionStmt as { readonly kind?: unknown } | undefined)?.kind)
