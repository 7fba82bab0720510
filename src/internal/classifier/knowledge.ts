import * as Builtins from "./builtins.js"
import type { Finding } from "./finding.js"
import { session, write } from "./finding.js"
import { harmless, hiddenSql, isDenied, isLocal, samplingMethods } from "./rules.js"

/**
 * What is known of the names in a statement. A look-up answers `undefined` when the name is fine in a read.
 *
 * Names resolve as PostgreSQL would at worst: which schema an unqualified name means depends on the connection's
 * `search_path`, so every object of that name counts.
 */
export interface Knowledge {
  readonly function: (schema: string | undefined, name: string, args: number) => Finding | undefined
  readonly relation: (schema: string | undefined, name: string) => Finding | undefined
  readonly type: (schema: string | undefined, name: string) => Finding | undefined
  readonly operator: (schema: string | undefined, name: string) => Finding | undefined
  readonly samplingMethod: (schema: string | undefined, name: string) => Finding | undefined
  /** `t.f` may mean `f(t)`. `"scalar"`: only where `t` can be a value that is not a row. */
  readonly attribute: (name: string) => { readonly finding: Finding; readonly scalar: boolean } | undefined
}

const systemSchemas = new Set(["pg_catalog", "information_schema"])

const temporarySchema = /^pg_(temp|toast_temp)(_\d+)?$/

const denied = (name: string): Finding =>
  isLocal(name)
    ? session(`calls ${name}, which belongs to one session or server`)
    : write(hiddenSql.has(name) ? `calls ${name}, which runs SQL given as text` : `calls ${name}`)

/** Functions of PostgreSQL itself. `null`: fine in a read. */
const builtinFunctions: ReadonlyMap<string, Finding | null> = new Map([
  ...[...Builtins.stableFunctions].map((name) => [name, isDenied(name) ? denied(name) : null] as const),
  ...[...Builtins.volatileFunctions].map((name) => [name, harmless.has(name) ? null : denied(name)] as const)
])

const builtinRelations: ReadonlyMap<string, Finding | null> = new Map([
  ...[...Builtins.catalogRelations].map((name) => [name, null] as const),
  ...[...Builtins.localRelations].map((name) => [name, session(`reads ${name}, which answers for one server`)] as const)
])

/** What is known without a server. Relations and types that are not PostgreSQL's own count as ordinary ones. */
export const builtin: Knowledge = {
  function: (schema, name) => {
    const found = schema === undefined || systemSchemas.has(schema) ? builtinFunctions.get(name) : undefined
    if (found === undefined) return write(`calls ${name}, an unknown function`)
    return found ?? undefined
  },
  relation: (schema, name) => {
    if (schema !== undefined && temporarySchema.test(schema)) return session(`reads temporary table ${name}`)
    if (schema === "information_schema") {
      return Builtins.informationSchema.has(name) ? undefined : write(`names ${name}, an unknown relation`)
    }
    if (schema !== undefined && schema !== "pg_catalog") return undefined
    const found = builtinRelations.get(name)
    if (found !== undefined) return found ?? undefined
    if (name.startsWith("pg_stat")) return session(`reads ${name}, which answers for one server`)
    return schema === "pg_catalog" || name.startsWith("pg_") ? write(`names ${name}, an unknown relation`) : undefined
  },
  type: () => undefined,
  operator: () => undefined,
  samplingMethod: (schema, name) =>
    (schema === undefined || schema === "pg_catalog") && samplingMethods.has(name)
      ? undefined
      : builtin.function(schema, name, 1),
  attribute: (name) => {
    const found = builtinFunctions.get(name)
    return found ? { finding: found, scalar: false } : undefined
  }
}
