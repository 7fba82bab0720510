import { spawn } from "node:child_process"
import * as Net from "node:net"
import { join } from "node:path"
import { assert, describe, it, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Either, Redacted } from "effect"
import { Doctor, RouterConfig } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import * as fc from "fast-check"
import { root } from "../support/package.js"

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

type Environment = Readonly<Record<string, string>>

const command = ["--import", "tsx", join(root, "src", "bin.ts")]

/** Runs the command in a process of its own, with these variables of the router and no others. */
const run = (args: ReadonlyArray<string>, environment: Environment = {}, input = "") =>
  Effect.async<Ended>((resume) => {
    const own = Object.entries(process.env).filter(([name]) => !/^(?:DATABASE_|DB_ROUTER_|PG|VITEST|NODE_)/.test(name))
    const child = spawn(process.execPath, [...command, ...args], {
      cwd: root,
      env: { ...Object.fromEntries(own), ...environment }
    })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text
    })
    child.on("close", (code) => resume(Effect.succeed({ code, stdout, stderr })))
    child.stdin.end(input)
    return Effect.sync(() => child.kill())
  })

const urlOf = (node: PgCluster.Node) => `${Redacted.value(node.url)}?name=${node.name}`

const environmentOf = ({ primary, replicas }: PgCluster.Cluster): Environment => ({
  DATABASE_URL: urlOf(primary),
  DATABASE_REPLICA_URLS: replicas.map(urlOf).join(",")
})

const marker = "Tr0ub4dor"

/** Pieces of a password count too: a URL that is misread falls apart inside it. */
const isSilent = (text: string) => {
  for (const piece of [marker, marker.slice(0, 5), marker.slice(-5)]) {
    assert.notInclude(text.toLowerCase(), piece.toLowerCase())
  }
}

const silentOf = ({ stderr, stdout }: Ended) => isSilent(stdout + stderr)

layer(PgCluster.layer({ replicas: 1 }), { excludeTestServices: true })("the command", (it) => {
  it.effect("checks what the environment names, and ends with 0 where all is well", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      yield* cluster.awaitReplayed
      const ended = yield* run(["check", "--sql", "SELECT 1", "--sql", "DELETE FROM a"], environmentOf(cluster))
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.strictEqual(ended.stderr, "")
      assert.match(ended.stdout, /^replica1 +read +127\.0\.0\.1:\d+\/postgres +up +replica +\d/m)
      assert.include(ended.stdout, "Healthy: 0 problems, 0 warnings; primary takes the writes")
      assert.include(ended.stdout, "SELECT 1\n  → read/replica1 (read: plain SELECT)")
      assert.include(ended.stdout, "DELETE FROM a\n  → default/primary (write: DELETE)")
      assert.notInclude(ended.stdout, Redacted.value(cluster.password))
    })
  )

  it.effect("ends with 1 where there is a problem, and says it in JSON", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const environment = { ...environmentOf(cluster), DB_ROUTER_CONNECT_TIMEOUT: "1 second" }
      const [replica] = cluster.replicas
      yield* replica!.stop
      const [checked, explained] = yield* Effect.all([
        run(["check", "--json", "--instances", "2", "--sql", "SELECT 1"], environment),
        run(["explain", "SELECT 1"], environment)
      ]).pipe(Effect.ensuring(Effect.orDie(replica!.start)))
      assert.strictEqual(checked.code, 1)
      assert.strictEqual(checked.stderr, "")
      const report: Doctor.Report & { readonly explained: ReadonlyArray<Doctor.Explained> } = JSON.parse(checked.stdout)
      assert.isFalse(report.healthy)
      assert.strictEqual(report.instances, 2)
      assert.deepStrictEqual(
        report.findings.filter(({ level }) => level === "problem").map(({ code, engine }) => [code, engine]),
        [["connect", "replica1"]]
      )
      assert.deepStrictEqual(
        report.servers.map(({ name, state }) => [name, state]),
        [
          ["primary", "up"],
          ["replica1", "down"]
        ]
      )
      assert.strictEqual(report.explained[0]?.route?.engine, "primary")
      // A statement has a place to go to all the same; not where there is no primary.
      const nowhere = yield* run(["explain", "SELECT 1"], { DATABASE_URL: "postgresql://a@127.0.0.1:1/b" })
      assert.strictEqual(nowhere.code, 1)
      assert.match(nowhere.stdout, /→ fails: the router does not start: .*ECONNREFUSED/)
      assert.strictEqual(explained.code, 0)
      assert.include(explained.stdout, "→ default/primary (read: ")
      assert.match(explained.stderr, /replica1 is down: .*ECONNREFUSED/)
    })
  )

  it.effect("explains statements of its arguments and of the standard input", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const environment = environmentOf(cluster)
      const given = yield* run(["explain", "--json", "SELECT 1", "SELECT 1; DROP TABLE a"], environment)
      assert.strictEqual(given.code, 0, given.stderr)
      const routes = (text: string) =>
        (JSON.parse(text) as ReadonlyArray<Doctor.Explained>).map(({ route, sql }) => [sql, route?.group, route?.kind])
      assert.deepStrictEqual(routes(given.stdout), [
        ["SELECT 1", "read", "read"],
        ["SELECT 1; DROP TABLE a", "default", "write"]
      ])
      const piped = yield* run(["explain", "--json"], environment, "SELECT 1;\nDROP TABLE a;\n")
      assert.strictEqual(piped.code, 0, piped.stderr)
      assert.deepStrictEqual(routes(piped.stdout), [
        ["SELECT 1", "read", "read"],
        ["DROP TABLE a", "default", "write"]
      ])
    })
  )

  it.effect("ends with 2 where it is used or configured wrongly", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const environment = environmentOf(cluster)
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, Environment, RegExp]> = [
        [["chekc"], environment, /Invalid subcommand/],
        [["check", "--instances", "0"], environment, /Invalid instances: 0/],
        [["check"], {}, /DATABASE_URL/],
        [["check"], { ...environment, DB_ROUTER_READS: "sometimes" }, /Invalid DB_ROUTER_READS/],
        [["explain"], environment, /Give SQL/]
      ]
      for (const [args, environment, says] of wrong) {
        const ended = yield* run(args, environment)
        assert.strictEqual(ended.code, 2, args.join(" "))
        assert.match(ended.stderr, says)
        assert.strictEqual(ended.stdout, "")
      }
    })
  )

  it.effect("prints no password, whether it is right, wrong, or in a URL that cannot be read", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const { port } = cluster.primary
      const password = `p@s/${marker}?#:%' `
      yield* cluster.primary.query(`CREATE ROLE shop LOGIN PASSWORD '${password.replace("'", "''")}'`)
      const at = (password: string) => `postgresql://shop:${password}@127.0.0.1:${port}/postgres`
      const right = yield* run(["check", "--json", "--sql", "SELECT 1"], {
        DATABASE_URL: at(encodeURIComponent(password))
      })
      assert.strictEqual(right.code, 0, right.stderr)
      silentOf(right)
      const wrong = yield* run(["check", "--log-level", "all", "--sql", "SELECT 1"], {
        DATABASE_URL: at(encodeURIComponent(`${password}!`))
      })
      assert.strictEqual(wrong.code, 1)
      assert.include(wrong.stdout, "Correct user and password")
      silentOf(wrong)
      const unreadable = yield* run(["check"], { DATABASE_URL: at(password) })
      assert.strictEqual(unreadable.code, 2)
      silentOf(unreadable)
    })
  )
})

describe("a password never appears in a report", () => {
  const password = fc
    .tuple(
      fc.string({ unit: "grapheme-ascii", maxLength: 6 }),
      fc.constantFrom("", "/", "?", "#", "@", ":", "%", "&", " ", "'", "\\")
    )
    .map(([noise, special]) => `${noise}${special}${marker}${special}`)

  // Port 1 has no listener, and these names lead nowhere.
  const url = fc
    .tuple(
      password,
      fc.constantFrom("encoded", "raw"),
      fc.constantFrom(
        (secret: string) => `postgresql://app:${secret}@127.0.0.1:1/shop`,
        (secret: string) => `postgres://app:${secret}@127.0.0.1:1/shop?sslmode=require&name=a`,
        (secret: string) => `postgresql://app@127.0.0.1:1/shop?password=${secret}`,
        (secret: string) => `postgresql://app:${secret}@/shop?host=/nowhere`,
        (secret: string) => `postgresql://app:${secret}@127.0.0.1:1/shop?sslrootcert=/nowhere&sslpassword=${secret}`,
        (secret: string) => `postgresql://app:${secret}@127.0.0.1:1/shop?options=-c%20x=y`
      )
    )
    .map(([secret, how, shape]) => shape(how === "encoded" ? encodeURIComponent(secret) : secret))

  it("whatever the shape of its URL", async () => {
    let reports = 0
    const checked = (text: string) =>
      RouterConfig.fromEnv.pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["DATABASE_URL", text]]), { seqDelim: "\n" })),
        Effect.flatMap(Doctor.check),
        Effect.either
      )
    await fc.assert(
      fc.asyncProperty(url, async (text) => {
        const result = await Effect.runPromise(checked(text))
        if (Either.isRight(result)) {
          reports++
          assert.isFalse(result.right.healthy)
          isSilent(Doctor.render(result.right))
          isSilent(JSON.stringify(result.right))
        } else {
          isSilent(String(result.left))
        }
      }),
      { numRuns: 300 }
    )
    assert.isAbove(reports, 100)
  })

  it("even where a server repeats it", async () => {
    const fields = `SFATAL\0VFATAL\0C28000\0Mno "${marker}" for you\0\0`
    const head = Buffer.from("E\0\0\0\0")
    head.writeInt32BE(4 + fields.length, 1)
    const server = Net.createServer((socket) => {
      socket.on("error", () => {})
      socket.once("data", () => socket.end(Buffer.concat([head, Buffer.from(fields)])))
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const { port } = server.address() as Net.AddressInfo
    const url = Redacted.make(`postgresql://app:${marker}@127.0.0.1:${port}/shop`)
    const report = await Effect.runPromise(Doctor.check({ groups: { default: [{ url }] } }))
    server.close()
    assert.include(Doctor.render(report), 'no "<redacted>" for you')
    isSilent(JSON.stringify(report))
  })
})
