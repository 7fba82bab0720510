/**
 * What the messages of a server look like. The driver's parser believes each of them: of a malformed one it throws in the
 * middle of reading the socket, reads on into the next message, or never ends.
 */
import { ProtocolViolation } from "./failure.js"

const codeOf = (type: string): number => type.charCodeAt(0)

export const type = {
  authentication: codeOf("R"),
  bindComplete: codeOf("2"),
  closeComplete: codeOf("3"),
  commandComplete: codeOf("C"),
  copyData: codeOf("d"),
  copyDone: codeOf("c"),
  copyIn: codeOf("G"),
  copyOut: codeOf("H"),
  dataRow: codeOf("D"),
  emptyQuery: codeOf("I"),
  error: codeOf("E"),
  keyData: codeOf("K"),
  noData: codeOf("n"),
  notice: codeOf("N"),
  notification: codeOf("A"),
  parameterDescription: codeOf("t"),
  parameterStatus: codeOf("S"),
  parseComplete: codeOf("1"),
  portalSuspended: codeOf("s"),
  readyForQuery: codeOf("Z"),
  rowDescription: codeOf("T")
} as const

/** Kinds of authentication. */
export const auth = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const

/** The bytes of a message from behind its length to its end. */
type Check = (bytes: Buffer, from: number, to: number) => boolean

/** Where a text ends that begins there, behind its zero; more than `to` where it has none. */
const afterText = (bytes: Buffer, from: number, to: number): number => {
  let at = from
  while (at < to) if (bytes[at++] === 0) return at
  return to + 1
}

const isEmpty: Check = (_, from, to) => from === to

const isText: Check = (bytes, from, to) => afterText(bytes, from, to) === to

const isDataRow: Check = (bytes, from, to) => {
  if (to - from < 2) return false
  const count = bytes.readInt16BE(from)
  if (count < 0) return false
  let at = from + 2
  for (let field = 0; field < count; field++) {
    if (at + 4 > to) return false
    const length = bytes.readInt32BE(at)
    if (length < -1) return false
    at += length === -1 ? 4 : 4 + length
    if (at > to) return false
  }
  return at === to
}

/** Table, column, type, its length and modifier, the format. */
const columnLength = 18

const isRowDescription: Check = (bytes, from, to) => {
  if (to - from < 2) return false
  const count = bytes.readInt16BE(from)
  if (count < 0) return false
  let at = from + 2
  for (let column = 0; column < count; column++) {
    at = afterText(bytes, at, to) + columnLength
    if (at > to) return false
  }
  return at === to
}

const isParameterDescription: Check = (bytes, from, to) => {
  // The driver takes no more than so many, though PostgreSQL has twice as many.
  const count = to - from < 2 ? -1 : bytes.readInt16BE(from)
  return count >= 0 && to - from === 2 + 4 * count
}

/** Errors and notices: a letter and a text each, and a zero at the end. */
const isFields: Check = (bytes, from, to) => {
  for (let at = from; at < to; at = afterText(bytes, at + 1, to)) if (bytes[at] === 0) return at + 1 === to
  return false
}

const isTwoTexts: Check = (bytes, from, to) => afterText(bytes, afterText(bytes, from, to), to) === to

const isNotification: Check = (bytes, from, to) => isTwoTexts(bytes, from + 4, to)

const isCopyResponse: Check = (bytes, from, to) => {
  const count = to - from < 3 ? -1 : bytes.readInt16BE(from + 1)
  return count >= 0 && to - from === 3 + 2 * count
}

const isAuthentication: Check = (bytes, from, to) => {
  if (to - from < 4) return false
  switch (bytes.readInt32BE(from)) {
    case auth.ok:
    case auth.cleartext:
      return to - from === 4
    case auth.md5:
      return to - from === 8
    case auth.sasl: {
      let at = from + 4
      while (at < to && bytes[at] !== 0) at = afterText(bytes, at, to)
      return at + 1 === to
    }
    case auth.saslContinue:
    case auth.saslFinal:
      return true
    default:
      throw new ProtocolViolation(
        `The server asks for authentication of a kind that the driver does not know: ${bytes.readInt32BE(from)}`
      )
  }
}

const statuses = [codeOf("I"), codeOf("T"), codeOf("E")]

const checks: ReadonlyArray<readonly [type: number, check: Check]> = [
  [type.authentication, isAuthentication],
  [type.bindComplete, isEmpty],
  [type.closeComplete, isEmpty],
  [type.commandComplete, isText],
  [type.copyData, () => true],
  [type.copyDone, isEmpty],
  [type.copyIn, isCopyResponse],
  [type.copyOut, isCopyResponse],
  [type.dataRow, isDataRow],
  [type.emptyQuery, isEmpty],
  [type.error, isFields],
  [type.keyData, (_, from, to) => to - from === 8],
  [type.noData, isEmpty],
  [type.notice, isFields],
  [type.notification, isNotification],
  [type.parameterDescription, isParameterDescription],
  [type.parameterStatus, isTwoTexts],
  [type.parseComplete, isEmpty],
  [type.portalSuspended, isEmpty],
  [type.readyForQuery, (bytes, from, to) => to - from === 1 && statuses.includes(bytes[from]!)],
  [type.rowDescription, isRowDescription]
]

const byType: Array<Check | undefined> = Array.from({ length: 256 })
for (const [type, check] of checks) byType[type] = check

/** These may be long: what libpq takes for long too, and the types of 65,535 parameters. */
const longTypes = new Set<number>([
  type.dataRow,
  type.error,
  type.notice,
  type.notification,
  type.parameterDescription,
  type.rowDescription
])

/** The length of all other messages, and of all before the server has let the client in, in bytes. */
const shortLength = 30_000

/** PostgreSQL makes nothing longer than a gigabyte. */
const maxLength = 0x4000_0000

const name = (type: number): string => JSON.stringify(String.fromCharCode(type))

/** Refuses a message by its head. */
export const checkHead = (type: number, length: number, isStarting: boolean): void => {
  if (byType[type] === undefined) {
    throw new ProtocolViolation(`The server has sent a message of a type that there is not: ${name(type)}`)
  }
  if (length < 4 || length > (longTypes.has(type) && !isStarting ? maxLength : shortLength)) {
    throw new ProtocolViolation(`The server has sent a message ${name(type)} of ${length} bytes`)
  }
}

/** Refuses a message that is not whole, or says of itself what is not so. */
export const checkContent = (type: number, bytes: Buffer, from: number, to: number): void => {
  if (!byType[type]!(bytes, from, to))
    throw new ProtocolViolation(`The server has sent a malformed message ${name(type)}`)
}
