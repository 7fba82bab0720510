import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type Account, environment, identity } from "./account.js"
import { fileError, PgClusterError, saysNoRoom } from "./error.js"
import * as Files from "./files.js"
import { until } from "./poll.js"
import * as Processes from "./processes.js"

/** What all servers of a cluster have in common. */
export interface Home {
  readonly directory: string
  readonly binDir: string
  readonly account: Account
  readonly startTimeout: Duration.Duration
}

/** One server: its files, and its process while it runs. */
export interface Server {
  readonly name: string
  readonly home: Home
  readonly data: string
  readonly log: string
  child: ChildProcess | undefined
  frozen: boolean
  /** Where this start's part of the log begins, in bytes. */
  logStart: number
}

/** A server that has not been started. */
export const make = (name: string, home: Home): Server => ({
  name,
  home,
  data: Path.join(home.directory, name),
  log: Path.join(home.directory, `${name}.log`),
  child: undefined,
  frozen: false,
  logStart: 0
})

/** The id of the server's first process, while it runs. */
export const pidOf = (server: Server): number | undefined =>
  server.child === undefined || server.child.exitCode !== null || server.child.signalCode !== null
    ? undefined
    : server.child.pid

/** What the server has logged since its last start. */
export const logOf = (server: Server): string => {
  try {
    return Fs.readFileSync(server.log).subarray(server.logStart).toString("utf8")
  } catch {
    return ""
  }
}

/** The end of a text, short enough for a message. */
export const tail = (text: string): string => text.trimEnd().split("\n").slice(-15).join("\n")

const failure = (server: Server, reason: PgClusterError["reason"], detail: string): PgClusterError =>
  new PgClusterError({ reason, node: server.name, detail, log: tail(logOf(server)) })

const launch = (server: Server): Effect.Effect<ChildProcess, PgClusterError> =>
  Effect.try({
    try: () => {
      // As long as it exists, a server believes in the process that it names.
      Fs.rmSync(Path.join(server.data, "postmaster.pid"), { force: true })
      const log = Fs.openSync(server.log, "a", 0o600)
      try {
        server.logStart = Fs.fstatSync(log).size
        const child = spawn(Path.join(server.home.binDir, "postgres"), ["-D", server.data], {
          // By this folder the watchdog knows it.
          cwd: server.home.directory,
          // Not in the terminal's group: Ctrl-C would shut it down while the program still needs it.
          detached: true,
          stdio: ["ignore", log, log],
          env: environment(),
          ...identity(server.home.account)
        })
        child.on("error", () => {})
        child.unref()
        server.child = child
        server.frozen = false
        return child
      } finally {
        Fs.closeSync(log)
      }
    },
    catch: (cause) => fileError(`Starting the server ${server.name}`, cause)
  })

/** Line 8 of postmaster.pid, as pg_ctl reads it: "ready" once a primary or a hot standby takes connections. */
const isReady = (server: Server, pid: number): boolean => {
  try {
    const lines = Fs.readFileSync(Path.join(server.data, "postmaster.pid"), "utf8").split("\n")
    return Number(lines[0]) === pid && lines[7]?.trim() === "ready"
  } catch {
    return false
  }
}

const whyItEnded = (server: Server): PgClusterError => {
  const log = logOf(server)
  if (/could not bind|Address already in use/.test(log)) {
    return failure(server, "PortTaken", "The port of the server is taken")
  }
  const code = server.child?.exitCode ?? server.child?.signalCode
  return failure(
    server,
    saysNoRoom(log) ? "NoRoom" : "StartFailed",
    `The server ended before it took connections (exit ${code})`
  )
}

/** Starts the server and waits until it takes connections; what does not get there is killed. */
export const start = (server: Server): Effect.Effect<void, PgClusterError> =>
  Effect.suspend(() => {
    if (pidOf(server) !== undefined) return Effect.void
    return Effect.zipRight(
      launch(server),
      until(
        Effect.suspend(() => {
          const pid = pidOf(server)
          return pid === undefined ? Effect.fail(whyItEnded(server)) : Effect.succeed(isReady(server, pid))
        }),
        {
          every: "10 millis",
          within: server.home.startTimeout,
          otherwise: Effect.suspend(() =>
            Effect.fail(
              failure(
                server,
                "StartTimeout",
                `The server did not take connections within ${Duration.format(server.home.startTimeout)}`
              )
            )
          )
        }
      )
    ).pipe(Effect.onError(() => Effect.exit(kill(server))))
  })

/** SIGKILL to the server and all its backends. */
export const kill = (server: Server): Effect.Effect<void, PgClusterError> =>
  Effect.suspend(() => {
    const pid = pidOf(server)
    return pid === undefined ? Effect.void : Effect.zipRight(Processes.killTree(pid), awaitEnd(server))
  })

const awaitEnd = (server: Server): Effect.Effect<void, PgClusterError> =>
  until(
    Effect.sync(() => pidOf(server) === undefined),
    {
      every: "5 millis",
      within: server.home.startTimeout,
      otherwise: Effect.suspend(() =>
        Effect.fail(
          failure(server, "StopTimeout", `The server did not stop within ${Duration.format(server.home.startTimeout)}`)
        )
      )
    }
  )

/** A fast shutdown: sessions are closed, the log is flushed, standbys get the rest of it. */
export const stop = (server: Server): Effect.Effect<void, PgClusterError> =>
  Effect.flatMap(Effect.either(running(server)), (found) => {
    if (found._tag === "Left") return found.left.reason === "NotRunning" ? Effect.void : Effect.fail(found.left)
    Processes.signal(found.right, "SIGINT")
    return awaitEnd(server)
  })

/** The process id of a server that can answer. */
export const running = (server: Server): Effect.Effect<number, PgClusterError> =>
  Effect.suspend(() => {
    const pid = pidOf(server)
    if (pid === undefined) return Effect.fail(failure(server, "NotRunning", "The server does not run"))
    if (server.frozen) {
      return Effect.fail(new PgClusterError({ reason: "Frozen", node: server.name, detail: "The server is frozen" }))
    }
    return Effect.succeed(pid)
  })

/** SIGSTOP to the server and all its backends. */
export const freeze = (server: Server): Effect.Effect<void, PgClusterError> =>
  Effect.suspend(() => {
    const pid = pidOf(server)
    if (pid === undefined) return Effect.fail(failure(server, "NotRunning", "The server does not run"))
    server.frozen = true
    return Processes.freezeTree(pid)
  })

/** Undoes {@link freeze}; nothing to undo is fine. */
export const thaw = (server: Server): Effect.Effect<void> =>
  Effect.suspend(() => {
    const pid = pidOf(server)
    if (pid === undefined) return Effect.void
    server.frozen = false
    return Processes.thawTree(pid)
  })

const cannotStart = (program: string, cause: unknown): PgClusterError =>
  new PgClusterError({
    reason: "BinariesUnusable",
    detail: `${program} cannot be run: ${cause instanceof Error ? cause.message : String(cause)}`,
    cause
  })

interface Ended {
  readonly code: number | null
  /** What it wrote to standard output and standard error. */
  readonly output: string
}

const spawnIn = (home: Home, program: string, parameters: ReadonlyArray<string>) =>
  spawn(program, parameters, {
    // By this folder the watchdog knows it.
    cwd: home.directory,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: environment(),
    ...identity(home.account)
  })

const execute = (
  home: Home,
  program: string,
  parameters: ReadonlyArray<string>
): Effect.Effect<Ended, PgClusterError> =>
  Effect.async((resume) => {
    try {
      const child = spawnIn(home, program, parameters)
      let output = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (chunk: string) => {
          output += chunk
        })
      }
      child.once("error", (cause) => resume(Effect.fail(cannotStart(program, cause))))
      child.once("close", (code) => resume(Effect.succeed({ code, output })))
    } catch (cause) {
      // Some refusals are thrown, others emitted.
      resume(Effect.fail(cannotStart(program, cause)))
    }
  })

/**
 * Removes the server's data. A killed server has left a shared memory segment behind, which a next start would have
 * reused: line 7 of postmaster.pid holds its key and its id, and only its owner may remove it.
 */
export const removeData = (server: Server): Effect.Effect<void, PgClusterError> =>
  Effect.gen(function* () {
    const path = Path.join(server.data, "postmaster.pid")
    const lines = Fs.existsSync(path) ? Fs.readFileSync(path, "utf8").split("\n") : []
    const segment = lines[6]?.trim().split(/\s+/)[1]
    if (segment !== undefined) yield* Effect.ignore(execute(server.home, "ipcrm", ["-m", segment]))
    yield* Files.remove(server.data)
  })

const cannotRun = /error while loading shared libraries|Library not loaded|GLIBC|cannot execute/

const reasonOf = (output: string): PgClusterError["reason"] => {
  if (saysNoRoom(output)) return "NoRoom"
  if (cannotRun.test(output)) return "BinariesUnusable"
  return output.includes("could not look up effective user ID") ? "AccountUnavailable" : "InitFailed"
}

/** Runs a program on the data directory to its end. */
const run = (
  server: Server,
  program: "initdb" | "postgres",
  parameters: ReadonlyArray<string>
): Effect.Effect<void, PgClusterError> =>
  Effect.timeoutFail(execute(server.home, Path.join(server.home.binDir, program), parameters), {
    duration: server.home.startTimeout,
    onTimeout: () =>
      new PgClusterError({
        reason: "InitFailed",
        detail: `${program} did not end within ${Duration.format(server.home.startTimeout)}`
      })
  }).pipe(
    Effect.flatMap(({ code, output }) =>
      code === 0
        ? Effect.void
        : Effect.fail(
            new PgClusterError({
              reason: reasonOf(output),
              detail: `${program} failed (exit ${code})`,
              log: tail(output)
            })
          )
    )
  )

/** Makes the data directory of a first server, whose superuser has this name and password. */
export const initialise = (server: Server, username: string, password: string): Effect.Effect<void, PgClusterError> => {
  const secret = Path.join(server.home.directory, "password")
  const parameters = [
    ...["-D", server.data, "-U", username, `--pwfile=${secret}`, "-A", "scram-sha-256"],
    ...["-E", "UTF8", "--locale=C", "--no-sync"]
  ]
  return Effect.gen(function* () {
    yield* Files.writeFile(secret, `${password}\n`, server.home.account)
    yield* run(server, "initdb", parameters)
    yield* Files.remove(secret)
  })
}

/**
 * Has a data directory that was never used say that its server has these settings. As a standby it would not start with less
 * than it says (src/backend/access/transam/xlogrecovery.c, CheckRequiredParameterValues), which is what initdb has used.
 */
export const settle = (server: Server, settings: ReadonlyArray<readonly [name: string, value: string]>) =>
  // For one user, whose statements end before there is any.
  run(server, "postgres", [
    "--single",
    ...["-D", server.data, "-c", "fsync=off", "-c", "dynamic_shared_memory_type=mmap"],
    ...settings.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    "template1"
  ])
