/** The type of a message and its length, which does not count the type. */
const headLength = 5

/** What looks at each message. Both throw where one must not be. */
export interface Inspector {
  head(type: number, length: number): void
  content(type: number, bytes: Buffer, from: number, to: number): void
}

/** Cuts what a server sends into whole messages. None of them is copied but those that come in several pieces. */
export class Frames {
  /** The pieces of a message that is not whole yet. */
  private pieces: Array<Buffer> = []
  private have = 0
  /** The length of that message; `0` while its head is not whole either. */
  private need = 0

  constructor(private readonly inspector: Inspector) {}

  /** Hands on what is whole. Throws where a message must not be, when those before it were handed on. */
  take(chunk: Buffer, deliver: (messages: Buffer) => void): void {
    const rest = this.have === 0 ? chunk : this.complete(chunk, deliver)
    let at = 0
    try {
      while (at + headLength <= rest.length) {
        const end = at + this.lengthAt(rest, at)
        if (end > rest.length) {
          this.need = end - at
          break
        }
        this.inspector.content(rest[at]!, rest, at + headLength, end)
        at = end
      }
    } finally {
      if (at > 0) deliver(at === rest.length ? rest : rest.subarray(0, at))
    }
    if (at < rest.length) this.keep(rest.subarray(at))
  }

  /** Completes the message that has begun, if it can. Returns what is behind it. */
  private complete(chunk: Buffer, deliver: (messages: Buffer) => void): Buffer {
    let rest = chunk
    if (this.need === 0) {
      rest = this.fill(rest, headLength)
      if (this.have < headLength) return rest
      const head = Buffer.concat(this.pieces)
      this.pieces = [head]
      this.need = this.lengthAt(head, 0)
    }
    rest = this.fill(rest, this.need)
    if (this.have < this.need) return rest
    const message = this.pieces.length === 1 ? this.pieces[0]! : Buffer.concat(this.pieces)
    this.pieces = []
    this.have = 0
    this.need = 0
    this.inspector.content(message[0]!, message, headLength, message.length)
    deliver(message)
    return rest
  }

  /** Keeps what there is up to so many bytes in all. Returns the rest. */
  private fill(chunk: Buffer, upTo: number): Buffer {
    const missing = upTo - this.have
    if (missing > 0) this.keep(chunk.subarray(0, missing))
    return chunk.subarray(Math.max(0, missing))
  }

  private keep(piece: Buffer): void {
    if (piece.length === 0) return
    this.pieces.push(piece)
    this.have += piece.length
  }

  private lengthAt(bytes: Buffer, at: number): number {
    const length = bytes.readUInt32BE(at + 1)
    this.inspector.head(bytes[at]!, length)
    return 1 + length
  }
}
