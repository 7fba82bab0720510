/** The tables of metrics and rules in the documentation, from the code. */
import { Telemetry } from "effect-db-router"

const code = (text: string) => `\`${text}\``

const table = (heads: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [heads, heads.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

/** Every metric, with its unit and labels. */
export const metricsTable = (): string =>
  table(
    ["metric", "type", "unit", "labels", "meaning"],
    Object.values(Telemetry.instruments).map(({ attributes, description, name, type, unit }) => [
      code(name),
      type,
      code(unit),
      attributes.map(code).join(", "),
      description
    ])
  )

/** Every rule of routing. */
export const rulesTable = (): string =>
  table(
    [code(Telemetry.attributes.rule), "what decided"],
    Object.entries(Telemetry.rules).map(([rule, meaning]) => [code(rule), meaning])
  )
