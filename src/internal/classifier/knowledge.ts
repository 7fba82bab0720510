import * as Builtins from "./builtins.js"
import type { Finding } from "./finding.js"
import { session, unknown, write } from "./finding.js"
import type { LeftBehind } from "./leftBehind.js"
import { harmless, hiddenSql, hiddenTypes, isDenied, isLocal, samplingMethods } from "./rules.js"

/**
 * What is known of the names in a statement. A look-up answers `undefined` when the name is fine in a read.
 *
 * Names resolve as PostgreSQL would at worst: which schema an unqualified name means depends on the connection's
 * `search_path`, so every object of that name counts.
 */
export interface Knowledge {
  /** What may be part of any SELECT, and is not fine in a read. */
  readonly everywhere: Finding | undefined
  readonly function: (schema: string | undefined, name: string, args: number) => Finding | undefined
  /** What is syntax in PostgreSQL 18 is, on older servers, a call of a function of that name, where there is one. */
  readonly syntax: (name: string) => Finding | undefined
  readonly relation: (schema: string | undefined, name: string) => Finding | undefined
  readonly type: (schema: string | undefined, name: string) => Finding | undefined
  readonly operator: (schema: string | undefined, name: string) => Finding | undefined
  readonly samplingMethod: (schema: string | undefined, name: string) => Finding | undefined
  /** `standard_conforming_strings` is off: where a plain string constant with a backslash ends is not what the parser thinks. */
  readonly escapedStrings: boolean
  /** What functions leave on their connection; `undefined` for nothing. */
  readonly leftBehind: LeftBehind | undefined
  /** Whether a text may reach a function whose value is put into a plan though it hangs on a setting; `undefined`: none does. */
  readonly mayFold: ((sql: string) => boolean) | undefined
  /** `t.f` may mean `f(t)`. `"scalar"`: only where `t` can be a value that is not a row. */
  readonly attribute: (name: string) => { readonly finding: Finding; readonly scalar: boolean } | undefined
}

const systemSchemas = new Set(["pg_catalog", "information_schema"])

const temporarySchema = /^pg_(temp|toast_temp)(_\d+)?$/

const denied = (name: string): Finding =>
  isLocal(name)
    ? session(`calls ${name}, which belongs to one session or server`)
    : write(
        hiddenSql.has(name)
          ? `calls ${name}, which runs SQL given as text`
          : hiddenTypes.has(name)
            ? `calls ${name}, which converts to a type given as a value`
            : `calls ${name}`
      )

/** Functions of PostgreSQL itself. `null`: fine in a read. */
const builtinFunctions: ReadonlyMap<string, Finding | null> = new Map([
  ...[...Builtins.stableFunctions].map((name) => [name, isDenied(name) ? denied(name) : null] as const),
  ...[...Builtins.volatileFunctions].map((name) => [name, harmless.has(name) ? null : denied(name)] as const)
])

const builtinRelations: ReadonlyMap<string, Finding | null> = new Map([
  ...[...Builtins.catalogRelations].map((name) => [name, null] as const),
  ...[...Builtins.localRelations].map((name) => [name, session(`reads ${name}, which answers for one server`)] as const)
])

/** `undefined`: not known. `null`: fine in a read. */
export type Lookup = Finding | null | undefined

export const builtinFunction = (schema: string | undefined, name: string): Lookup =>
  schema === undefined || systemSchemas.has(schema) ? builtinFunctions.get(name) : undefined

export const builtinType = (schema: string | undefined, name: string): Lookup =>
  (schema === undefined || systemSchemas.has(schema)) && Builtins.types.has(name) ? null : undefined

export const builtinRelation = (schema: string | undefined, name: string): Lookup => {
  if (schema !== undefined && temporarySchema.test(schema)) return session(`reads temporary table ${name}`)
  if (schema === "information_schema") return Builtins.informationSchema.has(name) ? null : undefined
  return schema === undefined || schema === "pg_catalog" ? builtinRelations.get(name) : undefined
}

/**
 * A call with one argument that names a type is a conversion to it, unless there is a function of that name for exactly that
 * argument: the worse of both counts.
 */
export const orConversion = (found: Lookup, args: number, type: () => Lookup): Lookup => {
  if (args !== 1 || found) return found
  const conversion = type()
  return conversion === undefined ? found : conversion
}

export const settle = (found: Lookup, reason: string): Finding | undefined =>
  found === undefined ? unknown(reason) : (found ?? undefined)

export const isSamplingMethod = (schema: string | undefined, name: string) =>
  (schema === undefined || schema === "pg_catalog") && samplingMethods.has(name)

export const builtinAttribute: Knowledge["attribute"] = (name) => {
  const finding = builtinFunctions.get(name)
  return finding ? { finding, scalar: false } : undefined
}

/** What is known without a server. Relations and types that are not PostgreSQL's own count as ordinary ones. */
export const builtin: Knowledge = {
  everywhere: undefined,
  escapedStrings: false,
  leftBehind: undefined,
  mayFold: undefined,
  function: (schema, name, args) =>
    settle(
      orConversion(builtinFunction(schema, name), args, () => builtinType(schema, name)),
      `calls ${name}, an unknown function`
    ),
  syntax: () => undefined,
  relation: (schema, name) => {
    const found = builtinRelation(schema, name)
    if (found !== undefined) return found ?? undefined
    const isSystem = schema === undefined ? name.startsWith("pg_") : systemSchemas.has(schema)
    return isSystem ? unknown(`names ${name}, an unknown relation`) : undefined
  },
  type: () => undefined,
  operator: () => undefined,
  samplingMethod: (schema, name) => (isSamplingMethod(schema, name) ? undefined : builtin.function(schema, name, 0)),
  attribute: builtinAttribute
}
