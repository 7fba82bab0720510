/**
 * Values as text for error messages: short, and without secrets.
 */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"

export const hidden = "<redacted>"

const maxLength = 80

// A string that may be a URL, or a part of one, may hold a password.
const mayHoldSecret = (text: string) => text.includes("://") || text.includes("@") || /password/i.test(text)

export const print = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return mayHoldSecret(value)
        ? hidden
        : JSON.stringify(value.length > maxLength ? `${value.slice(0, maxLength)}…` : value)
    case "function":
      return "a function"
    case "object":
      if (value === null) return "null"
      if (Redacted.isRedacted(value)) return hidden
      if (Duration.isDuration(value)) return Duration.format(value)
      if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list of ${value.length}`
      return Object.keys(value).length === 0 ? "an empty object" : "an object"
    default:
      return String(value)
  }
}

export const list = (names: Iterable<string>): string => Array.from(names, (name) => JSON.stringify(name)).join(", ")
