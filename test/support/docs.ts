import ts from "typescript"

const names = (statement: ts.Statement): ReadonlyArray<string> => {
  if (ts.isVariableStatement(statement)) {
    return statement.declarationList.declarations.map((declaration) => declaration.name.getText())
  }
  if (ts.isExportDeclaration(statement)) {
    const clause = statement.exportClause
    if (clause === undefined) {
      return ["*"]
    }
    return ts.isNamespaceExport(clause) ? [clause.name.text] : clause.elements.map((element) => element.name.text)
  }
  if (ts.isExportAssignment(statement)) {
    return ["default"]
  }
  const name = (statement as ts.Statement & { readonly name?: ts.Node }).name
  return name === undefined ? ["default"] : [name.getText()]
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
    ...(tags.includes("category") && text(doc.comment) === "" ? ["a sentence that says what it is"] : []),
    ...(tags.includes("since") && !/^\d+\.\d+\.\d+$/.test(value("since")) ? ["@since with a version"] : []),
    ...(tags.includes("category") && value("category") === "" ? ["@category with a name"] : [])
  ]
}

/**
 * What the public exports of a module lack, one line each: a docstring with a sentence, `@since` and `@category`. A
 * module that a barrel passes on needs `@since` only, as its own docstring says the rest. Overloads share the first docstring.
 */
export const undocumented = (path: string, source: string): ReadonlyArray<string> => {
  const file = ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true)
  const first = file.statements[0]
  const heads = first === undefined ? [] : ts.getJSDocCommentsAndTags(first).filter(ts.isJSDoc)
  const seen = new Set<string>()
  const lacking = file.statements.filter(isExported).flatMap((statement) => {
    const own = names(statement).filter((name) => {
      const key = `${ts.isFunctionDeclaration(statement) ? "function" : statement.kind} ${name}`
      const isNew = !seen.has(key)
      seen.add(key)
      return isNew
    })
    const docs = ts.getJSDocCommentsAndTags(statement).filter(ts.isJSDoc)
    // The first docstring of a file is the module's, also where it stands right above the first statement.
    const candidates = statement === first && docs.length > 0 ? docs.slice(heads.length > 1 ? 1 : 0) : docs
    const isBarrel = ts.isExportDeclaration(statement) && statement.exportClause !== undefined
    const tags = isBarrel && ts.isNamespaceExport(statement.exportClause!) ? ["since"] : ["since", "category"]
    const { line } = file.getLineAndCharacterOfPosition(statement.getStart())
    return own.flatMap((name) =>
      missing(candidates.at(-1), tags).map((what) => `${path}:${line + 1} ${name} lacks ${what}`)
    )
  })
  return heads.length === 0 || missing(heads[0], ["since"]).length > 0
    ? [`${path}:1 the module lacks a docstring with @since`, ...lacking]
    : lacking
}
