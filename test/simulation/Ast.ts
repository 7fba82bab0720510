/** Reading the trees of PostgreSQL's own parser, whose nodes are `{ [tag]: fields }`. */
import { parseSync } from "libpg-query"

export type Fields = Readonly<Record<string, unknown>>

export const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null

/** The tag and the fields of a node. */
export const open = (node: unknown): readonly [string, Fields] => {
  const [entry] = Object.entries(node as Fields)
  return entry === undefined ? ["", {}] : [entry[0], isFields(entry[1]) ? entry[1] : {}]
}

export const list = (fields: Fields, name: string): ReadonlyArray<unknown> => {
  const value = fields[name]
  return Array.isArray(value) ? value : []
}

export const text = (fields: Fields, name: string): string | undefined => {
  const value = fields[name]
  return typeof value === "string" ? value : undefined
}

export const inner = (fields: Fields, name: string): Fields | undefined => {
  const value = fields[name]
  return isFields(value) ? value : undefined
}

/** The text of a String node. */
export const word = (node: unknown): string => text(open(node)[1], "sval") ?? ""

/** The last part of a qualified name. */
export const lastName = (names: ReadonlyArray<unknown>): string => word(names[names.length - 1])

/** A constant as text, and whether it was quoted; `undefined` for NULL. */
export const constant = (
  fields: Fields
): { readonly text: string; readonly kind: "text" | "int" | "float" | "bool" } | undefined => {
  if (fields.isnull === true) return undefined
  const string = inner(fields, "sval")
  if (string !== undefined) return { text: text(string, "sval") ?? "", kind: "text" }
  const integer = inner(fields, "ival")
  if (integer !== undefined) return { text: String(integer.ival ?? 0), kind: "int" }
  const float = inner(fields, "fval")
  if (float !== undefined) return { text: String(float.fval), kind: "float" }
  return { text: String(inner(fields, "boolval")?.boolval === true), kind: "bool" }
}

/** The statements of a text. Throws what the parser throws. */
export const parse = (sql: string): ReadonlyArray<readonly [string, Fields]> => {
  const tree = parseSync(sql) as unknown as { readonly stmts?: ReadonlyArray<{ readonly stmt?: unknown }> }
  return (tree.stmts ?? []).map(({ stmt }) => open(stmt))
}
