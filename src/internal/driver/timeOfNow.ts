/** PostgreSQL takes blanks, digits and punctuation for ends of a word in a time: `'12:00today'`, `'now()'`, `'[now,)'`. */
const word = /(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])/i
/** What spells characters by their codes, and a constant that goes on in the next line. */
const spelled = /\bu&['"]|\be'(?:[^'\\]|\\[^0-7xu]|'')*\\[0-7xu]|'[^\S\n]*\n\s*'/i
const nestedComment = /\/\*(?:(?!\*\/)[\s\S])*\/\*/
/** The constants of a text, and what may have a quote in it that begins none: quoted names and comments. */
const quoted =
  /(?<![\w$])e'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|(?<!\w)\$(\w*)\$[\s\S]*?\$\1\$|"[^"]*"|--[^\n]*|\/\*[\s\S]*?\*\//gi

/**
 * Whether a text may have a constant that the server reads as a time of now, when it parses the text: `'now'`, `'today 12:00'`.
 * In doubt it has one.
 */
export const hasTimeOfNow = (sql: string): boolean => {
  if (spelled.test(sql)) return true
  if (!word.test(sql)) return false
  // Where constants begin depends on settings and on what is nested in what.
  if (sql.includes("\\") || nestedComment.test(sql)) return true
  for (const [part] of sql.matchAll(quoted)) if (/^[e'$]/i.test(part) && word.test(part)) return true
  return false
}
