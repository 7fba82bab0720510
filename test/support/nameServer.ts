/**
 * A name server on UDP (RFC 1035), with the records that a test gives it.
 */
import { createSocket } from "node:dgram"
import { Effect, type Scope } from "effect"

export interface Zone {
  readonly a?: ReadonlyArray<string>
  readonly aaaa?: ReadonlyArray<ReadonlyArray<number>>
  readonly srv?: ReadonlyArray<{
    readonly priority: number
    readonly weight: number
    readonly port: number
    readonly target: string
  }>
  /** Response codes by type: 2 is SERVFAIL. */
  readonly fails?: Readonly<Record<number, number>>
  /** Answers nothing. */
  readonly silent?: boolean
}

export const types = { A: 1, AAAA: 28, SRV: 33 } as const

const encodeName = (name: string): Buffer =>
  Buffer.concat([
    ...name
      .split(".")
      .filter((label) => label !== "")
      .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0])
  ])

const uint16 = (...values: ReadonlyArray<number>): Buffer => {
  const buffer = Buffer.alloc(values.length * 2)
  values.forEach((value, index) => {
    buffer.writeUInt16BE(value, index * 2)
  })
  return buffer
}

const question = (query: Buffer) => {
  const labels: Array<string> = []
  let at = 12
  while (query[at] !== 0) {
    const length = query[at]!
    labels.push(query.toString("latin1", at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join(".").toLowerCase(), type: query.readUInt16BE(at + 1), end: at + 5 }
}

const dataOf = (zone: Zone, type: number): ReadonlyArray<Buffer> => {
  if (type === types.A) return (zone.a ?? []).map((address) => Buffer.from(address.split(".").map(Number)))
  if (type === types.AAAA) return (zone.aaaa ?? []).map((words) => uint16(...words))
  return type === types.SRV
    ? (zone.srv ?? []).map(({ port, priority, target, weight }) =>
        Buffer.concat([uint16(priority, weight, port), encodeName(target)])
      )
    : []
}

const reply = (query: Buffer, zones: Readonly<Record<string, Zone>>): Buffer | undefined => {
  const { end, name, type } = question(query)
  const zone = zones[name]
  if (zone?.silent === true) return undefined
  const code = zone === undefined ? 3 : (zone.fails?.[type] ?? 0)
  const records = zone === undefined || code !== 0 ? [] : dataOf(zone, type)
  return Buffer.concat([
    query.subarray(0, 2),
    uint16(0x8180 | code, 1, records.length, 0, 0),
    query.subarray(12, end),
    // A pointer to the name of the question, the type, the class IN, no time to live, the data.
    ...records.map((data) => Buffer.concat([uint16(0xc00c, type, 1, 0, 0, data.length), data]))
  ])
}

/** Yields its address, for `Topology.resolver`. The zones may be changed. */
export const make = (zones: Record<string, Zone>): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<ReturnType<typeof createSocket>>((resume) => {
        const socket = createSocket("udp4", (query, { address, port }) => {
          const answer = reply(query, zones)
          if (answer !== undefined) socket.send(answer, port, address)
        })
        socket.bind(0, "127.0.0.1", () => resume(Effect.succeed(socket)))
      }),
      (socket) => Effect.async<void>((resume) => void socket.close(() => resume(Effect.void)))
    ),
    (socket) => `127.0.0.1:${socket.address().port}`
  )
