/** The role, the database and the tables of a run. */
import type { Catalog } from "./Store.js"

export const role = "app"
export const database = "shop"

export const schema: Catalog = [
  {
    name: "register",
    columns: [
      { name: "id", type: "int4" },
      { name: "value", type: "text" },
      { name: "writes", type: "int4" }
    ],
    key: "id"
  },
  {
    name: "account",
    columns: [
      { name: "id", type: "int4" },
      { name: "balance", type: "int4" }
    ],
    key: "id"
  },
  {
    name: "entry",
    columns: [
      { name: "op", type: "text" },
      { name: "flow", type: "text" }
    ],
    key: undefined
  },
  {
    name: "parent",
    columns: [
      { name: "id", type: "int4" },
      { name: "op", type: "text" }
    ],
    key: "id"
  },
  {
    name: "child",
    columns: [
      { name: "id", type: "int4" },
      { name: "parent", type: "int4" }
    ],
    key: "id",
    deferred: { column: "parent", references: "parent", constraint: "child_parent_fkey" }
  }
]

/** The same for a real server. */
export const createTables: ReadonlyArray<string> = schema.map(
  ({ columns, deferred, key, name }) =>
    `CREATE TABLE ${name} (${columns
      .map((column) => `${column.name} ${column.type}${column.name === key ? " PRIMARY KEY" : ""}`)
      .join(", ")}${
      deferred === undefined
        ? ""
        : `, CONSTRAINT ${deferred.constraint} FOREIGN KEY (${deferred.column}) REFERENCES ${deferred.references} DEFERRABLE INITIALLY DEFERRED`
    })`
)
