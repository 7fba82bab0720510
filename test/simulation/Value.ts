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

/** The numbers and the sizes of the types; -1: it varies. */
const catalog: Readonly<Record<Type, readonly [oid: number, size: number]>> = {
  bool: [16, 1],
  int8: [20, 8],
  int4: [23, 4],
  text: [25, -1],
  name: [19, 64],
  float8: [701, 8],
  numeric: [1700, -1],
  timestamptz: [1184, 8],
  pg_lsn: [3220, 8],
  bit: [1560, -1],
  xid8: [5069, 8],
  void: [2278, 4],
  unknown: [25, -1],
  "text[]": [1009, -1],
  "int4[]": [1007, -1],
  record: [2249, -1]
}

export const oidOf = (type: Type): number => catalog[type][0]
export const sizeOf = (type: Type): number => catalog[type][1]

export const typeOfOid = (oid: number): Type | undefined =>
  (Object.keys(catalog) as ReadonlyArray<Type>).find((type) => catalog[type][0] === oid)

/** How error messages call a type. */
export const longName = (type: Type): string =>
  ({
    bool: "boolean",
    int4: "integer",
    int8: "bigint",
    float8: "double precision",
    timestamptz: "timestamp with time zone",
    "int4[]": "integer[]"
  })[type as string] ?? type

export interface Field {
  readonly name: string
  readonly type: Type
}

export const lsnText = (lsn: number): string =>
  `${Math.floor(lsn / 2 ** 32)
    .toString(16)
    .toUpperCase()}/${(lsn % 2 ** 32).toString(16).toUpperCase()}`

const two = (n: number) => String(n).padStart(2, "0")

const timestamp = (millis: number): string => {
  const date = new Date(millis)
  const fraction = (date.getUTCMilliseconds() / 1000).toString().slice(1)
  return (
    `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())} ` +
    `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}${fraction}+00`
  )
}

/** An element of an array as text: quoted where it would be read as something else. */
const element = (value: Value): string => {
  if (value === null) return "NULL"
  const text = String(value)
  return text === "" || /[\s{},"\\]/.test(text) || /^null$/i.test(text) ? `"${text.replace(/["\\]/g, "\\$&")}"` : text
}

export const toText = (value: Value, type: Type): string | null => {
  if (value === null) return null
  if (typeof value === "boolean") return value ? "t" : "f"
  if (type === "pg_lsn") return lsnText(Number(value))
  if (type === "timestamptz") return timestamp(Number(value))
  if (Array.isArray(value)) return `{${(value as ReadonlyArray<Value>).map(element).join(",")}}`
  return String(value)
}

const readers: Partial<Record<Type, string>> = {
  bool: "boolin",
  int4: "pg_strtoint32_safe",
  int8: "pg_strtoint64_safe",
  float8: "float8in_internal",
  numeric: "numeric_in",
  pg_lsn: "pg_lsn_in"
}

const invalid = (type: Type, text: string) =>
  new PgError("22P02", `invalid input syntax for type ${longName(type)}: "${text}"`, readers[type] ?? "")

const integer = (text: string, type: "int4" | "int8"): number | bigint => {
  if (!/^\s*[-+]?\d+\s*$/.test(text)) throw invalid(type, text)
  const value = BigInt(text.trim().replace("+", ""))
  if (BigInt.asIntN(type === "int4" ? 32 : 64, value) !== value) {
    throw new PgError("22003", `value "${text}" is out of range for type ${longName(type)}`, readers[type]!)
  }
  return Number.isSafeInteger(Number(value)) ? Number(value) : value
}

const float = (text: string, type: "float8" | "numeric"): number => {
  if (!/^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(text)) throw invalid(type, text)
  return Number(text)
}

const time = (text: string): number => {
  const value = Date.parse(text)
  if (!Number.isNaN(value)) return value
  const message = `invalid input syntax for type timestamp with time zone: "${text}"`
  throw new PgError("22007", message, "DateTimeParseError")
}

const position = (text: string): number => {
  const [, high, low] = /^([0-9a-f]{1,8})\/([0-9a-f]{1,8})$/i.exec(text) ?? []
  if (high === undefined || low === undefined) throw invalid("pg_lsn", text)
  return Number.parseInt(high, 16) * 2 ** 32 + Number.parseInt(low, 16)
}

/** The elements of an array of one dimension, as texts. */
const elements = (text: string): ReadonlyArray<string | null> => {
  if (!text.startsWith("{") || !text.endsWith("}")) {
    throw new PgError("22P02", `malformed array literal: "${text}"`, "array_in", "ERROR", {
      detail: 'Array value must start with "{" or dimension information.'
    })
  }
  return [...text.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/g)].map(([, quoted, plain]) =>
    quoted !== undefined ? quoted.replace(/\\(.)/g, "$1") : /^null$/i.test(plain!) ? null : plain!
  )
}

/** A text as a value of a type. */
export const read = (text: string, type: Type): Value => {
  switch (type) {
    case "int4":
    case "int8":
      return integer(text, type)
    case "float8":
    case "numeric":
      return float(text, type)
    case "bool": {
      const word = text.trim().toLowerCase()
      const isTrue = ["t", "tr", "tru", "true", "on", "y", "ye", "yes", "1"].includes(word)
      if (!isTrue && !["f", "fa", "fal", "fals", "false", "of", "off", "n", "no", "0"].includes(word))
        throw invalid("bool", text)
      return isTrue
    }
    case "pg_lsn":
      return position(text)
    case "bit":
      return Number.parseInt(text.slice(1), 16)
    case "timestamptz":
      return time(text)
    case "text[]":
      return elements(text)
    case "int4[]":
      return elements(text).map((one) => (one === null ? null : integer(one, "int4")))
    default:
      return text
  }
}

/** A value of another type, or of none yet, as one of this type. */
export const convert = (value: Value, from: Type, to: Type): Value => {
  if (value === null || from === to) return value
  if (to === "text" || to === "name" || to === "unknown") return toText(value, from)
  if (typeof value === "string") return read(value, to)
  if (from === "bit" || to !== "int4") return value
  return typeof value === "boolean" ? (value ? 1 : 0) : Math.round(Number(value))
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
