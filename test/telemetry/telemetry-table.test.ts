import { existsSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as conventions from "@opentelemetry/semantic-conventions/incubating"
import { Metric } from "effect"
import { Telemetry } from "effect-db-router"
import ts from "typescript"
import { boundaries } from "../../src/internal/util/metricKey.js"
import { metricsTable, rulesTable } from "../support/telemetryTable.js"

const file = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")
const source = file("src/Telemetry.ts")

/** What stands in front of every export of the module. */
const docstrings = new Map(
  ts.createSourceFile("Telemetry.ts", source, ts.ScriptTarget.ES2022, true).statements.flatMap((statement) => {
    if (!ts.isVariableStatement(statement)) return []
    const [comment] = ts.getLeadingCommentRanges(source, statement.pos)?.slice(-1) ?? []
    const text = comment === undefined ? "" : source.slice(comment.pos, comment.end).replaceAll(/\s*\n\s*\*\s*/g, " ")
    return statement.declarationList.declarations.map(({ name }) => [name.getText(), text] as const)
  })
)

const instruments = Object.entries(Telemetry.instruments) as ReadonlyArray<readonly [string, Telemetry.Instrument]>

describe("the metrics of Telemetry", () => {
  it("are each exported under the name of their instrument, and registered with its name and unit", () => {
    for (const [short, instrument] of instruments) {
      const metric = (Telemetry as unknown as Record<string, Metric.Metric<unknown, number, unknown>>)[short]!
      metric.unsafeUpdate(0, [])
      const keys = Metric.unsafeSnapshot().filter(({ metricKey }) => metricKey.name === instrument.name)
      assert.isAtLeast(keys.length, 1, short)
      const unit = keys[0]!.metricKey.tags.find(({ key }) => key === "unit")?.value
      assert.strictEqual(unit, ["s", "By"].includes(instrument.unit) ? instrument.unit : undefined, short)
    }
    assert.lengthOf(new Set(instruments.map(([, { name }]) => name)), instruments.length)
  })

  for (const [short, { attributes, name, unit }] of instruments) {
    it(`${short}: the docstring says the name, the labels and the unit`, () => {
      const text = docstrings.get(short)!
      assert.include(text, `\`${name}\``)
      for (const attribute of attributes) assert.include(text, `\`${attribute}\``)
      if (unit === "s") assert.include(text, "in seconds")
      if (unit === "By") assert.include(text, "in bytes")
    })
  }

  it("have OpenTelemetry's names where there is one", () => {
    const { ATTR_DB_CLIENT_CONNECTION_POOL_NAME, ATTR_DB_CLIENT_CONNECTION_STATE } = conventions
    const named = {
      duration: conventions.METRIC_DB_CLIENT_OPERATION_DURATION,
      connections: conventions.METRIC_DB_CLIENT_CONNECTION_COUNT,
      connectionLimit: conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT,
      pendingRequests: conventions.METRIC_DB_CLIENT_CONNECTION_PENDING_REQUESTS
    }
    const { attributes, instruments } = Telemetry
    for (const [short, name] of Object.entries(named)) {
      assert.strictEqual(instruments[short as keyof typeof named].name, name)
    }
    assert.deepStrictEqual(
      [
        attributes.system,
        attributes.namespace,
        attributes.serverAddress,
        attributes.serverPort,
        attributes.statusCode,
        attributes.errorType,
        attributes.poolName,
        attributes.connectionState
      ],
      [
        conventions.ATTR_DB_SYSTEM_NAME,
        conventions.ATTR_DB_NAMESPACE,
        conventions.ATTR_SERVER_ADDRESS,
        conventions.ATTR_SERVER_PORT,
        conventions.ATTR_DB_RESPONSE_STATUS_CODE,
        conventions.ATTR_ERROR_TYPE,
        ATTR_DB_CLIENT_CONNECTION_POOL_NAME,
        ATTR_DB_CLIENT_CONNECTION_STATE
      ]
    )
    assert.deepStrictEqual(boundaries, [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10])
    // All others are ours.
    const ours = [...Object.values(instruments).map(({ name }) => name), ...Object.values(attributes)].filter(
      (name) => !Object.values(conventions).some((known) => known === name)
    )
    assert.deepStrictEqual(
      ours.filter((name) => !name.startsWith("db.router.")),
      []
    )
  })

  it("are all in the documentation, which is as the code has it", () => {
    assert.isTrue(existsSync(new URL("../../docs/telemetry.md", import.meta.url)))
    const page = file("docs/telemetry.md")
    assert.include(page, metricsTable())
    assert.include(page, rulesTable())
  })
})
