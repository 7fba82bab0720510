/**
 * How slow the machine is. What the router promises is a number of probe intervals and of round trips; on a machine that is
 * busy with other things a process that has something to do waits for its turn, the servers' and this one alike. So a limit
 * of time has this added to it: some times what the shortest of processes took to begin and to end meanwhile.
 */
import { spawn } from "node:child_process"
import { Effect, type Scope } from "effect"

export interface Machine {
  /** The longest that the shortest of processes took between two moments, in milliseconds. */
  readonly slowest: (from: number, to: number) => number
  /** So many milliseconds later than on an idle machine is no fault of the router, for what lay between two moments. */
  readonly slack: (from: number, to: number) => number
}

/** How long to wait between two processes, in milliseconds. */
const pause = 200

/** A new connection and a first statement take a server and this process so many turns. */
const turns = 10

interface Run {
  readonly began: number
  ended: number | undefined
}

const run = (runs: Array<Run>) =>
  Effect.async<void>((resume) => {
    const one: Run = { began: performance.now(), ended: undefined }
    runs.push(one)
    const end = () => {
      one.ended = performance.now()
      resume(Effect.void)
    }
    spawn("true", { stdio: "ignore" }).once("close", end).once("error", end)
  })

/** Measures until the scope closes. */
export const watch: Effect.Effect<Machine, never, Scope.Scope> = Effect.gen(function* () {
  const runs: Array<Run> = []
  yield* run(runs)
  yield* Effect.forkScoped(Effect.forever(Effect.delay(run(runs), pause)))
  const slowest = (from: number, to: number) => {
    const now = performance.now()
    const during = runs.filter(({ began, ended = now }) => began <= to && ended >= from - pause)
    return Math.max(0, ...during.map(({ began, ended = now }) => ended - began))
  }
  return { slowest, slack: (from, to) => turns * slowest(from, to) }
})
