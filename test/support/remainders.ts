import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"

/** A folder of its own, for clusters whose remainders are counted afterwards. In memory where there is room: quicker. */
export const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => {
    const roomy = Fs.existsSync("/dev/shm") && Fs.statfsSync("/dev/shm").bavail * 4096 > 4 * 1024 ** 3
    const folder = Fs.mkdtempSync(Path.join(Fs.realpathSync(roomy ? "/dev/shm" : Os.tmpdir()), "cluster-test-"))
    // The servers' account may be another than ours.
    Fs.chmodSync(folder, 0o777)
    return folder
  }),
  (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
)

const read = (what: () => string): string => {
  try {
    return what()
  } catch {
    return ""
  }
}

/** The processes that work in the folder, or name it in their command line. Without /proc, none. */
export const processesIn = (folder: string): ReadonlyArray<string> =>
  (Fs.existsSync("/proc") ? Fs.readdirSync("/proc") : [])
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .filter(
      (pid) =>
        read(() => Fs.readlinkSync(`/proc/${pid}/cwd`)).startsWith(folder) ||
        read(() => Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")).includes(`-D\0${folder}`)
    )
    .map((pid) => `${pid} ${read(() => Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ")}`)

/** What is left of the clusters in a folder: files and processes. */
export const remainders = (folder: string): ReadonlyArray<string> => [...Fs.readdirSync(folder), ...processesIn(folder)]

/** Waits, for at most ten seconds, until nothing is left, and returns what is left then. */
export const awaitNothing = (folder: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 200 && remainders(folder).length > 0; tries++) yield* Effect.sleep("50 millis")
    return remainders(folder)
  })
