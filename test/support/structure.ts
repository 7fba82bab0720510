import { dirname, join, normalize, sep } from "node:path"
import ts from "typescript"

/** The files of `src` by their path below it: `DbRouter.ts`, `internal/driver/pool.ts`. */
export type Sources = ReadonlyMap<string, string>

/** Every specifier that a file imports, re-exports, or imports dynamically. */
export const importsOf = (source: string): ReadonlyArray<string> =>
  ts.preProcessFile(source, true, true).importedFiles.map((file) => file.fileName)

const isRelative = (specifier: string) => specifier.startsWith(".")

/** The path of the source file that a relative import names, whether or not it exists. */
const target = (from: string, specifier: string) =>
  normalize(join(dirname(from), specifier))
    .split(sep)
    .join("/")
    .replace(/\.js$/, ".ts")

/** The name of the package that a specifier belongs to. */
export const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/")

const problems = (
  sources: Sources,
  problem: (path: string, specifier: string) => string | undefined
): ReadonlyArray<string> =>
  Array.from(sources).flatMap(([path, source]) =>
    importsOf(source).flatMap((specifier) => {
      const text = problem(path, specifier)
      return text === undefined ? [] : [`src/${path} imports "${specifier}": ${text}`]
    })
  )

/** Barrels of Effect's packages, which load every module; relative imports that Node could not resolve. */
export const importStyle = (sources: Sources): ReadonlyArray<string> =>
  problems(sources, (_, specifier) => {
    if (isRelative(specifier)) {
      return specifier.endsWith(".js") ? undefined : "a relative import ends in .js"
    }
    return specifier === "effect" || /^@effect\/[^/]+$/.test(specifier)
      ? "import the module, not the barrel of the package"
      : undefined
  })

/** Packages that an installed copy would not find. */
export const undeclared = (sources: Sources, declared: ReadonlyArray<string>): ReadonlyArray<string> =>
  problems(sources, (_, specifier) =>
    isRelative(specifier) || specifier.startsWith("node:") || declared.includes(packageOf(specifier))
      ? undefined
      : "not a dependency or peer of the package"
  )

/** The shortest way of imports from a file to something that `forbidden` names, as the files and packages passed. */
export const wayTo = (
  sources: Sources,
  from: string,
  forbidden: (reached: string) => boolean
): ReadonlyArray<string> | undefined => {
  const queue: Array<ReadonlyArray<string>> = [[from]]
  const seen = new Set([from])
  for (let way = queue.shift(); way !== undefined; way = queue.shift()) {
    const last = way[way.length - 1]!
    for (const specifier of importsOf(sources.get(last) ?? "")) {
      const reached = isRelative(specifier) ? target(last, specifier) : specifier
      if (forbidden(reached)) {
        return [...way, reached]
      }
      if (isRelative(specifier) && !seen.has(reached)) {
        seen.add(reached)
        queue.push([...way, reached])
      }
    }
  }
  return undefined
}

// From the foot to the top; a module may import what stands before it.
const layers = ["Engine.ts", "EngineGroup.ts", "Session.ts", "HttpSession.ts", "DbRouter.ts"]
const pure = ["SqlClassifier.ts", "Selector.ts", "RoutingContext.ts", "Consistency.ts"]
// What a program begins with: the barrel, the command.
const entryPoints = ["index.ts", "bin.ts"]
const drivers = ["pg", "pg-pool", "pg-cursor", "@effect/sql-pg"]

/** Imports against the one direction of the design, direct or through other files. */
export const directions = (sources: Sources): ReadonlyArray<string> => {
  const ways = Array.from(sources.keys()).flatMap((path) => {
    const rank = layers.indexOf(path)
    const above = rank < 0 ? [] : layers.slice(rank + 1)
    const isPure = pure.includes(path)
    const way = wayTo(
      sources,
      path,
      (reached) =>
        above.includes(reached) || (isPure && (layers.includes(reached) || drivers.includes(packageOf(reached))))
    )
    return way === undefined ? [] : [way]
  })
  const direct = problems(sources, (path, specifier) => {
    const reached = target(path, specifier)
    const isTesting = path.startsWith("testing/")
    if (reached === "DbRouter.ts" && !entryPoints.includes(path) && !isTesting) {
      return "only the entry points and the testing modules stand above DbRouter"
    }
    if (/(^|\/)index\.ts$/.test(reached)) {
      return "the barrels are for users"
    }
    return isRelative(specifier) && reached.startsWith("testing/") && !isTesting
      ? "the testing modules are an entry point of their own"
      : undefined
  })
  return [...ways.map((way) => `src/${way.join(" -> ")} goes against the direction of imports`), ...direct]
}

/** What a barrel passes on to users although `exports` hides it. */
export const exposedInternals = (sources: Sources): ReadonlyArray<string> =>
  problems(sources, (path, specifier) =>
    /(^|\/)index\.ts$/.test(path) && /(^|\/)internal\//.test(specifier) ? "a barrel exports no internals" : undefined
  )

const silencers =
  /@ts-(?:ignore|nocheck|expect-error)|\b(?:biome|eslint|oxlint)-(?:ignore|disable)|\bas any\b|\bas never as\b/

const globals = new Set(["Date.now", "Math.random", "performance.now"])

const lineOf = (file: ts.SourceFile, position: number) => file.getLineAndCharacterOfPosition(position).line + 1

/** Places where the compiler or the linter is silenced. */
export const silenced = (sources: Sources): ReadonlyArray<string> =>
  Array.from(sources).flatMap(([path, source]) =>
    source.split("\n").flatMap((line, index) => {
      const found = silencers.exec(line)
      return found === null ? [] : [`src/${path}:${index + 1} silences the checks with "${found[0]}"`]
    })
  )

/** Time and chance that `Clock` and `Random`, and so a test's own, do not drive. */
export const ambient = (sources: Sources): ReadonlyArray<string> =>
  Array.from(sources).flatMap(([path, source]) => {
    const file = ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true)
    const found: Array<string> = []
    const visit = (node: ts.Node): void => {
      const isNow = ts.isNewExpression(node) && node.expression.getText() === "Date" && !node.arguments?.length
      if (isNow || (ts.isPropertyAccessExpression(node) && globals.has(node.getText()))) {
        found.push(`src/${path}:${lineOf(file, node.getStart())} uses ${node.getText()}: use Clock or Random`)
      }
      ts.forEachChild(node, visit)
    }
    visit(file)
    return found
  })

/** Whether a text names what ends a resource. */
const isEnd = /\b(?:abort|cancel|destroy|giveBack|kill|release|removeData|rollback)\b|\.(?:close|end)\b/

const isEffect = (node: ts.Node | undefined, name: RegExp): boolean =>
  node !== undefined &&
  ts.isPropertyAccessExpression(node) &&
  node.expression.getText() === "Effect" &&
  name.test(node.name.text)

/** A call of a function of Effect's, as itself or as a step of a pipe: `[what comes in, the function, its other arguments]`. */
const stepsOf = (
  node: ts.CallExpression
): ReadonlyArray<readonly [string, ts.Expression, ReadonlyArray<ts.Expression>]> => {
  const { arguments: given, expression } = node
  if (!ts.isPropertyAccessExpression(expression)) return []
  if (expression.name.text !== "pipe") return [[given[0]?.getText() ?? "", expression, given.slice(1)]]
  return given.map((step, index) => {
    const before = [expression.expression, ...given.slice(0, index)].map((one) => one.getText()).join(" ")
    return ts.isCallExpression(step) ? [before, step.expression, [...step.arguments]] : [before, step, []]
  })
}

/** Where racing effects are interruptible, whatever fiber runs them: in a daemon, or a loop of its own. */
const racing: ReadonlySet<string> = new Set([
  "internal/health/monitor.ts",
  "internal/engine/probe.ts",
  "internal/topology/patroni.ts"
])

/**
 * Ends of resources that an interruption can skip or cut short, and permits that it can lose: what `internal/util/bounded.ts`,
 * `Effect.ensuring` and `internal/util/lock.ts` are for.
 */
export const leakyEnds = (sources: Sources): ReadonlyArray<string> =>
  Array.from(sources).flatMap(([path, source]) => {
    const file = ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true)
    const found = new Set<string>()
    const report = (node: ts.Node, what: string) => found.add(`src/${path}:${lineOf(file, node.getStart())} ${what}`)
    const visit = (node: ts.Node): void => {
      if (isEffect(node, /Semaphore/) || (ts.isQualifiedName(node) && /^Effect\.Semaphore/.test(node.getText())))
        report(node, "can lose a permit: use Lock")
      if (isEffect(node, /^disconnect$/)) report(node, "has no limit where nothing interrupts: use bounded.within")
      if (isEffect(node, /^race/) && !racing.has(path)) {
        report(node, "waits for the loser where nothing interrupts: use bounded.within")
      }
      for (const [before, step, others] of ts.isCallExpression(node) ? stepsOf(node) : []) {
        if (isEffect(step, /^timeout/) && /\bEffect\.interruptible\b/.test(before)) {
          report(step, "waits until the caller is interrupted once more: use bounded.run")
        }
        if (isEffect(step, /^ignore/) && isEnd.test(before)) {
          report(step, "ignores no interruption of an end: use Effect.exit or bounded.run")
        }
        if (isEffect(step, /^zipRight$/) && /\.(?:giveBack|release)$/.test(others[0]?.getText() ?? "")) {
          report(step, "releases only after a success: use Effect.ensuring")
        }
      }
      ts.forEachChild(node, visit)
    }
    visit(file)
    return [...found]
  })

/** Where a date is read. Differences of dates are wrong when the clock is set. */
export const dates = (sources: Sources): ReadonlyArray<string> =>
  Array.from(sources).flatMap(([path, source]) => (/[cC]urrentTimeMillis/.test(source) ? [path] : []))

/** Tests that do not run. Each entry of `tests` is a path and its text. */
export const disabledTests = (tests: ReadonlyMap<string, string>): ReadonlyArray<string> =>
  Array.from(tests).flatMap(([path, source]) => {
    const file = ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true)
    const found: Array<string> = []
    const visit = (node: ts.Node): void => {
      if (
        ts.isPropertyAccessExpression(node) &&
        ["skip", "only", "todo", "skipIf", "runIf", "fails"].includes(node.name.text) &&
        /^(it|test|describe|suite)\b/.test(node.getText())
      ) {
        found.push(`${path}:${lineOf(file, node.getStart())} ${node.getText()}: every test runs`)
      }
      ts.forEachChild(node, visit)
    }
    visit(file)
    return found
  })
