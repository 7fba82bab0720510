/**
 * What the example needs of Drizzle. With `moduleResolution: "NodeNext"`, as here, TypeScript takes the types that
 * `@effect/sql-drizzle` has of Drizzle for other ones than those of an ES module, so they are named as it names them.
 */
import * as drizzle from "drizzle-orm"
import * as core from "drizzle-orm/pg-core"

export const { eq, sql } = drizzle as unknown as typeof import("drizzle-orm", { with: { "resolution-mode": "require" }})
export const { integer, pgTable, text } = core as unknown as typeof import("drizzle-orm/pg-core", { with: {
  "resolution-mode": "require"
}})
