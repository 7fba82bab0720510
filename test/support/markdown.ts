/**
 * What Markdown pages say of the repository: links, anchors, and texts that programs print.
 */
import ts from "typescript"

/** The lines of a page that are not code; code leaves empty lines behind. */
const prose = (markdown: string): ReadonlyArray<string> => {
  let fence: string | undefined
  return markdown.split(/\r?\n/).map((line) => {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1]
    if (fence === undefined && mark !== undefined) {
      fence = mark
      return ""
    }
    if (fence === undefined) return line
    if (mark?.startsWith(fence) === true) fence = undefined
    return ""
  })
}

const headingLine = /^#{1,6}\s+(.*?)\s*#*$/

/** The headings of a page, as they are written. */
export const headings = (markdown: string): ReadonlyArray<string> =>
  prose(markdown).flatMap((line) => headingLine.exec(line)?.[1] ?? [])

/** The anchors that GitHub gives the headings of a page. */
export const anchors = (markdown: string): ReadonlySet<string> => {
  const taken = new Map<string, number>()
  return new Set(
    headings(markdown).map((heading) => {
      const text = heading.replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
      const slug = text
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\p{M}_\- ]/gu, "")
        .replaceAll(" ", "-")
      const before = taken.get(slug) ?? 0
      taken.set(slug, before + 1)
      return before === 0 ? slug : `${slug}-${before}`
    })
  )
}

/** The targets of all links and images of a page, with the lines that they are on. */
export const links = (markdown: string): ReadonlyArray<{ readonly line: number; readonly target: string }> =>
  prose(markdown).flatMap((line, i) =>
    Array.from(
      line.replaceAll(/`[^`]*`/g, "").matchAll(/\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)/g),
      ([, target]) => ({
        line: i + 1,
        target: target!
      })
    )
  )

/** All that stands between backticks in the prose of a page. */
export const codeSpans = (markdown: string): ReadonlyArray<string> =>
  prose(markdown).flatMap((line) => Array.from(line.matchAll(/`([^`]+)`/g), ([, text]) => text!))

const isPlus = (node: ts.Node): node is ts.BinaryExpression =>
  ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.PlusToken

const textOf = (node: ts.Node): string => {
  if (ts.isStringLiteralLike(node)) return node.text
  if (ts.isTemplateExpression(node)) {
    return node.head.text + node.templateSpans.map(({ literal }) => `…${literal.text}`).join("")
  }
  return isPlus(node) ? textOf(node.left) + textOf(node.right) : "…"
}

/** The texts in a source file; what is put into them is `…`. */
export const textsIn = (source: string): ReadonlyArray<string> => {
  const texts: Array<string> = []
  const visit = (node: ts.Node, inSum: boolean): void => {
    const isText = ts.isStringLiteralLike(node) || ts.isTemplateExpression(node) || isPlus(node)
    if (isText && !inSum) texts.push(textOf(node))
    ts.forEachChild(node, (child) => visit(child, isPlus(node)))
  }
  visit(ts.createSourceFile("source.ts", source, ts.ScriptTarget.ES2022, false), false)
  return texts
}

/** Whether a program that has a text may print a message, in which `…` stands for anything. */
export const mayPrint = (text: string, message: string): boolean => {
  let from = 0
  for (const part of message.split("…").map((part) => part.trim())) {
    const at = text.indexOf(part, from)
    if (at < 0) return false
    from = at + part.length
  }
  return true
}
