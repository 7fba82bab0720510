/**
 * `npm run demo`: a shop whose unmodified `@effect/sql` code is spread over a primary and its standbys.
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Console, Effect, Exit } from "effect"
import * as Demo from "./Demo.js"
import { DemoError } from "./DemoError.js"

const help = `npm run demo [-- --once | --help]

Starts a PostgreSQL primary with two streaming standbys, a small shop as an HTTP
service on them, and users that send it requests. The shop is plain @effect/sql code;
effect-db-router sends its statements to the servers. A table shows where they went,
and why; so does a page, http://127.0.0.1:3000, which can kill, freeze, delay and promote
the servers. Ctrl-C stops everything.

  --once   one pass of some seconds; then checks that no write reached a standby, that
           every standby served reads, that everything written was read back, and that
           the sums add up. Exits with 1 if one of them is not so.
  --help   this text

With DATABASE_URL (and DATABASE_REPLICA_URLS, separated by commas) it uses those servers
instead. There it makes a schema demo_shop, and drops it at the end.
`

const known = ["--once", "--help", "-h"]

const main = (args: ReadonlyArray<string>) => {
  const unknown = args.find((arg) => !known.includes(arg))
  if (unknown !== undefined) {
    return Effect.fail(new DemoError({ message: `Unknown argument ${unknown}; --help lists those there are` }))
  }
  return args.includes("--help") || args.includes("-h")
    ? Effect.asVoid(Console.log(help))
    : Demo.run(args.includes("--once") ? "once" : "live")
}

/** The message of an error, and of what caused it. */
const messages = (error: unknown): ReadonlyArray<string> =>
  error instanceof Error ? [error.message, ...("cause" in error ? messages(error.cause) : [])] : [String(error)]

const report = (cause: Cause.Cause<unknown>) => {
  if (Cause.isInterruptedOnly(cause)) return Effect.void
  const failure = Cause.failureOption(cause)
  const text = failure._tag === "Some" ? [...new Set(messages(failure.value))].join("\n  ") : Cause.pretty(cause)
  return Console.error(`\n ${text}`)
}

const args = process.argv.slice(2)

// A Ctrl-C reaches npm, tsx and this program, and the first two pass it on to the next. The first is what stops it; without
// a listener the second would end it at once.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => {})

// The write fails too, and that is the end; an event without a listener would be a crash.
process.stdout.on("error", () => {})

NodeRuntime.runMain(main(args).pipe(Effect.tapErrorCause(report), Effect.provide(NodeContext.layer)), {
  disableErrorReporting: true,
  teardown: (exit, onExit) => {
    if (Exit.isSuccess(exit)) return onExit(0)
    // Stopping is how the live demo ends. A pass that was stopped has not passed.
    const stopped = Cause.isInterruptedOnly(exit.cause)
    onExit(stopped ? (args.includes("--once") ? 130 : 0) : 1)
  }
})
