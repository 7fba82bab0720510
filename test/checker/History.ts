/**
 * What one client has done, and what it must see from then on. Every key has a version that each write of it makes greater by
 * one, so the versions of a key are in the order of its commits.
 */

export type Key = number

/** Something that a client saw and must not have seen. */
export interface Violation {
  readonly kind: "read your writes" | "monotonic reads"
  readonly key: Key
  /** The least that it had to see. */
  readonly least: number
  readonly seen: number
  /** Whether what it had to see was of an earlier request, so that only a token tells of it. */
  readonly isAcross: boolean
}

interface Entry {
  readonly version: number
  readonly request: number
}

/** A value: what a fiber takes along, and gives back when it is joined. */
export class History {
  private constructor(
    private readonly written: ReadonlyMap<Key, Entry>,
    private readonly read: ReadonlyMap<Key, Entry>,
    /** How many requests were before this one. */
    readonly request: number
  ) {}

  static readonly empty = new History(new Map(), new Map(), 0)

  /** It has committed this version. */
  wrote(key: Key, version: number): History {
    return new History(raise(this.written, key, { version, request: this.request }), this.read, this.request)
  }

  /** What is wrong with a read of this version. */
  check(key: Key, version: number): ReadonlyArray<Violation> {
    const against = (kind: Violation["kind"], entry: Entry | undefined): ReadonlyArray<Violation> =>
      entry === undefined || version >= entry.version
        ? []
        : [{ kind, key, least: entry.version, seen: version, isAcross: entry.request !== this.request }]
    return [...against("read your writes", this.written.get(key)), ...against("monotonic reads", this.read.get(key))]
  }

  /** It has read this version. */
  saw(key: Key, version: number): History {
    return new History(this.written, raise(this.read, key, { version, request: this.request }), this.request)
  }

  /** After a child has been joined. */
  join(child: History): History {
    return new History(both(this.written, child.written), both(this.read, child.read), this.request)
  }

  /** In the next request of the same client. */
  next(): History {
    return new History(this.written, this.read, this.request + 1)
  }
}

const raise = (entries: ReadonlyMap<Key, Entry>, key: Key, entry: Entry): ReadonlyMap<Key, Entry> => {
  const before = entries.get(key)
  return before !== undefined && before.version >= entry.version ? entries : new Map(entries).set(key, entry)
}

const both = (one: ReadonlyMap<Key, Entry>, other: ReadonlyMap<Key, Entry>): ReadonlyMap<Key, Entry> => {
  let merged = one
  for (const [key, entry] of other) merged = raise(merged, key, entry)
  return merged
}
