import * as Fs from "node:fs"
import * as Effect from "effect/Effect"
import { PgClusterError } from "./error.js"

/** The account of the servers. `uid` and `gid` are set only where it is not that of this process. */
export interface Account {
  readonly name: string
  readonly uid?: number
  readonly gid?: number
}

/** Accounts to try, best first. */
export type Candidates = readonly [Account, ...Array<Account>]

const readAccounts = (): ReadonlyArray<Required<Account>> => {
  try {
    return Fs.readFileSync("/etc/passwd", "utf8")
      .split("\n")
      .map((line) => line.split(":"))
      .filter((fields) => fields.length >= 4 && /^-?\d+$/.test(fields[2]!) && /^-?\d+$/.test(fields[3]!))
      .map((fields) => ({ name: fields[0]!, uid: Number(fields[2]), gid: Number(fields[3]) }))
  } catch {
    return []
  }
}

/**
 * The accounts to try, best first. initdb looks its own account up by number and gives up without an entry, hence only
 * accounts that /etc/passwd knows.
 */
export const candidates: Effect.Effect<Candidates, PgClusterError> = Effect.suspend(
  (): Effect.Effect<Candidates, PgClusterError> => {
    if (process.platform === "win32") {
      return Effect.fail(
        new PgClusterError({ reason: "UnsupportedPlatform", detail: "PgCluster does not run on Windows" })
      )
    }
    if (process.geteuid?.() !== 0) {
      return Effect.succeed([{ name: "this user" }])
    }
    const known = readAccounts().filter((account) => account.uid !== 0)
    const preferred = ["nobody", "postgres", "daemon"].flatMap((name) => known.filter((entry) => entry.name === name))
    const [first, ...rest] = preferred.length > 0 ? preferred : known.slice(0, 1)
    return first === undefined
      ? Effect.fail(
          new PgClusterError({
            reason: "AccountUnavailable",
            detail: "This program runs as root, and /etc/passwd names no other account"
          })
        )
      : Effect.succeed([first, ...rest])
  }
)

/** The identity part of `child_process.spawn`'s options. */
export const identity = (account: Account): { readonly uid?: number; readonly gid?: number } => ({
  ...(account.uid === undefined ? {} : { uid: account.uid }),
  ...(account.gid === undefined ? {} : { gid: account.gid })
})

/**
 * The environment of every child: none of the caller's PG* variables, which initdb and postgres obey, and messages in
 * English, which are searched.
 */
export const environment = (): Record<string, string> => ({
  PATH: `${process.env.PATH ?? ""}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`,
  LC_ALL: "C",
  TZ: "UTC",
  ...(process.env.LD_LIBRARY_PATH === undefined ? {} : { LD_LIBRARY_PATH: process.env.LD_LIBRARY_PATH }),
  ...(process.env.DYLD_LIBRARY_PATH === undefined ? {} : { DYLD_LIBRARY_PATH: process.env.DYLD_LIBRARY_PATH })
})
