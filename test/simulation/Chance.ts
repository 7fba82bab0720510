/**
 * Chance from a seed (sfc32). Each part of a run draws from a stream of its own, so that one draw more in one part changes
 * nothing in another.
 */
export class Chance {
  private a: number
  private b: number
  private c: number
  private d = 1

  constructor(readonly seed: string) {
    // FNV-1a, three times from different starts.
    const hash = (start: number) => {
      let value = start
      for (let i = 0; i < seed.length; i++) value = Math.imul(value ^ seed.charCodeAt(i), 16777619)
      return value >>> 0
    }
    this.a = hash(2166136261)
    this.b = hash(this.a ^ 0x9e3779b9)
    this.c = hash(this.b ^ 0x85ebca6b)
    for (let i = 0; i < 12; i++) this.next()
  }

  fork(name: string): Chance {
    return new Chance(`${this.seed}/${name}`)
  }

  /** From 0 up to, and not including, 1. */
  next(): number {
    const t = (((this.a + this.b) | 0) + this.d) | 0
    this.d = (this.d + 1) | 0
    this.a = this.b ^ (this.b >>> 9)
    this.b = (this.c + (this.c << 3)) | 0
    this.c = (this.c << 21) | (this.c >>> 11)
    this.c = (this.c + t) | 0
    return (t >>> 0) / 4294967296
  }

  between(from: number, to: number): number {
    return from + this.next() * (to - from)
  }

  /** A whole number from 0 up to, and not including, the bound. */
  below(bound: number): number {
    return Math.floor(this.next() * bound)
  }

  is(probability: number): boolean {
    return this.next() < probability
  }

  pick<A>(items: ReadonlyArray<A>): A {
    return items[this.below(items.length)]!
  }

  /** One of the keys, as often as its weight says. */
  weighted<K extends string>(weights: Readonly<Partial<Record<K, number>>>): K {
    const entries = Object.entries(weights) as unknown as ReadonlyArray<readonly [K, number]>
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [key, weight] of entries) {
      left -= weight
      if (left < 0) return key
    }
    return entries[entries.length - 1]![0]
  }

  bytes(target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = this.below(256)
  }
}
