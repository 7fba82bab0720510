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

  constructor(
    folder: string,
    readonly known: ReadonlyArray<Recording>
  ) {
    this.child = fork(join(folder, "worker.mjs"), [], {
      execArgv: ["--enable-source-maps", "--max-semi-space-size=64", "--single-threaded-gc"],
      serialization: "advanced",
      env: { ...process.env, TZ: "UTC" }
    })
    this.child.on("message", (response: Response) => this.settle()?.resolve(response))
    this.child.on("exit", (code, signal) =>
      this.settle()?.reject(new Error(`A process of the simulator has ended (${code ?? signal})`))
    )
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
  private all: ReadonlyArray<Worker> = []

  private constructor(
    private readonly folder: string,
    private known: ReadonlyArray<Recording>
  ) {}

  static async start(count: number, patches: ReadonlyArray<Patch> = []): Promise<Workers> {
    const workers = new Workers(await bundle(patches), await readRecordings())
    const all = [await workers.startOne()]
    while (all.length < count) all.push(await workers.startOne())
    workers.all = all
    return workers
  }

  /** A process that has answers for all that the library asks first: what was never recorded is recorded now. */
  private async startOne(): Promise<Worker> {
    const worker = new Worker(this.folder, this.known)
    const { unknown } = await worker.ask({ _tag: "begin", recordings: worker.known })
    return unknown.length === 0 ? worker : this.informed(worker, unknown)
  }

  /** A process in the place of one that has met texts without an answer. It has met nothing yet, as every one that begins. */
  private async informed(worker: Worker, unknown: ReadonlyArray<string>): Promise<Worker> {
    worker.stop()
    const hopeless = unknown.filter((text) => worker.known.some(({ sql }) => sql === text))
    if (hopeless.length > 0) throw new Error(`The library asks what cannot be recorded: ${hopeless.join("\n")}`)
    const missing = unknown.filter((text) => this.known.every(({ sql }) => sql !== text))
    if (missing.length > 0) {
      const recordings = await record(missing)
      this.known = [...this.known, ...recordings]
      await writeRecordings(this.known)
    }
    return this.startOne()
  }

  /** Runs all jobs, in the processes that there are. `each` says whether to go on. */
  async run(jobs: Iterable<Job>, each: (result: Result) => boolean): Promise<void> {
    const iterator = jobs[Symbol.iterator]()
    let goesOn = true
    const work = async (first: Worker, index: number) => {
      let worker = first
      const replace = (other: Worker) => {
        worker = other
        this.all = this.all.with(index, other)
      }
      for (let job = iterator.next(); goesOn && job.done !== true; job = iterator.next()) {
        const { isTold = false, plan, seed } = job.value
        const ask = () =>
          worker.ask({ _tag: "run", seed, plan, isTold }).catch((error: Error): Response => hung(seed, error))
        let response = await ask()
        while (response.unknown.length > 0) {
          replace(await this.informed(worker, response.unknown))
          response = await ask()
        }
        const { result } = response
        goesOn = each(result) && goesOn
        if (result.violations.some(({ message }) => message.startsWith(endedHow))) replace(await this.startOne())
      }
    }
    await Promise.all(this.all.map(work))
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
  unknown: [],
  result: {
    seed,
    violations: [{ invariant: "no crash", message: `${endedHow}, or had to be ended: ${error.message}` }],
    fingerprint: "",
    history: [],
    operations: 0,
    steps: {},
    statements: 0,
    checks: {},
    time: 0,
    turns: 0,
    connections: 0,
    faults: {}
  }
})
