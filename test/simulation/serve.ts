/** Runs what the parent process asks for. */
import { loadModule } from "libpg-query"
import { type Plan, planOf } from "./Plan.js"
import { type Result, runPlan } from "./Run.js"
import recordings from "./recordings.json" with { type: "json" }
import { type Recording, unknownTexts, useRecordings } from "./Statement.js"

export type Request =
  /** The first one: what is recorded beside `recordings.json`. */
  | { readonly _tag: "begin"; readonly recordings: ReadonlyArray<Recording> }
  | { readonly _tag: "run"; readonly seed: string; readonly plan?: Plan | undefined; readonly isTold: boolean }

export interface Response {
  readonly result: Result
  /** The texts that nothing is recorded for: as long as there is one, the result is worth nothing. */
  readonly unknown: ReadonlyArray<string>
}

/** The parser loads when it is first needed, and not in virtual time: one run is for that. */
const warm = () => runPlan({ ...planOf("warm"), faults: [] }, false)

const answer = async (request: Request): Promise<Response> => {
  if (request._tag === "begin") useRecordings(request.recordings)
  const result =
    request._tag === "begin" ? await warm() : await runPlan(request.plan ?? planOf(request.seed), request.isTold)
  return { result, unknown: [...unknownTexts] }
}

export const serve = async (): Promise<void> => {
  useRecordings(recordings as ReadonlyArray<Recording>)
  await loadModule()
  process.on("message", (request: Request) => void answer(request).then((response) => process.send!(response)))
}
