/** The classifier alone, in processor time, with the catalog of a real server. */
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { type Pace, stopwatch, summary } from "./Measure.js"
import { digits, type Row } from "./Row.js"
import type { Pair } from "./Servers.js"

/** Statements of an ordinary application. The number makes each text one that was never seen before. */
const typical: ReadonlyArray<(n: number) => string> = [
  (n) => `SELECT id, name, price, in_stock FROM item WHERE id = $1 AND price < ${n}`,
  (n) =>
    "SELECT a.id, a.balance, count(*) AS entries, sum(e.amount) AS total FROM account a " +
    `JOIN entry e ON e.account = a.id WHERE e.amount > ${n} AND a.balance >= $1 ` +
    "GROUP BY a.id, a.balance ORDER BY total DESC LIMIT 20",
  (n) =>
    "SELECT i.id, i.name FROM item i WHERE i.in_stock AND lower(i.name) LIKE $1 " +
    `AND i.price BETWEEN $2 AND ${n} ORDER BY i.price, i.id LIMIT 50 OFFSET $3`,
  (n) => `INSERT INTO entry ("account","amount") VALUES ($1, ${n}) RETURNING *`,
  (n) => `UPDATE account SET balance = balance + $1 WHERE id = ${n}`
]

/** Texts that are classified between two looks at the clock. */
const batch = 1_000

/** New strings: a compiler makes every text anew, so that a look-up has to hash it. */
const anew = (texts: ReadonlyArray<string>): ReadonlyArray<string> =>
  texts.map((text) => Buffer.from(text, "latin1").toString("latin1"))

/** The microseconds for one text. */
const timed = (classifier: SqlClassifier.SqlClassifier, texts: ReadonlyArray<string>): number => {
  const micros = stopwatch("processor")
  for (const text of texts) classifier.classify(text)
  return micros() / texts.length
}

const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length

const row = (what: string, atMost: number, costs: ReadonlyArray<number>, detail: string): Row => ({
  section: "classify",
  what,
  against: "",
  reach: { atMost },
  unit: "µs",
  measured: summary(costs),
  detail
})

export const run = ({ primary }: Pair, { rounds }: Pace) =>
  Effect.map(
    SqlClassifier.fromCatalog({ load: SqlClassifier.readCatalog((sql) => primary.query(sql)) }),
    (classifier) => {
      const known = Array.from({ length: batch }, (_, i) => typical[i % typical.length]!(i))
      let last = batch
      const misses = typical.map((): Array<number> => [])
      const hits: Array<number> = []
      // The first rounds warm up.
      for (let round = -3; round < rounds; round++) {
        const costs = typical.map((statement) =>
          timed(classifier, anew(Array.from({ length: batch / typical.length }, () => statement(last++))))
        )
        timed(classifier, known)
        const hit = timed(classifier, anew(known))
        if (round < 0) continue
        hits.push(hit)
        for (const [i, cost] of costs.entries()) misses[i]!.push(cost)
      }
      const perRound = hits.map((_, round) => mean(misses.map((costs) => costs[round]!)))
      const medians = misses.map((costs) => summary(costs).median)
      const shortest = digits(Math.min(...medians))
      const longest = digits(Math.max(...medians))
      return [
        row("classify a text that is known", 0.2, hits, "a new string each time"),
        row("classify a new text, typical statements", 40, perRound, `${shortest} to ${longest} µs, by statement`)
      ]
    }
  )
