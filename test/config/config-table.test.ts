import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Either } from "effect"
import * as RouterConfig from "effect-db-router/RouterConfig"
import { fields as engineFields } from "../../src/internal/config/engine.js"
import { scalars } from "../../src/internal/config/environment.js"
import { configTable, engine, options, passed } from "../support/configTable.js"

/** The names that the validation itself offers when it is given one that it does not know. */
const allowed = (value: unknown): ReadonlyArray<string> => {
  const result = RouterConfig.resolve(value as RouterConfig.Options)
  assert(Either.isLeft(result))
  assert.include(result.left.remedy, "The fields are")
  return Array.from(result.left.remedy.matchAll(/"(\w+)"/g), ([, name]) => name!)
}

const valid = { groups: { default: [{}] } }

const rows = (text: string) => text.split("\n").filter((line) => line.startsWith("| `"))

describe("the table of the options", () => {
  it("is what the documentation has", () => {
    const page = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8")
    assert.include(page, configTable().trim())
  })

  it("has every option, and no other", () => {
    const code = allowed({ ...valid, zzzzzzzz: 1 }).flatMap((name) =>
      name === "classifier" || name === "waitForPrimary" || name === "tokens"
        ? allowed({ ...valid, [name]: { zzzzzzzz: 1 } }).map((field) => `${name}.${field}`)
        : name === "prepare" || name === "health" || name === "hedge"
          ? [name, ...allowed({ ...valid, [name]: { zzzzzzzz: 1 } }).map((field) => `${name}.${field}`)]
          : [name]
    )
    assert.deepStrictEqual(Object.keys(options).sort(), code.sort())
  })

  it("has every field of an engine, and no other", () => {
    assert.deepStrictEqual([...Object.keys(engine), ...passed].sort(), Object.keys(engineFields).sort())
  })

  it("has every variable that is read, and no other", () => {
    const read = new Set<string>()
    const recording = ConfigProvider.fromFlat(
      ConfigProvider.makeFlat({
        load: (path, primitive, split) => {
          read.add(path.join("."))
          const text = {
            DATABASE_URL: "postgresql://a/b",
            DATABASE_GROUPS: "name",
            DATABASE_NAME_URLS: "postgresql://a/b"
          }
          return ConfigProvider.fromMap(new Map(Object.entries(text))).flattened.load(path, primitive, split)
        },
        enumerateChildren: () => Effect.succeed(new Set<string>() as never),
        patch: ConfigProvider.fromMap(new Map()).flattened.patch
      })
    )
    Effect.runSync(Effect.withConfigProvider(RouterConfig.fromEnv, recording))
    const shown = new Set(
      Array.from(configTable().matchAll(/`((?:DATABASE|DB_ROUTER)_[A-Z_<>]+)`/g), ([, name]) =>
        name!.replace("<NAME>", "NAME")
      )
    )
    shown.delete("DATABASE_ANALYTICS_URLS")
    assert.deepStrictEqual([...shown].sort(), [...read].sort())
  })

  it("puts a variable beside the option that it sets", () => {
    const lines = rows(configTable())
    for (const { field, variable } of scalars) {
      const name = field === "zone" ? field : field.replace("engine.", "")
      const line = lines.find((line) => line.startsWith(`| \`${name}\` |`))
      assert.include(line, `\`${variable}\``)
    }
  })

  it("states the defaults that the code has", () => {
    const config = Either.getOrThrow(RouterConfig.resolve(valid))
    const client = config.groups.get("default")!.engines[0]!.known!.client
    const duration = (stated: string) => Duration.toMillis(JSON.parse(stated.replaceAll("`", "")))
    const plain = (stated: string) => JSON.parse(stated.replaceAll("`", ""))
    assert.strictEqual(plain(options.defaultGroup.default), config.defaultGroup)
    assert.strictEqual(plain(options.enabled.default), config.enabled)
    assert.strictEqual(plain(options.reads.default), config.reads)
    assert.strictEqual(plain(options.onNoReplica.default), config.onNoReplica)
    assert.strictEqual(plain(options["prepare.maxPerConnection"].default), config.maxPreparedPerConnection)
    assert.strictEqual(plain(options["classifier.cacheSize"].default), config.classifier.cacheSize)
    assert.strictEqual(
      duration(options["classifier.refreshInterval"].default),
      Duration.toMillis(config.classifier.refreshInterval)
    )
    const hedged = Either.getOrThrow(RouterConfig.resolve({ ...valid, hedge: 1 })).hedge!
    assert.strictEqual(plain(options["hedge.maxShare"].default), hedged.maxShare)
    const health = config.health!
    for (const field of ["interval", "timeout", "maxLag"] as const) {
      assert.strictEqual(duration(options[`health.${field}`].default), Duration.toMillis(health[field]))
    }
    assert.strictEqual(plain(options["health.failures"].default), health.failures)
    assert.strictEqual(BigInt(plain(options["health.maxLagBytes"].default)), health.maxLagBytes)
    assert.strictEqual(duration(options["tokens.lifetime"].default), Duration.toMillis(config.tokens.lifetime))
    assert.isUndefined(config.tokens.keys)
    assert.strictEqual(plain(options.maxPendingNotifications.default), config.maxPendingNotifications)
    assert.strictEqual(plain(options.metrics.default), config.metrics)
    assert.strictEqual(duration(options.shutdownTimeout.default), Duration.toMillis(config.shutdownTimeout))
    assert.strictEqual(options.strategy.default, "`Selector.roundRobin`")
    assert.strictEqual(config.strategy.name, "round-robin")
    assert.strictEqual(options.consistency.default, `\`Consistency.${config.consistency.name}()\``)
    assert.strictEqual(plain(engine.maxConnections.default), client.maxConnections)
    assert.strictEqual(plain(engine.minConnections.default), client.minConnections)
    assert.strictEqual(plain(engine.applicationName.default), client.applicationName)
  })

  it("is Markdown: every row has as many cells as its head", () => {
    let cells = 0
    for (const line of configTable().split("\n")) {
      if (!line.startsWith("|")) {
        cells = 0
        continue
      }
      const count = line.split(/(?<!\\)\|/).length
      if (cells > 0) assert.strictEqual(count, cells, line)
      cells = count
    }
    assert.isAbove(rows(configTable()).length, 30)
  })
})
