/** Programs of Debian that npm does not have, run as the cluster's servers are: as `nobody`, in a folder of their own. */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect, Option, Schedule } from "effect"
import { candidates, identity } from "../../src/internal/cluster/account.js"
import { free } from "../../src/internal/cluster/ports.js"

/** Where Debian has what administrators start is not in everybody's path. */
const path = `${process.env.PATH ?? ""}:/usr/sbin:/usr/local/sbin`

/** The first line that a program says of its version; none where it is not installed. */
export const version = (program: string): Effect.Effect<Option.Option<string>> =>
  Effect.promise(async () => {
    try {
      const { stderr, stdout } = await promisify(execFile)(program, ["--version"], { env: { PATH: path } })
      return Option.some(`${stdout}${stderr}`.trim().split("\n")[0]!)
    } catch {
      return Option.none()
    }
  })

const isListening = (port: number) =>
  Effect.async<boolean>((resume) => {
    const socket = connect({ host: "127.0.0.1", port })
    const end = (is: boolean) => () => {
      socket.destroy()
      resume(Effect.succeed(is))
    }
    socket.once("connect", end(true)).once("error", end(false))
  })

const endMillis = 3_000

const end = (child: ChildProcess) =>
  Effect.async<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    const timer = setTimeout(() => child.kill("SIGKILL"), endMillis)
    child.once("exit", () => {
      clearTimeout(timer)
      resume(Effect.void)
    })
    child.kill("SIGINT")
  })

export interface Program {
  readonly name: string
  /** The files that it reads, in a folder of its own, which it may write to. */
  readonly files: (folder: string, port: number) => Readonly<Record<string, string>>
  readonly args: (folder: string) => ReadonlyArray<string>
}

/** Runs a program until the scope closes. Returns the port that it listens on. */
export const run = ({ args, files, name }: Program) =>
  Effect.gen(function* () {
    const [account] = yield* candidates
    const who = identity(account)
    const [port, spare] = yield* free(2)
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), `bench-${name}-`))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    const give = (path: string) => {
      if (who.uid !== undefined && who.gid !== undefined) chownSync(path, who.uid, who.gid)
    }
    give(folder)
    for (const [file, content] of Object.entries(files(folder, port!))) {
      writeFileSync(join(folder, file), content.replaceAll("SPARE_PORT", String(spare)), { mode: 0o600 })
      give(join(folder, file))
    }
    let said = ""
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(name, args(folder), { ...who, cwd: folder, env: { PATH: path }, stdio: "pipe" })
        const note = (chunk: Buffer) => {
          said = `${said}${chunk}`.slice(-4_000)
        }
        child.stdout.on("data", note)
        child.stderr.on("data", note)
        child.on("error", (error) => note(Buffer.from(error.message)))
        return child
      }),
      end
    )
    yield* Effect.suspend(() =>
      child.exitCode === null ? isListening(port!) : Effect.dieMessage(`${name} has ended: ${said}`)
    ).pipe(
      Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("50 millis") }),
      Effect.timeoutFail({ duration: "15 seconds", onTimeout: () => new Error(`${name} does not listen: ${said}`) }),
      Effect.orDie
    )
    return port!
  })
