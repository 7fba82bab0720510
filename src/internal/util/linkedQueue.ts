/** A place in a queue. */
export class Place<A> {
  previous: Place<A> | undefined
  next: Place<A> | undefined

  constructor(
    private queue: Queue<A> | undefined,
    readonly value: A
  ) {}

  /** Leaves the queue. `false`: it had left before. */
  leave(): boolean {
    const { queue } = this
    if (queue === undefined) return false
    this.queue = undefined
    queue.unlink(this)
    return true
  }
}

/**
 * First come, first served, and anybody may leave before. Not a `Set`, for what comes and goes with every statement: each
 * table of a `Set` refers to the one that takes its place, so the first one that V8 counts among the old objects makes all
 * later ones old, together with whatever was in them (a fifth of all memory that reads took, until the next full collection).
 */
export class Queue<A> {
  size = 0
  private head: Place<A> | undefined
  private tail: Place<A> | undefined

  /** The next value. */
  get first(): A | undefined {
    return this.head?.value
  }

  add(value: A): Place<A> {
    return this.insert(this.tail, value, undefined)
  }

  /** Before all others. */
  addFirst(value: A): Place<A> {
    return this.insert(undefined, value, this.head)
  }

  /** Takes out the first. */
  takeFirst(): A | undefined {
    const { head } = this
    head?.leave()
    return head?.value
  }

  /** Everybody, who then is in it no more. */
  takeAll(): Array<A> {
    const all: Array<A> = []
    for (let place = this.head; place !== undefined; place = this.head) {
      place.leave()
      all.push(place.value)
    }
    return all
  }

  /** For {@link Place.leave}. */
  unlink(place: Place<A>): void {
    this.link(place.previous, place.next)
    // What has left must not keep anybody.
    place.previous = undefined
    place.next = undefined
    this.size--
  }

  private insert(previous: Place<A> | undefined, value: A, next: Place<A> | undefined): Place<A> {
    const place = new Place(this, value)
    this.link(previous, place)
    this.link(place, next)
    this.size++
    return place
  }

  /** Puts one behind another; none is an end of the queue. */
  private link(previous: Place<A> | undefined, next: Place<A> | undefined): void {
    if (previous === undefined) this.head = next
    else previous.next = next
    if (next === undefined) this.tail = previous
    else next.previous = previous
  }
}
