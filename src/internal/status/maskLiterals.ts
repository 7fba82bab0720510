/**
 * SQL without the values in it: every constant becomes `?`, as in OpenTelemetry's sanitized `db.query.text`, and comments go.
 * What cannot be told from a constant is taken for one. PostgreSQL, "Lexical Structure".
 */

// One alternative for each token; what begins and does not end goes to the end of the text.
const token = new RegExp(
  [
    // Comments; those in `/*` nest, which is seen to below.
    "(?<line>--[^\\n\\r]*)",
    "(?<block>/\\*)",
    // Names stay.
    '(?<name>"(?:[^"]|"")*(?:"|$)|[\\p{L}_\\u0080-\\uFFFF][\\p{L}\\p{N}_$\\u0080-\\uFFFF]*)',
    // $1 stays; $tag$ ... $tag$ is a text.
    "(?<parameter>\\$\\d+)",
    "(?<dollar>\\$(?:[\\p{L}_][\\p{L}\\p{N}_]*)?\\$)",
    "(?<text>')",
    "(?<number>(?:\\d[\\d_]*\\.?[\\d_]*|\\.\\d[\\d_]*)(?:[eE][+-]?\\d+)?[\\p{L}\\p{N}_]*)"
  ].join("|"),
  "gu"
)

/** Where a block comment ends that begins at an index. */
const endOfComment = (sql: string, from: number): number => {
  const mark = /\/\*|\*\//g
  mark.lastIndex = from
  let depth = 0
  for (let found = mark.exec(sql); found !== null; found = mark.exec(sql)) {
    depth += found[0] === "/*" ? 1 : -1
    if (depth === 0) return mark.lastIndex
  }
  return sql.length
}

/** Where a text in quotes ends, of which the content begins at an index. */
const endOfText = (sql: string, from: number): number => {
  for (let i = from; i < sql.length; i++) {
    // Whether `\'` ends it depends on a prefix and on a setting of the server: nothing behind it is shown.
    if (sql[i] === "\\" && sql[i + 1] === "'") return sql.length
    if (sql[i] !== "'") continue
    if (sql[i + 1] !== "'") return i + 1
    i++
  }
  return sql.length
}

const prefixes = new Set(["e", "b", "x", "n"])

// The value of a setting may be a bare word, which looks like a name.
const statements = /(?:"(?:[^"]|"")*"|[^;"])+/g
const setsSettings =
  /^\s*(?:SET|ALTER\s+(?:DATABASE|ROLE|USER|SYSTEM|FUNCTION|PROCEDURE|ROUTINE)|CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE))\b/i
const setting =
  /(\bSET\s+(?:(?:SESSION|LOCAL)\s+)?(?:"(?:[^"]|"")*"|[^\s="]|\s*\.\s*)+(?:\s*=\s*|\s+TO\b\s*))(?:"(?:[^"]|"")*"|[^;"])+/i

const maskSettings = (sql: string): string =>
  sql.replace(statements, (statement) => (setsSettings.test(statement) ? statement.replace(setting, "$1?") : statement))

/** A text of SQL without its constants and comments. */
export const maskLiterals = (sql: string): string => {
  let masked = ""
  let at = 0
  token.lastIndex = 0
  for (let found = token.exec(sql); found !== null; found = token.exec(sql)) {
    const { block, dollar, line, name, number, text } = found.groups ?? {}
    masked += sql.slice(at, found.index)
    at = token.lastIndex
    if (line !== undefined) continue
    if (block !== undefined) {
      at = endOfComment(sql, found.index)
      masked += " "
    } else if (dollar !== undefined) {
      const end = sql.indexOf(dollar, at)
      at = end < 0 ? sql.length : end + dollar.length
      masked += "?"
    } else if (text !== undefined) {
      at = endOfText(sql, at)
      masked += "?"
    } else if (number !== undefined) {
      masked += "?"
    } else if (found[0].startsWith('"') && (found[0].length === 1 || !found[0].endsWith('"'))) {
      // A quote without its other one: what is a name and what a text is not known.
      return `${maskSettings(masked)}?`
    } else if (name === undefined || sql[at] !== "'" || !prefixes.has(name.toLowerCase())) {
      masked += found[0]
    }
    token.lastIndex = at
  }
  return maskSettings(masked + sql.slice(at))
}
