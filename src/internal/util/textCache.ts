import { TextMap } from "./textMap.js"

/**
 * A bounded cache by text. Two generations instead of a linked list: a hit in the younger one is a single look-up; when that
 * one is full it becomes the older one, and what was the older one is dropped. So the last `entries / 2` texts that were used
 * are always there, and never more than `entries`, or `units` UTF-16 code units of text, are held.
 */
export class TextCache<A> {
  private young = new TextMap<A>()
  private old = new TextMap<A>()
  private readonly halfEntries: number
  private readonly halfUnits: number

  constructor(entries: number, units: number) {
    this.halfEntries = entries === 0 ? 0 : Math.max(1, Math.floor(entries / 2))
    this.halfUnits = Math.floor(units / 2)
  }

  get(text: string): A | undefined {
    return this.young.get(text) ?? this.promote(text)
  }

  set(text: string, value: A): void {
    if (text.length > this.halfUnits || this.halfEntries === 0) return
    const { size, units } = this.young
    const isFull = size >= this.halfEntries || units + text.length > this.halfUnits
    if (isFull && this.young.get(text) === undefined) this.age()
    this.young.set(text, value)
  }

  clear(): void {
    // Both generations.
    this.age()
    this.age()
  }

  /** Entries and UTF-16 code units held now. */
  get held(): { readonly entries: number; readonly units: number } {
    return { entries: this.young.size + this.old.size, units: this.young.units + this.old.units }
  }

  private age(): void {
    this.old = this.young
    this.young = new TextMap()
  }

  private promote(text: string): A | undefined {
    const value = this.old.get(text)
    if (value !== undefined) this.set(text, value)
    return value
  }
}
