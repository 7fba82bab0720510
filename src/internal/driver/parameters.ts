/**
 * A prepared statement keeps the types that its parameters had when it was parsed. After `ALTER TABLE ... ALTER ... TYPE` the
 * server converts a value to the old type first and from there to the new one, without an error: a timestamp loses its zone, a
 * real its digits, a name what is past 63 bytes. So a value is sent to a prepared statement only if every type that a column
 * may have by now reads the same from it: a text that the old type gives back as it was, and whose conversions are exact.
 * Everything else is parsed with its statement.
 */

const int2 = 21
const int4 = 23
const int8 = 20
const float4 = 700
const float8 = 701
const numeric = 1700
const bool = 16
const uuid = 2950
const text = 25
const varchar = 1043
const bpchar = 1042
const name = 19

const isInteger = /^(?:0|-?[1-9][0-9]*)$/
const isUuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** The types with values that can be sent, as `pg_type` numbers them. Casts of extensions may take any of them away. */
export const known: ReadonlyArray<number> = [
  int2,
  int4,
  int8,
  float4,
  float8,
  numeric,
  bool,
  uuid,
  text,
  varchar,
  bpchar,
  name
]

/** Integers that fit: `largest` is the largest one of which the type keeps and shows every digit. */
const integer = (value: unknown, largest: number): boolean => {
  if (typeof value === "number") return Number.isInteger(value) && value <= largest && value >= -largest
  if (typeof value !== "string") return typeof value === "bigint" && value <= largest && value >= -largest
  return value.length <= 18 && isInteger.test(value) && Math.abs(Number(value)) <= largest
}

/** A `bigint` holds every integer of 18 digits, and far beyond it a number is written with an exponent. */
const largestInteger = 1e18

/** In a `name` there is room for 63 bytes, and a `character(n)` ignores blanks at the end. */
const isShortText = (value: unknown): boolean => {
  if (typeof value !== "string") return typeof value === "number" || typeof value === "bigint"
  const { length } = value
  if (length === 0) return true
  return value.charCodeAt(length - 1) !== 0x20 && (length <= 21 || (length <= 63 && Buffer.byteLength(value) <= 63))
}

/** Whether a parameter that had this type when its statement was parsed says the same whatever its type would be now. */
export const saysTheSame = (type: number, value: unknown): boolean => {
  if (value === null || value === undefined) return true
  switch (type) {
    case int4:
      return integer(value, 0x7fff_ffff)
    case text:
    case varchar:
    case bpchar:
    case name:
      return isShortText(value)
    case uuid:
      return typeof value === "string" && value.length === 36 && isUuid.test(value)
    case int8:
    case numeric:
      return integer(value, largestInteger)
    case bool:
      return typeof value === "boolean" || value === "true" || value === "false"
    case int2:
      return integer(value, 0x7fff)
    case float8:
      return integer(value, 999_999_999_999_999)
    case float4:
      return integer(value, 999_999)
    default:
      return false
  }
}
