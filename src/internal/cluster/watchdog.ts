import { type ChildProcess, spawn } from "node:child_process"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Account, type Candidates, environment, identity } from "./account.js"
import { fileError, PgClusterError, saysNoRoom } from "./error.js"
import * as Files from "./files.js"
import { inRealTime, until } from "./poll.js"

/**
 * Makes the cluster's directory, says so, waits until its standard input closes, which the kernel does however the
 * program that holds the other end dies, and then ends everything that runs in the directory and removes it.
 *
 * It runs as the account that owns the directory and the servers: only then may it see their working directories in
 * /proc and remove the directory, in a container without CAP_SYS_PTRACE too. Servers are found by their working directory,
 * which they have from their first instruction on: nothing has to be reported, so nothing can be missed. Only `sh` and
 * the usual small tools, as the program's own Node may lie where this account may not go.
 */
const script = `
trap '' INT TERM HUP QUIT PIPE TSTP
dir=$1
umask 077
mkdir "$dir" || exit 73
if [ -x "$2/initdb" ] && [ -x "$2/postgres" ] && [ -r "$2/postgres" ]; then echo reachable; else echo unreachable; fi
exec >/dev/null 2>&1
while read -r _; do :; done
ours() {
  if [ -e /proc/self/cwd ]; then
    ls -ld /proc/[0-9]*/cwd | grep -F -- "-> $dir" | sed 's|^.* /proc/\\([0-9]*\\)/cwd -> .*$|\\1|'
  else
    ps -A -o pid= -o ppid= -o command= | WANTED="-D $dir/" awk '
      { parent[$1] = $2; if (index($0, ENVIRON["WANTED"])) found[$1] = 1 }
      END { for (one in parent) if (one in found || parent[one] in found) print one }'
  fi
}
postmasters() {
  for file in "$dir"/*/postmaster.pid; do
    [ -f "$file" ] && read -r pid < "$file" && echo "$1" | grep -qx -- "$pid" && echo "$pid"
  done
}
# An immediate shutdown first: it gives shared memory and semaphores back.
running=$(ours)
servers=$(postmasters "$running")
if [ -n "$servers" ]; then
  for pid in $running; do kill -CONT "$pid"; done
  for pid in $servers; do kill -QUIT "$pid"; done
  tries=0
  while [ -n "$(ours)" ] && [ $tries -lt 40 ]; do tries=$((tries + 1)); sleep 0.02; done
fi
# Then by force: hold everybody, see what shared memory they have, kill them, and remove it.
hold() {
  before=
  while running=$(ours); [ "$running" != "$before" ]; do kill -STOP $running; before=$running; done
}
tries=0
while hold; [ -n "$running" ] && [ $tries -lt 400 ]; do
  maps=$(for pid in $running; do cat "/proc/$pid/maps"; done)
  kill -KILL $running
  for id in $(echo "$maps" | awk '$6 ~ /^\\/SYSV/ { print $5 }' | sort -u); do ipcrm -m "$id"; done
  for file in $(echo "$maps" | awk '$6 ~ /^\\/dev\\/shm\\/PostgreSQL[.]/ { print $6 }' | sort -u); do rm -f "$file"; done
  tries=$((tries + 1))
  sleep 0.02
done
# And what a server killed earlier has left behind: line 7 holds key and id of its shared memory segment.
for file in "$dir"/*/postmaster.pid; do
  [ -f "$file" ] && set -- $(sed -n 7p "$file") && [ -n "$2" ] && ipcrm -m "$2"
done
tries=0
while [ -e "$dir" ] && [ $tries -lt 20 ]; do rm -rf "$dir"; tries=$((tries + 1)); [ -e "$dir" ] && sleep 0.05; done
`

/** A directory that lasts as long as the scope and this process, whichever ends first. */
export interface Workspace {
  readonly directory: string
  readonly account: Account
  /** `account` can run the binaries where they are. */
  readonly reachable: boolean
  /** The watchdog lives. After it was killed, this process has to end the servers itself. */
  readonly isGuarded: () => boolean
}

const launch = (directory: string, binDir: string, account: Account): ChildProcess =>
  spawn("/bin/sh", ["-c", script, "effect-db-router-cluster", directory, binDir], {
    cwd: "/",
    // A session of its own: Ctrl-C in the terminal must not reach it.
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
    env: environment(),
    ...identity(account)
  })

const gone = (child: ChildProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

const close = (child: ChildProcess, directory: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    child.stdin?.destroy()
    return until(
      Effect.sync(() => gone(child)),
      { every: "5 millis", within: "30 seconds", otherwise: Effect.fail("still there") }
    )
  }).pipe(Effect.exit, Effect.zipRight(Effect.exit(Files.remove(directory))), Effect.asVoid, inRealTime)

/** Nothing of the watchdog may keep the program from ending. */
const unref = (child: ChildProcess): void => {
  child.unref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) {
    if (stream !== null && "unref" in stream && typeof stream.unref === "function") stream.unref()
  }
}

type Answer = "reachable" | "unreachable"

const unusable = (directory: string, account: Account, detail: string): PgClusterError =>
  new PgClusterError({
    reason: saysNoRoom(detail) ? "NoRoom" : "DirectoryUnusable",
    detail: `${account.name} cannot make the folder ${directory}: ${detail.trim()}`
  })

const cannotSwitch = (account: Account, cause: unknown): PgClusterError =>
  new PgClusterError({
    reason: "AccountUnavailable",
    detail: `Starting /bin/sh as ${account.name} failed: ${cause instanceof Error ? cause.message : String(cause)}`,
    cause
  })

type Outcome = Effect.Effect<Answer, PgClusterError>

/** Listens at once: an event that comes before its listener is lost, or ends the program. */
const listen = (child: ChildProcess, directory: string, account: Account): Promise<Outcome> =>
  new Promise((resolve) => {
    let output = ""
    let errors = ""
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk
      if (output.endsWith("\n")) resolve(Effect.succeed(output.startsWith("reachable") ? "reachable" : "unreachable"))
    })
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      errors += chunk
    })
    // The watchdog may end before this process; a write to it fails then.
    child.stdin?.on("error", () => {})
    child.on("error", (cause) => resolve(Effect.fail(cannotSwitch(account, cause))))
    child.once("close", (code) => resolve(Effect.fail(unusable(directory, account, errors || `exit code ${code}`))))
  })

const attempt = (
  directory: string,
  binDir: string,
  account: Account
): Effect.Effect<Workspace, PgClusterError, Scope.Scope> =>
  Effect.acquireRelease(
    // It throws, or emits an error, by the kind of refusal.
    Effect.try({
      try: () => {
        const child = launch(directory, binDir, account)
        return { child, outcome: listen(child, directory, account) }
      },
      catch: (cause) => cannotSwitch(account, cause)
    }),
    ({ child }) => close(child, directory)
  ).pipe(
    Effect.flatMap(({ child, outcome }) =>
      Effect.map(Effect.flatten(Effect.promise(() => outcome)), (found) => {
        unref(child)
        return { directory, account, reachable: found === "reachable", isGuarded: () => !gone(child) }
      })
    )
  )

/**
 * Makes a directory for a cluster below `base`, which does not outlive this process, as the first of the accounts that
 * the system lets us switch to.
 */
export const make = (
  base: string,
  binDir: string,
  accounts: Candidates
): Effect.Effect<Workspace, PgClusterError, Scope.Scope> =>
  Effect.flatMap(
    Effect.try({
      // The servers' working directories, by which they are found, are free of links.
      try: () => Path.join(Fs.realpathSync(base), `effect-db-router-${Crypto.randomBytes(8).toString("hex")}`),
      catch: (cause) => fileError(`Looking up the folder ${base}`, cause)
    }),
    (directory) => {
      const [first, ...rest] = accounts
      return rest.reduce(
        (tried, account) =>
          Effect.catchIf(
            tried,
            (error) => error.reason === "AccountUnavailable",
            () => attempt(directory, binDir, account)
          ),
        attempt(directory, binDir, first)
      )
    }
  )
