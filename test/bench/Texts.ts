/** Memory over a great many statements of which no two are alike. */
import { Effect } from "effect"
import * as Memory from "./Memory.js"
import { digits, type Row } from "./Row.js"
import { type Pair, router } from "./Servers.js"

const fibers = 20

/** Looks at the memory in use, evenly spaced. At the second one every cache is full. */
const looks = 10

export const run = (servers: Pair, texts: number, progress: (done: string) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    const { client: sql } = yield* router(servers, servers.replicas)
    const used: Array<number> = []
    let resident = 0
    let last = 0
    const operation = Effect.suspend(() => {
      const text = `SELECT id, name FROM item WHERE id = ${++last} AND name <> $1`
      const statement = sql.unsafe(text, ["none"])
      // A text that comes back is prepared, and takes the place of another one.
      return last % 10 === 0 ? Effect.zipRight(statement, sql.unsafe(text, ["none"])) : statement
    })
    for (let look = 1; look <= looks; look++) {
      const end = (texts / looks) * look
      const loop = Effect.whileLoop({ while: () => last < end, body: () => operation, step: () => {} })
      yield* Effect.all(
        Array.from({ length: fibers }, () => loop),
        { concurrency: "unbounded", discard: true }
      )
      used.push(Memory.live())
      if (look === 2) resident = Memory.resident()
      yield* progress(`${last.toLocaleString("en-US")} texts, ${digits(used.at(-1)!)} MB`)
    }
    const growths = used.slice(2).map((megabytes) => megabytes - used[1]!)
    const row: Row = {
      section: "texts",
      what: `memory over ${texts.toLocaleString("en-US")} distinct texts: growth of what is in use`,
      against: `after ${((texts / looks) * 2).toLocaleString("en-US")}`,
      reach: { atMost: 2 },
      unit: "MB",
      measured: { median: growths.at(-1)!, low: Math.min(...growths), high: Math.max(...growths) },
      detail: `${digits(used.at(-1)!)} MB in use, ${digits(Memory.resident())} MB resident (${digits(resident)} then)`
    }
    return [row]
  })
