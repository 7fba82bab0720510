import * as Builtins from "./builtins.js"
import type { Catalog, CatalogCause, CatalogNames } from "./catalog.js"
import type { Finding } from "./finding.js"
import { write } from "./finding.js"
import type { Knowledge, Lookup } from "./knowledge.js"
import * as Own from "./knowledge.js"
import * as LeftBehind from "./leftBehind.js"
import * as Mentions from "./mentions.js"
import { harmless, hiddenTypeNames } from "./rules.js"

/** What is known of one server: PostgreSQL's own objects, and everybody's from a snapshot of its catalog. */
export const fromCatalog = (catalog: Catalog): Knowledge => {
  const functions = index(catalog.functions)
  const relations = index(catalog.relations)
  const types = index(catalog.types)
  const operators = new Map(Object.entries(catalog.operators).map(([name, cause]) => [name, toFinding(cause)]))
  const attributes = new Map(
    Object.entries(catalog.attributes).map(([name, cause]) => [
      name,
      { finding: toFinding(cause), scalar: cause.scalar }
    ])
  )
  // Of another version of PostgreSQL, or altered: this server's word counts as well as ours.
  const volatile = new Set(
    catalog.volatileBuiltins.filter((name) => !harmless.has(name) && !Builtins.volatileFunctions.has(name))
  )

  const hasUnfitTypes = Object.values(catalog.types).some(({ others }) => Object.keys(others).length > 0)

  const type = (schema: string | undefined, name: string): Lookup =>
    worse(
      worse(Own.builtinType(schema, name), types(schema, name)),
      // The row type of a relation.
      worse(Own.builtinRelation(schema, name), relations(schema, name))
    )

  const call = (schema: string | undefined, name: string): Lookup => {
    const found = worse(Own.builtinFunction(schema, name), functions(schema, name))
    if (hasUnfitTypes && hiddenTypeNames.has(name)) {
      return worse(found, write(`calls ${name}, which converts to a type given as a text`))
    }
    return volatile.has(name) ? worse(found, write(`calls ${name}`)) : found
  }

  const knowledge: Knowledge = {
    everywhere: catalog.everywhere ? toFinding(catalog.everywhere) : undefined,
    escapedStrings: !catalog.standardStrings,
    leftBehind: catalog.leaves ? LeftBehind.make(catalog.leaves) : undefined,
    mayFold: catalog.folds ? Mentions.make(catalog.folds.names) : undefined,
    function: (schema, name, args) =>
      Own.settle(
        // No row type: a call never converts to one.
        Own.orConversion(call(schema, name), args, () => worse(Own.builtinType(schema, name), types(schema, name))),
        `calls ${name}, a function unknown to the catalog`
      ),
    syntax: (name) => functions(undefined, name) ?? undefined,
    relation: (schema, name) =>
      Own.settle(
        worse(Own.builtinRelation(schema, name), relations(schema, name)),
        `names ${name}, a relation unknown to the catalog`
      ),
    type: (schema, name) => Own.settle(type(schema, name), `names ${name}, a type unknown to the catalog`),
    operator: (_, name) => operators.get(name),
    samplingMethod: (schema, name) =>
      Own.isSamplingMethod(schema, name) ? undefined : knowledge.function(schema, name, 0),
    attribute: (name) => Own.builtinAttribute(name) ?? attributes.get(name)
  }
  return knowledge
}

const toFinding = ({ kind, reason }: CatalogCause): Finding => ({ kind, reason, changesSchema: false })

const worse = (a: Lookup, b: Lookup): Lookup => {
  if (!a) return b === undefined ? a : b
  return b?.kind === "write" && a.kind === "session" ? b : a
}

/** By schema and name, and by name alone: then the worst of that name counts, in whatever schema. */
const index = (names: CatalogNames) => {
  const qualified = new Map<string, Map<string, Finding | null>>()
  const unqualified = new Map<string, Finding | null>()
  const add = (schema: Map<string, Finding | null>, name: string, finding: Finding | null) => {
    schema.set(name, finding)
    unqualified.set(name, worse(unqualified.get(name), finding) ?? null)
  }
  for (const [schema, { others, reads }] of Object.entries(names)) {
    const objects = new Map<string, Finding | null>()
    qualified.set(schema, objects)
    for (const name of reads) add(objects, name, null)
    for (const [name, cause] of Object.entries(others)) add(objects, name, toFinding(cause))
  }
  return (schema: string | undefined, name: string): Lookup =>
    schema === undefined ? unqualified.get(name) : qualified.get(schema)?.get(name)
}
