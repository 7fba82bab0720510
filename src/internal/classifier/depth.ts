/** Texts up to this length (in UTF-16 code units) cannot nest deeply enough to matter. */
export const harmlessLength = 8_192

/** At 5,000 levels the parser was still well inside the default stack of Node; at 10,000 it was not. */
const maxDepth = 5_000

const maxBrackets = 500

/**
 * Whether parsing may exhaust the call stack, which costs the parser's instance. An upper bound from the characters alone:
 * every operator, blank, comment and constant may be one more level, up to the next comma or the end of the bracket it is in.
 */
export const isTooDeep = (sql: string): boolean => {
  if (sql.length <= harmlessLength) return false
  const outer: Array<number> = []
  let depth = 0
  for (let i = 0; i < sql.length; i++) {
    const code = sql.charCodeAt(i)
    if (code === 40 || code === 91) {
      outer.push(depth)
      if (outer.length > maxBrackets) return true
    } else if (code === 41 || code === 93) {
      depth = outer.pop() ?? 0
    } else if (code === 44) {
      depth = outer[outer.length - 1] ?? 0
    } else if (!isWord(code)) {
      const end = endOfSkipped(sql, i, code)
      // It never ends: the lexer refuses the rest.
      if (end < 0) return false
      if (end > i || code > 32 || sql.charCodeAt(i + 1) > 32) if (++depth > maxDepth) return true
      i = end
    }
  }
  return false
}

const isWord = (code: number) =>
  (code >= 97 && code <= 122) || (code >= 65 && code <= 90) || (code >= 48 && code <= 57) || code === 95 || code > 127

/**
 * The last character of the constant, quoted name or comment that begins at `i`, as PostgreSQL's lexer (scan.l) reads it; `i`
 * where none begins there, and -1 where it never ends.
 */
const endOfSkipped = (sql: string, i: number, code: number): number => {
  switch (code) {
    case 39:
      return isEscaped(sql, i) ? endOfEscaped(sql, i) : endOfQuoted(sql, i, "'")
    case 34:
      return endOfQuoted(sql, i, '"')
    case 36:
      return endOfDollars(sql, i)
    case 45:
      return sql.charCodeAt(i + 1) === 45 ? endOfLine(sql, i) : i
    case 47:
      return sql.charCodeAt(i + 1) === 42 ? endOfComment(sql, i) : i
    default:
      return i
  }
}

/** A quote that is doubled does not end it. */
const endOfQuoted = (sql: string, start: number, quote: string): number => {
  let end = sql.indexOf(quote, start + 1)
  while (end >= 0 && sql[end + 1] === quote) end = sql.indexOf(quote, end + 2)
  return end
}

/** Whether a quote begins E'...', where a backslash may hide the next quote. */
const isEscaped = (sql: string, quote: number): boolean =>
  (sql.charCodeAt(quote - 1) | 32) === 101 && !isName(sql.charCodeAt(quote - 2))

const isName = (code: number) => isWord(code) || code === 36

const endOfEscaped = (sql: string, quote: number): number => {
  for (let i = quote + 1; i < sql.length; i++) {
    const code = sql.charCodeAt(i)
    if (code === 92) i++
    else if (code === 39) {
      if (sql.charCodeAt(i + 1) === 39) i++
      else {
        const next = continued(sql, i)
        if (next < 0) return i
        i = next
      }
    }
  }
  return -1
}

/** The quote with which a constant goes on after blanks and comments with a new line among them; -1 if it does not. */
const continued = (sql: string, quote: number): number => {
  let isNewLine = false
  for (let i = quote + 1; i < sql.length; i++) {
    const code = sql.charCodeAt(i)
    if (code === 39) return isNewLine ? i : -1
    if (code === 45 && sql.charCodeAt(i + 1) === 45) {
      i = endOfLine(sql, i)
      isNewLine = true
    } else if (code > 32) return -1
    else isNewLine ||= code === 10 || code === 13
  }
  return -1
}

const endOfLine = (sql: string, start: number): number => {
  for (let i = start; i < sql.length; i++) {
    const code = sql.charCodeAt(i)
    if (code === 10 || code === 13) return i
  }
  return sql.length
}

const commentPart = /\/\*|\*\//g

/** Comments nest. */
const endOfComment = (sql: string, start: number): number => {
  let open = 0
  commentPart.lastIndex = start
  for (let part = commentPart.exec(sql); part !== null; part = commentPart.exec(sql)) {
    open += part[0] === "/*" ? 1 : -1
    if (open === 0) return commentPart.lastIndex - 1
  }
  return -1
}

const dollarTag = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y

/** $$...$$ or $tag$...$tag$; the dollar of a parameter or of a name begins none. */
const endOfDollars = (sql: string, start: number): number => {
  if (isName(sql.charCodeAt(start - 1))) return start
  dollarTag.lastIndex = start
  const [tag] = dollarTag.exec(sql) ?? []
  if (tag === undefined) return start
  const end = sql.indexOf(tag, start + tag.length)
  return end < 0 ? -1 : end + tag.length - 1
}

/** No text that was written by a person, or made by a query builder, nests so deeply. */
const deepTree = 1_000

/** Whether a parse tree is so deep that analysing it may exhaust the call stack. Needs next to no stack itself. */
export const isDeepTree = (tree: object): boolean => {
  let level: Array<object> = [tree]
  for (let depth = 0; depth < deepTree && level.length > 0; depth++) {
    const below: Array<object> = []
    for (const node of level) {
      for (const value of Object.values(node)) if (typeof value === "object" && value !== null) below.push(value)
    }
    level = below
  }
  return level.length > 0
}
