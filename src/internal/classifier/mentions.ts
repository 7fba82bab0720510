/** Whether a text may name one of many objects, however the names are quoted. */

const isWord = /^[\w$\u{80}-\u{10ffff}]+$/u

/** A name by the codes of its characters. */
const encoded = /u&"/i

const escape = (text: string) => text.replace(/\W/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)

/** In doubt a text names one. */
export const make = (names: ReadonlyArray<string>): ((sql: string) => boolean) => {
  const words = names.filter((name) => isWord.test(name)).map(escape)
  const others = names.filter((name) => !isWord.test(name)).map((name) => escape(name.replaceAll('"', '""')))
  const whole =
    words.length === 0 ? [] : [`(?<![\\w$\\u{80}-\\u{10ffff}])(?:${words.join("|")})(?![\\w$\\u{80}-\\u{10ffff}])`]
  const pattern = new RegExp([...whole, ...others].join("|"), "iu")
  return (sql) => pattern.test(sql) || encoded.test(sql)
}
