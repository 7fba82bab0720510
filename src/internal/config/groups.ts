/**
 * Validation of the groups and of the engines in them.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as check from "../validation/check.js"
import { nearest } from "../validation/didYouMean.js"
import { list } from "../validation/printValue.js"
import * as address from "./address.js"
import * as engine from "./engine.js"

export interface Entry {
  readonly field: string
  readonly name: string
  readonly weight: number
  readonly zone: string | undefined
  readonly known: engine.Engine | undefined
  readonly config: Effect.Effect<engine.Engine, unknown>
}

export interface Group {
  readonly name: string
  readonly engines: ReadonlyArray<Entry>
}

interface Roles {
  readonly defaultGroup: string
  readonly readGroup: string
  /** Whether the read group must exist: it was named, and not by its default name. */
  readonly readGroupNamed: boolean
}

/** The path of a group in the options. */
export const fieldOf = (group: string) =>
  /^[\w$]+$/.test(group) ? `groups.${group}` : `groups[${JSON.stringify(group)}]`

const knownEntry = (field: string, known: engine.Engine): Entry =>
  Object.freeze({
    field,
    name: known.name,
    weight: known.weight,
    zone: known.zone,
    known,
    config: Effect.succeed(known)
  })

/** A URL that names several hosts is an engine for each. */
const hostsOf = (
  group: string,
  index: number,
  given: unknown,
  { defaultGroup, readGroup }: Roles
): check.Checked<ReadonlyArray<unknown>> => {
  if (!check.isObject(given) || !("url" in given) || !Redacted.isRedacted(given.url)) return Either.right([given])
  const text = Redacted.value(given.url)
  const parsed = typeof text === "string" ? address.parse(text) : Either.left("")
  // What is wrong with it is said where engines are read.
  if (Either.isLeft(parsed)) return Either.right([given])
  const { role, urls } = parsed.right
  const refuse = (remedy: string) => check.invalidSecret(`${fieldOf(group)}[${index}].url`, remedy)
  if (group === defaultGroup && role === "standby") {
    return refuse(`Its target_session_attrs asks for a standby: list it in the group ${JSON.stringify(readGroup)}`)
  }
  if (group === readGroup && role === "primary") {
    return refuse(`Its target_session_attrs asks for the primary: list it in the group ${JSON.stringify(defaultGroup)}`)
  }
  return Either.right(urls.length === 1 ? [given] : urls.map((url) => ({ ...given, url: Redacted.make(url) })))
}

/** The entry at an index of the options is the engine at a place of its group. */
const entryOf = (group: string, index: number, place: number, given: unknown): check.Checked<Entry> => {
  const field = `${fieldOf(group)}[${index}]`
  const name = `${group}-${place + 1}`
  return Effect.isEffect(given)
    ? Either.right({
        field,
        name,
        weight: 1,
        zone: undefined,
        known: undefined,
        config: Effect.flatMap(given as Effect.Effect<unknown, unknown>, (config) =>
          engine.resolve({ field, name }, config)
        )
      })
    : Either.map(engine.resolve({ field, name }, given), (known) => knownEntry(field, known))
}

const sizeOf = (group: string, engines: ReadonlyArray<unknown>, roles: Roles): check.Checked<void> => {
  if (group === roles.defaultGroup && engines.length === 0) {
    return check.invalid(
      fieldOf(group),
      engines,
      `It must list the server that takes the writes; its replicas go into ${JSON.stringify(roles.readGroup)}`
    )
  }
  return engines.length === 0 && group !== roles.readGroup
    ? check.invalid(fieldOf(group), engines, "It must list at least one engine; leave the group out if it has none")
    : Either.void
}

const groupOf = (name: string, given: unknown, roles: Roles): check.Checked<Group> =>
  Either.gen(function* () {
    if (name.trim() === "") return yield* check.invalid("groups", name, "The name of a group must not be empty")
    // It is part of messages, metrics and spans.
    if (name.includes("://") || name.includes("@")) {
      return yield* check.invalidSecret("groups", "The name of a group must not be a URL: { default: [{ url: ... }] }")
    }
    if (!Array.isArray(given)) {
      return yield* check.invalid(fieldOf(name), given, "It must be a list of engines: [{ url: ... }, ...]")
    }
    yield* sizeOf(name, given, roles)
    const engines: Array<Entry> = []
    for (let index = 0; index < given.length; index++) {
      for (const one of yield* hostsOf(name, index, given[index], roles)) {
        engines.push(yield* entryOf(name, index, engines.length, one))
      }
    }
    return { name, engines }
  })

const role = (
  field: "defaultGroup" | "readGroup",
  name: string,
  groups: ReadonlyMap<string, Group>
): check.Checked<void> => {
  if (groups.has(name)) return Either.void
  const meant = nearest(name, groups.keys())
  const hint = meant === undefined ? "" : `; did you mean ${JSON.stringify(meant)}?`
  return check.invalid(field, name, `It must be one of the groups, which are ${list(groups.keys())}${hint}`)
}

const uniqueNames = (groups: Iterable<Group>): check.Checked<Map<string, Entry>> =>
  Either.gen(function* () {
    const entries = new Map<string, Entry>()
    for (const entry of Array.from(groups).flatMap((group) => group.engines)) {
      const other = entries.get(entry.name)
      if (other !== undefined) {
        return yield* check.invalid(
          `${entry.field}.name`,
          entry.name,
          `${other.field} has this name; give each engine its own. A server in two groups is two engines, each with its ` +
            "own pool"
        )
      }
      entries.set(entry.name, entry)
    }
    return entries
  })

/**
 * What can only be checked once an entry's Effect has yielded: that its name is not another's, and its transforms those of
 * the first engine. `taken` grows by the names that come to light.
 */
const later = (entry: Entry, first: Entry | undefined, taken: Map<string, Entry>): Entry =>
  entry.known !== undefined
    ? entry
    : Object.freeze({
        ...entry,
        config: Effect.tap(entry.config, (found) =>
          Either.gen(function* () {
            const other = taken.get(found.name)
            if (other !== undefined && other.field !== entry.field) {
              yield* check.invalid(`${entry.field}.name`, found.name, `${other.field} has this name; give each its own`)
            }
            if (first?.known !== undefined) yield* engine.checkTransforms(first.known, found, entry.field)
            taken.set(found.name, entry)
          })
        )
      })

export const resolve = (given: object, roles: Roles): check.Checked<ReadonlyMap<string, Group>> =>
  Either.gen(function* () {
    const groups = new Map<string, Group>()
    for (const [name, engines] of Object.entries(given)) {
      if (engines !== undefined) groups.set(name, yield* groupOf(name, engines, roles))
    }
    if (groups.size === 0) {
      return yield* check.invalid("groups", given, "Name at least the default group: { default: [{ url: ... }] }")
    }
    yield* role("defaultGroup", roles.defaultGroup, groups)
    if (roles.readGroupNamed) yield* role("readGroup", roles.readGroup, groups)
    const names = yield* uniqueNames(groups.values())
    const first = groups.get(roles.defaultGroup)!.engines[0]
    for (const entry of names.values()) {
      if (first?.known !== undefined && entry.known !== undefined) {
        yield* engine.checkTransforms(first.known, entry.known, entry.field)
      }
    }
    for (const [name, group] of groups) {
      const engines = Object.freeze(group.engines.map((entry) => later(entry, first, names)))
      groups.set(name, Object.freeze({ name, engines }))
    }
    return groups
  })
