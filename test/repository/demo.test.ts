import { spawn } from "node:child_process"
import { once } from "node:events"
import { createRequire } from "node:module"
import { connect, createServer } from "node:net"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Terminal } from "@effect/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import type { HttpStatus } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as Checks from "../../examples/demo/Checks.js"
import type { EngineReport } from "../../examples/demo/Report.js"
import { Screen } from "../../examples/demo/Screen.js"
import * as Table from "../../examples/demo/Table.js"
import { failure, node } from "../support/run.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const tsx = createRequire(import.meta.url).resolve("tsx/cli")

const nothing = Object.fromEntries(Object.keys(process.env).map((name) => [name, undefined]))
const environment = { ...nothing, PATH: process.env.PATH, HOME: process.env.HOME }

const demo = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  node([tsx, "examples/demo/main.ts", ...args], {
    cwd: root,
    timeoutMillis: 60_000,
    env: { ...environment, ...env }
  })

/** Takes port 3000, unless it is taken already. */
const takePort = Effect.acquireRelease(
  Effect.async<() => void>((resume) => {
    const server = createServer()
    const close = () => server.close()
    server.once("error", () => resume(Effect.succeed(() => {})))
    server.listen(3000, "127.0.0.1", () => resume(Effect.succeed(close)))
  }),
  (close) => Effect.sync(close)
)

const isRefused = async (port: number): Promise<boolean> => {
  const socket = connect(port, "127.0.0.1")
  try {
    await once(socket, "connect")
    return false
  } catch {
    return true
  } finally {
    socket.destroy()
  }
}

const addresses = (stdout: string) =>
  Array.from(stdout.matchAll(/^ +(\S+) +127\.0\.0\.1:(\d+) +(primary|standby)$/gm), ([, name, port, role]) => ({
    name,
    port: Number(port),
    role
  }))

describe("npm run demo -- --once", () => {
  it.live(
    "starts servers, sends requests, prints the table, checks it, and leaves nothing, also when port 3000 is taken",
    () =>
      Effect.gen(function* () {
        yield* takePort
        const ended = yield* Effect.promise(() => demo(["--once"]))
        assert.strictEqual(ended.status, 0, failure(ended))
        assert.notInclude(ended.stdout, "\u001b", "no colours in a file")
        assert.match(ended.stdout, /HTTP service: http:\/\/127\.0\.0\.1:(?!3000$)\d+$/m)
        assert.match(ended.stdout, /^ engine +role +reads +share +writes +p50 +p95 +commits\*$/m)
        assert.match(ended.stdout, /^ primary +primary +[1-9].* % +[1-9][\d,]* .* ms .* ms +[1-9]/m)
        for (const replica of ["replica1", "replica2"]) {
          assert.match(ended.stdout, new RegExp(`^ ${replica} +standby +[1-9].* % +0 .* ms .* ms +[1-9]`, "m"))
        }
        assert.match(ended.stdout, /^ write +primary +INSERT +INSERT INTO demo_shop\.journal/m)
        assert.match(ended.stdout, /^ write +primary +inside a transaction +UPDATE demo_shop\.products/m)
        assert.match(ended.stdout, /^ read +replica\d .* SELECT/m)
        assert.strictEqual(ended.stdout.split("\n").filter((line) => line.startsWith(" ✓ ")).length, 4 + 3 + 6)
        const servers = addresses(ended.stdout)
        assert.deepStrictEqual(
          servers.map(({ name, role }) => `${name} ${role}`),
          ["primary primary", "replica1 standby", "replica2 standby"]
        )
        for (const { port } of servers) assert.isTrue(yield* Effect.promise(() => isRefused(port)))
      }).pipe(Effect.scoped)
  )

  it.live("refuses what it does not know, and says what it does", () =>
    Effect.gen(function* () {
      const [unknown, help] = yield* Effect.promise(() => Promise.all([demo(["--onec"]), demo(["--help"])]))
      assert.strictEqual(unknown.status, 1)
      assert.include(unknown.stderr, "Unknown argument --onec")
      assert.strictEqual(help.status, 0, failure(help))
      assert.include(help.stdout, "--once")
    })
  )
})

/** Uses the buttons of the status page: a replica goes and comes back, then another one takes the place of the primary. */
const failOver = async (url: string) => {
  const page = await fetch(`${url}/`)
  assert.strictEqual(page.url, `${url}/db/`)
  assert.include(await page.text(), "<!doctype html>")
  const press = async (engine: string, action: string) => {
    const response = await fetch(`${url}/db/act?${new URLSearchParams({ engine, action })}`, {
      method: "POST",
      headers: { origin: url }
    })
    assert.strictEqual(response.status, 200, await response.text())
  }
  const until = async (is: (status: HttpStatus.Status) => boolean) => {
    for (;;) {
      const status = (await (await fetch(`${url}/db/status.json`)).json()) as HttpStatus.Status
      if (is(status)) return status
      await setTimeout(50)
    }
  }
  const isIn = (name: string, state: string) => (status: HttpStatus.Status) =>
    status.engines.some((engine) => engine.name === name && engine.state === state)
  const { engines } = await until(({ decisions }) => decisions.length > 0)
  assert.deepStrictEqual(
    engines.map(({ actions, name }) => [name, ...actions]),
    [
      ["primary", "Kill", "Freeze"],
      ["replica1", "Kill", "Freeze", "Pause replay", "Promote"],
      ["replica2", "Kill", "Freeze", "Pause replay", "Promote"]
    ]
  )
  await press("replica2", "Kill")
  await until(isIn("replica2", "down"))
  await press("replica2", "Start")
  await until(isIn("replica2", "up"))
  await press("replica2", "Pause replay")
  await until(isIn("replica2", "lagging"))
  await press("replica1", "Promote")
  await until(({ writer }) => writer === "replica1")
  await until(isIn("primary", "down"))
  await until(isIn("replica2", "up"))
  await press("primary", "Start")
  await until(isIn("primary", "up"))
  const placed = await fetch(`${url}/orders`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ customerId: 1, items: [{ productId: 1, quantity: 1 }] })
  })
  assert.strictEqual(placed.status, 201)
  await press("replica2", "Freeze")
}

describe("npm run demo", () => {
  it.live("serves the shop until Ctrl-C, and then stops its servers", () =>
    Effect.promise(async () => {
      // The command tsx kills a program that needs more than 60 ms for the first signal.
      const child = spawn(process.execPath, ["--import", "tsx", "examples/demo/main.ts"], {
        cwd: root,
        env: environment,
        stdio: ["ignore", "pipe", "inherit"]
      })
      try {
        let stdout = ""
        const working = new Promise<void>((resolve, reject) => {
          child.stdout.setEncoding("utf8").on("data", (text: string) => {
            stdout += text
            if (/ [1-9][\d,]* requests \|/.test(stdout)) resolve()
          })
          child.once("close", () => reject(new Error(`It ended too early:\n${stdout}`)))
        })
        const closed = once(child, "close")
        await working
        const url = /http:\/\/127\.0\.0\.1:\d+/.exec(stdout)![0]
        const orders = (await (await fetch(`${url}/orders?status=paid`)).json()) as ReadonlyArray<{ status: string }>
        assert.isNotEmpty(orders)
        assert.isTrue(orders.every(({ status }) => status === "paid"))
        assert.strictEqual((await fetch(`${url}/orders/999999`)).status, 404)

        await failOver(url)

        child.kill("SIGINT")
        const [code] = await closed
        assert.include([0, 130], code)
        assert.match(stdout, /^ replica1 +primary +[1-9]/m)
        assert.include(stdout, "Stopped.")
        const servers = addresses(stdout)
        assert.lengthOf(servers, 3)
        for (const { port } of servers) assert.isTrue(await isRefused(port))
        assert.isTrue(await isRefused(Number(new URL(url).port)))
      } finally {
        child.kill("SIGTERM")
      }
    })
  )
})

layer(PgCluster.layer({ replicas: 1 }), { timeout: "1 minute" })("the servers of the environment", (it) => {
  it.effect("are used instead, and left as they were", () =>
    Effect.gen(function* () {
      const { nodes, primary, replicas } = yield* PgCluster.PgCluster
      const ended = yield* Effect.promise(() =>
        demo(["--once"], {
          DATABASE_URL: Redacted.value(primary.url),
          DATABASE_REPLICA_URLS: replicas.map(({ url }) => Redacted.value(url)).join(",")
        })
      )
      assert.strictEqual(ended.status, 0, failure(ended))
      assert.match(ended.stdout, /^ default-1 +primary +[1-9]/m)
      assert.match(ended.stdout, /^ read-1 +standby +[1-9]/m)
      assert.deepStrictEqual(
        addresses(ended.stdout).map(({ port }) => port),
        nodes.map(({ port }) => port)
      )
      assert.deepStrictEqual(yield* primary.query("SELECT FROM pg_namespace WHERE nspname = 'demo_shop'"), [])
    })
  )

  it.effect("fail the pass when they do not get what they have to get", () =>
    Effect.gen(function* () {
      const { primary, replicas } = yield* PgCluster.PgCluster
      const ended = yield* Effect.promise(() =>
        demo(["--once"], {
          DATABASE_URL: Redacted.value(primary.url),
          DATABASE_REPLICA_URLS: replicas.map(({ url }) => Redacted.value(url)).join(","),
          DB_ROUTER_ENABLED: "false"
        })
      )
      assert.strictEqual(ended.status, 1)
      assert.match(ended.stdout, /^ ✗ every standby served reads$/m)
      assert.include(ended.stdout, "no read was sent to read-1")
      assert.include(ended.stdout, "read-1 has not looked into the shop's tables")
      assert.match(ended.stdout, /all \d+ reads after a write went to the primary/)
      assert.include(ended.stderr, "2 of 6 checks failed")
    })
  )

  it.effect("lose no schema that the demo has not made", () =>
    Effect.gen(function* () {
      const { primary } = yield* PgCluster.PgCluster
      yield* primary.query("CREATE SCHEMA demo_shop")
      const ended = yield* Effect.promise(() => demo(["--once"], { DATABASE_URL: Redacted.value(primary.url) }))
      assert.strictEqual(ended.status, 1)
      assert.include(ended.stderr, "There is a schema demo_shop that the demo has not made")
      assert.lengthOf(yield* primary.query("SELECT FROM pg_namespace WHERE nspname = 'demo_shop'"), 1)
    })
  )
})

const primary: EngineReport = {
  name: "primary",
  group: "default",
  answers: true,
  use: { reads: 40, readsAfterWrites: 10, writes: 60, committed: 70, p50: 1, p95: 2 },
  server: { standby: false, committed: 75, rolledBack: 2, rowsWritten: 30, scans: 90 }
}

const replica: EngineReport = {
  name: "replica1",
  group: "read",
  answers: true,
  use: { reads: 100, readsAfterWrites: 30, writes: 0, committed: 100, p50: 1, p95: 2 },
  server: { standby: true, committed: 104, rolledBack: 0, rowsWritten: 0, scans: 300 }
}

const evidence: Checks.Evidence = {
  tally: {
    millis: 5000,
    searches: 50,
    orders: 40,
    topLists: 10,
    placed: 8,
    foundAtOnce: 8,
    failed: 0,
    failure: undefined
  },
  statements: 200,
  unrouted: 0,
  engines: [primary, replica],
  decisions: [],
  readGroup: "read",
  exclusive: true,
  again: { asked: 8, found: 8 },
  ordersOn: new Map([
    ["primary", 8],
    ["replica1", 8]
  ])
}

/** Every problem that the checks find, with what is wrong about the evidence. */
const problems = (wrong: Partial<Checks.Evidence>) =>
  Checks.run({ ...evidence, ...wrong }).flatMap(({ name, problems }) =>
    problems.map((problem) => `${name}: ${problem}`)
  )

const onPrimary = (wrong: Partial<EngineReport["server"]>) => ({
  engines: [{ ...primary, server: { ...primary.server, ...wrong } }, replica]
})

const onReplica = (use: Partial<EngineReport["use"]>, server: Partial<EngineReport["server"]> = {}) => ({
  engines: [primary, { ...replica, use: { ...replica.use, ...use }, server: { ...replica.server, ...server } }]
})

describe("the checks of the demo", () => {
  it("pass when everything is as it has to be", () => {
    assert.deepStrictEqual(problems({}), [])
  })

  it("see a write that was sent to a standby, or that a standby has counted or refused", () => {
    const name = "no write reached a standby"
    assert.deepStrictEqual(problems(onReplica({ reads: 99, writes: 1 })), [
      `${name}: replica1 is a standby and got 1 statements that are not reads`
    ])
    assert.deepStrictEqual(problems(onReplica({}, { rowsWritten: 1 })), [
      `${name}: replica1 has counted 1 written rows`
    ])
    assert.deepStrictEqual(problems(onReplica({}, { rolledBack: 1 })), [
      `${name}: replica1 has refused or rolled back 1`
    ])
    assert.deepStrictEqual(problems({ ...onReplica({}, { rolledBack: 1 }), exclusive: false }), [])
    assert.deepStrictEqual(problems(onReplica({}, { standby: false })), [
      `${name}: replica1 is in the group of the standbys and is none`
    ])
    assert.deepStrictEqual(problems(onPrimary({ rowsWritten: 7 })), [
      `${name}: the primary has counted 7 written rows only`
    ])
  })

  it("see a standby that served nothing, by the spans or by its own count", () => {
    assert.deepStrictEqual(problems({ ...onReplica({ reads: 0, committed: 0 }), statements: 100 }), [
      "every standby served reads: no read was sent to replica1"
    ])
    assert.deepStrictEqual(problems(onReplica({}, { scans: 0 })), [
      "every standby served reads: replica1 has not looked into the shop's tables"
    ])
  })

  it("see that all reads after a write went to the primary", () => {
    assert.deepStrictEqual(problems(onReplica({ readsAfterWrites: 0 })), [
      "standbys served reads of own writes: all 10 reads after a write went to the primary"
    ])
  })

  it("see an order that was not read back: by its own request, by a later one, on a server", () => {
    const name = "what was written was read back"
    assert.deepStrictEqual(problems({ tally: { ...evidence.tally, foundAtOnce: 7 } }), [
      `${name}: 1 of 8 orders were not found by their own request`
    ])
    assert.deepStrictEqual(problems({ again: { asked: 8, found: 6 } }), [
      `${name}: 2 of 8 orders were not found by a later request`
    ])
    assert.deepStrictEqual(problems({ ordersOn: new Map([["replica1", 5]]) }), [`${name}: replica1 has 5 of 8 orders`])
    assert.deepStrictEqual(
      problems({
        tally: { ...evidence.tally, placed: 0, foundAtOnce: 0 },
        again: { asked: 0, found: 0 },
        ordersOn: new Map()
      }),
      [`${name}: no order was placed`, `${name}: no order was asked for again`]
    )
  })

  it("see statements that are missing, that were not routed, or that a server knows nothing of", () => {
    const name = "the sums add up"
    assert.deepStrictEqual(problems({ statements: 201 }), [
      `${name}: 201 statements, but 140 reads and 60 others on the servers`
    ])
    assert.deepStrictEqual(problems({ unrouted: 3 }), [`${name}: 3 statements went to an unknown server`])
    assert.deepStrictEqual(problems(onPrimary({ committed: 69 })), [
      `${name}: primary has counted 69 transactions, less than the 70 sent to it`
    ])
  })

  it("see a request that failed", () => {
    assert.deepStrictEqual(problems({ tally: { ...evidence.tally, failed: 2, failure: "status 500" } }), [
      "no request failed: 2 failed, the last one with status 500"
    ])
  })
})

describe("the table of the demo", () => {
  const paint: Table.Paint = (_, text) => text
  const decisions = ["plain SELECT", "plain SELECT", "inside a transaction"].map((reason, i) => ({
    kind: "read",
    engine: "replica1",
    reason,
    at: i,
    sql: `SELECT ${i} ${"x".repeat(200)}`
  }))
  const report = { ...evidence, decisions }

  it("fits every window", () => {
    for (let width = 20; width < 200; width++) {
      for (const height of [1, 5, 13, 23, 60]) {
        const lines = Table.render(report, { paint, width, height }, "http://127.0.0.1:3000")
        assert.isAtMost(lines.length, height)
        // Names and counts are never left out.
        if (width >= 46) assert.isAtMost(Math.max(...lines.map((line) => line.length)), width, lines.join("\n"))
      }
    }
  })

  it("shows one decision for each reason before a second for any", () => {
    const shown = (height: number) =>
      Table.render(report, { paint, width: 80, height }, "").flatMap((line) => / SELECT (\d) /.exec(line)?.[1] ?? [])
    assert.deepStrictEqual(shown(40), ["0", "1", "2"])
    assert.deepStrictEqual(shown(14), ["0", "2"])
  })
})

describe("the screen of the demo", () => {
  const transcript = (tty: boolean, env: Record<string, string>, use: (screen: Screen) => Effect.Effect<void>) =>
    Effect.gen(function* () {
      let written = ""
      const terminal: Terminal.Terminal = {
        columns: Effect.succeed(80),
        rows: Effect.succeed(24),
        isTTY: Effect.succeed(tty),
        readInput: Effect.never,
        readLine: Effect.never,
        display: (text) =>
          Effect.sync(() => {
            written += text
          })
      }
      yield* Effect.flatMap(Screen, use).pipe(
        Effect.provide(Screen.Default.pipe(Layer.provide(Layer.succeed(Terminal.Terminal, terminal)))),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env))))
      )
      return written
    })

  const drawTwice = (screen: Screen) => Effect.zipRight(screen.draw(["a", "b"]), screen.draw(["c"]))

  it.effect("draws over what it drew on a terminal, and below it anywhere else", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* transcript(true, {}, drawTwice),
        "\u001b[?25la\u001b[K\nb\u001b[K\n\u001b[J\r\u001b[2Ac\u001b[K\n\u001b[J\u001b[?25h"
      )
      assert.strictEqual(yield* transcript(false, {}, drawTwice), "a\nb\nc\n")
      assert.strictEqual(yield* transcript(true, { TERM: "dumb" }, drawTwice), "a\nb\nc\n")
    })
  )

  it.effect("paints where that is wanted", () =>
    Effect.gen(function* () {
      const tick = (screen: Screen) => screen.tick("done")
      assert.include(yield* transcript(true, {}, tick), "\u001b[32m✓\u001b[0m done")
      assert.include(yield* transcript(true, { NO_COLOR: "1" }, tick), " ✓ done\n")
      assert.strictEqual(yield* transcript(false, {}, tick), " ✓ done\n")
    })
  )

  it.effect("says which step has failed", () =>
    Effect.gen(function* () {
      const step = (screen: Screen) => Effect.ignore(screen.step("Starting", Effect.fail("no")))
      assert.strictEqual(yield* transcript(false, {}, step), " ✗ Starting 0.0 s\n")
    })
  )
})
