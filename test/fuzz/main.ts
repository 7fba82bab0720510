/**
 * Feeds the driver what no server should say: conversations with a real server, changed in every way. Nothing may throw but
 * a statement's own error, and everything has to end. Prints its seed; `--only` runs one case again.
 */
import { parseArgs } from "node:util"
import { Effect, Redacted } from "effect"
import type { Config } from "../../src/internal/driver/guard.js"
import * as PgCluster from "../../src/testing/PgCluster.js"
import { Recorder, Replay, type Turn } from "./Conversation.js"
import { Chance, flip, messagesOf, mutations, pieces } from "./Mutation.js"
import { Answers, all, authentications, numberOf, type Scenario } from "./Scenarios.js"

/** How long a case may take, in milliseconds. The driver waits five seconds for a server to become ready. */
const limit = 12_000

/** How many cases run at the same time. */
const width = 100

interface Recorded {
  readonly scenario: Scenario
  /** How many of the answers were errors, and how many were not. */
  readonly failed: number
  readonly succeeded: number
  /** What the server says when it lets the client in, and its later turns. */
  readonly start: Buffer
  readonly turns: ReadonlyArray<Buffer>
}

const wait = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const record = async (node: PgCluster.Node, scenario: Scenario): Promise<Recorded> => {
  const turns: Array<Buffer> = []
  const url = new URL(Redacted.value(node.url))
  const answers = new Answers()
  await scenario.run(
    {
      host: url.hostname,
      port: Number(url.port),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      database: url.pathname.slice(1),
      max: 1,
      allowCleartextPassword: true,
      stream: () => new Recorder(turns)
    },
    answers
  )
  for (let waited = 0; answers.missing.length > 0; waited++) {
    if (waited > 100) throw new Error(`${scenario.name} had no answer to ${answers.missing.join(", ")}`)
    await wait(20)
  }
  if (turns.length === 0) throw new Error(`Nothing was recorded of ${scenario.name}`)
  const started = turns.findIndex((turn) => messagesOf(turn).some((one) => one[0] === 0x5a))
  const told = { scenario, failed: answers.failures, succeeded: answers.successes }
  if (started < 0) return { ...told, start: Buffer.alloc(0), turns }
  const messages = messagesOf(turns[started]!)
  const letIn = messages.findIndex((one) => one[0] === 0x52 && one.readInt32BE(5) === 0)
  return { ...told, start: Buffer.concat(messages.slice(letIn)), turns: turns.slice(started + 1) }
}

/** How one case is changed. */
interface Plan {
  readonly what: string
  readonly turns: ReadonlyArray<Turn>
  readonly at: number
  readonly change: (bytes: Buffer) => Buffer
}

/** Every byte of every conversation, each flipped and each as the last one. */
const everyByte = function* (
  recorded: ReadonlyArray<Recorded>
): Generator<readonly [Recorded, number, number, "flip" | "cut"]> {
  for (const one of recorded) {
    for (const [turn, bytes] of [one.start, ...one.turns].entries()) {
      for (let at = 0; at < bytes.length; at++) for (const how of ["flip", "cut"] as const) yield [one, turn, at, how]
    }
  }
}

const plans = (recorded: ReadonlyArray<Recorded>, count: number) => {
  const bytes = [...everyByte(recorded)]
  // Half of the cases are for each byte, if that is enough.
  const systematic = bytes.length * 2 <= count ? bytes.length : 0
  return (i: number, chance: Chance): Plan => {
    if (i < systematic) {
      const [{ scenario, start, turns }, at, offset, how] = bytes[i]!
      const value = chance.below(256)
      const change = (bytes: Buffer) => (how === "cut" ? bytes.subarray(0, offset) : flip(bytes, offset, value))
      return { what: `${scenario.name}: ${how} at byte ${offset} of turn ${at}`, turns: [start, ...turns], at, change }
    }
    const { scenario, start, turns } = chance.of(recorded)
    const names = Object.keys(authentications)
    const authentication = start.length === 0 || chance.next() < 0.6 ? "trust" : chance.of(names)
    const all = start.length === 0 ? turns : [...authentications[authentication]!(start), ...turns]
    const mutation = chance.of(Object.keys(mutations))
    const change = (bytes: Buffer) => mutations[bytes.length === 0 ? "stranger" : mutation]!(bytes, chance)
    const at = chance.below(all.length)
    return { what: `${scenario.name}, ${authentication}: ${mutation} in turn ${at}`, turns: all, at, change }
  }
}

interface Failure {
  readonly case: number
  readonly what: string
  readonly how: string
}

const scenarioOf = (what: string): Scenario => all.find(({ name }) => what.startsWith(name))!

/** A client that lets itself in works out hashes, in another thread; after that all that it has to say it says at once. */
const quick = (turn: number): number => (turn <= 4 ? 150 : 15)

const runCase = async (
  i: number,
  { at, change, turns, what }: Plan,
  chance: Chance,
  patience: (turn: number) => number,
  connectionTimeoutMillis = 2_000
): Promise<{ readonly failures: Array<Failure>; readonly failed: number; readonly succeeded: number }> => {
  const answers = new Answers()
  let connections = 0
  const config: Config = {
    user: "fuzz",
    password: "secret",
    database: "fuzz",
    host: "localhost",
    port: 1,
    max: 1,
    connectionTimeoutMillis,
    allowCleartextPassword: true,
    stream: () => {
      // Only the first connection of a pool is lied to: the others are what it tries again on.
      const isFirst = connections++ === 0
      return new Replay(
        turns,
        (bytes, turn) => pieces(isFirst && turn === at ? change(bytes) : bytes, chance),
        patience
      )
    }
  }
  const failures: Array<Failure> = []
  const note = (how: string) => failures.push({ case: i, what, how })
  const ended = scenarioOf(what)
    .run(config, answers)
    .catch((error: unknown) => note(`threw ${error instanceof Error ? error.stack : String(error)}`))
  const began = Date.now()
  let isOver = false
  void ended.then(() => {
    isOver = true
  })
  while (Date.now() - began < limit && !(isOver && answers.missing.length === 0)) {
    await (isOver ? wait(2) : Promise.race([ended, wait(200)]))
  }
  if (!isOver) note("did not end")
  if (answers.missing.length > 0) note(`no answer to ${answers.missing.join(", ")}`)
  if (answers.twice.length > 0) note(`answered twice: ${answers.twice.join(", ")}`)
  return { failures, failed: answers.failures, succeeded: answers.successes }
}

const { values } = parseArgs({
  options: { seed: { type: "string" }, count: { type: "string" }, only: { type: "string" } }
})
const seed = values.seed === undefined ? Math.floor(Math.random() * 0x7fff_ffff) : Number(values.seed)
const count = Number(values.count ?? 100_000)
const only = values.only === undefined ? undefined : Number(values.only)

/** What is not changed has to come out as it was recorded, or the rest would show nothing. */
const rehearse = async (recorded: ReadonlyArray<Recorded>): Promise<ReadonlyArray<string>> => {
  const wrong: Array<string> = []
  for (const { failed, scenario, start, succeeded, turns } of recorded) {
    for (const [name, letIn] of Object.entries(authentications)) {
      const plan = { what: scenario.name, turns: start.length === 0 ? turns : [...letIn(start), ...turns] }
      const found = await runCase(-1, { ...plan, at: -1, change: (bytes) => bytes }, new Chance(1), () => 2_000, 20_000)
      if (found.failed !== failed || found.succeeded !== succeeded || found.failures.length > 0) {
        wrong.push(
          `${scenario.name}, ${name}: ${found.succeeded} answers and ${found.failed} errors instead of ${succeeded} and ${failed}` +
            found.failures.map(({ how }) => `; ${how}`).join("")
        )
      }
    }
  }
  return wrong
}

const main = async (recorded: ReadonlyArray<Recorded>) => {
  const wrong = await rehearse(recorded)
  for (const line of wrong) console.log(`FAILS unchanged, ${line}`)
  if (wrong.length > 0) return false
  const planOf = plans(recorded, count)
  const failures: Array<Failure> = []
  const running = new Set<number>()
  const strays: Array<string> = []
  const stray = (kind: string) => (error: unknown) => {
    if (strays.length < 20)
      strays.push(
        `${kind} among the cases ${[...running].join(" ")}: ${error instanceof Error ? error.stack : String(error)}`
      )
  }
  process.on("uncaughtException", stray("an exception"))
  process.on("unhandledRejection", stray("a rejection"))
  let next = only ?? 0
  const end = only === undefined ? count : only + 1
  let failed = 0
  let succeeded = 0
  let told = Date.now()
  const worker = async () => {
    for (let i = next++; i < end; i = next++) {
      const chance = new Chance(numberOf(`${seed} ${i}`))
      const plan = planOf(i, chance)
      if (only !== undefined) console.log(plan.what)
      running.add(i)
      const result = await runCase(i, plan, chance, quick)
      running.delete(i)
      failures.push(...result.failures)
      failed += result.failed
      succeeded += result.succeeded
      if (Date.now() - told > 1_000) {
        told = Date.now()
        console.log(`${i} of ${end}`)
      }
    }
  }
  await Promise.all(Array.from({ length: width }, worker))
  // What is late.
  await wait(100)
  console.log(
    `fuzz: seed ${seed}, ${end - (only ?? 0)} changed conversations, ${succeeded} answers, ${failed} errors, ` +
      `${strays.length} exceptions outside a statement, ${failures.length} without a whole end`
  )
  for (const { case: number, how, what } of failures.slice(0, 20)) console.log(`FAILS case ${number} (${what}): ${how}`)
  for (const line of strays) console.log(`FAILS ${line}`)
  return failures.length === 0 && strays.length === 0
}

console.log(`fuzz: seed ${seed}`)
const isWhole = await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.make({ replicas: 0 })
      yield* primary.query("CREATE TABLE fuzz (n int)")
      const recorded = yield* Effect.forEach(all, (scenario) => Effect.promise(() => record(primary, scenario)))
      return yield* Effect.promise(() => main(recorded))
    })
  )
)
process.exit(isWhole ? 0 : 1)
