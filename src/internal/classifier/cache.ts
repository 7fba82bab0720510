/**
 * A bounded cache by text. Two generations instead of a linked list: a hit in the younger one is a single map look-up; when
 * that one is full it becomes the older one, and what was the older one is dropped. So the last `entries / 2` texts that were
 * used are always there, and never more than `entries`, or `units` UTF-16 code units of text, are held.
 */
export interface Cache<A> {
  readonly get: (text: string) => A | undefined
  readonly set: (text: string, value: A) => void
  readonly clear: () => void
  /** Entries and UTF-16 code units held now. */
  readonly size: () => { readonly entries: number; readonly units: number }
}

export const make = <A>(entries: number, units: number): Cache<A> => {
  const halfEntries = Math.max(1, Math.floor(entries / 2))
  const halfUnits = Math.floor(units / 2)
  let young = new Map<string, A>()
  let old = new Map<string, A>()
  let youngUnits = 0
  let oldUnits = 0

  const set = (text: string, value: A) => {
    if (text.length > halfUnits || entries === 0) return
    if (!young.has(text)) {
      if (young.size >= halfEntries || youngUnits + text.length > halfUnits) {
        old = young
        oldUnits = youngUnits
        young = new Map()
        youngUnits = 0
      }
      youngUnits += text.length
    }
    young.set(text, value)
  }

  const promote = (text: string): A | undefined => {
    const value = old.get(text)
    if (value !== undefined) set(text, value)
    return value
  }

  return {
    get: (text) => young.get(text) ?? promote(text),
    set,
    clear: () => {
      young = new Map()
      old = new Map()
      youngUnits = 0
      oldUnits = 0
    },
    size: () => ({ entries: young.size + old.size, units: youngUnits + oldUnits })
  }
}
