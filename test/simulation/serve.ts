/** Runs what the parent process asks for. */
import { loadModule } from "libpg-query"
import { type Plan, planOf } from "./Plan.js"
import { type Result, runPlan } from "./Run.js"
import recordings from "./recordings.json" with { type: "json" }
import { type Recording, unknownTexts, useRecordings } from "./Statement.js"

export type Request =
  | { readonly _tag: "run"; readonly seed: string; readonly plan?: Plan | undefined; readonly isTold: boolean }
  | { readonly _tag: "use"; readonly recordings: ReadonlyArray<Recording> }

export type Response =
  /** With the texts that nothing is recorded for. */
  | { readonly _tag: "ready"; readonly unknown: ReadonlyArray<string> }
  | { readonly _tag: "result"; readonly result: Result }

const send = (response: Response) => process.send!(response)

/** The parser loads when it is first needed, and not in virtual time: one run is for that. */
const warm = async (): Promise<Response> => {
  await runPlan({ ...planOf("warm"), faults: [] }, false)
  return { _tag: "ready", unknown: [...unknownTexts] }
}

const answer = async (request: Request): Promise<Response> => {
  if (request._tag === "run") {
    return { _tag: "result", result: await runPlan(request.plan ?? planOf(request.seed), request.isTold) }
  }
  useRecordings(request.recordings)
  return warm()
}

export const serve = async (): Promise<void> => {
  useRecordings(recordings as ReadonlyArray<Recording>)
  await loadModule()
  process.on("message", (request: Request) => void answer(request).then(send))
  send(await warm())
}
