/**
 * A map by text, for texts that are made anew for every look-up, as those of statements are. A `Map` hashes every character of
 * a string that it has not met; here only those are looked at that tell the text from others, and then the whole is compared.
 *
 * A tree for each length. A branch looks at one character, and none below it looks at the same one, so a look-up passes at most
 * as many branches as the text has characters, whatever the texts are.
 */
export class TextMap<A> {
  private readonly trees: Trees<A> = new Map()
  private texts = 0
  private codeUnits = 0

  /** How many texts there are. */
  get size(): number {
    return this.texts
  }

  /** Their UTF-16 code units in all. */
  get units(): number {
    return this.codeUnits
  }

  get(text: string): A | undefined {
    let tree = this.trees.get(text.length)
    while (tree instanceof Branch) tree = tree.byCode.get(text.charCodeAt(tree.position))
    return tree?.text === text ? tree.value : undefined
  }

  set(text: string, value: A): void {
    let place = this.trees
    let key = text.length
    let tree = place.get(key)
    while (tree instanceof Branch) {
      place = tree.byCode
      key = text.charCodeAt(tree.position)
      tree = place.get(key)
    }
    if (tree?.text === text) {
      tree.value = value
      return
    }
    const leaf = new Leaf(text, value)
    place.set(key, tree === undefined ? leaf : new Branch(tree, leaf))
    this.texts++
    this.codeUnits += text.length
  }
}

/** By length, or by UTF-16 code unit. */
type Trees<A> = Map<number, Leaf<A> | Branch<A>>

class Leaf<A> {
  constructor(
    readonly text: string,
    public value: A
  ) {}
}

class Branch<A> {
  readonly position: number
  readonly byCode: Trees<A>

  /** Two texts of the same length. */
  constructor(one: Leaf<A>, other: Leaf<A>) {
    // Statements that begin in the same way are more than those that end so.
    let position = one.text.length - 1
    while (one.text.charCodeAt(position) === other.text.charCodeAt(position)) position--
    this.position = position
    this.byCode = new Map([
      [one.text.charCodeAt(position), one],
      [other.text.charCodeAt(position), other]
    ])
  }
}
