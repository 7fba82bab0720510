/** What a client does on a connection: each of the ways in which the router speaks with a server. */
import { createHash, createHmac, pbkdf2Sync } from "node:crypto"
import { Chunk, Duration, Effect, Fiber, Stream } from "effect"
import { requestCancel } from "../../src/internal/driver/cancel.js"
import { Connection, type Query } from "../../src/internal/driver/connection.js"
import type { Config } from "../../src/internal/driver/guard.js"
import { makeClient } from "../../src/internal/driver/guard.js"
import { Opening } from "../../src/internal/driver/opening.js"
import { Pool } from "../../src/internal/driver/pool.js"
import { rows } from "../../src/internal/driver/stream.js"
import { Probe } from "../../src/internal/engine/probe.js"
import type { Sampler } from "../../src/internal/wal/positionSample.js"
import * as RouterError from "../../src/RouterError.js"
import type { Turn } from "./Conversation.js"
import { message, messagesOf } from "./Mutation.js"

/** Counts what is waited for, and what was answered. */
export class Answers {
  private readonly open = new Set<string>()
  readonly twice: Array<string> = []
  failures = 0
  successes = 0

  /** Something that has to be answered once. */
  expect(what: string): (error: unknown) => void {
    this.open.add(what)
    let isAnswered = false
    return (error) => {
      if (isAnswered) this.twice.push(what)
      isAnswered = true
      this.open.delete(what)
      if (error !== undefined && error !== null) this.failures++
      else this.successes++
    }
  }

  get missing(): ReadonlyArray<string> {
    return [...this.open]
  }
}

export interface Scenario {
  readonly name: string
  /** Ends when everything that a user could do next has been done; what was asked may still be unanswered. */
  readonly run: (config: Config, answers: Answers) => Promise<void>
}

/** It waits for half as long as connecting may take. */
const poolOn = (config: Config, maxPrepared: number): Pool => {
  const waitMillis = (config.connectionTimeoutMillis ?? 20_000) / 2
  return new Pool(config, {
    maxPrepared,
    waitMillis,
    movableMillis: waitMillis,
    busyError: (millis) => RouterError.poolBusy("fuzz", 1, millis),
    onError: () => {},
    onBroken: () => {},
    isPaced: () => false,
    turn: (open) => void setImmediate(open),
    now: Date.now
  })
}

const effect = (what: string, answers: Answers, run: Effect.Effect<unknown, unknown>): Promise<void> => {
  const answered = answers.expect(what)
  return Effect.runPromiseExit(run).then((exit) => {
    // A defect is not how a statement fails.
    if (exit._tag === "Failure" && exit.cause._tag === "Die") throw exit.cause.defect
    answered(exit._tag === "Failure" ? exit.cause : undefined)
  })
}

/** Connects, and runs something on the connection. */
const connected =
  (body: (connection: Connection, answers: Answers) => Promise<void>): Scenario["run"] =>
  (config, answers) =>
    new Promise((resolve, reject) => {
      const ended = answers.expect("the end of the connection")
      const connection = new Connection(config, () => ended(undefined))
      const opened = answers.expect("connecting")
      connection.connect((error) => {
        opened(error)
        if (error !== undefined) {
          connection.destroy()
          return resolve()
        }
        body(connection, answers).then(() => {
          connection.end()
          resolve()
        }, reject)
      })
    })

let statements = 0

const ask = (connection: Connection, answers: Answers, query: Query): Promise<void> =>
  new Promise((resolve) => {
    const answered = answers.expect(`${query.text} (${++statements})`)
    if (!connection.isUsable) {
      answered(connection.unsentError)
      return resolve()
    }
    connection.query(query, (error) => {
      answered(error)
      if (error === undefined) return resolve()
      connection.whenAnswered(error, resolve)
    })
  })

const inTurn = (...queries: ReadonlyArray<Query>): Scenario["run"] =>
  connected(async (connection, answers) => {
    for (const query of queries) await ask(connection, answers, query)
  })

/** Asks for the position behind a statement. Once it is asked there is an answer, or why there is none. */
const sampler = (answers: Answers): Sampler => {
  let heard: (error: unknown) => void = () => {}
  return {
    isWanted: true,
    send: () => {
      heard = answers.expect(`a position (${++statements})`)
      return 1
    },
    heard: (_, answer) => heard(answer instanceof Error ? answer : undefined)
  }
}

const select = { text: "SELECT $1::int AS a, 'text' AS b, NULL AS c", values: ["1"], name: "edr_a" }

const scenarios: ReadonlyArray<Scenario> = [
  { name: "simple", run: inTurn({ text: "SELECT 1 AS a, 'x' AS b" }, { text: "" }, { text: "SELECT 1; SELECT 2" }) },
  {
    name: "extended",
    run: inTurn(
      { text: "SELECT $1::int", values: ["1"] },
      { text: "SELECT n, n * 2 FROM generate_series(1, $1) n", values: ["20"], asArrays: true }
    )
  },
  {
    name: "errors and notices",
    run: inTurn(
      { text: "SELECT * FROM nowhere" },
      { text: "DO $$ BEGIN RAISE NOTICE 'x'; END $$" },
      { text: "SELECT 1 / $1::int", values: ["0"] },
      { text: "SET TimeZone = 'UTC'" }
    )
  },
  {
    name: "copy",
    run: inTurn({ text: "COPY (SELECT 1) TO STDOUT" }, { text: "COPY fuzz FROM STDIN" }, { text: "SELECT 1" })
  },
  {
    name: "prepared, with positions",
    run: connected(async (connection, answers) => {
      for (let i = 0; i < 3; i++)
        await ask(connection, answers, { ...select, isNamed: true, sampler: sampler(answers) })
      connection.closeStatement("edr_a")
      await ask(connection, answers, select)
    })
  },
  {
    name: "pipelined",
    run: connected(async (connection, answers) => {
      await ask(connection, answers, select)
      const shared = { ...select, isShared: true }
      await Promise.all([1, 2, 3].map(() => ask(connection, answers, { ...shared, sampler: sampler(answers) })))
    })
  },
  {
    name: "a transaction",
    run: connected(async (connection, answers) => {
      await ask(connection, answers, select)
      await ask(connection, answers, { ...select, opening: new Opening("BEGIN") })
      await ask(connection, answers, { text: "SAVEPOINT a" })
      await ask(connection, answers, { text: "SELECT 1 / 0" })
      await ask(connection, answers, { text: "COMMIT" })
    })
  },
  {
    name: "a cursor",
    run: connected(async (connection, answers) => {
      await ask(connection, answers, { text: "BEGIN" })
      const progress = { portal: "p", sql: "SELECT n FROM generate_series(1, 5) n", values: [], state: "new" as const }
      for (let i = 0; i < 3; i++) {
        const answered = answers.expect(`batch ${i}`)
        await new Promise<void>((resolve) => {
          connection.fetch(progress, 2, (error) => {
            answered(error)
            resolve()
          })
        })
      }
      connection.closePortal("p")
      await ask(connection, answers, { text: "ROLLBACK" })
    })
  },
  {
    name: "a pool",
    run: async (config, answers) => {
      const pool = poolOn(config, 2)
      const query = (sql: string, params: ReadonlyArray<unknown>) =>
        effect(`${sql} (${++statements})`, answers, pool.query({ sql, params, asArrays: false, prepare: true }, true))
      for (let i = 0; i < 3; i++) await query("SELECT $1::int", [1])
      await Promise.all([1, 2, 3].map((n) => query("SELECT $1::int", [n])))
      const stream = Stream.unwrapScoped(
        Effect.map(pool.checkout(true), ({ connection }) =>
          rows(pool, Effect.succeed(connection!), "SELECT generate_series(1, 200)", [])
        )
      )
      await effect("all rows of a stream", answers, Effect.map(Stream.runCollect(stream), Chunk.size))
      await effect("a row of a stream", answers, Stream.runHead(stream))
      await effect("closing", answers, pool.close(Duration.zero, new Error("closed")))
    }
  },
  {
    name: "a statement that is cancelled",
    run: async (config, answers) => {
      const pool = poolOn(config, 0)
      const request = { sql: "SELECT pg_sleep(0.05)", params: [], asArrays: false, prepare: false }
      const fiber = Effect.runFork(pool.query(request))
      for (let i = 0; i < 25 && pool.inFlight === 0; i++) await new Promise((resolve) => setTimeout(resolve, 2))
      await effect("an interruption", answers, Fiber.interrupt(fiber))
      await effect("closing", answers, pool.close(Duration.zero, new Error("closed")))
    }
  },
  {
    name: "probes",
    run: async (config, answers) => {
      const probe = new Probe(() => {})
      for (let i = 0; i < 2; i++)
        await effect(`probe ${i}`, answers, probe.run(config, Duration.seconds(1), false, undefined))
      probe.close()
    }
  },
  {
    name: "a request to cancel",
    run: (config, answers) =>
      effect(
        "a request to cancel",
        answers,
        requestCancel({
          processID: 1,
          secretKey: 2,
          host: config.host!,
          port: config.port!,
          address: undefined,
          ssl: false,
          sslNegotiation: undefined,
          stream: config.stream
        })
      )
  },
  {
    name: "notifications",
    run: async (config, answers) => {
      const client = makeClient(config)
      const ended = answers.expect("the end of the connection")
      client.on("error", () => {})
      client.on("end", () => ended(undefined))
      const command = async (sql: string) => {
        const answered = answers.expect(sql)
        await client.query(sql).then(() => answered(undefined), answered)
      }
      const opened = answers.expect("connecting")
      const isOpen = await client.connect().then(
        () => true,
        () => false
      )
      opened(undefined)
      if (isOpen) for (const sql of ["LISTEN jobs", "NOTIFY jobs, 'x'", "UNLISTEN jobs"]) await command(sql)
      // What the driver itself finds wrong while it connects leaves the socket open.
      else (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy()
      client.end(() => {})
    }
  }
]

/** SCRAM, as a server that knows the password. */
const scram = (password: string, rest: Buffer): ReadonlyArray<Turn> => {
  let first = ""
  let serverFirst = ""
  const salted = pbkdf2Sync(password, "salt", 1, 32, "sha256")
  const mac = (key: Buffer, text: string) => createHmac("sha256", key).update(text).digest()
  const authentication = (kind: number, text: Buffer | string) => {
    const head = Buffer.alloc(4)
    head.writeInt32BE(kind)
    return message("R", Buffer.concat([head, Buffer.from(text)]))
  }
  return [
    authentication(10, "SCRAM-SHA-256\0\0"),
    (said) => {
      first = said.toString("latin1").slice(said.indexOf("n=*"))
      serverFirst = `r=${first.slice(first.indexOf("r=") + 2)}server,s=${Buffer.from("salt").toString("base64")},i=1`
      return authentication(11, serverFirst)
    },
    (said) => {
      const answer = said.subarray(5).toString("latin1")
      const withoutProof = answer.slice(0, answer.indexOf(",p="))
      const signature = mac(mac(salted, "Server Key"), `${first},${serverFirst},${withoutProof}`)
      return Buffer.concat([authentication(12, `v=${signature.toString("base64")}`), rest])
    }
  ]
}

const asked = (kind: number, ...more: ReadonlyArray<number>) => message("R", Buffer.from([0, 0, 0, kind, ...more]))

/** The ways in which a server lets a client in, each before what it says then. */
export const authentications: Readonly<Record<string, (rest: Buffer) => ReadonlyArray<Turn>>> = {
  trust: (rest) => [rest],
  md5: (rest) => [asked(5, 1, 2, 3, 4), rest],
  cleartext: (rest) => [asked(3), rest],
  scram: (rest) => scram("secret", rest)
}

export const all = scenarios

/** For the seed of each case. */
export const numberOf = (text: string): number => createHash("sha256").update(text).digest().readUInt32BE(0)

export { messagesOf }
