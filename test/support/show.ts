import { spawn } from "node:child_process"

/** Runs a program with the output of this one. Fails unless it ends well. */
export const show = (command: string, args: ReadonlyArray<string>, folder: string): Promise<void> =>
  new Promise((resolve, reject) => {
    spawn(command, [...args], { cwd: folder, stdio: ["ignore", "inherit", "inherit"] })
      .on("error", reject)
      .on("close", (code, signal) =>
        code === 0 ? resolve() : reject(new Error(`${[command, ...args].join(" ")} ended with ${code ?? signal}`))
      )
  })
