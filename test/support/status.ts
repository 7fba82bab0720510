import { createServer } from "node:http"
import { join } from "node:path"
import { HttpApp, HttpServer } from "@effect/platform"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, Effect, Layer, type Scope } from "effect"
import type { DbRouter } from "effect-db-router"
import ts from "typescript"
import { root } from "./package.js"

/** Answers requests without a server. */
export type Ask = (path: string, init?: RequestInit) => Promise<Response>

/** What a browser sends with a request of a page of the same origin. */
export const sameOrigin = { "sec-fetch-site": "same-origin" }

/** An app as a web handler, with the router that is there. */
export const handler = <E>(app: HttpApp.Default<E, DbRouter.DbRouter>): Effect.Effect<Ask, never, DbRouter.DbRouter> =>
  Effect.map(Effect.runtime<DbRouter.DbRouter>(), (runtime) => {
    const answer = HttpApp.toWebHandlerRuntime(runtime)(app)
    return (path, init) => answer(new Request(`http://localhost${path}`, init))
  })

/** Serves an app on a port of its own until the scope closes, and tells its address. */
export const served = <E>(
  app: HttpApp.Default<E, DbRouter.DbRouter>
): Effect.Effect<string, never, DbRouter.DbRouter | Scope.Scope> =>
  Effect.gen(function* () {
    const listening = NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })
    const context = yield* Layer.build(Layer.provideMerge(HttpServer.serve(app), Layer.orDie(listening)))
    const { address } = Context.get(context, HttpServer.HttpServer)
    return `http://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}`
  })

const globals = `
type Status = import("../src/HttpStatus.js").Status
type Server = import("../src/HttpStatus.js").Server
type Traffic = import("../src/HttpStatus.js").Traffic
type Decided = import("../src/HttpStatus.js").Decision
type HealthEvent = import("../src/Health.js").Event
`

/** What the compiler says of the script of the page, which has its types in comments. */
export const scriptErrors = (script: string): ReadonlyArray<string> => {
  const files = new Map([
    [join(root, "test/status-script.js"), script],
    [join(root, "test/status-globals.d.ts"), globals]
  ])
  const options: ts.CompilerOptions = {
    strict: true,
    allowJs: true,
    checkJs: true,
    noEmit: true,
    noUnusedLocals: true,
    noUnusedParameters: true,
    noUncheckedIndexedAccess: true,
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: ["node"],
    skipLibCheck: true
  }
  const host = ts.createCompilerHost(options)
  const { fileExists, getSourceFile, readFile } = host
  host.fileExists = (path) => files.has(path) || fileExists(path)
  host.readFile = (path) => files.get(path) ?? readFile(path)
  host.getSourceFile = (path, ...rest) => {
    const text = files.get(path)
    return text === undefined ? getSourceFile(path, ...rest) : ts.createSourceFile(path, text, ts.ScriptTarget.ES2022)
  }
  const program = ts.createProgram([...files.keys()], options, host)
  return [...files.keys()].flatMap((path) =>
    ts.getPreEmitDiagnostics(program, program.getSourceFile(path)).map(({ file, messageText, start }) => {
      const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start ?? 0).line + 1
      return `${line}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`
    })
  )
}
