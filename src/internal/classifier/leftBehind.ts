/** What the functions of a server leave on their connection, by the names in a statement that reach them. */
import type { CatalogLeaves, CatalogLeft } from "./catalog.js"
import type { Leaves } from "./finding.js"
import { both } from "./finding.js"

export interface LeftBehind {
  readonly call: (name: string) => Leaves | undefined
  /** By a type, an operator, or what may be a call. */
  readonly name: (name: string) => Leaves | undefined
  readonly relation: (name: string, isWritten: boolean) => Leaves | undefined
  /** By writing to whatever relation. */
  readonly anyWrite: Leaves | undefined
  readonly schemaChange: Leaves | undefined
  /** Whether a text may have such a name. */
  readonly mayBeIn: (text: string) => boolean
}

const leavesOf = ({ sets, until }: CatalogLeft): Leaves => ({
  until,
  sets,
  controls: false,
  prepares: until === "connection"
})

/** What nothing in the statement shows. What is bound to go elsewhere after it may well mean to go without it. */
const aside = (left: CatalogLeft): Leaves => ({ ...leavesOf(left), sets: false })

const escape = (text: string) => text.replace(/\W/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)

export const make = (catalog: CatalogLeaves): LeftBehind => {
  const index = (names: { readonly [name: string]: CatalogLeft }, leaves = aside) =>
    new Map(Object.entries(names).map(([name, left]) => [name, leaves(left)]))
  const calls = index(catalog.names, leavesOf)
  const names = index(catalog.names)
  const read = index(catalog.read)
  const written = index(catalog.written)
  const all = [...names.keys(), ...read.keys(), ...written.keys()]
  const mentioned = all.length === 0 ? undefined : new RegExp(all.map(escape).join("|"), "iu")
  return {
    call: (name) => calls.get(name),
    name: (name) => names.get(name),
    relation: (name, isWritten) => (isWritten ? written : read).get(name),
    anyWrite: [...written.values()].reduce<Leaves | undefined>(both, undefined),
    schemaChange: catalog.schemaChange ? aside(catalog.schemaChange) : undefined,
    mayBeIn: (text) => mentioned?.test(text) === true
  }
}
