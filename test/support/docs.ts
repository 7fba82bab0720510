import ts from "typescript"

interface Exported {
  readonly name: string
  readonly docs: ReadonlyArray<ts.JSDoc>
}

const docsOf = (node: ts.Node) => ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc)

// In `export { a, b }` each name may have a docstring of its own inside the braces.
const exportedBy = (statement: ts.Statement): ReadonlyArray<Exported> => {
  const docs = docsOf(statement)
  if (ts.isVariableStatement(statement)) {
    return statement.declarationList.declarations.map((declaration) => ({ name: declaration.name.getText(), docs }))
  }
  if (ts.isExportDeclaration(statement)) {
    const clause = statement.exportClause
    if (clause === undefined) {
      return [{ name: "*", docs }]
    }
    // `export * as A`: the module says the rest.
    return ts.isNamespaceExport(clause)
      ? []
      : clause.elements.map((element) => ({ name: element.name.text, docs: [...docs, ...docsOf(element)] }))
  }
  const name = ts.isExportAssignment(statement)
    ? undefined
    : (statement as ts.Statement & { readonly name?: ts.Node }).name
  return [{ name: name?.getText() ?? "default", docs }]
}

const isExported = (statement: ts.Statement) =>
  ts.isExportDeclaration(statement) ||
  ts.isExportAssignment(statement) ||
  (ts.canHaveModifiers(statement) &&
    ts.getModifiers(statement)?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword) === true)

const missing = (doc: ts.JSDoc | undefined, tags: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (doc === undefined) {
    return ["a docstring"]
  }
  const text = (comment: ts.JSDoc["comment"]) => (ts.getTextOfJSDocComment(comment) ?? "").trim()
  const value = (tag: string) => text(doc.tags?.find((found) => found.tagName.text === tag)?.comment)
  return [
    ...(tags.includes("since") && !/^\d+\.\d+\.\d+$/.test(value("since")) ? ["@since with a version"] : []),
    ...(tags.includes("category") && value("category") === "" ? ["@category with a name"] : [])
  ]
}

/**
 * What the public exports of a module lack, one line each: a docstring with `@since` and `@category`. Modules that a barrel
 * passes on have docstrings of their own. Overloads share the first.
 */
export const undocumented = (path: string, source: string): ReadonlyArray<string> => {
  const file = ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true)
  const first = file.statements[0]
  const heads = first === undefined ? [] : docsOf(first)
  const seen = new Set<string>()
  const lacking = file.statements.filter(isExported).flatMap((statement) => {
    const own = exportedBy(statement).filter(({ name }) => {
      const key = `${ts.isFunctionDeclaration(statement) ? "function" : statement.kind} ${name}`
      const isNew = !seen.has(key)
      seen.add(key)
      return isNew
    })
    const { line } = file.getLineAndCharacterOfPosition(statement.getStart())
    return own.flatMap(({ docs, name }) => {
      // The first docstring of a file is the module's, also where it stands right above the first statement.
      const candidates = statement === first && heads.length > 1 ? docs.slice(1) : docs
      return missing(candidates.at(-1), ["since", "category"]).map(
        (what) => `${path}:${line + 1} ${name} lacks ${what}`
      )
    })
  })
  return heads.length === 0 || missing(heads[0], ["since"]).length > 0
    ? [`${path}:1 the module lacks a docstring with @since`, ...lacking]
    : lacking
}
