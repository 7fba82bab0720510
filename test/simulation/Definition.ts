/** Statements that define tables. */
import { type Fields, inner, lastName, list, open, text, word } from "./Ast.js"
import { type Base, type Plan, tableOf } from "./Compiled.js"
import { PgError, unsupported } from "./PgError.js"
import type { Catalog, Column, Table } from "./Store.js"
import { typeNamed } from "./Value.js"

const columnOf = (node: unknown): Column & { readonly isKey: boolean } => {
  const fields = open(node)[1]
  const name = lastName(list(inner(fields, "typeName") ?? {}, "names"))
  const type = typeNamed(name)
  if (type === undefined) throw unsupported(`the type ${name}`)
  const isKey = list(fields, "constraints").some((one) => open(one)[1].contype === "CONSTR_PRIMARY")
  return { name: text(fields, "colname") ?? "", type, isKey }
}

const create = ({ catalog }: Base, fields: Fields): Catalog => {
  const name = text(inner(fields, "relation") ?? {}, "relname") ?? ""
  if (catalog.some((table) => table.name === name)) {
    throw new PgError("42P07", `relation "${name}" already exists`, "heap_create_with_catalog")
  }
  const columns = list(fields, "tableElts").map(columnOf)
  return [
    ...catalog,
    {
      name,
      columns: columns.map(({ name, type }) => ({ name, type })),
      key: columns.find(({ isKey }) => isKey)?.name
    }
  ]
}

const altered = (table: Table, command: Fields): Table => {
  const { columns, name: tableName } = table
  const name = text(command, "name") ?? ""
  switch (command.subtype) {
    case "AT_AddColumn": {
      const { isKey: _, ...column } = columnOf(command.def)
      if (columns.some(({ name }) => name === column.name)) {
        const message = `column "${column.name}" of relation "${tableName}" already exists`
        throw new PgError("42701", message, "check_for_column_name_collision")
      }
      return { ...table, columns: [...columns, column] }
    }
    case "AT_DropColumn":
      return { ...table, columns: columns.filter((column) => column.name !== name) }
    case "AT_AlterColumnType": {
      const { type } = columnOf(command.def)
      return { ...table, columns: columns.map((column) => (column.name === name ? { ...column, type } : column)) }
    }
    default:
      throw unsupported(String(command.subtype))
  }
}

const alter = (base: Base, fields: Fields): Catalog => {
  const table = tableOf(base, inner(fields, "relation"), "RangeVarGetRelidExtended")
  const next = list(fields, "cmds").reduce<Table>((table, command) => altered(table, open(command)[1]), table)
  return base.catalog.map((one) => (one === table ? next : one))
}

const drop = ({ catalog }: Base, fields: Fields): Catalog => {
  const names = list(fields, "objects").map((object) => word(list(open(object)[1], "items").at(-1)))
  for (const name of names) {
    if (catalog.some((table) => table.name === name)) continue
    throw new PgError("42P01", `table "${name}" does not exist`, "DropErrorMsgNonExistent")
  }
  return catalog.filter(({ name }) => !names.includes(name))
}

/** What becomes of the tables. */
export const define = (base: Base, tag: string, fields: Fields): Plan => {
  switch (tag) {
    case "CreateStmt":
      return { _tag: "define", tag: "CREATE TABLE", catalog: create(base, fields) }
    case "AlterTableStmt":
      return { _tag: "define", tag: "ALTER TABLE", catalog: alter(base, fields) }
    case "DropStmt":
      return { _tag: "define", tag: "DROP TABLE", catalog: drop(base, fields) }
    default:
      throw unsupported(tag)
  }
}
