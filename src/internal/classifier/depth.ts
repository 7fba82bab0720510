/** Texts up to this length (in UTF-16 code units) cannot nest deeply enough to matter. */
const harmlessLength = 8_192

/** At 5,000 levels the parser was still well inside the default stack of Node; at 10,000 it was not. */
const maxDepth = 5_000

const maxBrackets = 500

/**
 * Whether parsing may exhaust the call stack, which costs the parser's instance. An upper bound from the characters alone:
 * every operator and every blank may be one more level, up to the next comma or the end of the bracket it is in.
 */
export const isTooDeep = (sql: string): boolean => {
  if (sql.length <= harmlessLength) return false
  const outer: Array<number> = []
  let depth = 0
  for (let i = 0; i < sql.length; i++) {
    const code = sql.charCodeAt(i)
    if (code === 39 || code === 34) {
      // '...' or "..."; a doubled quote inside reads as two constants, which is the same here.
      const end = sql.indexOf(code === 39 ? "'" : '"', i + 1)
      if (end < 0) return false
      i = end
    } else if (code === 40 || code === 91) {
      outer.push(depth)
      if (outer.length > maxBrackets) return true
    } else if (code === 41 || code === 93) {
      depth = outer.pop() ?? 0
    } else if (code === 44) {
      depth = outer[outer.length - 1] ?? 0
    } else if (!isWord(code) && !(code <= 32 && sql.charCodeAt(i + 1) <= 32)) {
      if (++depth > maxDepth) return true
    }
  }
  return false
}

const isWord = (code: number) =>
  (code >= 97 && code <= 122) || (code >= 65 && code <= 90) || (code >= 48 && code <= 57) || code === 95 || code > 127
