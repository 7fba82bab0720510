/**
 * The known name that a mistyped one stands for.
 */

// Edits (insert, remove, replace, swap neighbours) between two names: the restricted Damerau-Levenshtein distance.
const distance = (a: string, b: string): number => {
  let beforeLast: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let edits = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, beforeLast[j - 2]! + 1)
      }
      row.push(edits)
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}

/** The nearest of `names`, or `undefined` when none is near enough to be what was meant. */
export const nearest = (name: string, names: Iterable<string>): string | undefined => {
  let found: string | undefined
  let least = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of names) {
    const edits = distance(name.toLowerCase(), candidate.toLowerCase())
    if (edits < least) {
      found = candidate
      least = edits
    }
  }
  return found
}
