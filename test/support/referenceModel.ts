import { join, sep } from "node:path"
import ts from "typescript"
import { publicModules, root } from "./package.js"

/** What a module exports under one name: a value, a type, or both. */
export interface Entry {
  readonly name: string
  readonly category: string
  readonly since: string
  /** TypeScript, one declaration each, not formatted. */
  readonly declarations: ReadonlyArray<string>
  /** Markdown with `{@link ...}`. */
  readonly text: string
  /** Markdown: fenced programs. */
  readonly examples: ReadonlyArray<string>
  /** Whether it is something to call, run, or provide. */
  readonly isValue: boolean
}

/** A public module. */
export interface Module {
  /** As a user imports it: `DbRouter`, `testing/PgCluster`. */
  readonly name: string
  readonly text: string
  readonly entries: ReadonlyArray<Entry>
}

const source = join(root, "src") + sep

const isInternal = (node: ts.Node) => node.getSourceFile().fileName.startsWith(join(source, "internal"))
const isOurs = (node: ts.Node) => node.getSourceFile().fileName.startsWith(source)

const docsOf = (node: ts.Node): ReadonlyArray<ts.JSDoc> => ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc)

/** The statement that a declaration stands in, which is what its docstring is above. */
const documented = (node: ts.Node): ts.Node => (ts.isVariableDeclaration(node) ? node.parent.parent : node)

/** The text of a docstring without its frame and its tags. */
const textOf = (doc: string): string => {
  const lines = doc
    .replace(/^\/\*\*/, "")
    .replace(/\*\/$/, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\* ?/, ""))
  const end = lines.findIndex((line) => /^@\w/.test(line))
  return (end < 0 ? lines : lines.slice(0, end)).join("\n").trim()
}

/** The docstring of a module is the first one of its file, also where it stands right above the first statement. */
const headOf = ({ text }: ts.SourceFile): string => {
  const [first] = ts.getLeadingCommentRanges(text, ts.getShebang(text)?.length ?? 0) ?? []
  return first === undefined ? "" : text.slice(first.pos, first.end)
}

const tagOf = (doc: ts.JSDoc | undefined, name: string): string | undefined => {
  const tag = doc?.tags?.find(({ tagName }) => tagName.text === name)
  return tag && (ts.getTextOfJSDocComment(tag.comment) ?? "").trim()
}

/** By hand: the compiler takes an `@` in a program for a tag. */
const examplesOf = (doc: ts.JSDoc | undefined): ReadonlyArray<string> =>
  [...(doc?.getText() ?? "").matchAll(/@example\n([\s\S]*?```ts\n[\s\S]*?```)/g)].map((example) =>
    example[1]!.replace(/^[ \t]*\* ?/gm, "").trim()
  )

const flags =
  ts.TypeFormatFlags.NoTruncation |
  ts.TypeFormatFlags.UseAliasDefinedOutsideCurrentScope |
  ts.TypeFormatFlags.WriteArrayAsGenericType |
  ts.TypeFormatFlags.InTypeAlias

/** Reads modules with the compiler: what it says of them is what users see. */
class Reader {
  private readonly checker: ts.TypeChecker

  constructor(private readonly program: ts.Program) {
    this.checker = program.getTypeChecker()
  }

  module(name: string, path: string): Module {
    const file = this.program.getSourceFile(path)
    const symbol = file && this.checker.getSymbolAtLocation(file)
    if (file === undefined || symbol === undefined) throw new Error(`${path} is no module`)
    const exported = this.checker
      .getExportsOfModule(symbol)
      .filter(({ declarations = [] }) => !declarations.some(ts.isNamespaceExport))
      .map((one) => ({ at: one.declarations![0]!.pos, entry: this.entry(one) }))
      .sort((a, b) => a.at - b.at)
    return { name, text: textOf(headOf(file)), entries: exported.map(({ entry }) => entry) }
  }

  /** Docstrings of a name that is passed on come first; what they do not say, those of where it comes from do. */
  private entry(symbol: ts.Symbol): Entry {
    const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0
    const target = isAlias ? this.checker.getAliasedSymbol(symbol) : symbol
    const declarations = target.declarations ?? []
    const docs = [...(isAlias ? symbol.declarations! : []), ...declarations].flatMap((one) =>
      docsOf(documented(one)).slice(-1)
    )
    const of = <A>(read: (doc: ts.JSDoc) => A | undefined) => docs.map(read).find((value) => value !== undefined)
    const texts = docs
      .map((doc) => textOf(doc.getText()))
      .filter((text, i, all) => text !== "" && all.indexOf(text) === i)
    return {
      name: symbol.name,
      // Of a value and a type in one, the value's.
      category: docs.map((doc) => tagOf(doc, "category")).findLast((value) => value !== undefined) ?? "",
      since: of((doc) => tagOf(doc, "since")) ?? "",
      declarations: declarations.map((one) => unlinked(this.declaration(symbol.name, one))),
      text: (isAlias ? texts.slice(0, 1) : texts).join("\n\n"),
      examples: docs.flatMap(examplesOf),
      isValue: (target.flags & ts.SymbolFlags.Value) !== 0
    }
  }

  private declaration(name: string, node: ts.Declaration): string {
    if (ts.isInterfaceDeclaration(node)) return this.interface(name, node)
    if (ts.isTypeAliasDeclaration(node)) return this.alias(name, node)
    if (ts.isClassDeclaration(node)) return this.class(name, node)
    return this.value(name, node)
  }

  /** As it is written where it is written, unless that names something that only the module knows. */
  private value(name: string, node: ts.Declaration): string {
    const { initializer, type } = ts.isVariableDeclaration(node) ? node : {}
    if (type !== undefined) return `declare const ${name}: ${this.expanded(type) ?? type.getText()}`
    const printed = this.print(this.checker.getTypeAtLocation(node), node)
    return initializer !== undefined && !ts.isArrowFunction(initializer) && printed.length > maxInferred
      ? `const ${name} = ${initializer.getText()}`
      : `declare const ${name}: ${printed}`
  }

  /** What a private alias stands for. */
  private expanded(type: ts.TypeNode): string | undefined {
    if (!this.isPrivate(type) || !ts.isTypeReferenceNode(type)) return undefined
    const alias = this.named(type)?.declarations?.find(ts.isTypeAliasDeclaration)
    const given = type.typeArguments ?? []
    return alias?.typeParameters === undefined
      ? alias?.type.getText()
      : alias.typeParameters.reduce(
          (text, { name }, i) => text.replace(new RegExp(`\\b${name.text}\\b`, "g"), given[i]?.getText() ?? name.text),
          alias.type.getText()
        )
  }

  private named(type: ts.TypeReferenceNode): ts.Symbol | undefined {
    const found = this.checker.getSymbolAtLocation(type.typeName)
    return found && found.flags & ts.SymbolFlags.Alias ? this.checker.getAliasedSymbol(found) : found
  }

  private print(type: ts.Type, at: ts.Node): string {
    return this.checker.typeToString(type, at, flags).replace(/import\("[^"]+"\)\./g, "")
  }

  /** Whether a type is a name that the module does not export, or one of the internals. */
  private isPrivate(type: ts.TypeNode): boolean {
    return (
      ts.isTypeReferenceNode(type) &&
      (this.named(type)?.declarations ?? []).some(
        (one) => isInternal(one) || (isOurs(one) && ts.isTypeAliasDeclaration(one) && !isExported(one))
      )
    )
  }

  private interface(name: string, node: ts.InterfaceDeclaration): string {
    const foreign = this.foreignBases(node)
    const members = this.checker.getPropertiesOfType(this.checker.getTypeAtLocation(node)).flatMap((property) => {
      const [declaration] = property.declarations ?? []
      const isOwn = declaration !== undefined && isOurs(declaration)
      // What a public interface of ours has is on its own page.
      const isElsewhere = declaration?.parent !== node && isOwn && !isInternal(declaration)
      return isOwn && !isElsewhere ? [this.member(property, declaration)] : []
    })
    const calls = node.members.filter(
      (member) => ts.isCallSignatureDeclaration(member) || ts.isIndexSignatureDeclaration(member)
    )
    const parameters = node.typeParameters?.map((one) => one.getText()).join(", ")
    return [
      `interface ${name}${parameters === undefined ? "" : `<${parameters}>`}${foreign.length === 0 ? "" : ` extends ${foreign.join(", ")}`} {`,
      ...calls.map((call) => call.getText()),
      ...members,
      "}"
    ].join("\n")
  }

  /** What an interface extends that users can import; in the place of an internal base, what that extends. */
  private foreignBases(node: ts.InterfaceDeclaration): ReadonlyArray<string> {
    const bases = (node.heritageClauses ?? []).flatMap(({ types }) => types)
    return bases.flatMap((base) => {
      if (!this.isFromInternals(base)) return [base.getText()]
      const declarations = this.checker.getTypeAtLocation(base).symbol.declarations ?? []
      return declarations.filter(ts.isInterfaceDeclaration).flatMap((internal) => this.foreignBases(internal))
    })
  }

  private isFromInternals(base: ts.ExpressionWithTypeArguments): boolean {
    const { symbol } = this.checker.getTypeAtLocation(base)
    return (symbol?.declarations ?? []).some(isInternal)
  }

  private member(property: ts.Symbol, declaration: ts.Declaration): string {
    const [doc] = docsOf(declaration)
    const above = doc === undefined ? "" : `${withoutTags(doc)}\n`
    if (ts.isPropertySignature(declaration) || ts.isMethodSignature(declaration)) return above + declaration.getText()
    const isOptional = (property.flags & ts.SymbolFlags.Optional) !== 0
    const type = this.checker.getTypeOfSymbolAtLocation(property, declaration)
    return `${above}readonly ${property.name}${isOptional ? "?" : ""}: ${this.print(type, declaration)}`
  }

  private alias(name: string, node: ts.TypeAliasDeclaration): string {
    if (!this.isPrivate(node.type)) return node.getText().replace(/^[\s\S]*?\btype /, "type ")
    const type = this.checker.getTypeAtLocation(node)
    const declaration = type.symbol?.declarations?.find(ts.isInterfaceDeclaration)
    if (declaration !== undefined) return this.interface(name, declaration)
    return `type ${name} = ${this.expanded(node.type) ?? this.print(type, node)}`
  }

  private class(name: string, node: ts.ClassDeclaration): string {
    const [base] = (node.heritageClauses ?? []).flatMap(({ types }) => types)
    const isShort = base === undefined || base.getText().length <= maxHeritage
    const heritage =
      base === undefined ? "" : ` extends ${isShort ? base.getText() : calleeOf(base.expression).getText()}`
    const type = this.checker.getTypeAtLocation(node)
    const members = this.checker.getPropertiesOfType(type).flatMap((property) => {
      const declaration = property.declarations?.find(isOurs)
      const isHidden = declaration === undefined || ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Private
      return isHidden ? [] : [{ at: declaration.pos, text: this.member(property, declaration) }]
    })
    const texts = members.sort((a, b) => a.at - b.at).map(({ text }) => text)
    return `declare class ${name}${heritage} {\n${texts.join("\n")}\n}`
  }
}

const maxHeritage = 90

/** Longer inferred types say less than the expressions that they are inferred from. */
const maxInferred = 200

const calleeOf = (node: ts.Expression): ts.Expression => (ts.isCallExpression(node) ? calleeOf(node.expression) : node)

const isExported = (node: ts.TypeAliasDeclaration) =>
  node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true

/** A block of TypeScript has no links. */
const unlinked = (text: string): string => text.replace(/\{@link\s+([^}]+)\}/g, "$1")

/** A docstring as it stands in a block of TypeScript. */
const withoutTags = (doc: ts.JSDoc): string => {
  const fallback = tagOf(doc, "default")
  const text = [textOf(doc.getText()), ...(fallback === undefined ? [] : [`Default: ${fallback}.`])].join("\n\n")
  const plain = text.split("\n")
  return plain.length === 1
    ? `/** ${plain[0]} */`
    : `/**\n${plain.map((line) => ` * ${line}`.trimEnd()).join("\n")}\n */`
}

/** Every public module, as the compiler sees it. */
export const read = (): ReadonlyArray<Module> => {
  const names = ["index", ...publicModules()]
  const paths = names.map((name) => join(root, "src", `${name}.ts`))
  const configuration = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile).config
  const { fileNames, options } = ts.parseJsonConfigFileContent(configuration, ts.sys, root)
  const ambient = fileNames.filter((path) => path.endsWith(".d.ts"))
  const reader = new Reader(ts.createProgram([...ambient, ...paths], options))
  return names.map((name, i) => reader.module(name, paths[i]!))
}
