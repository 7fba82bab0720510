import { dirname, join, normalize, sep } from "node:path"
import { importsOf, type Sources } from "./structure.js"

/** A folder of `src/internal`, `src/testing`, or a public file. */
export interface Room {
  /** The rooms that it imports, types as well, with spaces between. */
  readonly imports: string
  /** Of a folder, the files that other rooms import, with spaces between. */
  readonly doors?: string
}

export type Rooms = Readonly<Record<string, Room>>

/** The room of a file of `src`; none for one that lies beside the rooms. */
export const roomOf = (path: string): string | undefined => {
  const parts = path.replace(/\.ts$/, "").split("/")
  if (parts.length === 1) return parts[0]
  const folder = parts.slice(0, -1)
  if (folder[0] !== "internal") return folder.join("/")
  return folder.length === 1 ? undefined : folder.slice(1).join("/")
}

interface Import {
  readonly from: string
  readonly to: string
}

const importsBetween = (sources: Sources): ReadonlyArray<Import> =>
  Array.from(sources).flatMap(([from, source]) =>
    importsOf(source).flatMap((specifier) => {
      if (!specifier.startsWith(".")) return []
      const to = normalize(join(dirname(from), specifier))
        .split(sep)
        .join("/")
        .replace(/\.js$/, ".ts")
      return roomOf(from) === roomOf(to) ? [] : [{ from, to }]
    })
  )

const words = (text: string | undefined): ReadonlyArray<string> => (text ? text.split(" ") : [])

/** Where the sources and the table of the rooms differ, and what the table must not say. */
export const roomProblems = (sources: Sources, rooms: Rooms): ReadonlyArray<string> => {
  const names = Object.keys(rooms)
  const outside = Array.from(sources.keys()).filter((path) => roomOf(path) === undefined)
  const there = new Set(Array.from(sources.keys()).flatMap((path) => roomOf(path) ?? []))
  const imports = importsBetween(sources)
  const used = new Map(imports.map(({ from, to }) => [`${roomOf(from)} imports ${roomOf(to)}`, `${from} -> ${to}`]))
  const allowed = names.flatMap((room) => words(rooms[room]!.imports).map((other) => `${room} imports ${other}`))
  const isDoor = (to: string) => words(rooms[roomOf(to) ?? ""]?.doors).includes(to.slice(to.lastIndexOf("/") + 1, -3))
  const inside = imports.filter(({ to }) => to.startsWith("internal/") && roomOf(to) !== undefined && !isDoor(to))
  const opened = new Set(imports.map(({ to }) => to))
  return [
    ...outside.map((path) => `src/${path} lies in no room`),
    ...[...there].filter((room) => !names.includes(room)).map((room) => `${room} is not in the table`),
    ...names.filter((room) => !there.has(room)).map((room) => `${room} is in the table, and not there`),
    ...names.flatMap((room, i) =>
      words(rooms[room]!.imports).flatMap((other) =>
        names.indexOf(other) < i ? [] : [`${room} imports ${other}, which does not stand before it`]
      )
    ),
    ...[...used].flatMap(([way, file]) =>
      allowed.includes(way) ? [] : [`${way}, which the table does not say: ${file}`]
    ),
    ...allowed.filter((way) => !used.has(way)).map((way) => `${way} only in the table`),
    ...inside.map(({ from, to }) => `src/${from} imports ${to}, which is no door of its room`),
    ...names.flatMap((room) =>
      words(rooms[room]!.doors).flatMap((door) =>
        opened.has(`internal/${room}/${door}.ts`) ? [] : [`${room} has a door that is not used: ${door}`]
      )
    )
  ]
}

/** The longest chain of imports, from the top to the foot. */
export const longestChain = (rooms: Rooms): ReadonlyArray<string> => {
  const chains = new Map<string, ReadonlyArray<string>>()
  let longest: ReadonlyArray<string> = []
  // From the foot on: what a room imports stands before it.
  for (const [room, { imports }] of Object.entries(rooms)) {
    const below = words(imports).map((other) => chains.get(other) ?? [])
    const chain = [room, ...below.reduce((a, b) => (b.length > a.length ? b : a), [])]
    chains.set(room, chain)
    if (chain.length > longest.length) longest = chain
  }
  return longest
}
