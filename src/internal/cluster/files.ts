import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import type { Account } from "./account.js"
import { codeOf, fileError, type PgClusterError } from "./error.js"

/** What to leave out of a copy, asked with the path relative to the copied folder. */
export type Skip = (relative: string) => boolean

const ignoreMissing = (cause: unknown): void => {
  if (codeOf(cause) !== "ENOENT") throw cause
}

const own = async (path: string, account: Account): Promise<void> => {
  if (account.uid !== undefined && account.gid !== undefined) await Fs.lchown(path, account.uid, account.gid)
}

const parallel = 16

const copyInto = async (from: string, to: string, account: Account, skip: Skip): Promise<void> => {
  const folders = [""]
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const entries = await Fs.readdir(Path.join(from, folder), { withFileTypes: true })
    await Fs.mkdir(Path.join(to, folder), { mode: 0o700 })
    // Before anything is in it: the watchdog, which may not be root, can remove what is its own or empty.
    await own(Path.join(to, folder), account)
    const rest = entries
      .map((entry) => ({ entry, relative: Path.join(folder, entry.name) }))
      .filter((one) => !skip(one.relative))
    const copy = async ({ entry, relative }: (typeof rest)[number]): Promise<void> => {
      const target = Path.join(to, relative)
      if (entry.isDirectory()) {
        folders.push(relative)
        return
      }
      if (entry.isSymbolicLink()) {
        await Fs.symlink(await Fs.readlink(Path.join(from, relative)), target)
      } else if (entry.isFile()) {
        await Fs.copyFile(Path.join(from, relative), target, Fs.constants.COPYFILE_FICLONE)
      } else {
        return
      }
      await own(target, account)
    }
    for (let next = 0; next < rest.length; next += parallel) {
      await Promise.all(rest.slice(next, next + parallel).map((one) => copy(one).catch(ignoreMissing)))
    }
  }
}

/**
 * Copies a folder to a place that does not exist yet, for `account`. A file that vanishes meanwhile is left out, as a
 * running server removes files. Not interruptible: nothing may appear in a directory that is being removed.
 */
export const copyTree = (
  from: string,
  to: string,
  account: Account,
  skip: Skip = () => false
): Effect.Effect<void, PgClusterError> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: () => copyInto(from, to, account, skip),
      catch: (cause) => fileError(`Copying ${from} to ${to}`, cause)
    })
  )

/** Copies one file for `account`. */
export const copyFile = (from: string, to: string, account: Account): Effect.Effect<void, PgClusterError> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: async () => {
        await Fs.copyFile(from, to)
        await own(to, account)
      },
      catch: (cause) => fileError(`Copying ${from} to ${to}`, cause)
    })
  )

/** Writes a file that only `account` may read. */
export const writeFile = (path: string, content: string, account: Account): Effect.Effect<void, PgClusterError> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: async () => {
        await Fs.writeFile(path, content, { mode: 0o600 })
        await own(path, account)
      },
      catch: (cause) => fileError(`Writing ${path}`, cause)
    })
  )

/** Removes a file or a folder with all that is in it; nothing there is fine. */
export const remove = (path: string): Effect.Effect<void, PgClusterError> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: () => Fs.rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 }),
      catch: (cause) => fileError(`Removing ${path}`, cause)
    })
  )

/** Makes a folder that only `account` may enter. */
export const makeFolder = (path: string, account: Account): Effect.Effect<void, PgClusterError> =>
  Effect.uninterruptible(
    Effect.tryPromise({
      try: async () => {
        await Fs.mkdir(path, { mode: 0o700 })
        await own(path, account)
      },
      catch: (cause) => fileError(`Making ${path}`, cause)
    })
  )
