import * as Fs from "node:fs"
import * as Os from "node:os"

const memory = "/dev/shm"

// Three servers with all the log that they keep stay well below.
const ample = 4 * 1024 ** 3

const hasRoom = (path: string): boolean => {
  try {
    const { bavail, bsize } = Fs.statfsSync(path)
    return bavail * bsize >= ample
  } catch {
    return false
  }
}

/**
 * Where a cluster's directory goes: where the caller or TMPDIR says; else into memory, if this is Linux and there is
 * plenty, as making a few thousand files is most of the work; else into the system's directory for temporary files.
 */
export const choose = (directory: string | undefined): string => {
  if (directory !== undefined) return directory
  const asked = process.env.TMPDIR !== undefined && process.env.TMPDIR !== ""
  return !asked && process.platform === "linux" && hasRoom(memory) ? memory : Os.tmpdir()
}

/** Where copied programs go: a file system in memory may forbid to run any. */
export const forPrograms = (chosen: string): string => (chosen === memory ? Os.tmpdir() : chosen)
