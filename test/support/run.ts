import { execFile } from "node:child_process"

export interface Ended {
  /** The exit code, or the signal's name. */
  readonly status: number | string
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd: string
  /** After so long the program gets a SIGTERM, so that it can still clean up. */
  readonly timeoutMillis: number
  /** Over the environment of this process; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>
}

// What the test runner sets for itself is not part of the environment that a user's program sees.
const environment = (): NodeJS.ProcessEnv => {
  const { NODE_ENV: _mode, NODE_OPTIONS: _options, VITEST: _vitest, VITEST_MODE: _vitestMode, ...env } = process.env
  return env
}

/** Runs a program to its end. It does not fail when the program does: look at `status`. */
export const run = (command: string, args: ReadonlyArray<string>, options: RunOptions): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(
      command,
      args,
      {
        cwd: options.cwd,
        env: { ...environment(), ...options.env },
        timeout: options.timeoutMillis,
        maxBuffer: 64 * 1024 * 1024,
        shell: process.platform === "win32" && !command.endsWith(".exe")
      },
      (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : (error.code ?? error.signal ?? "unknown"), stdout, stderr })
    )
  })

/** Runs a script or module with this same Node. */
export const node = (args: ReadonlyArray<string>, options: RunOptions): Promise<Ended> =>
  run(process.execPath, args, options)

/** Runs npm: the one that runs the tests, where there is one. */
export const npm = (args: ReadonlyArray<string>, options: RunOptions): Promise<Ended> => {
  const script = process.env.npm_execpath
  return script?.match(/npm-cli\.c?js$/) ? node([script, ...args], options) : run("npm", args, options)
}

/** What a program printed, if it did not end well. */
export const failure = (ended: Ended): string =>
  ended.status === 0 ? "" : `ended with ${ended.status}:\n${ended.stdout}${ended.stderr}`
