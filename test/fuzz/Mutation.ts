/** What a server's messages are turned into. */

/** Chance that begins with a seed: mulberry32. */
export class Chance {
  constructor(private state: number) {}

  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }

  below(n: number): number {
    return Math.floor(this.next() * n)
  }

  of<A>(all: ReadonlyArray<A>): A {
    return all[this.below(all.length)]!
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)))
  }
}

export const message = (type: string, body: Buffer = Buffer.alloc(0), length = body.length + 4): Buffer => {
  const head = Buffer.alloc(5)
  head.write(type, "latin1")
  head.writeUInt32BE(length >>> 0, 1)
  return Buffer.concat([head, body])
}

/** The messages of a turn, as long as they are whole. */
export const messagesOf = (bytes: Buffer): Array<Buffer> => {
  const found: Array<Buffer> = []
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 1 + bytes.readUInt32BE(at + 1)
    found.push(bytes.subarray(at, end))
    at = end
  }
  return found
}

const int16 = (n: number): Buffer => {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(n)
  return bytes
}

const int32 = (n: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(n)
  return bytes
}

const text = (text: string): Buffer => Buffer.from(`${text}\0`)

export const ready = message("Z", Buffer.from("I"))

/** Messages that come at the wrong time, or are none. */
const strangers: ReadonlyArray<(chance: Chance) => Buffer> = [
  () => ready,
  (chance) => message("Z", chance.bytes(chance.below(3))),
  (chance) => message(String.fromCharCode(chance.below(256)), chance.bytes(chance.below(20))),
  () => message("?"),
  () => message("s"),
  () => message("1"),
  () => message("2"),
  () => message("3"),
  () => message("n"),
  () => message("I"),
  () => message("c"),
  () => message("d", Buffer.from("x")),
  (chance) => message("G", Buffer.concat([Buffer.from([0]), int16(chance.of([0, 1, -1, 300]))])),
  (chance) => message("H", Buffer.concat([Buffer.from([0]), int16(chance.of([0, -1]))])),
  () => message("W", Buffer.from([0, 0, 0])),
  (chance) => message("D", int16(chance.of([-1, 0, 1, 30_000]))),
  (chance) => message("D", Buffer.concat([int16(1), int32(chance.of([-1, -5, 0, 5, 0x7fff_ffff]))])),
  (chance) => message("T", int16(chance.of([-1, 0, 3]))),
  (chance) => message("t", int16(chance.of([-1, 0, 3]))),
  (chance) => message("R", int32(chance.of([0, 3, 5, 7, 9, 10, 11, 12, 99]))),
  () => message("R", Buffer.concat([int32(10), text("SCRAM-SHA-256-PLUS"), Buffer.from([0])])),
  () => message("R", Buffer.concat([int32(12), Buffer.from("v=AAAA")])),
  () => message("E"),
  () => message("E", Buffer.from("SERROR")),
  () => message("E", Buffer.concat([text("SERROR"), text("C57P01"), text("Mbye"), Buffer.from([0])])),
  () => message("E", Buffer.concat([text("SFATAL"), text("C57P01"), Buffer.from([0])])),
  () => message("N", Buffer.from("SNOTICE")),
  () => message("N", Buffer.concat([text("SWARNING"), text("C01000"), Buffer.from([0])])),
  () => message("A", Buffer.concat([int32(1), text("jobs"), text("x")])),
  () => message("A", int32(1)),
  () => message("S", text("TimeZone")),
  () => message("K", int32(1)),
  () => message("C", Buffer.from("SELECT 1")),
  () => message("C", text("SELECT 1")),
  () => message("C", text("COMMIT")),
  () => message("v", int32(1))
]

type Mutate = (bytes: Buffer, chance: Chance) => Buffer

const replaced = (all: ReadonlyArray<Buffer>, at: number, by: ReadonlyArray<Buffer>): Buffer =>
  Buffer.concat([...all.slice(0, at), ...by, ...all.slice(at + 1)])

/** Changes one message of a turn. */
const changing =
  (change: (one: Buffer, chance: Chance) => ReadonlyArray<Buffer>): Mutate =>
  (bytes, chance) => {
    const all = messagesOf(bytes)
    if (all.length === 0) return bytes
    const at = chance.below(all.length)
    return replaced(all, at, change(all[at]!, chance))
  }

const withLength = (one: Buffer, length: number): Buffer => {
  const copy = Buffer.from(one)
  copy.writeUInt32BE(length >>> 0, 1)
  return copy
}

/** A byte of a turn is another one. */
export const flip = (bytes: Buffer, at: number, value: number): Buffer => {
  const copy = Buffer.from(bytes)
  copy[at] = value
  return copy
}

export const mutations: Readonly<Record<string, Mutate>> = {
  flip: (bytes, chance) => flip(bytes, chance.below(bytes.length), chance.below(256)),
  flips: (bytes, chance) => {
    const copy = Buffer.from(bytes)
    for (let i = chance.below(8); i >= 0; i--) copy[chance.below(copy.length)] = chance.below(256)
    return copy
  },
  cut: (bytes, chance) => bytes.subarray(0, chance.below(bytes.length)),
  length: changing((one, chance) => [
    withLength(
      one,
      chance.of([0, 1, 3, 4, 5, one.length - 2, one.length, one.length + 7, 65_535, 0x7fff_ffff, 0xffff_ffff])
    )
  ]),
  count: changing((one, chance) => [
    one.length < 7
      ? one
      : Buffer.concat([one.subarray(0, 5), int16(chance.of([-1, 0, 1, 2, 30_000, -32_768])), one.subarray(7)])
  ]),
  shortened: changing((one, chance) => {
    const body = one.subarray(5, 5 + chance.below(Math.max(1, one.length - 5)))
    return [message(String.fromCharCode(one[0]!), body)]
  }),
  extended: changing((one, chance) => [
    message(String.fromCharCode(one[0]!), Buffer.concat([one.subarray(5), chance.bytes(1 + chance.below(6))]))
  ]),
  garbled: changing((one, chance) => [message(String.fromCharCode(one[0]!), chance.bytes(one.length - 5))]),
  retyped: changing((one, chance) => [message(chance.of([..."123ACDEGHIKNRSTZcdnst?"]), one.subarray(5))]),
  lost: changing(() => []),
  doubled: changing((one) => [one, one]),
  moved: (bytes, chance) => {
    const all = messagesOf(bytes)
    if (all.length < 2) return bytes
    const [one] = all.splice(chance.below(all.length), 1)
    all.splice(chance.below(all.length + 1), 0, one!)
    return Buffer.concat(all)
  },
  stranger: (bytes, chance) => {
    const all = messagesOf(bytes)
    all.splice(chance.below(all.length + 1), 0, chance.of(strangers)(chance))
    return Buffer.concat(all)
  },
  early: (bytes, chance) => {
    const all = messagesOf(bytes)
    all.splice(chance.below(all.length + 1), 0, ready)
    return Buffer.concat(all)
  },
  late: (bytes) => Buffer.concat(messagesOf(bytes).filter((one) => one[0] !== 0x5a)),
  garbage: (bytes, chance) => {
    const at = chance.below(bytes.length)
    return Buffer.concat([bytes.subarray(0, at), chance.bytes(1 + chance.below(200)), bytes.subarray(at)])
  }
}

/** The bytes in up to four pieces, which end anywhere. They are copies: the driver may write into what it reads. */
export const pieces = (bytes: Buffer, chance: Chance): ReadonlyArray<Buffer> => {
  const cuts = Array.from({ length: chance.below(4) }, () => chance.below(bytes.length + 1)).sort((a, b) => a - b)
  return [0, ...cuts]
    .map((from, i) => Buffer.from(bytes.subarray(from, cuts[i] ?? bytes.length)))
    .filter((piece) => piece.length > 0)
}
