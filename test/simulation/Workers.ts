/** Processes that run simulations: the code bundled once, with or without a planted fault, and a queue of plans. */
import { type ChildProcess, fork } from "node:child_process"
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { build, type Plugin } from "esbuild"
import type { Plan } from "./Plan.js"
import { record } from "./Recorder.js"
import type { Result } from "./Run.js"
import type { Recording } from "./Statement.js"
import type { Request, Response } from "./serve.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** One text in a file of `src`, and what stands in its place. */
export interface Patch {
  /** From `src` on. */
  readonly file: string
  readonly find: string
  readonly replace: string
}

/** A patch whose text is not in its file any more. */
export class PatchDoesNotFit extends Error {
  override readonly name = "PatchDoesNotFit"
}

const patching = (patches: ReadonlyArray<Patch>): Plugin => ({
  name: "patches",
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8")
      for (const { file, find, replace } of patches) {
        if (path !== join(root, "src", file)) continue
        contents = contents.replace(find, () => replace)
      }
      return { contents, loader: "ts" }
    })
  }
})

const checkPatches = async (patches: ReadonlyArray<Patch>): Promise<void> => {
  for (const { file, find } of patches) {
    const text = await readFile(join(root, "src", file), "utf8").catch(() => "")
    const times = text.split(find).length - 1
    if (times !== 1)
      throw new PatchDoesNotFit(`src/${file} holds the text of a planted fault ${times} times, not once: ${find}`)
  }
}

/** Bundles the simulator and the library; packages stay where they are. Returns the folder. */
const bundle = async (patches: ReadonlyArray<Patch>): Promise<string> => {
  await checkPatches(patches)
  const parent = join(root, "node_modules/.cache/simulation")
  await mkdir(parent, { recursive: true })
  const folder = await mkdtemp(join(parent, "bundle-"))
  await build({
    absWorkingDir: root,
    entryPoints: { worker: "test/simulation/worker.ts" },
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    packages: "external",
    sourcemap: "linked",
    logLevel: "warning",
    // The files of src alone are paths; all others are packages.
    alias: {
      "effect-db-router": join(root, "src/index.ts")
    },
    plugins: [patching(patches)]
  })
  return folder
}

/** How long one run may take in real time before its process is taken to hang, in milliseconds. */
const hangs = 120_000

class Worker {
  private readonly child: ChildProcess
  private waiting:
    | { readonly resolve: (response: Response) => void; readonly reject: (error: Error) => void }
    | undefined
  readonly ready: Promise<Response>

  constructor(folder: string) {
    this.child = fork(join(folder, "worker.mjs"), [], {
      execArgv: ["--enable-source-maps", "--max-semi-space-size=64", "--single-threaded-gc"],
      serialization: "advanced",
      env: { ...process.env, TZ: "UTC" }
    })
    this.child.on("message", (response: Response) => this.settle()?.resolve(response))
    this.child.on("exit", (code, signal) =>
      this.settle()?.reject(new Error(`A process of the simulator has ended (${code ?? signal})`))
    )
    this.ready = this.next()
  }

  private settle() {
    const { waiting } = this
    this.waiting = undefined
    return waiting
  }

  private next(): Promise<Response> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.child.kill("SIGKILL")
      }, hangs)
      const settled =
        <A>(then: (value: A) => void) =>
        (value: A) => {
          clearTimeout(timer)
          then(value)
        }
      this.waiting = { resolve: settled(resolve), reject: settled(reject) }
    })
  }

  ask(request: Request): Promise<Response> {
    const response = this.next()
    this.child.send(request)
    return response
  }

  stop(): void {
    this.child.removeAllListeners()
    this.child.kill("SIGKILL")
  }
}

/** What is to be run. */
export interface Job {
  readonly seed: string
  readonly plan?: Plan | undefined
  readonly isTold?: boolean
}

/** What was recorded because `recordings.json` does not have it. */
const cached = join(root, "node_modules/.cache/simulation/recordings.json")

export const forgetRecordings = (): Promise<void> => rm(cached, { force: true })

export const readRecordings = async (): Promise<ReadonlyArray<Recording>> =>
  JSON.parse(await readFile(cached, "utf8").catch(() => "[]")) as ReadonlyArray<Recording>

/** Other processes read it meanwhile: it is there as a whole, or not at all. */
const writeRecordings = async (recordings: ReadonlyArray<Recording>): Promise<void> => {
  const whole = `${cached}.${process.pid}`
  await writeFile(whole, JSON.stringify(recordings))
  await rename(whole, cached)
}

export class Workers {
  private constructor(
    private readonly folder: string,
    private all: Array<Worker>
  ) {}

  static async start(count: number, patches: ReadonlyArray<Patch> = []): Promise<Workers> {
    const folder = await bundle(patches)
    const workers = new Workers(folder, [])
    for (let i = 0; i < count; i++) workers.all.push(await workers.startOne())
    return workers
  }

  /** A process that has answers for all that the library asks: what was never recorded is recorded now. */
  private async startOne(): Promise<Worker> {
    const worker = new Worker(this.folder)
    let response = await worker.ready
    let known = response._tag === "ready" && response.unknown.length > 0 ? await readRecordings() : []
    if (known.length > 0) response = await worker.ask({ _tag: "use", recordings: known })
    // What is asked may follow from an answer.
    for (let round = 0; response._tag === "ready" && response.unknown.length > 0; round++) {
      if (round === 5) throw new Error(`The library asks what cannot be recorded: ${response.unknown.join("\n")}`)
      known = [...known, ...(await record(response.unknown))]
      await writeRecordings(known)
      response = await worker.ask({ _tag: "use", recordings: known })
    }
    return worker
  }

  /** Runs all jobs, in the processes that there are. `each` says whether to go on. */
  async run(jobs: Iterable<Job>, each: (result: Result) => boolean): Promise<void> {
    const iterator = jobs[Symbol.iterator]()
    let goesOn = true
    const work = async (index: number) => {
      for (let job = iterator.next(); goesOn && job.done !== true; job = iterator.next()) {
        const { isTold = false, plan, seed } = job.value
        const response = await this.all[index]!.ask({ _tag: "run", seed, plan, isTold }).catch((error: Error) =>
          hung(seed, error)
        )
        if (response._tag === "result") goesOn = each(response.result) && goesOn
        if (
          response._tag === "result" &&
          response.result.violations.some(({ message }) => message.startsWith(endedHow))
        ) {
          this.all[index] = await this.startOne()
        }
      }
    }
    await Promise.all(this.all.map((_, i) => work(i)))
  }

  async runOne(job: Job): Promise<Result> {
    let found: Result | undefined
    await this.run([job], (result) => {
      found = result
      return true
    })
    return found!
  }

  async stop(): Promise<void> {
    for (const worker of this.all) worker.stop()
    await rm(this.folder, { recursive: true, force: true })
  }
}

const endedHow = "The process of the run has ended"

const hung = (seed: string, error: Error): Response => ({
  _tag: "result",
  result: {
    seed,
    violations: [{ invariant: "no crash", message: `${endedHow}, or had to be ended: ${error.message}` }],
    fingerprint: "",
    history: [],
    operations: 0,
    statements: 0,
    checks: 0,
    time: 0,
    turns: 0,
    connections: 0,
    faults: {}
  }
})
