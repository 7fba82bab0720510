/**
 * An atomic block of a session: all of it is committed, or nothing. Until it may be committed, nothing else commits the session's
 * transaction.
 */
export class Block {
  /** The block around it that has not ended. */
  readonly outer: Block | undefined
  /** Whether it has ended by itself. */
  isOver = false
  /** Whether what is around it has ended first: it was rolled back, and nothing runs in it any more. */
  isStopped = false

  constructor(
    outer: Block | undefined,
    /** Whether something that is not in it shares its transaction, or waits for the end of it. */
    public isShared: boolean
  ) {
    this.outer = unended(outer)
  }

  /** Whether it is, or is inside, another one. */
  isWithin(other: Block): boolean {
    return this === other || (this.outer?.isWithin(other) ?? false)
  }

  /** Whether it, or one around it, was stopped. */
  get isDead(): boolean {
    return this.isStopped || (this.outer?.isDead ?? false)
  }
}

/** The innermost of a block and those around it that has not ended. */
export const unended = (block: Block | undefined): Block | undefined =>
  block?.isOver === true ? unended(block.outer) : block
