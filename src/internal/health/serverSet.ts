import type { Engine } from "../../Engine.js"
import * as EngineGroup from "../../EngineGroup.js"
import type { Era } from "../../Health.js"
import type { Strategy } from "../../Selector.js"
import { type Candidate, type Election, elect } from "./election.js"

/**
 * The servers of one system, one of which takes the writes: the default group holds that one, the read group the others.
 * Which one it is may change.
 */
export class Servers {
  readonly writing: EngineGroup.EngineGroup
  readonly reading: EngineGroup.EngineGroup | undefined
  private listed: ReadonlyArray<Engine>
  /** The engine in the default group: the one that takes the writes, or was the last to. */
  private holder: Engine
  private isHeld = true
  private era: Era | undefined
  private readonly withoutReads = new WeakSet<Engine>()

  constructor(options: {
    /** The first is taken to be the primary until they have said what they are. */
    readonly engines: ReadonlyArray<Engine>
    readonly defaultGroup: string
    readonly readGroup: string | undefined
    readonly strategy: Strategy
    readonly random: () => number
  }) {
    const { defaultGroup, engines, random, readGroup, strategy } = options
    this.listed = engines
    this.holder = engines[0]!
    this.writing = EngineGroup.make({
      name: defaultGroup,
      engines: [this.holder],
      strategy,
      random,
      admission: (engine) => engine === this.writer
    })
    if (readGroup !== undefined) {
      this.reading = EngineGroup.make({ name: readGroup, engines: [], strategy, random, admission: "healthy" })
    }
    this.arrange()
  }

  get engines(): ReadonlyArray<Engine> {
    return this.listed.includes(this.holder) ? this.listed : [this.holder, ...this.listed]
  }

  /** The engine that takes the writes now; `undefined` while none may. */
  get writer(): Engine | undefined {
    return this.isHeld ? this.holder : undefined
  }

  /** The engine that takes the writes, or was the last to. */
  get lastWriter(): Engine {
    return this.holder
  }

  /** The system, and the newest timeline of it. */
  get currentEra(): Era | undefined {
    return this.era
  }

  has(engine: Engine): boolean {
    return engine === this.holder || this.listed.includes(engine)
  }

  /** Replaces the servers. The last writer stays until another one has taken its place. */
  setEngines(engines: ReadonlyArray<Engine>): void {
    this.listed = engines
    // No server has claimed to be the primary yet.
    if (this.era === undefined && !engines.includes(this.holder)) this.holder = engines[0]!
    this.arrange()
  }

  /** An engine is there for reads, if it is not the one that takes the writes. */
  setTakesReads(engine: Engine, takesReads: boolean): void {
    if (takesReads) this.withoutReads.delete(engine)
    else this.withoutReads.add(engine)
    this.arrange()
  }

  /** What was known is of servers that are no more. */
  forget(): void {
    this.era = undefined
  }

  /** Chooses the one that takes the writes, by what they have said last. */
  elect(candidates: ReadonlyArray<Candidate<Engine>>): Election<Engine> {
    const election = elect(candidates, this.holder, this.era)
    this.era = election.era
    this.isHeld = election.writer !== undefined
    if (election.writer !== undefined && election.writer !== this.holder) {
      this.holder = election.writer
      this.arrange()
    }
    return election
  }

  private arrange(): void {
    this.writing.setEngines([this.holder])
    this.reading?.setEngines(this.listed.filter((engine) => engine !== this.holder && !this.withoutReads.has(engine)))
  }
}
