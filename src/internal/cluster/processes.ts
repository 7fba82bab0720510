import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Effect from "effect/Effect"
import { PgClusterError } from "./error.js"
import { until } from "./poll.js"

interface Process {
  readonly pid: number
  readonly parent: number
  /** First letter of the state as ps(1) shows it: T stopped, Z dead but not yet reaped. */
  readonly state: string
}

const fromProc = (): ReadonlyArray<Process> =>
  Fs.readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = Fs.readFileSync(`/proc/${name}/stat`, "latin1")
        // proc(5): pid (comm) state ppid; comm may hold blanks and parentheses.
        const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
        return [{ pid: Number(name), parent: Number(parent), state: state ?? "" }]
      } catch {
        return []
      }
    })

const fromPs = (): ReadonlyArray<Process> =>
  execFileSync("ps", ["-A", "-o", "pid=,ppid=,stat="], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length === 3)
    .map(([pid, parent, state]) => ({ pid: Number(pid), parent: Number(parent), state: state!.charAt(0) }))

const table = (): ReadonlyArray<Process> => (process.platform === "linux" ? fromProc() : fromPs())

/** Sends a signal; a process that is gone is fine. */
export const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch {
    // Gone already: what every caller wants, or is about to find out.
  }
}

const descendants = (pid: number, processes: ReadonlyArray<Process>): ReadonlyArray<Process> =>
  processes.filter((one) => one.parent === pid).flatMap((one) => [one, ...descendants(one.pid, processes)])

const isAlive = (one: Process): boolean => one.state !== "Z" && one.state !== "X"

const isStill = (one: Process): boolean => !isAlive(one) || one.state === "T" || one.state === "t"

const waitFor = (done: () => boolean, detail: string): Effect.Effect<void, PgClusterError> =>
  until(Effect.sync(done), {
    every: "5 millis",
    within: "10 seconds",
    otherwise: Effect.fail(new PgClusterError({ reason: "StopTimeout", detail }))
  })

/**
 * Stops a process and all its descendants with SIGSTOP. The parent goes first, and only when it stands still are its
 * children looked up: by then no process is left that could fork another one.
 */
export const freezeTree = (pid: number): Effect.Effect<void, PgClusterError> =>
  Effect.zipRight(
    Effect.suspend(() => {
      signal(pid, "SIGSTOP")
      return waitFor(() => table().every((one) => one.pid !== pid || isStill(one)), `Process ${pid} did not stop`)
    }),
    waitFor(() => {
      const moving = descendants(pid, table()).filter((one) => !isStill(one))
      for (const one of moving) signal(one.pid, "SIGSTOP")
      return moving.length === 0
    }, `The children of process ${pid} did not stop`)
  )

/** Undoes {@link freezeTree}, children first. */
export const thawTree = (pid: number): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const one of descendants(pid, table())) signal(one.pid, "SIGCONT")
    signal(pid, "SIGCONT")
  })

/**
 * Kills a process and all its descendants with SIGKILL, and waits until none of them is left. Every backend leads a
 * session of its own, so that a process group would reach the parent only.
 */
export const killTree = (pid: number): Effect.Effect<void, PgClusterError> =>
  Effect.flatMap(Effect.ignore(freezeTree(pid)), () => {
    const doomed = new Set([pid, ...descendants(pid, table()).map((one) => one.pid)])
    for (const one of doomed) signal(one, "SIGKILL")
    return waitFor(
      () => !table().some((one) => doomed.has(one.pid) && isAlive(one)),
      `Process ${pid} or a child of it did not die`
    )
  })
