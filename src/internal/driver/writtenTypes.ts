/** Every parameter. What stands in a literal or a comment counts, too. */
const parameters = /\$(\d+)/g
/** Those with a cast right behind them. Behind a parenthesis it may be one of what a function makes of them: `f($1)::text`. */
const casts = /\$(\d+)\s*::|(?<=[(,=<>|]\s*)\(\s*\$(\d+)\s*\)\s*::|\bcast\s*\(\s*\$(\d+)\s+as\b/gi
const comment = /--|\/\*/

const count = (sql: string, pattern: RegExp): ReadonlyMap<number, number> => {
  const counts = new Map<number, number>()
  for (const [, ...groups] of sql.matchAll(pattern)) {
    const position = Number(groups.find((group) => group !== undefined))
    counts.set(position, (counts.get(position) ?? 0) + 1)
  }
  return counts
}

/**
 * The positions, from 0, of parameters with a cast wherever they stand: `$1::timestamptz`, `($1)::timestamptz`,
 * `CAST($1 AS timestamptz)`. PostgreSQL takes the type of such a parameter from the cast, whatever the columns beside it are.
 */
export const writtenTypes = (sql: string): ReadonlySet<number> => {
  // What stands before a parenthesis may be behind a comment.
  if (comment.test(sql)) return new Set()
  const all = count(sql, parameters)
  const written = new Set<number>()
  for (const [position, casted] of count(sql, casts)) if (all.get(position) === casted) written.add(position - 1)
  return written
}
