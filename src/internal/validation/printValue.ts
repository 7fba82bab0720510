/**
 * Values as text for error messages: short, and without secrets.
 */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"

export const hidden = "<redacted>"

const maxLength = 80

// C0, C1 and DEL move a terminal's cursor and end a line of a log; the others reorder or break what is around them.
const control = /[\p{Cc}\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/gu

const escapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

/** A text that others have written, on one line: control characters are escaped, as in `\n` and `\x1b`. */
export const printable = (text: string): string =>
  text.replace(control, (character) => {
    const code = character.charCodeAt(0).toString(16)
    return escapes[character] ?? (code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`)
  })

/** A text without the passwords of the URLs in it. */
export const withoutPasswords = (text: string): string =>
  text.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s/?#:@]*:)[^\s/?#]*@/gi, `$1${hidden}@`)

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
