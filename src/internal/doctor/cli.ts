/**
 * The command line: `effect-db-router check` and `effect-db-router explain`.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Cause from "effect/Cause"
import * as ConfigError from "effect/ConfigError"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as RouterConfig from "../../RouterConfig.js"
import { RouterConfigError } from "../../RouterError.js"
import { DbRouter } from "../client/service.js"
import { printable } from "../validation/printValue.js"
import { check as checkServers } from "./check.js"
import * as explaining from "./explain.js"
import * as render from "./render.js"
import type { Explained } from "./report.js"
import { textOf, withoutSecrets } from "./told.js"

/** Makes a router. */
export type MakeRouter = (options: RouterConfig.Options) => Layer.Layer<DbRouter, Error>

/** What was asked for could be found out, and is not good. */
class Unhealthy extends Data.TaggedError("Unhealthy") {}

/** The command was given nothing to work on. */
class Usage extends Data.TaggedError("Usage")<{ readonly message: string }> {}

const json = Options.boolean("json").pipe(Options.withDescription("Print JSON instead of text"))

const write = (isJson: boolean, value: unknown, text: () => string) =>
  Console.log(isJson ? JSON.stringify(value, undefined, 2) : text())

/** The text of an error without the secrets of any engine. */
const safely = (options: RouterConfig.Options, error: Error) =>
  Effect.map(RouterConfig.resolve(options), ({ groups }) =>
    [...groups.values()]
      .flatMap(({ engines }) => engines.flatMap(({ known }) => known ?? []))
      .reduce((text, engine) => withoutSecrets(engine, text), textOf(error))
  )

interface Explanations {
  readonly explained: ReadonlyArray<Explained>
  /** Which servers get nothing now, and why. */
  readonly notes: ReadonlyArray<string>
}

const notesOf = (status: Effect.Effect.Success<DbRouter["status"]>) =>
  status.flatMap(({ eligible, name, reason, state }) =>
    eligible ? [] : [`${name} is ${state}${reason === undefined ? "" : `: ${reason}`}`]
  )

/** Where statements would go; of a router that does not start, nowhere. */
const explain = (make: MakeRouter, options: RouterConfig.Options, statements: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { status } = yield* DbRouter
    const explained = yield* explaining.explain(statements)
    return { explained, notes: notesOf(yield* status) } satisfies Explanations
  }).pipe(
    Effect.provide(make(options)),
    Effect.catchAll((error) =>
      Effect.map(safely(options, error), (why): Explanations => {
        const failed = `the router does not start: ${why}`
        return { explained: statements.map((sql) => ({ sql, route: undefined, error: failed })), notes: [] }
      })
    )
  )

const check = (make: MakeRouter) =>
  Command.make(
    "check",
    {
      json,
      instances: Options.integer("instances").pipe(
        Options.withDescription("How many processes run with this configuration, each with its own pools"),
        Options.withDefault(1)
      ),
      sql: Options.text("sql").pipe(
        Options.withDescription("Also say where this statement would go; may be given several times"),
        Options.repeated
      )
    },
    ({ instances, json, sql }) =>
      Effect.gen(function* () {
        const options = yield* RouterConfig.fromEnv
        const report = yield* checkServers(options, { instances })
        const { explained } = sql.length === 0 ? { explained: [] } : yield* explain(make, options, sql)
        yield* write(json, sql.length === 0 ? report : { ...report, explained }, () =>
          [render.report(report), ...(sql.length === 0 ? [] : [render.explained(explained)])].join("\n\n")
        )
        if (!report.healthy || explained.some(({ error }) => error !== undefined)) return yield* new Unhealthy()
      })
  ).pipe(
    Command.withDescription(
      "Asks every server of DATABASE_URL, DATABASE_REPLICA_URLS and DATABASE_GROUPS, and says what is wrong and what to do. " +
        "Exit code 0: healthy; 1: not; 2: wrong usage or configuration."
    )
  )

const isTerminal = Effect.sync(() => process.stdin.isTTY === true)

const standardInput = NodeStream.stdin.pipe(Stream.decodeText(), Stream.mkString)

const statementsOf = (given: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const statements =
      given.length > 0
        ? given
        : (yield* isTerminal)
          ? []
          : yield* Effect.flatMap(standardInput, explaining.statementsOf)
    if (statements.length > 0) return statements
    return yield* new Usage({ message: "Give SQL as arguments, or on the standard input" })
  })

const explainCommand = (make: MakeRouter) =>
  Command.make("explain", { json, sql: Args.text({ name: "sql" }).pipe(Args.repeated) }, ({ json, sql }) =>
    Effect.gen(function* () {
      const options = yield* RouterConfig.fromEnv
      const statements = yield* statementsOf(sql)
      const { explained, notes } = yield* explain(make, options, statements)
      yield* Effect.forEach(notes, (note) => Console.error(printable(note)))
      yield* write(json, explained, () => render.explained(explained))
      if (explained.some(({ error }) => error !== undefined)) return yield* new Unhealthy()
    })
  ).pipe(
    Command.withDescription(
      "Says where each statement would go now, and why; runs none of them. Without arguments, the statements of the standard input."
    )
  )

const interruptedCode = 130

const codeOf = (cause: Cause.Cause<unknown>): number => {
  if (Cause.isInterruptedOnly(cause)) return interruptedCode
  const failure = Cause.failureOption(cause)
  return Option.isSome(failure) && isOfUser(failure.value) ? 2 : 1
}

/** Errors that the user of the command can repair. */
const isOfUser = (error: unknown): error is { readonly message: string } =>
  error instanceof Usage ||
  error instanceof RouterConfigError ||
  ConfigError.isConfigError(error) ||
  ValidationError.isValidationError(error)

/** What the command line has not said yet. */
const tell = (cause: Cause.Cause<unknown>): Effect.Effect<void> => {
  const failure = Option.getOrUndefined(Cause.failureOption(cause))
  if (failure instanceof Unhealthy || ValidationError.isValidationError(failure)) return Effect.void
  if (ConfigError.isConfigError(failure)) return Console.error(String(failure))
  if (isOfUser(failure)) return Console.error(failure.message)
  return Cause.isInterruptedOnly(cause) ? Effect.void : Console.error(Cause.pretty(cause))
}

/** Runs the command line of this process. */
export const run = (make: MakeRouter, version: string): void => {
  const command = Command.make("effect-db-router").pipe(
    Command.withDescription("Routes the statements of @effect/sql to PostgreSQL servers"),
    Command.withSubcommands([check(make), explainCommand(make)])
  )
  Effect.suspend(() => Command.run(command, { name: "effect-db-router", version })(process.argv)).pipe(
    Effect.tapErrorCause(tell),
    Effect.provide(NodeContext.layer),
    // What the router would log is in the report. The standard output is for that alone, also with --log-level.
    Logger.withMinimumLogLevel(LogLevel.None),
    Effect.provide(Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.stringLogger))),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      disablePrettyLogger: true,
      teardown: (exit, end) => {
        const code = Exit.match(exit, { onFailure: codeOf, onSuccess: () => 0 })
        // Ending by itself, the process writes what it has still to write.
        process.exitCode = code
        if (code === interruptedCode) end(code)
      }
    })
  )
}
