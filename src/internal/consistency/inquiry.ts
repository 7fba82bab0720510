import * as MetricLabel from "effect/MetricLabel"
import type { Engine } from "../../Engine.js"
import type { Position } from "../../Position.js"
import { attributes, positionQuestions } from "../../Telemetry.js"
import type { Request, Result } from "../driver/pool.js"
import { answerOf, text } from "../driver/position.js"
import type { Answer } from "../wal/positionSample.js"

/** A question for the position of a server that is a statement of its own. It counts as sent when this is made. */
export class Inquiry {
  readonly request: Request = { sql: text, params: [], asArrays: true, prepare: true }
  private readonly epoch: number
  private readonly number: number

  constructor(private readonly engine: Engine) {
    const { positions } = engine
    this.epoch = positions.epoch
    this.number = positions.ask()
    positionQuestions.unsafeUpdate(1, [MetricLabel.make(attributes.engine, engine.name)])
  }

  /** Notes what the server has said. `undefined` where it has not said anything. */
  hear(result: Result): { readonly answer: Answer; readonly position: Position | undefined } | undefined {
    const [row] = (result as Exclude<Result, ReadonlyArray<unknown>>).rows
    const answer = answerOf(row as unknown as ReadonlyArray<unknown>)
    return answer instanceof Error
      ? undefined
      : { answer, position: this.engine.positions.hear(this.number, this.epoch, answer) }
  }
}
