import { codeBlocks } from "./readme.js"
import type { Rooms } from "./rooms.js"

const wordsOf = (text: string): ReadonlyArray<string> => (text === "" ? [] : text.split(" "))

/** The level of each room: one more than the highest of those that it imports. */
export const levelsOf = (rooms: Rooms): ReadonlyMap<string, number> => {
  const levels = new Map<string, number>()
  for (const [room, { imports }] of Object.entries(rooms)) {
    levels.set(room, 1 + Math.max(0, ...wordsOf(imports).map((other) => levels.get(other) ?? 0)))
  }
  return levels
}

/** The levels of the rooms as the first drawing of a page has them: a line a room, a number where a level begins. */
export const drawnLevels = (page: string): ReadonlyMap<string, number> => {
  const levels = new Map<string, number>()
  let level = 0
  for (const line of codeBlocks(page)[0]?.content.split("\n") ?? []) {
    const [, number, room] = /^ {0,1}(\d+| {1,2}) +(\w+)(?: |$)/.exec(line) ?? []
    if (room === undefined) continue
    if (number!.trim() !== "") level = Number(number)
    levels.set(room, level)
  }
  return levels
}

/** Where the page and the table of the rooms differ: the tree, and the rooms that the walks and the words name. */
export const pageProblems = (page: string, rooms: Rooms): ReadonlyArray<string> => {
  const levels = levelsOf(rooms)
  const drawn = drawnLevels(page)
  const walks = codeBlocks(page)
    .slice(1)
    .flatMap(({ content }) => Array.from(content.matchAll(/\[(\w+)\]/g), ([, room]) => room!))
  const words = page.split("\n").flatMap((line) => /^\|.*\| `(\w+)` \|$/.exec(line)?.[1] ?? [])
  return [
    ...[...levels].flatMap(([room, level]) =>
      drawn.get(room) === level ? [] : [`${room} is on level ${level}, and drawn on ${drawn.get(room) ?? "none"}`]
    ),
    ...[...drawn.keys()].flatMap((room) => (levels.has(room) ? [] : [`${room} is drawn, and no room`])),
    ...[...new Set([...walks, ...words])].flatMap((room) => (levels.has(room) ? [] : [`${room} is named, and no room`]))
  ]
}
