/** Values, their types, and how both look on the wire (as text, which is what the driver asks for). */
import { PgError } from "./PgError.js"

export type Value = null | boolean | number | bigint | string | ReadonlyArray<Value>

export type Type =
  | "bool"
  | "int4"
  | "int8"
  | "text"
  | "name"
  | "float8"
  | "numeric"
  | "timestamptz"
  | "pg_lsn"
  | "bit"
  | "xid8"
  | "void"
  | "unknown"
  | "text[]"
  | "int4[]"
  | "record"

export const oids: Readonly<Record<Type, number>> = {
  bool: 16,
  int8: 20,
  int4: 23,
  text: 25,
  name: 19,
  float8: 701,
  numeric: 1700,
  timestamptz: 1184,
  pg_lsn: 3220,
  bit: 1560,
  xid8: 5069,
  void: 2278,
  unknown: 25,
  "text[]": 1009,
  "int4[]": 1007,
  record: 2249
}

export interface Field {
  readonly name: string
  readonly type: Type
}

export const lsnText = (lsn: number): string =>
  `${Math.floor(lsn / 2 ** 32)
    .toString(16)
    .toUpperCase()}/${(lsn % 2 ** 32).toString(16).toUpperCase()}`

const parseLsn = (text: string): number => {
  const [high, low] = text.split("/")
  return Number.parseInt(high!, 16) * 2 ** 32 + Number.parseInt(low!, 16)
}

const two = (n: number) => String(n).padStart(2, "0")

const timestamp = (millis: number): string => {
  const date = new Date(millis)
  const fraction = String(date.getUTCMilliseconds()).padStart(3, "0")
  return (
    `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())} ` +
    `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}.${fraction}+00`
  )
}

export const toText = (value: Value, type: Type): string | null => {
  if (value === null) return null
  if (typeof value === "boolean") return value ? "t" : "f"
  if (type === "pg_lsn") return lsnText(Number(value))
  if (type === "timestamptz") return timestamp(Number(value))
  if (Array.isArray(value)) return `{${value.map((one) => toText(one as Value, "text") ?? "NULL").join(",")}}`
  return String(value)
}

const invalid = (type: string, text: string) =>
  new PgError("22P02", `invalid input syntax for type ${type}: "${text}"`, "pg_strtoint32_safe")

const integer = (text: string, type: "integer" | "bigint"): number => {
  if (!/^\s*[-+]?\d+\s*$/.test(text)) throw invalid(type, text)
  const value = Number(text)
  if (type === "integer" && (value > 2147483647 || value < -2147483648)) {
    throw new PgError("22003", `value "${text}" is out of range for type integer`, "pg_strtoint32_safe")
  }
  return value
}

/** A value of another type, or of none yet, as one of this type. */
export const convert = (value: Value, from: Type, to: Type): Value => {
  if (value === null || from === to) return value
  if (to === "text" || to === "name" || to === "unknown") return toText(value, from)
  if (typeof value !== "string") {
    if (from === "bit" || to !== "int4") return value
    return typeof value === "boolean" ? (value ? 1 : 0) : Math.round(Number(value))
  }
  switch (to) {
    case "int4":
      return integer(value, "integer")
    case "int8":
      return integer(value, "bigint")
    case "float8":
    case "numeric":
      return Number(value)
    case "bool":
      if (!/^(t|true|on|1|f|false|off|0)$/.test(value)) throw invalid("boolean", value)
      return /^(t|true|on|1)$/.test(value)
    case "pg_lsn":
      return parseLsn(value)
    case "bit":
      return Number.parseInt(value.slice(1), 16)
    case "timestamptz":
      return Date.parse(value)
    case "text[]":
      return value === "{}"
        ? []
        : value
            .slice(1, -1)
            .split(",")
            .map((one) => one.replace(/^"|"$/g, ""))
    case "int4[]":
      return value === "{}" ? [] : value.slice(1, -1).split(",").map(Number)
    default:
      return value
  }
}

const typeNames: Readonly<Record<string, Type>> = {
  bool: "bool",
  int4: "int4",
  int8: "int8",
  int2: "int4",
  text: "text",
  varchar: "text",
  name: "name",
  float8: "float8",
  numeric: "numeric",
  timestamptz: "timestamptz",
  pg_lsn: "pg_lsn",
  bit: "bit",
  xid8: "xid8"
}

export const typeNamed = (name: string): Type | undefined => typeNames[name]
