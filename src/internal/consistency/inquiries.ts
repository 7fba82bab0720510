import type { Engine } from "../../Engine.js"
import { Inquiry } from "./inquiry.js"

type Listener = () => void

/** The reason of a question: a read that needs the answer, or a write that replicas will soon have. */
export type Cause = "read" | "write"

/** Questions in flight: at most one for each server, shared by all that wait for the answer. */
export class Inquiries {
  /** The number of questions sent. */
  readonly sent: Record<Cause, number> = { read: 0, write: 0 }
  private readonly asking = new Map<Engine, Array<Listener>>()

  /** Whether a server is being asked. */
  has(engine: Engine): boolean {
    return this.asking.has(engine)
  }

  /** Asks a server, unless a question is on its way. Calls back once it is known, or known not to be told. */
  ask(engine: Engine, cause: Cause, listener?: Listener): void {
    const others = this.asking.get(engine)
    if (others !== undefined) {
      if (listener !== undefined) others.push(listener)
      return
    }
    const listeners = listener === undefined ? [] : [listener]
    this.asking.set(engine, listeners)
    this.sent[cause]++
    const inquiry = new Inquiry(engine)
    engine.begin(inquiry.request, (error, result) => {
      this.asking.delete(engine)
      if (error === undefined) inquiry.hear(result!)
      else if (error.cause instanceof Error) engine.positions.fail(error.cause)
      for (const listener of listeners) listener()
    })
  }
}
